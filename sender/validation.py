"""JSON read strictly, and all that a contract release refuses in it.

`crm_server/validation.py` is its twin on the other side; one conformance suite holds them together.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any, Protocol

import jsonschema_rs

from generated.operations import CURRENT, Path
from sender.errors import Fault

MAX_DEPTH = 64
"""How deep JSON may nest, well below what any reader of ours holds."""
LONGEST_INTEGER = 310
"""The digits and the sign of the largest double; `int()` itself refuses some thousands."""
MOST_JUDGED = 1000
"""How many items of a list and unknown names of an object are looked at for faults, once there is one."""


class Operation(Protocol):
    """What is to be known of an operation whose bodies are judged: a webhook, or another contract's."""

    @property
    def name(self) -> str:
        """Its operationId."""

    @property
    def open_maps(self) -> tuple[Path, ...]:
        """Objects whose keys are the customer's words."""


class InvalidJSON(ValueError):
    """A text is not the JSON that both sides read alike."""

    def __init__(self, message: str, path: Path = ()) -> None:
        """Say what is wrong, without a value, and where, as far as that is known."""
        super().__init__(message)
        self.path = path


def parse(text: str) -> Any:
    """Read JSON text strictly: no duplicate names, no NaN, nothing that another reader would see otherwise.

    Raises InvalidJSON, whose message holds no value.
    """
    if text.count("[") + text.count("{") > MAX_DEPTH and is_too_deep(text):
        raise InvalidJSON(f"is nested deeper than {MAX_DEPTH}")
    try:
        text.encode()
        value = _DECODER.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        if "\\u0000" in text and (path := _path_to_nul(value)) is not None:
            raise InvalidJSON("holds U+0000", path)
    except json.JSONDecodeError as error:
        raise InvalidJSON(f"is not JSON at character {error.pos}") from None
    except UnicodeEncodeError:
        raise InvalidJSON("holds a lone surrogate") from None
    except InvalidJSON:
        raise
    except (ValueError, RecursionError):
        raise InvalidJSON("holds a number that is too long") from None
    return value


def is_too_deep(text: str) -> bool:
    """Say whether the brackets of a JSON text nest too deep, those in strings aside; at the first too many."""
    depth = 0
    in_string = escaped = False
    for char in text:
        if in_string:
            in_string = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif char in "]}":
            depth -= 1
    return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidJSON("has a name twice in one object")
    return members


def _no_constant(_: str) -> Any:
    raise InvalidJSON("holds NaN or Infinity")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise InvalidJSON("holds a number that is too large")
    return number


def _double(text: str) -> int:
    if len(text) >= LONGEST_INTEGER - 1 and (len(text) > LONGEST_INTEGER or math.isinf(float(text))):
        raise InvalidJSON("holds a number that is too large")
    return int(text)


def _path_to_nul(value: Any) -> Path | None:
    """Return where a text in a value, or a name, holds U+0000, which PostgreSQL cannot; None where none does.

    The path ends before the first name that may be the customer's words.
    """
    match value:
        case str() if "\0" in value:
            return ()
        case list():
            inner: Iterable[tuple[Path, Any]] = (((str(index),), part) for index, part in enumerate(value))
        case dict():
            if any("\0" in name for name in value):
                return ()
            inner = (((name,) if _FIELD_NAME.fullmatch(name) else (), part) for name, part in value.items())
        case _:
            return None
    found = ((step, _path_to_nul(part)) for step, part in inner)
    return next(((*step, *path) if step else () for step, path in found if path is not None), None)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite, parse_int=_double
)


def find_faults(body: Any, webhook: Operation, contract: str) -> list[Fault]:
    """Return all that a contract refuses in a body, without values, in the CRM's own words.

    `contract` is a release of the webhooks', or another contract's name.
    """
    schema, validator = _schema(contract, webhook.name)
    if validator.is_valid(body):
        return []
    judged = _excerpt(schema, body)
    found = (_faults(error, judged, schema, webhook) for error in validator.evaluate(judged).errors())
    return list(dict.fromkeys(fault for faults in found for fault in faults))


def _excerpt(schema: Any, value: Any) -> Any:
    """Return a value without what is beyond MOST_JUDGED items of a list or unknown names of an object.

    One more than the contract allows is always there, for that is a fault too.
    """
    match value:
        case list():
            most = max(MOST_JUDGED, schema.get("maxItems", 0) + 1)
            return [_excerpt(schema.get("items", {}), item) for item in value[:most]]
        case dict():
            most = max(MOST_JUDGED, schema.get("maxProperties", 0) + 1)
            properties = schema.get("properties", {})
            known = {name: _excerpt(properties[name], value[name]) for name in properties if name in value}
            others = islice((name for name in value if name not in properties), most)
            return known | {name: value[name] for name in others}
    return value


def expected_at(name: str, path: Path) -> str:
    """Return what today's contract wants at a place of a webhook's body: a type, and a format where there is one."""
    schema = _schema_at(name, path)
    if schema is None:
        return _EXPECTED_FIELDS
    named = [schema[keyword] for keyword in ("type", "format") if keyword in schema]
    return ", ".join(named) or "what JSON can hold"


def has_place(name: str, path: Path) -> bool:
    """Tell whether today's contract has such a place in a webhook's body."""
    return _schema_at(name, path) is not None


def _schema_at(name: str, path: Path) -> Any:
    schema, _ = _schema(CURRENT, name)
    for step in path:
        others = schema.get("additionalProperties") or None  # of an open map the schema of all its values
        schema = schema.get("properties", {}).get(step, others)
        if schema is None:
            return None
    return schema


@cache
def _schema(contract: str, name: str) -> tuple[Any, jsonschema_rs.Draft202012Validator]:
    source = files("generated").joinpath("contracts", contract, f"{name}.json").read_text("utf-8")
    schema = json.loads(source)
    return schema, jsonschema_rs.Draft202012Validator(schema, validate_formats=True)


def _faults(error: Any, value: Any, schema: Any, webhook: Operation) -> Iterator[Fault]:
    """Describe one error by where it is: its message holds the value, and `iter_errors` copies all of it."""
    path = error["schemaLocation"].split("/")[1:]
    for whole in {"oneOf", "propertyNames"} & set(path):
        path = path[: path.index(whole) + 1]
    *parents, keyword = path
    parent = _at(schema, parents)
    # What would have to be unescaped stands below open maps, where no pointer leads.
    place = tuple(error["instanceLocation"].split("/")[1:])
    match keyword:
        case "required" | "additionalProperties":
            # Both, whichever it is called: of one required name jsonschema-rs tells as if it were one too many.
            names = _at(value, place)
            for name in parent.get("required", ()):
                if name not in names:
                    types = parent["properties"][name].get("type", "a value")
                    yield Fault(pointer_in(webhook, (*place, name)), "is required", types)
            unknown = [name for name in names if name not in parent["properties"]]
            named = [name for name in unknown if _FIELD_NAME.fullmatch(name)]
            for name in named:
                yield Fault(pointer_in(webhook, (*place, name)), "is not in the contract", _EXPECTED_FIELDS)
            if unnamed := len(unknown) - len(named):
                detail = f"has {unnamed} more whose names are not in the contract, nor shown"
                yield Fault(pointer_in(webhook, place), detail, _EXPECTED_FIELDS)
        case "oneOf":
            types = " or ".join(choice.get("type", "a value") for choice in parent["oneOf"])
            yield Fault(pointer_in(webhook, place), "is none of what is allowed", types)
        case "propertyNames":
            wanted = f"names that match {parent['propertyNames']['pattern']}"
            yield Fault(pointer_in(webhook, place), "has a name of the wrong form", wanted)
        case _:
            detail, expected = _WORDS[keyword]
            limit = parent[keyword]
            wanted = " or ".join(map(_shown, limit)) if isinstance(limit, list) else str(limit)
            yield Fault(pointer_in(webhook, place), detail, expected.format(wanted))


def _shown(value: str | int) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _at(value: Any, path: Iterable[str]) -> Any:
    for step in path:
        value = value[int(step) if isinstance(value, list) else step]
    return value


_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
"""What is shown of an unknown name; anything else may be the customer's words."""

_EXPECTED_FIELDS = "only the fields of the contract"

_WORDS = {
    "type": ("is of the wrong type", "{}"),
    "enum": ("is not one of the known values", "{}"),
    "pattern": ("has the wrong form", "text that matches {}"),
    "format": ("is no value of this format", "{}"),
    "minLength": ("is too short", "at least {} characters"),
    "maxLength": ("is too long", "at most {} characters"),
    "minimum": ("is too small", "at least {}"),
    "maximum": ("is too large", "at most {}"),
    "multipleOf": ("is between two steps", "a multiple of {}"),
    "minItems": ("has too few items", "at least {}"),
    "maxItems": ("has too many items", "at most {}"),
    "maxProperties": ("has too many names", "at most {}"),
    "minProperties": ("has too few names", "at least {}"),
}
"""By the schema's keyword: what is wrong and what was expected. A test holds it against the contract."""


def pointer_in(webhook: Operation, path: tuple[str, ...]) -> str:
    """Return a JSON pointer; below an open map it ends at the map, for its keys are the customer's words."""
    return pointer_to(next((at for at in webhook.open_maps if path[: len(at)] == at), path))


def pointer_to(path: Iterable[str]) -> str:
    """Return a JSON pointer (RFC 6901)."""
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in path)
