"""Connexion's extension points, filled: routing, headers and bodies by the contract, all faults at once."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import jsonschema_rs
from connexion.middleware.abstract import ROUTING_CONTEXT
from connexion.middleware.request_validation import (
    RequestValidationAPI,
    RequestValidationMiddleware,
    RequestValidationOperation,
)
from connexion.middleware.routing import RoutingMiddleware
from connexion.middleware.security import SecurityAPI, SecurityMiddleware, SecurityOperation
from connexion.operations.abstract import AbstractOperation
from connexion.spec import Specification
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from crm_server.approval_queue import ReceivedEvent
from crm_server.errors import AmbiguousJson, Fault, InvalidBody, InvalidJson
from crm_server.idempotency import Identity, digest
from crm_server.middleware.bodies import operation_id
from crm_server.problems import Problem, faulty
from crm_server.releases import Releases
from crm_server.validation import Rules, describe_ambiguity, field, parse_json, validate
from generated.operations import CURRENT

METHOD_NOT_ALLOWED = 405


class Routing(RoutingMiddleware):
    """Connexion's routing, without redirects, and without a mix-up of requests.

    Connexion notes the operation that it found in `scope["extensions"]`, and granian gives every request
    the same such dict: requests that overlapped were checked by each other's rules, and each other's
    security. A path of the contract without a variable is looked up; all else, what is unknown too,
    goes Connexion's way.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an app."""
        super().__init__(app)
        self._known: dict[tuple[str, str], dict[str, str]] = {}
        self._methods: dict[str, set[str]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route a request, with extensions of its own."""
        found = self._known.get((scope.get("method", ""), scope.get("path", "")))
        extensions: dict[str, Any] = {} if found is None else {ROUTING_CONTEXT: found}
        if "crm.seen" in scope:
            scope["crm.seen"].extensions = extensions
        route = self._route if found is None else self.app
        await route({**scope, "extensions": extensions}, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except HTTPException as error:
            methods = self._methods.get(scope["path"])
            if error.status_code != METHOD_NOT_ALLOWED or methods is None:
                raise
            # Starlette names the methods of the first route alone, and Connexion makes one for each method.
            raise HTTPException(METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(sorted(methods))}) from None

    def add_api(
        self,
        specification: Specification,
        base_path: str | None = None,
        arguments: dict[Any, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add an API; a path with a trailing slash is unknown."""
        super().add_api(specification, base_path, arguments, **kwargs)
        for path, method, operation in each_operation(specification):
            if "{" not in path:
                found = {"api_base_path": base_path or "", "operation_id": operation["operationId"]}
                self._known[method.upper(), f"{base_path or ''}{path}"] = found
                self._methods.setdefault(f"{base_path or ''}{path}", set()).update(
                    {"GET": ("GET", "HEAD")}.get(method.upper(), (method.upper(),))
                )
        self.router.redirect_slashes = False
        for mount in self.router.routes:
            if isinstance(mount, Mount) and isinstance(mount.app, Router):
                mount.app.redirect_slashes = False


class ParametersJudge(Protocol):
    """What judges the headers or the parameters of every request of one contract."""

    def validate(self, scope: Scope) -> tuple[Fault, ...]:
        """Put what is found into the scope; return every fault."""


class BodiesJudge(Protocol):
    """What judges the body of every request of one contract."""

    def validate(self, scope: Scope, faults: tuple[Fault, ...]) -> None:
        """Put what is valid into the scope; raise 400 with every fault, the given ones first."""


@dataclasses.dataclass(slots=True)
class Asker:
    """As much of a request as security looks at: Connexion's own costs more to make than a key to check."""

    scope: Scope
    context: dict[str, Any] = dataclasses.field(default_factory=dict)


class SecuredOperation(SecurityOperation):
    """Connexion's security of one operation, which is shown the scope instead of a request made of it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask who it is where the contract says so, and pass the request on."""
        if self.security:
            await self.verification_fn(Asker(scope))
        await self.next_app(scope, receive, send)


class SecuredAPI(SecurityAPI):
    """Makes the operations of one contract."""

    def make_operation(self, operation: AbstractOperation | Specification) -> SecurityOperation:
        """Make one operation."""
        return SecuredOperation.from_operation(
            operation,
            next_app=self.next_app,
            security_handler_factory=self.security_handler_factory,
        )


class Security(SecurityMiddleware):
    """Connexion's security, at less cost."""

    api_cls = SecuredAPI


class ValidatedOperation(RequestValidationOperation):
    """Connexion's validation of one operation, with what no request changes worked out once.

    Connexion reads definitions and builds validators anew for each request; ours hold no state of one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Choose the validators."""
        super().__init__(*args, **kwargs)
        validators: dict[str, Any] = self._validator_map
        self._parameters: ParametersJudge = validators["parameter"]
        self._body: BodiesJudge | None = validators["body"] if self._operation.request_body else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check parameters and body, and pass the request on."""
        faults = self._parameters.validate(scope)
        if self._body is not None:
            self._body.validate(scope, faults)
        elif faults:
            raise faulty("malformed-request", faults)
        await self.next_app(scope, receive, send)


class ValidatedAPI(RequestValidationAPI):
    """Makes the operations of one contract."""

    def make_operation(self, operation: AbstractOperation) -> ValidatedOperation:
        """Make one operation."""
        return ValidatedOperation(self.next_app, operation=operation, validator_map=self.validator_map)


class RequestValidation(RequestValidationMiddleware):
    """Connexion's request validation, by our validators."""

    api_cls = ValidatedAPI


class HeaderRules:
    """Checks the headers, and what the path holds, as the contract names them; Connexion's `parameter` validator."""

    def __init__(self, contract: Mapping[str, Any]) -> None:
        """Compile the schema of each parameter of each operation."""
        self._rules = {
            operation["operationId"]: {
                parameter["name"]: jsonschema_rs.validator_for(parameter["schema"])
                for parameter in (resolve(contract, p) for p in operation.get("parameters", ()))
            }
            for operation in operations(contract)
        }

    def validate(self, scope: Scope) -> tuple[Fault, ...]:
        """Put what is found into `scope["crm.headers"]` and `scope["crm.parameters"]`; return every fault."""
        rules = self._rules[operation_id(scope)]
        found: dict[str, str] = {}
        scope["crm.parameters"] = in_path = scope.get("path_params", {})
        faults = [fault for name, text in in_path.items() for fault in wrong_form(rules[name], name, text)]
        for raw_name, raw_value in scope["headers"]:
            if not raw_name.startswith(b"webhook-"):
                continue
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            if name not in rules:
                continue
            if name in found:
                faults.append(Fault(f"#{name}", "is there more than once", "one value"))
            found[name] = value
            faults += wrong_form(rules[name], name, value)
        scope["crm.headers"] = found
        return tuple(dict.fromkeys(faults))


def wrong_form(rule: Any, name: str, text: str) -> list[Fault]:
    """Return the faults of a header or of a part of the path."""
    if rule.is_valid(text):
        return []
    return [
        Fault(f"#{name}", "has the wrong form", f"{error.kind.name} {error.kind.value}")
        for error in rule.iter_errors(text)
    ]


class EventRules:
    """Makes the body an event, by the release that it names; Connexion's `body` validator."""

    def __init__(self, rules: Mapping[str, Mapping[str, Rules]], releases: Releases) -> None:
        """Take the compiled rules, by release and webhook, and what knows which releases are accepted."""
        self._rules, self._releases = rules, releases

    def validate(self, scope: Scope, faults: tuple[Fault, ...]) -> None:
        """Put the event into `scope["crm.event"]`; raise 400 with every fault, the headers' first.

        A body whose release is not accepted, or does not know the webhook, is not judged.
        """
        release, webhook = scope["crm.headers"].get("webhook-contract", CURRENT), str(operation_id(scope))
        rules = self._rules.get(release, {}).get(webhook)
        is_one = all(fault.pointer != "#webhook-contract" for fault in faults)
        known = is_one and self._releases.take(release, scope["crm.key"]) and rules is not None
        if rules is not None and known:
            try:
                scope["crm.event"] = read_event(rules, release, scope)
            except InvalidBody as error:
                raise refused(faults, error, "invalid-event") from None
        if faults:
            raise faulty("malformed-request", faults)
        if not known:
            raise Problem(
                "unsupported-contract-version",
                "This CRM does not take this webhook by the release that webhook-contract names.",
                versions=[each for each in self._releases.accepted if webhook in self._rules[each]],
            )


def refused(faults: tuple[Fault, ...], error: InvalidBody, invalid: str) -> Problem:
    """Return the 400 for a body, with the faults beside it first; `invalid` is the type for JSON that is none of ours."""
    body_type = "invalid-json" if isinstance(error, InvalidJson) else invalid
    type_ = "malformed-request" if faults else body_type
    return faulty(type_, faults + error.faults, len(faults) + error.count)


def read_event(rules: Rules, release: str, scope: Scope) -> ReceivedEvent:
    """Return the event that a body holds; raise InvalidBody with every fault."""
    raw: bytes = scope["crm.body"]
    try:
        text, value = parse_json(raw)
    except AmbiguousJson:
        raise describe_ambiguity(rules, raw) from None
    body = validate(rules, release, raw, value)
    webhook = rules.webhook
    identity = Identity(
        event=webhook.name,
        natural_key=field(body, webhook.natural_key),
        webhook_id=scope["crm.headers"].get("webhook-id"),
        digest=digest(webhook, body),
    )
    about = field(body, webhook.about) if webhook.about else None
    return ReceivedEvent(identity, release, text, scope["crm.key"], scope["crm.address"], about)


def operations(contract: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a contract's operations."""
    return [operation for _, _, operation in each_operation(contract)]


def each_operation(contract: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, method and operation of each of a contract's operations."""
    for path, item in contract["paths"].items():
        for method, operation in item.items():
            if isinstance(operation, dict) and "operationId" in operation:
                yield path, method, operation


def resolve(contract: Mapping[str, Any], value: Any) -> dict[str, Any]:
    """Follow a `$ref` within a contract."""
    found: Any = value
    if "$ref" in value:
        found = contract
        for step in value["$ref"].removeprefix("#/").split("/"):
            found = found[step]
    resolved: dict[str, Any] = found
    return resolved
