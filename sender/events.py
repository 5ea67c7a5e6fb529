"""An event: the contract's body, checked and written down once, with its identity."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice
from json.encoder import encode_basestring
from typing import Any, cast

from jsonschema_rs.canonical.json import to_string
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from generated.base import ContractModel
from generated.operations import CURRENT, MODELS, RELEASES, Path, Webhook
from sender.errors import Fault, InvalidEvent
from sender.validation import (
    MOST_JUDGED,
    InvalidJSON,
    expected_at,
    find_faults,
    parse,
    pointer_in,
    pointer_to,
)

TEST_KEY = "webhook-test"
"""The natural key of probes, which no event may have."""


@dataclass(frozen=True, slots=True)
class Event:
    """A thing that happened on the website, as the CRM will be told of it."""

    id: str
    """The `webhook-id` of every attempt: a UUIDv7, unless a client of the outbox's own door chose it."""
    name: str
    """The webhook, such as `repair-request`."""
    contract: str
    """The release that it was written for."""
    natural_key: str
    order_key: str
    reference: str
    payload: str = field(repr=False)
    """The body as it is sent, byte for byte."""
    digest: str
    """SHA-256 of the canonical content, in hexadecimal."""
    traceparent: str | None = None
    """The trace that the booking belongs to (W3C Trace Context), where the site traces."""


def event_of(name: str, source: ContractModel | Mapping[str, Any]) -> Event:
    """Check a model, or a mapping as the JSON would hold it, against today's contract.

    Raises InvalidEvent with every fault, and TypeError for what is neither.
    """
    payload = serialise(name, source)
    return event_from(name, payload, check(name, payload), traceparent=current_traceparent())


def event_from(
    name: str,
    payload: str,
    body: dict[str, Any],
    *,
    contract: str = CURRENT,
    event_id: str | None = None,
    traceparent: str | None = None,
) -> Event:
    """Return the event of a valid body, `payload` being its text; its id is a new one unless it has one."""
    webhook = RELEASES[contract][name]
    return Event(
        id=event_id or str(uuid7()),
        name=name,
        contract=contract,
        natural_key=at(body, webhook.natural_key),
        order_key=at(body, webhook.order_key),
        reference=at(body, webhook.reference),
        payload=payload,
        digest=digest(canonical_content(body, webhook)),
        traceparent=traceparent,
    )


def current_traceparent() -> str | None:
    """Return the current span's context as W3C writes it; None when nobody traces.

    Who has a span has imported OpenTelemetry: it is not imported for those who have not.
    """
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
        TraceContextTextMapPropagator,
    )

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def serialise(name: str, source: ContractModel | Mapping[str, Any]) -> str:
    """Return a body as JSON text, keeping a mapping as it was given."""
    try:
        if isinstance(source, MODELS[name]):
            return source.model_dump_json(by_alias=True, exclude_none=True, warnings=False)
        if isinstance(source, Mapping):
            return json.dumps(dict(source), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (PydanticSerializationError, TypeError, ValueError, RecursionError) as error:
        problem = f"cannot be written as JSON ({type(error).__name__})"
    else:
        raise TypeError(f"{name} takes a {MODELS[name].__name__} or a mapping, not {type(source).__name__}")
    found = _unwritable(dict(source)) if isinstance(source, Mapping) else ()
    faults = [
        Fault(pointer_to(path), f"{what}, which JSON cannot hold", expected_at(name, path))
        for path, what in dict(islice(found, MOST_JUDGED)).items()
    ]
    raise InvalidEvent(name, faults or [Fault("", problem, "what JSON can hold")])


def _unwritable(value: Any, path: Path = (), verb: str = "is") -> Iterator[tuple[Path, str]]:
    """Yield where what JSON cannot hold stands, such as a datetime, by two names at most, and what it is.

    No field of the contract stands deeper; a mapping that holds itself has no end.
    """
    match value:
        case dict():
            for name, part in value.items() if len(path) < 3 else ():
                if isinstance(name, str) and name.isidentifier():
                    yield from _unwritable(part, (*path, name), "is" if len(path) < 2 else "holds")
        case list() | tuple():
            for part in value:
                if not isinstance(part, dict | list | tuple):
                    yield from _unwritable(part, path, "holds")
        case str() | int() | None:
            pass
        case float() if math.isfinite(value):
            pass
        case _:
            what = "no finite number" if isinstance(value, float) else f"a {type(value).__name__}"
            yield path[:2], f"{verb} {what}"


def check(name: str, payload: str, contract: str = CURRENT) -> dict[str, Any]:
    """Return the body that a text holds. Raises InvalidEvent with all that a release's contract refuses in it."""
    body, faults = _read(name, payload, contract)
    if faults:  # raised here, where no other error is at hand whose context would keep the payload
        raise InvalidEvent(name, faults, "the contract" if contract == CURRENT else f"contract {contract}")
    return cast(dict[str, Any], body)


def _read(name: str, payload: str, contract: str) -> tuple[Any, list[Fault]]:
    try:
        body = parse(payload)
    except InvalidJSON as error:
        pointer = pointer_in(RELEASES[contract][name], error.path)
        return None, [Fault(pointer, str(error), "JSON as RFC 8259 has it")]
    if faults := faults_of(name, payload, body, contract):
        return None, faults
    webhook = RELEASES[contract][name]
    if at(body, webhook.natural_key) == TEST_KEY:
        return None, [Fault(pointer_to(webhook.natural_key), "is reserved for tests", "another id")]
    return body, []


def faults_of(name: str, payload: str, body: Any, contract: str) -> list[Fault]:
    """Return all that a release's contract refuses in a body, `payload` being its text."""
    if faults := find_faults(body, RELEASES[contract][name], contract):
        return faults
    if contract == CURRENT:  # the models are today's
        try:
            MODELS[name].model_validate_json(payload, by_alias=True, by_name=False)
        except ValidationError:
            return [Fault("", "is refused by the model", "what the contract says")]
    return []


def at(body: dict[str, Any], path: Path) -> str:
    """Return the string at a path of a valid body."""
    value: Any = body
    for name in path:
        value = value[name]
    return cast(str, value)


def canonical_content(body: dict[str, Any], webhook: Webhook) -> str:
    """Return what two sendings of one event agree in, as canonical JSON (RFC 8785).

    Without the contract's `x-identity: false` fields, and with every date-time in UTC.
    """
    body = {name: dict(part) if isinstance(part, dict) else part for name, part in body.items()}
    for path in webhook.not_identity:
        parent = _parent(body, path)
        parent.pop(path[-1], None)
    for path in webhook.times:
        parent = _parent(body, path)
        if path[-1] in parent:
            parent[path[-1]] = in_utc(parent[path[-1]])
    return canonical(body)


def _parent(body: dict[str, Any], path: Path) -> dict[str, Any]:
    for name in path[:-1]:
        body = body.get(name, {})
    return body


def in_utc(text: str) -> str:
    """Return an RFC 3339 time in UTC, with `Z` and no trailing zeros; as it is where UTC has no such year."""
    if text.endswith("Z") and "." not in text:
        return text
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError:
        return text
    shown = moment.replace(tzinfo=None).isoformat()
    return (shown.rstrip("0").rstrip(".") if moment.microsecond else shown) + "Z"


def canonical(body: dict[str, Any]) -> str:
    """Return a JSON object as RFC 8785 writes it.

    jsonschema-rs does so too, and fast, unless there are names beyond U+FFFF, which it orders by code
    points, numbers that ECMAScript prints with an exponent, or integers that are no double.
    """
    text = to_string(body)
    is_plain = text.isascii() or len(text.encode("utf-16-le")) == 2 * len(text)
    return text if is_plain and not _ODD_NUMBER.search(text) else _canonical(body)


_ODD_NUMBER = re.compile(r"[:,\[]-?(?:0\.000000|[0-9]{16})")
"""Where such a number may stand, or a text that looks like one."""


def _canonical(value: Any) -> str:
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, dict):
        ordered = sorted(value.items(), key=_utf16) if not "".join(value).isascii() else sorted(value.items())
        return "{" + ",".join(f"{encode_basestring(name)}:{_canonical(part)}" for name, part in ordered) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _number(float(value))


def _utf16(member: tuple[str, Any]) -> bytes:
    return member[0].encode("utf-16-be")


def _number(number: float) -> str:
    """Return a number as ECMAScript prints it (ECMA-262, Number::toString)."""
    if number == 0:
        return "0"
    mantissa, _, exponent = f"{abs(number)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    leading = len(whole + fraction) - len(digits)
    point = len(whole) - leading + int(exponent or 0)
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        text = digits + "0" * (point - count)
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        power = f"e{point - 1:+d}"
        text = digits + power if count == 1 else f"{digits[0]}.{digits[1:]}{power}"
    return f"-{text}" if number < 0 else text


def digest(content: str) -> str:
    """Return the SHA-256 of a text, in hexadecimal."""
    return sha256(content.encode()).hexdigest()


def is_intact(payload: str, digest_: str, webhook: Webhook) -> bool:
    """Say whether a stored body is still the one that this digest was taken of."""
    try:
        return digest(canonical_content(json.loads(payload), webhook)) == digest_
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False


def uuid7() -> uuid.UUID:
    """Return a new UUID that sorts by time (RFC 9562, section 5.7)."""
    random = int.from_bytes(os.urandom(10))
    return uuid.UUID(
        int=(time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80
        | 7 << 76
        | (random >> 68) << 64
        | 2 << 62
        | random & (1 << 62) - 1
    )
