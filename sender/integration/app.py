"""The whole server: what a request passes, Connexion with both contracts, and beside it dashboard and metrics."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from connexion.middleware.main import ConnexionMiddleware
from connexion.middleware.security import SecurityMiddleware
from connexion.resolver import Resolver
from sqlalchemy import Engine
from starlette.types import ASGIApp, Receive, Scope, Send

from generated.operations import CURRENT
from sender.database import open_engine
from sender.integration import dashboard, rendering
from sender.integration.api import api_operations
from sender.integration.arrivals import Arrivals, is_below
from sender.integration.bodies import Bodies
from sender.integration.contract import (
    INTEGRATION,
    Dispatch,
    Handler,
    JsonRules,
    ParameterRules,
    RequestValidation,
    Routing,
    load_contract,
    operations,
)
from sender.integration.door import Door, EventRules
from sender.integration.keys import Bearer, SecurityScheme
from sender.integration.observation import Observation
from sender.integration.problems import Problem, ProblemAnswers, answer, not_found, send_json
from sender.integration.site import Site, Snapshot
from sender.metrics import exposition
from sender.settings import SenderSettings

STATUS_PATH = "/api/crm/integration"
"""What is answered without `CRM_ADMIN_TOKEN` too."""
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
BASE_PATHS = {INTEGRATION: "/api/crm", CURRENT: "/webhooks"}


def create_app(settings: SenderSettings, engine: Engine | None = None, *, base_path: str = "") -> ASGIApp:
    """Return the server as an ASGI app, on an outbox that is migrated; nothing is opened until it is asked.

    `base_path`, such as `/crm`, is what a site has before our paths; paths without it are ours as well.
    """
    # Connexion logs values of requests at every level: "%r" of each 4xx, the whole scope when debugging.
    logging.getLogger("connexion").setLevel(logging.CRITICAL)
    site = Site(settings, engine or open_engine(settings.outbox_url))
    pages = dashboard.Dashboard(site)
    contracts = by_contract(site, pages)
    parts: Mapping[str, tuple[str, ASGIApp]] = {
        "/admin": ("dashboard", pages),
        "/metrics": ("metrics", Metrics(site)),
        "/webhooks": ("webhooks", contracts),
        "/api": ("api", contracts),
    }
    inside = Arrivals(Parts(parts, settings), proxies=settings.trusted_proxies, base_path=base_path)
    return OnlyHttp(Observation(ProblemAnswers(inside, send_problem=send_problem)))


def by_contract(site: Site, pages: dashboard.Dashboard) -> ConnexionMiddleware:
    """Return what Connexion serves by the contracts: the integration API and the outbox's own door."""
    door = Door(site)
    handlers = {INTEGRATION: api_operations(site), CURRENT: door.operations()}
    contracts = {name: load_contract(name) for name in handlers}
    for name, contract in contracts.items():
        require_same_operations(contract, handlers[name])
    bodies = [
        (op["operationId"], op["requestBody"])
        for c in contracts.values()
        for op in operations(c)
        if "requestBody" in op
    ]
    middlewares: list[Any] = [
        Routing,
        SecurityMiddleware,
        partial(
            Bodies,
            of={name for name, _ in bodies},
            optional={name for name, body in bodies if not body.get("required")},
        ),
        RequestValidation,
    ]
    app = ConnexionMiddleware(
        Dispatch({name: handler for found in handlers.values() for name, handler in found.items()}),
        import_name=__name__,
        middlewares=middlewares,
    )
    settings = site.settings
    schemes = {
        INTEGRATION: {
            "bearer": SecurityScheme(Bearer("CRM_ADMIN_TOKEN", settings.admin_token, site.failures)),
            "apiKey": SecurityScheme(pages.admits),
        },
        CURRENT: {"bearer": SecurityScheme(Bearer("CRM_API_KEY", settings.api_key, site.failures))},
    }
    rules = {INTEGRATION: JsonRules(), CURRENT: EventRules()}
    for name, contract in contracts.items():
        app.add_api(
            contract,
            base_path=BASE_PATHS[name],
            resolver=Resolver(handlers[name].__getitem__),
            security_map=schemes[name],
            validator_map={"parameter": ParameterRules(contract), "body": rules[name]},
        )
    return app


def require_same_operations(contract: Mapping[str, Any], handlers: Mapping[str, Handler]) -> None:
    """Fail at the start when a contract and its handlers do not name the same operations."""
    named = {operation["operationId"] for operation in operations(contract)}
    if named != set(handlers):
        raise RuntimeError(f"Contract and handlers differ: {sorted(named ^ set(handlers))}")


class Parts:
    """Passes a request to the part of the server that it is for; without an admin token there is one alone."""

    def __init__(self, parts: Mapping[str, tuple[str, ASGIApp]], settings: SenderSettings) -> None:
        """Take name and app of each part, by the path that it is below."""
        self._parts, self._is_open = parts, settings.admin_token is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; raise the 404 for a path that is nobody's, and the 503."""
        path: str = scope["path"]
        found = next((part for below, part in self._parts.items() if is_below(below, path)), None)
        name, app = found or ("unknown", None)
        scope["link.seen"].part = name
        if not self._is_open and not (path == STATUS_PATH and scope["method"] in {"GET", "HEAD"}):
            detail = (
                "Set CRM_ADMIN_TOKEN and restart; until then this server says how the whole is, and no more."
            )
            raise Problem("admin-token-not-set", detail)
        if app is None:
            raise not_found()
        base_path = scope["root_path"] if name == "dashboard" else ""
        await app({**scope, "root_path": base_path, "path": f"{base_path}{path}"}, receive, send)


class Metrics:
    """Answers `GET /metrics`, which is in no contract: counts, as Prometheus reads them; no key is asked for."""

    def __init__(self, site: Site) -> None:
        """Take whose they are."""
        self._exposition = Snapshot(partial(exposition, site.engine, site.settings))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["path"] != "/metrics":
            raise not_found()
        if scope["method"] not in {"GET", "HEAD"}:
            raise Problem("method-not-allowed", "Use GET, HEAD.", headers={"allow": "GET, HEAD"})
        await answer(send, 200, await self._exposition.get(), {"content-type": PROMETHEUS})


async def send_problem(problem: Problem, scope: Scope, send: Send) -> None:
    """Send a problem to a person as a page, and to a program as JSON."""
    is_page = scope["link.seen"].part == "dashboard"
    await (rendering.send_problem if is_page else send_json)(problem, scope, send)


class OnlyHttp:
    """Leaves what is no HTTP, such as a lifespan, unanswered: there is nothing to open or to close."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an app."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            await self._app(scope, receive, send)
