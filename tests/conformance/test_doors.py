"""The CRM's door and the outbox's: the same contract, asked the same, answers the same, but for who has the event.

Real servers, bare sockets: both get the very same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from generated.operations import WEBHOOKS
from tests.contract.contracts import guide_payload
from tests.crm_server.answers import Answer, exchange
from tests.crm_server.test_hostile_http import CASES, CUT_OFF, HEALTH, sized
from tests.crm_server.test_json import ACCEPTED, REFUSED
from tests.factories import FACTORIES, customer_registration, repair_request
from tests.sender.integration.server import Server, start_server
from tests.servers import Crm, start_crm

Verdict = tuple[int, str | None]


@pytest.fixture(scope="module")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    with start_crm(tmp_path_factory.mktemp("crm")) as started:
        yield started


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start_server(tmp_path_factory.mktemp("door")) as started:
        yield started


def verdicts(answers: list[Answer]) -> list[Verdict]:
    """Return status and problem type of each answer; an empty one is the HTTP server's own."""
    return [
        (answer.status, answer.json.get("type") if answer.body and answer.status >= 400 else None)
        for answer in answers
    ]


def both(crm: Crm, door: Server, request: bytes, *, half_close: bool = False) -> list[list[Verdict]]:
    """Send the same bytes to both; return what each answers."""
    return [
        verdicts(exchange(server, request, half_close=half_close))  # type: ignore[arg-type]  # of both, the port
        for server in (crm, door)
    ]


@pytest.mark.parametrize("name", CASES)
def test_a_trick_is_answered_alike(crm: Crm, door: Server, name: str) -> None:
    request, statuses = CASES[name]
    of_crm, of_door = both(crm, door, request + HEALTH)
    assert of_door == of_crm
    assert [status for status, _ in of_door] == statuses
    assert not door.rows("SELECT 1 FROM crm_outbox WHERE natural_key = 'smuggled'")


@pytest.mark.parametrize("place", CUT_OFF)
def test_a_request_that_is_cut_off_is_answered_alike(crm: Crm, door: Server, place: str) -> None:
    request, statuses = CUT_OFF[place]
    of_crm, of_door = both(crm, door, request, half_close=True)
    assert of_door == of_crm
    assert [status for status, _ in of_door] == statuses


def asked(crm: Crm, door: Server, body: bytes, *lines: str, event: str = "repair-request") -> Verdict:
    """Send a webhook to both, which must agree; return what they answer."""
    start = f"POST /webhooks/{event} HTTP/1.1"
    of_crm, of_door = both(crm, door, sized(body, "Connection: close", *lines, start=start))
    assert of_door == of_crm
    [verdict] = of_door
    return verdict


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_a_body_that_readers_could_differ_on_is_refused_alike(crm: Crm, door: Server, body: bytes) -> None:
    assert asked(crm, door, body) == (400, "invalid-json")


@pytest.mark.parametrize("body", ACCEPTED.values(), ids=ACCEPTED)
def test_unusual_but_clear_json_is_taken_alike(crm: Crm, door: Server, body: bytes) -> None:
    fresh = body.replace(b'"booking-', f'"c{abs(hash(body)) % 10**9}-'.encode())
    assert asked(crm, door, fresh) == (202, None)


HEADERS: dict[str, list[str]] = {
    "an id": ["webhook-id: mine"],
    "the id of another": ["webhook-id: mine"],
    "no id": ["webhook-id: "],
    "an id with a space": ["webhook-id: a b"],
    "an id of 129": [f"webhook-id: {'x' * 129}"],
    "an id of 128": [f"webhook-id: {'x' * 128}"],
    "two ids": ["webhook-id: a", "webhook-id: b"],
    "a release": ["webhook-contract: 1.0.0"],
    "no release": ["webhook-contract: "],
    "an unknown release": ["webhook-contract: 0.0.1"],
    "a release that is too long": [f"webhook-contract: {'1' * 33}"],
    "an unknown release and a wrong id": ["webhook-contract: 0.0.1", "webhook-id: /"],
    "a test": ["webhook-test: true"],
    "a test that is none": ["webhook-test: TRUE"],
    "two tests": ["webhook-test: true", "webhook-test: true"],
    "a time": ["webhook-timestamp: 1734084000"],
    "a time that is none": ["webhook-timestamp: now"],
    "a signature that nobody asked for": ["webhook-signature: v1,x"],
    "two keys": ["Authorization: Bearer x"],
    "another charset": ["Content-Type: application/json; charset=latin-1"],
    "a coding": ["Content-Encoding: gzip"],
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("valid", [True, False], ids=["a valid body", "one with two faults"])
def test_headers_are_judged_alike(crm: Crm, door: Server, name: str, valid: bool) -> None:
    payload = repair_request() if valid else repair_request(repair__priority=1, customer__email="x")
    asked(crm, door, json.dumps(payload).encode(), *HEADERS[name])


def changed(payload: Any, block: str, name: str, value: object) -> bytes:
    return json.dumps(payload | {block: payload[block] | {name: value}}).encode()


def test_an_identity_is_judged_alike(crm: Crm, door: Server) -> None:
    payload = repair_request()
    body = json.dumps(payload).encode()
    own, other = f"webhook-id: {payload['repair']['websiteRepairId']}", "webhook-id: other"
    assert asked(crm, door, body, own) == (202, None)
    for lines in ([own], [other], []):
        assert asked(crm, door, body, *lines) == (202, None)
        assert asked(crm, door, changed(payload, "repair", "notes", "Other"), *lines) == (409, "conflict")
    assert asked(crm, door, changed(payload, "metadata", "timestamp", "2026-01-01T00:00:00Z")) == (202, None)
    same_time = changed(payload, "repair", "createdAt", "2024-12-13T11:00:00.0+01:00")
    assert asked(crm, door, same_time) == (202, None)
    new = json.dumps(repair_request()).encode()
    assert asked(crm, door, new, own) == (409, "webhook-id-conflict")
    registration = json.dumps(customer_registration()).encode()
    verdict = asked(crm, door, registration, own, event="customer-registration")
    assert verdict == (409, "webhook-id-conflict")


def test_a_reserved_key_is_judged_alike(crm: Crm, door: Server) -> None:
    body = json.dumps(repair_request(repair__websiteRepairId="webhook-test")).encode()
    assert asked(crm, door, body) == (400, "reserved-natural-key")
    assert asked(crm, door, body, "webhook-test: true") == (200, None)


@pytest.mark.parametrize("event", FACTORIES)
def test_an_event_is_taken_once_alike(crm: Crm, door: Server, event: str) -> None:
    body = json.dumps(FACTORIES[event]()).encode()
    for _ in range(2):
        assert asked(crm, door, body, event=event) == (202, None)
    assert asked(crm, door, b"{}", event=event) == (400, "invalid-event")


def test_a_webhook_that_a_release_does_not_have_is_refused_alike(crm: Crm, door: Server) -> None:
    body = json.dumps(FACTORIES["payment-status"]()).encode()
    verdict = asked(crm, door, body, "webhook-contract: 1.0.0", event="payment-status")
    assert verdict == (400, "unsupported-contract-version")


RECEIPTS: dict[str, tuple[str, str, Verdict]] = {
    "nobody's": ("GET", "/nobody", (404, "unknown-receipt")),
    "what can be no id": ("GET", "/a%20b", (400, "malformed-request")),
    "too long an id": ("GET", f"/{'x' * 129}", (400, "malformed-request")),
    "none": ("GET", "/", (404, "not-found")),
    "all": ("GET", "", (404, "not-found")),
    "below one": ("GET", "/a/b", (404, "not-found")),
    "HEAD": ("HEAD", "/nobody", (404, None)),
    "POST": ("POST", "/nobody", (405, "method-not-allowed")),
    "DELETE": ("DELETE", "/nobody", (405, "method-not-allowed")),
}


@pytest.mark.parametrize("name", RECEIPTS)
def test_a_question_about_a_receipt_is_answered_alike(crm: Crm, door: Server, name: str) -> None:
    method, path, verdict = RECEIPTS[name]
    request = sized(b"", "Connection: close", start=f"{method} /webhooks/receipts{path} HTTP/1.1")
    of_crm, of_door = both(crm, door, request)
    assert of_door == of_crm == [verdict]


def test_a_receipt_says_the_same_but_for_who_has_the_event(crm: Crm, door: Server) -> None:
    request = sized(json.dumps(repair_request()).encode(), "Connection: close")
    told = []
    for server in (crm, door):
        receipt = exchange(server, request)[0].json  # type: ignore[arg-type]
        question = f"GET /webhooks/receipts/{receipt['id']} HTTP/1.1"
        found = exchange(server, sized(b"", "Connection: close", start=question))[0].json  # type: ignore[arg-type]
        assert found["id"] == receipt["id"]
        told.append(found)
    assert [each["status"] for each in told] == ["pending_approval", "queued"]
    assert {each["event"] for each in told} == {"repair-request"}
    assert told[0].keys() == told[1].keys()
    assert all(each["received_at"].endswith("Z") for each in told)


@pytest.mark.parametrize("event", WEBHOOKS)
def test_the_guides_payload_is_taken_alike_and_bears_the_same_digest(
    crm: Crm, door: Server, event: str
) -> None:
    request = sized(
        guide_payload(event).encode(), "Connection: close", start=f"POST /webhooks/{event} HTTP/1.1"
    )
    receipts = [exchange(server, request)[0].json for server in (crm, door)]  # type: ignore[arg-type]
    assert [receipt["status"] for receipt in receipts] == ["pending_approval", "queued"]
    for name in ("natural_key", "digest", "duplicate"):
        assert receipts[0][name] == receipts[1][name]
