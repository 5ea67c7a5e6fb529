"""The whole receiver: database, queue, Connexion's middlewares and ours, and the contract's operations."""

import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from connexion.middleware.lifespan import LifespanMiddleware
from connexion.middleware.main import ConnexionMiddleware
from connexion.middleware.security import SecurityMiddleware
from connexion.resolver import Resolver
from starlette.types import Receive, Scope, Send

from crm_server.api.webhooks import OPERATIONS
from crm_server.approval_queue import ApprovalQueue
from crm_server.database import Database
from crm_server.errors import ConfigurationError
from crm_server.middleware.authentication import WebhookKeys
from crm_server.middleware.bodies import Bodies, Hurry, operation_id
from crm_server.middleware.contract import (
    EventRules,
    HeaderRules,
    RequestValidation,
    Routing,
    each_operation,
    operations,
)
from crm_server.middleware.networks import Networks
from crm_server.middleware.problem_answers import ProblemAnswers
from crm_server.middleware.rate_limit import KeyRateLimit, Limit, SharedCounters
from crm_server.middleware.signatures import Signatures
from crm_server.migrations import require_migrated
from crm_server.problems import SAFE_HEADERS, not_found
from crm_server.settings import Settings
from crm_server.validation import load_contract, load_rules
from crm_server.webhook_keys import KeyUse, warn_of_old_keys

BASE_PATH = "/webhooks"


def create_app(settings: Settings, hurry: Hurry | None = None) -> ConnexionMiddleware:
    """Return the webhook receiver as an ASGI app with a lifespan, on a database that is migrated.

    Raises ConfigurationError with the cure.
    """
    if not settings.webhook_keys:
        raise ConfigurationError("WEBHOOK_API_KEY is not set: give the key that the website sends.")
    database = Database(settings.url)
    require_migrated(database)
    keys = [key.get_secret_value() for key in settings.webhook_keys]
    with database.reading() as connection:
        warn_of_old_keys(connection, keys)
    queue = ApprovalQueue(database)
    storage = settings.rate_limit_storage.get_secret_value()
    shared = None if storage == "memory://" else SharedCounters(storage)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        queue.start()
        yield
        await queue.close()
        if shared:
            await shared.close()
        database.close()

    contract = load_contract()
    require_same_operations(contract)
    # Connexion logs values of requests at every level: "%r" of each 4xx, the whole scope when debugging.
    logging.getLogger("connexion").setLevel(logging.CRITICAL)
    middlewares: list[Any] = [
        ProblemAnswers,
        partial(
            Networks,
            allowed=settings.allowed_networks,
            proxies=settings.trusted_proxies,
            open_to_all=open_operations(contract),
        ),
        Routing,
        SecurityMiddleware,
        partial(KeyRateLimit, limit=Limit(settings.rate_limit, "key", shared)),
        partial(Bodies, largest=settings.max_body_bytes, hurry=hurry or Hurry()),
        *signatures(settings),
        RequestValidation,
        LifespanMiddleware,
    ]
    failures = Limit(settings.failure_limit, "failure", shared)
    app = ConnexionMiddleware(
        Dispatch(queue), import_name=__name__, lifespan=lifespan, middlewares=middlewares
    )
    app.add_api(
        contract,
        base_path=BASE_PATH,
        resolver=Resolver(OPERATIONS.__getitem__),
        security_map={"bearer": WebhookKeys(keys, failures, KeyUse(queue.note_key))},
        validator_map={"parameter": HeaderRules(contract), "body": EventRules(load_rules())},
    )
    return app


def signatures(settings: Settings) -> list[Any]:
    """Return the middleware that checks signatures, when there is a secret to check them by."""
    secrets = [secret.get_secret_value() for secret in settings.signing_secrets]
    return [partial(Signatures, secrets=secrets)] if secrets else []


def open_operations(contract: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return method and path of each operation that needs no key."""
    return [
        (method.upper(), f"{BASE_PATH}{path}")
        for path, method, operation in each_operation(contract)
        if operation.get("security") == []
    ]


def require_same_operations(contract: Mapping[str, Any]) -> None:
    """Fail at the start when the contract and OPERATIONS do not name the same operations."""
    named = {operation["operationId"] for operation in operations(contract)}
    if named != set(OPERATIONS):
        raise RuntimeError(f"Contract and OPERATIONS differ: {sorted(named ^ set(OPERATIONS))}")


HEADERS = [
    (name.encode(), value.encode())
    for name, value in {"content-type": "application/json", **SAFE_HEADERS}.items()
]


class Dispatch:
    """Calls the handler of the operation that was routed, and writes its answer."""

    def __init__(self, queue: ApprovalQueue) -> None:
        """Hand the queue to every handler."""
        self._queue = queue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that has passed every check."""
        name = operation_id(scope)
        if name is None:
            raise not_found()
        answer = await OPERATIONS[name](self._queue, scope)
        await send({"type": "http.response.start", "status": answer.status, "headers": HEADERS})
        await send({"type": "http.response.body", "body": json.dumps(answer.content).encode()})
