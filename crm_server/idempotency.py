"""Is an event new, a duplicate, or in conflict with what is known? Values in, a verdict out.

Two sendings are the same event when their canonical content is: the JSON Canonicalization Scheme
(RFC 8785) of the body, without what the contract marks `x-identity: false`, with every time in UTC.
"""

import hashlib
import hmac
import json.encoder
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from jsonschema_rs.canonical.json import to_string

from generated.operations import Path, Webhook

ConflictKind = Literal["conflict", "webhook-id-conflict", "erased"]

MOST_DIGITS = 21
"""Integers of more digits are written with an exponent (ECMA-262, Number::toString)."""
MOST_ZEROS = 6
"""Fractions with so many zeros after the point, or more, are too."""

quote: Callable[[str], str] = json.encoder.encode_basestring
"""Writes a string as RFC 8785 does (section 3.2.2.2): only what must be escaped is."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells one event from another."""

    event: str
    natural_key: str
    webhook_id: str | None
    digest: str


@dataclass(frozen=True, slots=True)
class Known:
    """An approval request that is already stored."""

    id: str
    identity: Identity
    erased: bool = False
    """Whether its payload is: then its identity is disguised."""


@dataclass(frozen=True, slots=True)
class New:
    """Nothing like it is known."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The same event is stored."""

    known: Known


@dataclass(frozen=True, slots=True)
class Conflict:
    """The identity is known with other content, which may be erased, or the webhook-id is another event's."""

    kind: ConflictKind
    known: Known


Verdict = New | Duplicate | Conflict


def decide(event: Identity, known: Iterable[Known], disguised: Identity | None = None) -> Verdict:
    """Judge an event against the stored ones that share its natural key or its webhook-id.

    Against those that are erased it is judged as `disguised`, by the key that they were disguised by.
    """
    same: Known | None = None
    mine = event
    for other in known:
        seen = disguised if other.erased and disguised else event
        if (other.identity.event, other.identity.natural_key) == (seen.event, seen.natural_key):
            same, mine = other, seen
        elif other.identity.webhook_id == seen.webhook_id:
            return Conflict("webhook-id-conflict", other)
    if same is None:
        return New()
    if same.identity.digest == mine.digest:
        return Duplicate(same)
    return Conflict("erased" if same.erased else "conflict", same)


def disguise(key: str, identity: Identity) -> Identity:
    """Return what an erased event's identity leaves: HMAC-SHA256 of each part, which only the key recognises."""
    return Identity(
        identity.event,
        disguise_natural_key(key, identity.event, identity.natural_key),
        None if identity.webhook_id is None else _disguise(key, "webhook-id", identity.webhook_id),
        _disguise(key, "digest", identity.digest),
    )


def disguise_natural_key(key: str, event: str, natural_key: str) -> str:
    """Return what an erased event's natural key leaves."""
    return _disguise(key, "natural-key", event, natural_key)


def _disguise(key: str, *parts: str) -> str:
    return hmac.digest(key.encode(), "\0".join(parts).encode(), "sha256").hex()


def digest(webhook: Webhook, body: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal, of a body's canonical content."""
    return hashlib.sha256(canonical_content(webhook, body).encode()).hexdigest()


def canonical_content(webhook: Webhook, body: Mapping[str, Any]) -> str:
    """Return what two sendings of one event have in common, as RFC 8785 JSON."""
    content = dict(body)
    for path in webhook.not_identity:
        _change(content, path, None)
    for path in webhook.times:
        _change(content, path, in_utc)
    return canonical_json(content)


def _change(content: dict[str, Any], path: Path, change: Callable[[str], str] | None) -> None:
    """Change or, without `change`, leave out the field at `path` where there is one, in copies of its parents."""
    *parents, name = path
    for parent in parents:
        if parent not in content:
            return
        content[parent] = dict(content[parent])
        content = content[parent]
    if name not in content:
        return
    if change:
        content[name] = change(content[name])
    else:
        del content[name]


def in_utc(text: str) -> str:
    """Write a date-time in UTC with `Z` and no trailing zeros; one that leaves the years 1 to 9999 stays."""
    if text.endswith("Z") and "." not in text:
        return text
    try:
        time = datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError:
        return text
    written = time.replace(tzinfo=None).isoformat()
    return f"{written.rstrip('0') if time.microsecond else written}Z"


def canonical_json(value: dict[str, Any]) -> str:
    """Write a JSON object by the JSON Canonicalization Scheme (RFC 8785).

    jsonschema-rs writes the same in a tenth of the time, but for names beyond U+FFFF, which it sorts by
    code points, for numbers that ECMAScript writes with an exponent, and for integers beyond a double.
    """
    text = to_string(value)
    return _canonical_json(value) if _EXTREME.search(text) or not _fits_utf_16(text) else text


_EXTREME = re.compile(r"[:,\[]-?(?:0\.000000|[0-9]{16})")
"""Where such a number may stand, or a text that looks like one."""


def _fits_utf_16(text: str) -> bool:
    """Tell whether each character is one code unit."""
    return text.isascii() or len(text.encode("utf-16-le")) == 2 * len(text)


def _canonical_json(value: Any) -> str:
    if isinstance(value, str):
        return quote(value)
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    if isinstance(value, int | float):
        return canonical_number(value)
    if isinstance(value, list):
        return f"[{','.join(map(_canonical_json, value))}]"
    names = sorted(value) if "".join(value).isascii() else sorted(value, key=_utf_16)
    return f"{{{','.join([f'{quote(name)}:{_canonical_json(value[name])}' for name in names])}}}"


_WORDS = {True: "true", False: "false", None: "null"}


def _utf_16(name: str) -> bytes:
    return name.encode("utf-16-be")


def canonical_number(number: float) -> str:
    """Write a number as ECMAScript does (ECMA-262, Number::toString, radix 10).

    An integer is taken as the double that any JSON reader would hold.
    """
    number = float(number)
    if number == 0:
        return "0"
    sign = "-" if number < 0 else ""
    digits, exponent = _shortest(abs(number))
    point = len(digits) + exponent
    if len(digits) <= point <= MOST_DIGITS:
        return f"{sign}{digits}{'0' * (point - len(digits))}"
    if 0 < point <= MOST_DIGITS:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -MOST_ZEROS < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"


def _shortest(number: float) -> tuple[str, int]:
    """Return the fewest decimal digits that mean this double, and the power of ten of the last of them."""
    mantissa, _, power = repr(number).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    exponent = int(power or 0) - len(fraction)
    kept = digits.rstrip("0")
    return kept, exponent + len(digits) - len(kept)
