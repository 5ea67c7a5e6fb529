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
from typing import Any

import jsonschema_rs

from generated.operations import Webhook
from sender.errors import Fault

MAX_DEPTH = 64
"""How deep JSON may nest, well below what any reader of ours holds."""


class InvalidJSON(ValueError):
    """A text is not the JSON that both sides read alike."""


def parse(text: str) -> Any:
    """Read JSON text strictly: no duplicate names, no NaN, nothing that another reader would see otherwise.

    Raises InvalidJSON, whose message holds no value.
    """
    if text.count("[") + text.count("{") > MAX_DEPTH and nesting(text) > MAX_DEPTH:
        raise InvalidJSON(f"is nested deeper than {MAX_DEPTH}")
    try:
        text.encode()
        value = _DECODER.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise InvalidJSON(f"is not JSON at character {error.pos}") from None
    except UnicodeEncodeError:
        raise InvalidJSON("holds a lone surrogate") from None
    except InvalidJSON:
        raise
    except (ValueError, RecursionError):
        raise InvalidJSON("holds a number that is too long") from None
    return value


def nesting(text: str) -> int:
    """Return how deep the brackets of a JSON text nest, those in strings aside."""
    depth = deepest = 0
    in_string = escaped = False
    for char in text:
        if in_string:
            in_string = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


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


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)


def find_faults(body: Any, webhook: Webhook, contract: str) -> list[Fault]:
    """Return all that a release's contract refuses in a body, without values."""
    validator = _validator(contract, webhook.name)
    if validator.is_valid(body):
        return []
    return [fault for error in validator.iter_errors(body) for fault in _faults(error, webhook)]


@cache
def _validator(contract: str, name: str) -> Any:
    schema = files("generated").joinpath("contracts", contract, f"{name}.json").read_text("utf-8")
    return jsonschema_rs.validator_for(json.loads(schema), validate_formats=True)


def _faults(error: Any, webhook: Webhook) -> Iterator[Fault]:
    kind, path = error.kind, tuple(map(str, error.instance_path))
    for open_map in webhook.open_maps:
        if path[: len(open_map)] == open_map:
            yield Fault(
                pointer_to(open_map), "holds a name or a value that is not allowed", "the contract's form"
            )
            return
    if kind.name == "required":
        yield Fault(pointer_to((*path, kind.property)), "is missing", "a value")
    elif kind.name == "additionalProperties":
        for name in kind.unexpected:
            shown = (*path, name) if _FIELD_NAME.fullmatch(name) else path
            yield Fault(pointer_to(shown), "is not in the contract", "no such field")
    else:
        detail, expected = _WORDS.get(kind.name, ("is not allowed", "{}"))
        value = " or ".join(map(str, kind.value)) if isinstance(kind.value, list) else kind.value
        yield Fault(pointer_to(path), detail, expected.format(value))


_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
"""What is shown of an unknown name; anything else may be the customer's words."""

_WORDS = {
    "type": ("is of the wrong type", "{}"),
    "enum": ("is not one of the allowed values", "{}"),
    "pattern": ("has the wrong form", "text that matches {}"),
    "format": ("is not a real date and time", "{}"),
    "minLength": ("is too short", "at least {} character(s)"),
    "maxLength": ("is too long", "at most {} characters"),
    "minimum": ("is too small", "at least {}"),
    "maximum": ("is too large", "at most {}"),
    "maxItems": ("has too many items", "at most {}"),
    "maxProperties": ("has too many names", "at most {}"),
}


def pointer_to(path: Iterable[str]) -> str:
    """Return a JSON pointer (RFC 6901)."""
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in path)
