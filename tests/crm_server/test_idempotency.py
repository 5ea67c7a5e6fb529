"""The canonical content of an event, and the verdict on a second one: pure, in tables."""

import json

import pytest

from crm_server.idempotency import (
    Conflict,
    Duplicate,
    Identity,
    Known,
    New,
    Verdict,
    canonical_content,
    canonical_json,
    canonical_number,
    decide,
    in_utc,
)
from generated.operations import WEBHOOKS
from tests.factories import repair_request


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (299.99, "299.99"),
        (1e16, "10000000000000000"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (0.000001, "0.000001"),
        (1e-7, "1e-7"),
        (1.25e-10, "1.25e-10"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (9007199254740993, "9007199254740992"),
        (333333333.33333329, "333333333.3333333"),
    ],
)
def test_numbers_are_written_as_ecmascript_writes_them(number: float, text: str) -> None:
    assert canonical_number(number) == text


def test_names_are_sorted_by_their_utf_16_code_units() -> None:
    assert canonical_json({"\ufb33": 1, "\U0001f600": 2, "\u20ac": 3, "a": 4, "A": 5}) == (
        '{"A":5,"a":4,"\u20ac":3,"\U0001f600":2,"\ufb33":1}'
    )


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-12-13T10:00:00Z", "2024-12-13T10:00:00Z"),
        ("2024-12-13T10:00:00+00:00", "2024-12-13T10:00:00Z"),
        ("2024-12-13T10:00:00-00:00", "2024-12-13T10:00:00Z"),
        ("2024-12-13T10:00:00.500+01:00", "2024-12-13T09:00:00.5Z"),
        ("2024-12-13T10:00:00.000000Z", "2024-12-13T10:00:00Z"),
        ("2024-12-13T10:00:10.100000Z", "2024-12-13T10:00:10.1Z"),
        ("2024-12-13T10:00:00.000001Z", "2024-12-13T10:00:00.000001Z"),
        ("2024-12-31T23:30:00-05:30", "2025-01-01T05:00:00Z"),
        ("0001-01-01T00:00:00+00:01", "0001-01-01T00:00:00+00:01"),
        ("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59-23:59"),
        ("0099-03-01T00:00:00Z", "0099-03-01T00:00:00Z"),
    ],
)
def test_times_are_written_in_utc_without_trailing_zeros(text: str, utc: str) -> None:
    assert in_utc(text) == utc


def test_the_content_leaves_the_body_as_it_was() -> None:
    body = repair_request(repair__createdAt="2024-12-13T10:00:00+01:00")
    before = json.dumps(body)
    content = json.loads(canonical_content(WEBHOOKS["repair-request"], body))
    assert json.dumps(body) == before
    assert content["repair"]["createdAt"] == "2024-12-13T09:00:00Z"
    assert content["metadata"] == {"source": "revivatech", "bookingChannel": "website"}


STORED = Known("1", Identity("repair-request", "key", "id", "digest"))
OTHER = Known("2", Identity("repair-request", "other", "other-id", "digest"))


@pytest.mark.parametrize(
    ("event", "known", "verdict"),
    [
        (Identity("repair-request", "key", "id", "digest"), [], New()),
        (Identity("repair-request", "key", "id", "digest"), [STORED], Duplicate(STORED)),
        (Identity("repair-request", "key", None, "digest"), [STORED], Duplicate(STORED)),
        (Identity("repair-request", "key", "new-id", "digest"), [STORED], Duplicate(STORED)),
        (Identity("repair-request", "key", "id", "else"), [STORED], Conflict("conflict", STORED)),
        (Identity("repair-request", "key", "new-id", "else"), [STORED], Conflict("conflict", STORED)),
        (
            Identity("repair-request", "new", "id", "digest"),
            [STORED],
            Conflict("webhook-id-conflict", STORED),
        ),
        (
            Identity("customer-registration", "key", "id", "digest"),
            [STORED],
            Conflict("webhook-id-conflict", STORED),
        ),
        (
            Identity("repair-request", "key", "other-id", "digest"),
            [STORED, OTHER],
            Conflict("webhook-id-conflict", OTHER),
        ),
    ],
)
def test_an_event_is_judged_by_its_natural_key_and_its_webhook_id(
    event: Identity, known: list[Known], verdict: Verdict
) -> None:
    assert decide(event, known) == verdict
