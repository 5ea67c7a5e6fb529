"""What hypothesis draws: bodies by a schema, and what booking code and other people's programs make of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from datetime import date, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

Place = tuple[str | int, ...]
"""Where a value stands in a body, from the outside in."""

OFFSETS = st.timedeltas(min_value=timedelta(hours=-24), max_value=timedelta(hours=24)).filter(
    lambda offset: abs(offset) < timedelta(hours=24)
)
"""Python allows any offset below a day; RFC 3339 knows whole minutes only."""

ODD_TIMES = st.datetimes(timezones=st.timezones() | st.builds(timezone, OFFSETS) | st.none())
"""Date-times as booking code may have them: any year and zone, also naive or with seconds in the offset."""

WHOLE_MINUTES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
"""Offsets that RFC 3339 can write."""

_TEXTS = r" |x|x\n|\n|\x00|\x7f|\x85|\u2028|\ud800|\u0661|\uff21\uff22|a@b|a@b\n|John@EXAMPLE.com|a@-b|a..b@c|1.0|true"
_LONG = [
    sign * length for sign in ("A", "\u00e9", "\U0001d11e") for length in (0, 64, 65, 200, 201, 1001, 5001)
]
NASTY_TEXTS = st.text(st.characters(), max_size=40) | st.sampled_from(
    [*_TEXTS.encode().decode("unicode_escape").split("|"), *_LONG]
)

_TIMES = r"""
2024-12-13T10:00:00Z|2024-12-13T10:00:00z|2024-12-13t10:00:00Z|2024-12-13 10:00:00Z|1734084000|2024-12-13|
2024-02-30T10:00:00Z|2023-02-29T10:00:00Z|2024-02-29T10:00:00Z|2016-12-31T23:59:60Z|2024-12-13T24:00:00Z|
0000-01-01T00:00:00Z|0001-01-01T00:00:00+23:59|9999-12-31T23:59:59.999999-23:59|2024-12-13T10:00:00+24:00|
2024-12-13T10:00:00-00:00|2024-12-13T10:00:00|2024-12-13T10:00Z|2024-12-13T10:00:00.Z|2024-12-13T10:00:00+0000|
2024-12-13T10:00:00.1234567Z|2024-12-13T10:00:00,5Z"""
NASTY_TIMES = st.sampled_from(["2024-12-13T10:00:00Z\n", *_TIMES.replace("\n", "").split("|")])

NUMBERS = (
    st.integers() | st.floats() | st.sampled_from([-0.0, 5e-324, 1e308, 2**53, 2**53 - 1, 1 - 2**53, 10**30])
)

JSON_LEAVES = st.none() | st.booleans() | NUMBERS.filter(math.isfinite) | NASTY_TIMES | NASTY_TEXTS.filter(
    lambda text: text.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in text)
)  # fmt: skip

JSON_VALUES = st.recursive(
    JSON_LEAVES,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3),
)
"""Values as a JSON reader gives them: finite numbers, whole characters."""

PYTHON_VALUES = (
    JSON_VALUES
    | NASTY_TEXTS
    | NUMBERS
    | ODD_TIMES
    | st.sampled_from([Decimal("1.10"), Decimal("NaN"), Fraction(1, 3), date(2024, 12, 13), b"bytes", 1 + 0j, ("url",), {"url"}])
)  # fmt: skip
"""Values that booking code may pass to a model."""


def bodies(schema: dict[str, Any], times: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Return a strategy of what a schema accepts, as far as its patterns can tell; `times` draws its date-times."""
    if "oneOf" in schema:
        return st.one_of([bodies(part, times) for part in schema["oneOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    draw: dict[str, Callable[[], SearchStrategy[Any]]] = {
        "object": lambda: objects(schema, times),
        "array": lambda: lists(schema, times),
        "string": lambda: times if schema.get("format") == "date-time" else texts(schema),
        "number": lambda: numbers(schema),
        "integer": lambda: numbers(schema),
        "boolean": st.booleans,
    }
    return draw[schema["type"]]()


def objects(schema: dict[str, Any], times: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Return a strategy of objects, closed ones or open maps."""
    if "properties" not in schema:
        names = texts(schema["propertyNames"]) if "propertyNames" in schema else st.text(max_size=5)
        return st.dictionaries(names, bodies(schema["additionalProperties"], times), max_size=4)
    parts = {name: bodies(part, times) for name, part in schema["properties"].items()}
    required = {name: parts.pop(name) for name in schema.get("required", ())}
    drawn = st.fixed_dictionaries(required, optional=parts)
    return drawn.filter(lambda body: len(body) >= schema.get("minProperties", 0))


def lists(schema: dict[str, Any], times: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Return a strategy of short lists."""
    least = schema.get("minItems", 0)
    most = min(schema["maxItems"], max(least, 4))
    return st.lists(bodies(schema["items"], times), min_size=least, max_size=most)


def numbers(schema: dict[str, Any]) -> SearchStrategy[Any]:
    """Return a strategy of numbers: whole ones, multiples of a step, or any."""
    least, most = schema["minimum"], schema["maximum"]
    if "multipleOf" in schema:
        step = schema["multipleOf"]
        return st.integers(math.ceil(least / step), math.floor(most / step)).map(lambda count: count * step)
    whole = st.integers(math.ceil(least), math.floor(most))
    return whole if schema["type"] == "integer" else whole | st.floats(least, most)


def texts(schema: dict[str, Any]) -> SearchStrategy[str]:
    """Return a strategy of strings that match a pattern."""
    if "pattern" not in schema:
        return st.text(min_size=schema.get("minLength", 0), max_size=schema["maxLength"])
    drawn = st.from_regex(schema["pattern"].removesuffix("$") + r"\Z")
    return drawn.filter(
        lambda text: schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", math.inf)
    )


def places(body: Any, at: Place = ()) -> Iterator[Place]:
    """Yield where every value below a body stands."""
    parts = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for name, part in parts:
        yield (*at, name)
        yield from places(part, (*at, name))


@st.composite
def spoiled(draw: DrawFn, whole: SearchStrategy[Any], values: SearchStrategy[Any]) -> Any:
    """Draw a body in which one thing is another value, missing, or too much."""
    body = copy.deepcopy(draw(whole))
    *way, last = draw(st.sampled_from(sorted(places(body), key=str)))
    parent = body
    for part in way:
        parent = parent[part]
    how = draw(st.sampled_from(["replace", "replace", "replace", "tweak", "remove", "add"]))
    if how == "remove":
        del parent[last]
    elif how == "add" and isinstance(parent, dict):
        parent[draw(st.text(max_size=5) | st.sampled_from(["ticket_number", "a\n", "x" * 65]))] = draw(values)
    elif how == "tweak" and isinstance(parent[last], str):
        parent[last] = draw(st.sampled_from(["\n{}", "{}\n", "{}\x00", " {}", "{} ", "{}{}", "{}é"])).replace(
            "{}", parent[last]
        )
    else:
        parent[last] = draw(values)
    return body
