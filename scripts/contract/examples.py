"""Bodies at the edges of what a schema accepts, the plainest first."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema_rs
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from scripts.generate import Schema

DRAWN = 30
"""How many texts are drawn for a pattern; the same ones each time."""
DRAWN_LONG = 10
"""How many of the longest ones: each has so many characters that it has one of each kind."""
PLAIN = ("x", "X", "0", "xx", "x@x.example")
TIMES = (
    "2024-12-13T10:00:00Z",
    "2024-12-13T10:00:00.123456+01:00",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59-23:59",
    "2024-12-13",
)


def edges(schema: Schema, deep: bool = True) -> Iterator[Any]:
    """Yield values that a schema of ours accepts: each limit reached, each choice and each field taken once.

    With `deep`, texts are also drawn from each pattern, which takes seconds. There may be none: a pattern and a limit
    may leave nothing, or nothing that is found here.
    """
    accepted = jsonschema_rs.validator_for(schema, validate_formats=True).is_valid
    yield from (value for value in _edges(schema, deep) if accepted(value))


def _edges(schema: Schema, deep: bool) -> Iterator[Any]:
    if "oneOf" in schema:
        for choice in schema["oneOf"]:
            yield from edges(choice, deep)
    elif "enum" in schema:
        yield from schema["enum"]
    else:
        match schema.get("type"):
            case "object" if "properties" in schema:
                yield from _objects(schema, deep)
            case "object":
                yield from _maps(schema, deep)
            case "array":
                items = list(edges(schema["items"], deep))
                yield []
                yield from ([item] for item in items)
                yield items[:1] * schema.get("maxItems", 2)
            case "string":
                yield from texts(json.dumps(schema), deep)
            case "number" | "integer":
                low, high = schema.get("minimum", 0), schema.get("maximum", 1_000_000)
                step = schema.get("multipleOf", 1)
                yield from (low, high, low + 1, low + 0.01, -(-low // step) * step, high // step * step)
            case "boolean":
                yield from (True, False)
            case _:
                yield from ("x", 1, True)


def _objects(schema: Schema, deep: bool) -> Iterator[Any]:
    """Yield the smallest object, then that with each field at each of its edges."""
    required = schema.get("required", ())
    smallest = {name: next(edges(schema["properties"][name], deep=False), None) for name in required}
    if None in smallest.values():
        return
    yield smallest
    for name, part in schema["properties"].items():
        yield from (smallest | {name: value} for value in edges(part, deep))


def _maps(schema: Schema, deep: bool) -> Iterator[Any]:
    """Yield open maps: empty, with each name and value at its edges, and full."""
    names = texts(json.dumps({"type": "string"} | schema.get("propertyNames", {})), deep)
    values_schema = schema.get("additionalProperties")
    values = list(edges(values_schema, deep)) if isinstance(values_schema, dict) else ["x"]
    yield {}
    if not (names and values):
        return
    yield from ({names[0]: value} for value in values)
    yield from ({name: values[0]} for name in names)
    yield {f"name{number}": values[0] for number in range(schema.get("maxProperties", 2))}


@cache
def texts(schema: str, deep: bool) -> tuple[str, ...]:
    """Return texts that a schema, given as JSON, accepts: the shortest first, and as long as it allows."""
    found = json.loads(schema)
    limits = {found.get("minLength", 0), found.get("maxLength", 1)}
    accepted = jsonschema_rs.validator_for(found, validate_formats=True).is_valid
    plain = [letter * length for letter in "xX0" for length in limits]
    texts = {text for text in (*plain, *PLAIN, *TIMES) if accepted(text)}
    if "pattern" in found and (deep or not texts):
        # Chance seldom draws the longest: a pattern whose repeats are all as long as they may be does.
        longest = re.sub(r"\{\d+,(\d+)\}", r"{\1}", found["pattern"])
        both = drawn(found["pattern"], DRAWN) + drawn(longest, DRAWN_LONG)
        texts.update(text for text in both if accepted(text))
    return tuple(sorted(texts, key=lambda text: (len(text), text.swapcase())))


def drawn(pattern: str, count: int) -> list[str]:
    """Return texts that match a pattern, the same ones each time."""
    found: list[str] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.from_regex(pattern.removesuffix("$") + r"\Z"))
    def draw(text: str) -> None:
        found.append(text)

    draw()
    return found
