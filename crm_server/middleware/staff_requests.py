"""Parameters and bodies of the staff API, by its contract, all faults at once."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import jsonschema_rs
from starlette.types import Scope

from crm_server.errors import AmbiguousJson, Fault, InvalidBody
from crm_server.middleware.bodies import operation_id
from crm_server.middleware.contract import operations, refused, resolve
from crm_server.problems import Problem, faulty
from crm_server.validation import (
    STAFF_CONTRACT,
    BodyRules,
    describe_ambiguity,
    describe_faults,
    load_body_rules,
    parse_json,
)

_WHOLE_NUMBER = re.compile("[0-9]{1,18}")
"""What `int` and every database can take; the contract asks for less."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operation."""

    place: str
    """`path` or `query`."""
    schema: Mapping[str, Any]
    validator: Any

    def read(self, text: str) -> Any:
        """Return the value that a text stands for, or the text where it stands for none."""
        if self.schema["type"] == "integer" and _WHOLE_NUMBER.fullmatch(text):
            return int(text)
        return text


class ParameterRules:
    """Checks the parameters that the contract names; Connexion's `parameter` validator."""

    def __init__(self, contract: Mapping[str, Any]) -> None:
        """Compile the schema of each parameter of each operation."""
        self._rules = {
            operation["operationId"]: {
                p["name"]: Parameter(p["in"], p["schema"], jsonschema_rs.validator_for(p["schema"]))
                for p in (resolve(contract, parameter) for parameter in operation.get("parameters", ()))
            }
            for operation in operations(contract)
        }

    def validate(self, scope: Scope) -> tuple[Fault, ...]:
        """Put the values into `scope["crm.parameters"]`, with the contract's defaults for what is absent.

        Returns every fault; raises 404 for a path in which nothing can be.
        """
        rules = self._rules[operation_id(scope)]
        found = {n: p.schema["default"] for n, p in rules.items() if "default" in p.schema}
        faults = list(twice(scope))
        for place, name, text in given(scope):
            parameter = rules.get(name)
            if parameter is None or parameter.place != place:
                known = ", ".join(n for n, p in rules.items() if p.place == "query") or "no parameters"
                faults.append(Fault("?", "holds a parameter that is not in the contract", known))
                continue
            value = parameter.read(text)
            wrong = [
                Fault(f"?{name}", "has the wrong form", f"{error.kind.name} {error.kind.value}")
                for error in parameter.validator.iter_errors(value)
            ]
            if wrong and place == "path":
                raise Problem("not-found", "There is nothing with this id.")
            faults += wrong
            found[name] = value
        scope["crm.parameters"] = found
        return tuple(dict.fromkeys(faults))


def given(scope: Scope) -> Iterator[tuple[str, str, str]]:
    """Yield place, name and text of each parameter of a request; those of the path first."""
    for name, text in scope.get("path_params", {}).items():
        yield "path", name, text
    for name, text in in_query(scope):
        yield "query", name, text


def in_query(scope: Scope) -> list[tuple[str, str]]:
    """Return name and text of each parameter in the query."""
    query = scope["query_string"].decode("latin-1")
    return parse_qsl(query, keep_blank_values=True, encoding="utf-8", errors="replace")


def twice(scope: Scope) -> Iterator[Fault]:
    """Yield a fault for each name that the query holds more than once."""
    names = [name for name, _ in in_query(scope)]
    if len(names) != len(set(names)):
        yield Fault("?", "holds a parameter more than once", "each name once")


class JsonRules:
    """Checks the bodies of the staff API; Connexion's `body` validator."""

    def __init__(self, contract: Mapping[str, Any]) -> None:
        """Compile the schema of each operation's body."""
        self._rules = {
            operation["operationId"]: load_body_rules(STAFF_CONTRACT, operation["operationId"])
            for operation in operations(contract)
            if "requestBody" in operation
        }

    def validate(self, scope: Scope, faults: tuple[Fault, ...]) -> None:
        """Put the body's value, none being `{}`, into `scope["crm.json"]`; raise 400 with every fault."""
        raw: bytes = scope["crm.body"]
        try:
            scope["crm.json"] = read_json(self._rules[str(operation_id(scope))], raw or b"{}")
        except InvalidBody as error:
            raise refused(faults, error, "invalid-request") from None
        if faults:
            raise faulty("malformed-request", faults)


def read_json(rules: BodyRules, raw: bytes) -> Any:
    """Return the value that a body holds; raise InvalidBody with every fault."""
    try:
        _, value = parse_json(raw)
    except AmbiguousJson:
        raise describe_ambiguity(rules, raw) from None
    if not rules.validator.is_valid(value):
        raise describe_faults(rules, value)
    return value


def optional_bodies(contract: Mapping[str, Any]) -> frozenset[str]:
    """Return the operations whose body may be left out."""
    return frozenset(
        operation["operationId"]
        for operation in operations(contract)
        if not operation.get("requestBody", {}).get("required", False)
    )
