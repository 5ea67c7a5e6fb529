"""Connexion's extension points, filled: routing, headers and bodies by the contracts, all faults at once."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol

import jsonschema_rs
from connexion.middleware.abstract import ROUTING_CONTEXT
from connexion.middleware.request_validation import (
    RequestValidationAPI,
    RequestValidationMiddleware,
    RequestValidationOperation,
)
from connexion.middleware.routing import RoutingMiddleware
from connexion.operations.abstract import AbstractOperation
from connexion.spec import Specification
from starlette.routing import Mount, Router
from starlette.types import Receive, Scope, Send

from generated.operations import Path
from sender.errors import Fault
from sender.integration.problems import answer, faulty, not_found
from sender.validation import InvalidJSON, Operation, find_faults, parse, pointer_in

INTEGRATION = "integration"
"""The integration API's contract, beside the releases of the webhooks'."""


def load_contract(name: str) -> dict[str, Any]:
    """Return a bundled OpenAPI document: a release of the webhooks', or INTEGRATION."""
    text = files("generated").joinpath("contracts", name, "openapi.json").read_text("utf-8")
    contract: dict[str, Any] = json.loads(text)
    return contract


def operations(contract: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a contract's operations."""
    for item in contract["paths"].values():
        yield from item.values()


def operation_id(scope: Scope) -> str | None:
    """Return the contract's operation that Connexion's routing found, if any."""
    found: str | None = scope["extensions"][ROUTING_CONTEXT]["operation_id"]
    return found


class Routing(RoutingMiddleware):
    """Connexion's routing, without redirects, and without a mix-up of requests.

    Connexion notes what it found in `scope["extensions"]`, and granian gives every request the same such dict.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route a request, with extensions of its own."""
        extensions: dict[str, Any] = {}
        scope["link.seen"].extensions = extensions
        await super().__call__({**scope, "extensions": extensions}, receive, send)

    def add_api(
        self,
        specification: Specification,
        base_path: str | None = None,
        arguments: dict[Any, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add an API; a path with a trailing slash is unknown."""
        super().add_api(specification, base_path, arguments, **kwargs)
        self.router.redirect_slashes = False
        for mount in self.router.routes:
            if isinstance(mount, Mount) and isinstance(mount.app, Router):
                mount.app.redirect_slashes = False


class BodiesJudge(Protocol):
    """What judges the body of every request of one contract."""

    def validate(self, scope: Scope, faults: list[Fault]) -> None:
        """Put what is valid into the scope; raise 400 with every fault, the given ones first."""


class ValidatedOperation(RequestValidationOperation):
    """Connexion's validation of one operation, by our validators, which hold no state of a request.

    Connexion's own reads no chunked body, skips validation for `Application/JSON`, and shows values.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Choose the validators."""
        super().__init__(*args, **kwargs)
        validators: dict[str, Any] = self._validator_map
        self._parameters: ParameterRules = validators["parameter"]
        self._body: BodiesJudge | None = validators["body"] if self._operation.request_body else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check headers and body, and pass the request on."""
        faults = self._parameters.validate(scope)
        if self._body is not None:
            self._body.validate(scope, faults)
        if faults:
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


class ParameterRules:
    """Checks the headers and the parts of the path that a contract names; Connexion's `parameter` validator."""

    def __init__(self, contract: Mapping[str, Any]) -> None:
        """Compile the schema of each parameter of each operation."""
        self._rules: dict[str, dict[str, dict[str, Any]]] = {
            operation["operationId"]: {"header": {}, "path": {}} for operation in operations(contract)
        }
        for operation in operations(contract):
            for parameter in (resolve(contract, given) for given in operation.get("parameters", ())):
                rule = jsonschema_rs.validator_for(parameter["schema"])
                self._rules[operation["operationId"]][parameter["in"]][parameter["name"]] = rule

    def validate(self, scope: Scope) -> list[Fault]:
        """Put what is found into `scope["link.headers"]` and `scope["link.path"]`; return every fault."""
        rules = self._rules[str(operation_id(scope))]
        headers, path = rules["header"], rules["path"]
        given = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        named = [(name, value) for name, value in given if name in headers]
        names = [name for name, _ in named]
        in_path = [(name, scope["path_params"][name]) for name in path]
        faults = [
            Fault(f"#{name}", "is there more than once", "one value")
            for name in headers
            if names.count(name) > 1
        ]
        faults += [
            Fault(f"#{name}", "has the wrong form", f"{error.kind.name} {error.kind.value}")
            for name, value in [*in_path, *named]
            for error in (headers | path)[name].iter_errors(value)
        ]
        scope["link.headers"], scope["link.path"] = dict(named), dict(in_path)
        return list(dict.fromkeys(faults))


def resolve(contract: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a `$ref` within a contract."""
    found: Any = value
    if "$ref" in value:
        found = contract
        for step in value["$ref"].removeprefix("#/").split("/"):
            found = found[step]
    resolved: Mapping[str, Any] = found
    return resolved


@dataclass(frozen=True, slots=True)
class Body:
    """An operation's body, as `find_faults` wants to know it."""

    name: str
    open_maps: tuple[Path, ...] = ()


class JsonRules:
    """Checks the bodies of the integration API; Connexion's `body` validator."""

    def validate(self, scope: Scope, faults: list[Fault]) -> None:
        """Put the body's value, none being `{}`, into `scope["link.json"]`; raise 400 with every fault."""
        body = Body(str(operation_id(scope)))
        text, value = read_json(scope["link.body"] or b"{}", body, faults)
        found = find_faults(value, body, INTEGRATION)
        if found:
            raise refused(faults, found, "invalid-request")
        scope["link.json"] = text


def read_json(raw: bytes, of: Operation, faults: list[Fault]) -> tuple[str, Any]:
    """Return a body's text and value; raise the 400 for what no two readers would read alike."""
    pointer = ""
    try:
        text = raw.decode("utf-8")
        return text, parse(text)
    except UnicodeDecodeError as error:
        words = f"is not UTF-8 at byte {error.start}"
    except InvalidJSON as error:
        pointer, words = pointer_in(of, error.path), str(error)
    raise refused(faults, [Fault(pointer, words, "one JSON object in UTF-8")], "invalid-json")


def refused(faults: list[Fault], of_body: list[Fault], type_: str) -> Exception:
    """Return the 400 for a body, with the faults beside it first."""
    return faulty("malformed-request" if faults else type_, [*faults, *of_body])


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is no problem: a status and a JSON value."""

    status: int
    content: Mapping[str, Any]


Handler = Callable[[Scope], Awaitable[Answer]]
"""What answers an operation whose request has passed every check."""


class Dispatch:
    """Calls the handler of the operation that was routed, and writes its answer."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        """Take the handlers, by operationId."""
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that has passed every check."""
        name = operation_id(scope)
        if name is None:
            raise not_found()
        found = await self._handlers[name](scope)
        body = json.dumps(found.content).encode()
        await answer(send, found.status, body, {"content-type": "application/json"})
