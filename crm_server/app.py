"""The whole server: database, queue, Connexion's middlewares and ours, and the contracts' operations.

Webhooks and staff come to ports of their own, by contracts of their own; behind both are the same
database and the same queue.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from connexion.middleware.lifespan import LifespanMiddleware
from connexion.middleware.main import ConnexionMiddleware
from connexion.resolver import Resolver
from starlette.types import ASGIApp, Receive, Scope, Send

from crm_server.api import Handler, Stream, approvals, audit, bulk_decisions, people, records, webhooks
from crm_server.approval_queue import EVENTS, ApprovalQueue
from crm_server.bulk_decisions import keep_deciding
from crm_server.database import Database
from crm_server.errors import ConfigurationError, Unavailable
from crm_server.frontend import Pages
from crm_server.frontend.rendering import send_page
from crm_server.metrics import Memory, Metrics
from crm_server.middleware.authentication import Failures, WebhookKeys
from crm_server.middleware.bodies import Bodies, Hurry, operation_id
from crm_server.middleware.contract import (
    EventRules,
    HeaderRules,
    RequestValidation,
    Routing,
    Security,
    each_operation,
    operations,
)
from crm_server.middleware.deprecation import Deprecation
from crm_server.middleware.exposition import METRICS, Exposition
from crm_server.middleware.host import OneHost
from crm_server.middleware.networks import Networks
from crm_server.middleware.observation import PAGE, Observation
from crm_server.middleware.problem_answers import ProblemAnswers
from crm_server.middleware.rate_limit import KeyRateLimit, Limit, SharedCounters
from crm_server.middleware.sessions import Sessions
from crm_server.middleware.signatures import Signatures
from crm_server.middleware.staff_access import StaffAccess, required_roles
from crm_server.middleware.staff_requests import JsonRules, ParameterRules, optional_bodies
from crm_server.migrations import require_migrated
from crm_server.problems import SAFE_HEADERS, TITLES, not_found
from crm_server.retention import keep_erasing
from crm_server.search_index import keep_indexed
from crm_server.settings import Settings
from crm_server.validation import STAFF_CONTRACT, load_contract, load_rules
from crm_server.webhook_keys import KeyUse, fingerprint, warn_of_old_keys
from crm_server.website_approvals import keep_approving
from generated.operations import DEPRECATED, RELEASES, WEBHOOKS

Part = Literal["webhooks", "staff"]
Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]

BASE_PATHS: Mapping[Part, str] = {"webhooks": "/webhooks", "staff": "/api"}
STAFF_OPERATIONS: Mapping[str, Handler] = {
    **approvals.OPERATIONS,
    **bulk_decisions.OPERATIONS,
    **records.OPERATIONS,
    **people.OPERATIONS,
    **audit.OPERATIONS,
}
"""The staff API's operations, by operationId."""


@dataclass(frozen=True, slots=True)
class Common:
    """What the apps of one server share."""

    queue: ApprovalQueue
    metrics: Metrics
    settings: Settings
    hurry: Hurry
    counters: SharedCounters | None
    """Where several servers count requests together."""

    def limit(self, notation: str, what: str) -> Limit:
        """Return a limit, counted with the others of its servers; as `Limit` has it."""
        return Limit(notation, what, self.counters, self.metrics.rate_limited)

    @property
    def observed(self) -> Any:
        """Return the middleware that counts and logs answers."""
        return partial(Observation, metrics=self.metrics, proxies=self.settings.trusted_proxies)


def create_app(settings: Settings, hurry: Hurry | None = None) -> ASGIApp:
    """Return the webhook receiver as an ASGI app with a lifespan, on a database that is migrated.

    Raises ConfigurationError with the cure.
    """
    return create_apps(settings, ["webhooks"], hurry or Hurry())["webhooks"]


def create_apps(
    settings: Settings, parts: Sequence[Part], hurry: Hurry, memory: Memory | None = None
) -> dict[Part, ASGIApp]:
    """Return an ASGI app for each part, all on one database and one queue, with nothing open yet.

    The first one's lifespan is that of database and queue: it must be around the others'. Several
    processes that serve these apps count in one `memory`, and the first keeps the search index and approves
    what the website tells. Raises ConfigurationError with the cure.
    """
    if "webhooks" in parts and not settings.webhook_keys:
        raise ConfigurationError("WEBHOOK_API_KEY is not set: give the key that the website sends.")
    database = Database(settings.url)
    require_migrated(database)
    memory = memory or Memory()
    metrics = Metrics(
        events=EVENTS,
        operations=[*webhooks.OPERATIONS, *STAFF_OPERATIONS, METRICS, PAGE],
        problems=TITLES,
        keys=list(map(fingerprint, webhook_keys(settings))),
        releases=RELEASES,
        memory=memory,
    )
    queue = ApprovalQueue(database, metrics)
    with database.reading() as connection:
        queue.releases.look(connection)
        if "webhooks" in parts:
            warn_of_old_keys(connection, webhook_keys(settings))
    database.close()  # a process that is forked off must not share a connection
    storage = settings.rate_limit_storage.get_secret_value()
    shared = None if storage == "memory://" else SharedCounters(storage)

    common = Common(queue, metrics, settings, hurry, shared)

    @asynccontextmanager
    async def running(_: Any) -> AsyncIterator[None]:
        queue.start()
        kept = [partial(keep_erasing, queue, settings.retention_days), partial(queue.releases.keep, queue)]
        if "staff" in parts:
            kept.append(partial(keep_deciding, queue))
        if "staff" in parts and memory.process == 0:
            kept += [partial(keep_indexed, queue), partial(keep_approving, queue)]
        tasks = [asyncio.create_task(keep()) for keep in kept]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(Unavailable):
            await queue.releases.write(queue)
        await queue.close()
        if shared:
            await shared.close()
        database.close()

    # Connexion logs values of requests at every level: "%r" of each 4xx, the whole scope when debugging.
    logging.getLogger("connexion").setLevel(logging.CRITICAL)
    make: dict[Part, Callable[..., ASGIApp]] = {"webhooks": webhooks_app, "staff": staff_app}
    return {part: make[part](common, running if part == parts[0] else within_another) for part in parts}


@asynccontextmanager
async def within_another(_: Any) -> AsyncIterator[None]:
    """Be the lifespan of an app that has nothing of its own to start."""
    yield


def webhooks_app(common: Common, lifespan: Lifespan) -> ConnexionMiddleware:
    """Return what receives webhooks."""
    contract = load_contract()
    require_same_operations(contract, webhooks.OPERATIONS)
    queue, metrics, settings = common.queue, common.metrics, common.settings
    middlewares: list[Any] = [
        common.observed,
        *deprecation(),
        ProblemAnswers,
        OneHost,
        partial(
            Networks,
            allowed=settings.allowed_networks,
            proxies=settings.trusted_proxies,
            open_to_all=open_operations(contract),
        ),
        partial(Exposition, queue=queue, metrics=metrics, keys=webhook_keys(settings)),
        Routing,
        Security,
        partial(KeyRateLimit, limit=common.limit(settings.rate_limit, "key")),
        partial(Bodies, largest=settings.max_body_bytes, hurry=common.hurry),
        *signatures(settings),
        RequestValidation,
        LifespanMiddleware,
    ]
    use = KeyUse(queue.note_key, metrics.key_uses)
    failures = common.limit(settings.failure_limit, "failure")
    app = ConnexionMiddleware(
        Dispatch(queue, webhooks.OPERATIONS),
        import_name=__name__,
        lifespan=lifespan,
        middlewares=middlewares,
    )
    app.add_api(
        contract,
        base_path=BASE_PATHS["webhooks"],
        resolver=Resolver(webhooks.OPERATIONS.__getitem__),
        security_map={"bearer": WebhookKeys(webhook_keys(settings), failures, use)},
        validator_map={"parameter": HeaderRules(contract), "body": EventRules(load_rules(), queue.releases)},
    )
    return app


def webhook_keys(settings: Settings) -> list[str]:
    """Return the keys that open the webhooks' door."""
    return [key.get_secret_value() for key in settings.webhook_keys]


def signatures(settings: Settings) -> list[Any]:
    """Return the middleware that checks signatures, when there is a secret to check them by."""
    secrets = [secret.get_secret_value() for secret in settings.signing_secrets]
    return [partial(Signatures, secrets=secrets)] if secrets else []


def deprecation() -> list[Any]:
    """Return the middleware that tells of releases that are given up, when there are any."""
    paths = [f"{BASE_PATHS['webhooks']}{webhook.path}" for webhook in WEBHOOKS.values()]
    return [partial(Deprecation, given_up=DEPRECATED, paths=paths)] if DEPRECATED else []


def open_operations(contract: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return method and path of each operation that needs no key."""
    return [
        (method.upper(), f"{BASE_PATHS['webhooks']}{path}")
        for path, method, operation in each_operation(contract)
        if operation.get("security") == []
    ]


def staff_app(common: Common, lifespan: Lifespan) -> ASGIApp:
    """Return the staff's side: the API, and beside it the pages."""
    queue, settings = common.queue, common.settings
    guarded = partial(Networks, allowed=settings.staff_networks, proxies=settings.trusted_proxies)
    attempts = common.limit(settings.login_limit, "log-in")
    pages = Pages(queue, attempts, common.hurry, settings.webhook_keys)
    return Beside(
        BASE_PATHS["staff"],
        staff_api(common, lifespan),
        common.observed(
            ProblemAnswers(OneHost(guarded(Sessions(pages, queue=queue))), send_problem=send_page),
            unrouted=PAGE,
        ),
    )


class Beside:
    """An app below a path, whose lifespan it is too, and another for all other paths."""

    def __init__(self, path: str, below: ASGIApp, elsewhere: ASGIApp) -> None:
        """Name the path, without a slash at its end."""
        self._path, self._below, self._elsewhere = path, below, elsewhere

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to whom it is for."""
        path = scope.get("path", self._path)
        is_below = path == self._path or path.startswith(f"{self._path}/")
        await (self._below if is_below else self._elsewhere)(scope, receive, send)


def staff_api(common: Common, lifespan: Lifespan) -> ConnexionMiddleware:
    """Return the staff API."""
    queue, settings = common.queue, common.settings
    contract = load_contract(STAFF_CONTRACT)
    require_same_operations(contract, STAFF_OPERATIONS)
    optional = optional_bodies(contract)
    # Of what servers of one database share, so that they group addresses alike.
    secret = settings.database_url.get_secret_value().encode()
    failures = Failures(common.limit(settings.failure_limit, "staff-failure"), secret)
    middlewares: list[Any] = [
        common.observed,
        ProblemAnswers,
        OneHost,
        partial(Networks, allowed=settings.staff_networks, proxies=settings.trusted_proxies),
        Routing,
        partial(Sessions, queue=queue),
        partial(StaffAccess, queue=queue, roles=required_roles(contract), failures=failures),
        partial(Bodies, largest=settings.max_body_bytes, hurry=common.hurry, optional=optional),
        RequestValidation,
        LifespanMiddleware,
    ]
    app = ConnexionMiddleware(
        Dispatch(queue, STAFF_OPERATIONS), import_name=__name__, lifespan=lifespan, middlewares=middlewares
    )
    app.add_api(
        contract,
        base_path=BASE_PATHS["staff"],
        resolver=Resolver(STAFF_OPERATIONS.__getitem__),
        validator_map={"parameter": ParameterRules(contract), "body": JsonRules(contract)},
    )
    return app


def require_same_operations(contract: Mapping[str, Any], handlers: Mapping[str, Handler]) -> None:
    """Fail at the start when a contract and its handlers do not name the same operations."""
    named = {operation["operationId"] for operation in operations(contract)}
    if named != set(handlers):
        raise RuntimeError(f"Contract and OPERATIONS differ: {sorted(named ^ set(handlers))}")


async def send_stream(stream: Stream, send: Send) -> None:
    """Send a long answer; the client's pace is ours."""
    headers = {
        **SAFE_HEADERS,
        "content-type": stream.media_type,
        "content-disposition": f'attachment; filename="{stream.filename}"',
    }
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": encoded})
    async for part in stream.parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


HEADERS = [
    (name.encode(), value.encode())
    for name, value in {"content-type": "application/json", **SAFE_HEADERS}.items()
]


class Dispatch:
    """Calls the handler of the operation that was routed, and writes its answer."""

    def __init__(self, queue: ApprovalQueue, handlers: Mapping[str, Handler]) -> None:
        """Hand the queue to every handler."""
        self._queue, self._handlers = queue, handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that has passed every check."""
        name = operation_id(scope)
        if name is None:
            raise not_found()
        answer = await self._handlers[name](self._queue, scope)
        if isinstance(answer, Stream):
            await send_stream(answer, send)
            return
        await send({"type": "http.response.start", "status": answer.status, "headers": HEADERS})
        await send({"type": "http.response.body", "body": json.dumps(answer.content).encode()})
