"""From the bytes of a body to a valid event, or to every fault at once, without values.

Three steps, each stricter than the last reader needs: JSON that no two readers could understand
differently; the frozen schema of the release that the sender names; today's model.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NoReturn

import jsonschema_rs
from pydantic import ValidationError

from crm_server.errors import CrmError, Fault, InvalidEvent, InvalidJson
from crm_server.upcast import upcast
from generated.operations import CURRENT, MODELS, RELEASES, Path, Webhook

DEEPEST = 64
"""How deep objects and arrays may be nested."""
LONGEST_INTEGER = 310
"""The digits and the sign of the largest double; `int()` itself refuses some thousands."""
MOST_FAULTS = 100
"""How many faults an answer lists; it says how many there are."""

Body = dict[str, Any]
Schema = dict[str, Any]

_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_EXPECTED_JSON = "one JSON object in UTF-8"


class ContractMismatch(CrmError):
    """Schema and model of one release disagree about a body: a bug of ours, never the sender's fault."""


@dataclass(frozen=True, slots=True)
class Rules:
    """One webhook in one release: what its bodies must be."""

    webhook: Webhook
    schema: Schema
    validator: jsonschema_rs.Draft202012Validator


def load_rules() -> dict[str, dict[str, Rules]]:
    """Compile every release's frozen schemas; return them by release and webhook."""
    return {
        release: {name: _load(release, webhook) for name, webhook in webhooks.items()}
        for release, webhooks in RELEASES.items()
    }


def load_contract(release: str = CURRENT) -> dict[str, Any]:
    """Return a release's bundled OpenAPI document."""
    text = files("generated").joinpath("contracts", release, "openapi.json").read_text("utf-8")
    contract: dict[str, Any] = json.loads(text)
    return contract


def _load(release: str, webhook: Webhook) -> Rules:
    text = files("generated").joinpath("contracts", release, f"{webhook.name}.json").read_text("utf-8")
    schema = json.loads(text)
    return Rules(webhook, schema, jsonschema_rs.Draft202012Validator(schema, validate_formats=True))


def parse_json(raw: bytes) -> tuple[str, Any]:
    """Return a body's text and its value.

    Raises InvalidJson for everything on which JSON readers differ (RFC 8259, sections 4, 6, 8 and 9):
    other encodings, a name twice in an object, numbers beyond a double, lone surrogates, U+0000, depth.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        _refuse("is not UTF-8")
    if not text.strip(" \t\r\n"):
        _refuse("is empty")
    if text.count("[") + text.count("{") > DEEPEST and _depth(text) > DEEPEST:
        _refuse("is nested too deep", f"at most {DEEPEST} levels")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        _refuse(f"is not JSON at line {error.lineno}, column {error.colno}")
    if "\\u" in text and not _is_text(value):
        _refuse("holds U+0000 or half a surrogate pair", "text that every database can hold")
    return text, value


def _refuse(detail: str, expected: str = _EXPECTED_JSON) -> NoReturn:
    raise InvalidJson(Fault("", detail, expected)) from None


def _depth(text: str) -> int:
    depth = deepest = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        match match[0]:
            case "[" | "{":
                depth += 1
                deepest = max(deepest, depth)
            case "]" | "}":
                depth -= 1
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        _refuse("holds an object with the same name twice", "each name once")
    return value


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        _refuse("holds a number that is too large", "numbers that a double can hold")
    return number


def _int(text: str) -> int:
    if len(text) > LONGEST_INTEGER or math.isinf(_float(text)):
        _refuse("holds a number that is too large", "numbers that a double can hold")
    return int(text)


def _constant(_: str) -> NoReturn:
    _refuse("holds NaN or Infinity", "numbers as JSON writes them")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_int=_int, parse_constant=_constant
)


def _is_text(value: Any) -> bool:
    """Tell whether every string in a value, names too, is Unicode text without U+0000."""
    match value:
        case str():
            return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
        case list():
            return all(map(_is_text, value))
        case dict():
            return all(map(_is_text, value)) and all(map(_is_text, value.values()))
    return True


def validate(rules: Rules, release: str, raw: bytes, value: Any) -> Body:
    """Return the body when it is what its release says.

    Raises InvalidEvent with every fault, and ContractMismatch when schema and model disagree.
    """
    if not rules.validator.is_valid(value):
        raise describe_faults(rules, value)
    name = rules.webhook.name
    try:
        if release != CURRENT:
            raw = json.dumps(upcast(release, name, value)).encode()
        MODELS[name].model_validate_json(raw, by_alias=True, by_name=False)
    except ValidationError as error:
        kinds = {f"{fault['type']} at {_pointer(rules, fault['loc'])}" for fault in error.errors()}
        raise ContractMismatch(f"{name} {release}: {', '.join(sorted(kinds))}") from None
    body: Body = value
    return body


def describe_faults(rules: Rules, value: Any) -> InvalidEvent:
    """Return every fault of a body that the schema refuses."""
    faults = dict.fromkeys(
        fault for error in rules.validator.iter_errors(value) for fault in _faults_of(rules, error)
    )
    return InvalidEvent(tuple(faults)[:MOST_FAULTS], len(faults))


def _faults_of(rules: Rules, error: jsonschema_rs.ValidationError) -> Iterator[Fault]:
    """Describe one error by its kind; its message holds the value."""
    place, kind = tuple(error.instance_path), error.kind
    match kind.name:
        case "required":
            name = str(kind.value)
            parent = _schema_at(rules.schema, error.schema_path[:-1])
            yield Fault(_pointer(rules, (*place, name)), "is required", _type_of(parent, name))
        case "additionalProperties" | "unevaluatedProperties":
            for name in kind.value:
                pointer = _pointer(rules, (*place, name) if _FIELD_NAME.fullmatch(name) else place)
                yield Fault(pointer, "is not in the contract", "only the fields of the contract")
        case "oneOf":
            kinds = [str(choice.get("type")) for choice in _schema_at(rules.schema, error.schema_path)]
            yield Fault(_pointer(rules, place), "is none of what is allowed", " or ".join(kinds))
        case "propertyNames":
            wanted = f"names that match {kind.value.kind.value}"
            yield Fault(_pointer(rules, place), "has a name of the wrong form", wanted)
        case name:
            detail, expected = _DETAILS[name]
            value = " or ".join(map(str, kind.value)) if isinstance(kind.value, list) else str(kind.value)
            yield Fault(_pointer(rules, place), detail, expected.format(value))


_DETAILS: Mapping[str, tuple[str, str]] = {
    "type": ("is of the wrong type", "{}"),
    "enum": ("is not one of the known values", "{}"),
    "pattern": ("has the wrong form", "text that matches {}"),
    "format": ("is of the right form, but there is no such value", "{}"),
    "minLength": ("is too short", "at least {} characters"),
    "maxLength": ("is too long", "at most {} characters"),
    "minimum": ("is too small", "at least {}"),
    "maximum": ("is too large", "at most {}"),
    "maxItems": ("has too many items", "at most {}"),
    "maxProperties": ("has too many names", "at most {}"),
}
"""By the schema's keyword: what is wrong and what was expected, around the keyword's own value.

A keyword that is not here is a KeyError, so a 500; a test holds the table against the contract.
"""


def _pointer(rules: Rules, place: tuple[str | int, ...]) -> str:
    """Write a JSON pointer (RFC 6901); below an open map it ends at the map, for its keys are personal."""
    for path in rules.webhook.open_maps:
        if place[: len(path)] == path:
            place = path
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in place)


def _schema_at(schema: Any, path: list[str | int]) -> Any:
    for step in path:
        schema = schema[step]
    return schema


def _type_of(schema: Schema, name: str) -> str:
    return str(schema.get("properties", {}).get(name, {}).get("type", "a value"))


def field(body: Body, path: Path) -> str:
    """Return the text at a path of a valid body."""
    value: Any = body
    for name in path:
        value = value[name]
    return str(value)
