"""What each answer of the CRM does to its event: the rows of "a delivery's life in the sender"."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest

from generated.operations import CURRENT
from sender import Relay
from sender.database import uncovered
from sender.delivery import read_retry_after
from tests.factories import repair_request
from tests.receiver import Answer, Receiver, Reply, Request, always, first, html, problem, receipt, reply
from tests.sender.site import SCHEDULE, Site, eventually, running

FAULTS = [{"pointer": "/repair/priority", "detail": "is not allowed", "expected": "normal or high"}]


def cut(request: Request) -> Reply:
    """Promise more than comes."""
    return Reply([b"HTTP/1.1 202 Accepted\r\ncontent-length: 500\r\n\r\n{"], then="close")


RETRIED: dict[str, Answer] = {
    "a receipt of another event": lambda request: receipt(request, natural_key="another"),
    "a receipt of other content": lambda request: receipt(request, digest="0" * 64),
    "a test's 200": always(reply(200, {"status": "test_ok"})),
    "the outbox's own queued": lambda request: receipt(request, status="queued"),
    "an empty 202": always(reply(202)),
    "a proxy's 202": html(202),
    "a proxy's 200": html(200),
    "a 204": always(reply(204)),
    "a receipt with status 200": lambda request: Reply(
        [b"".join(receipt(request).parts).replace(b"202", b"200", 1)]
    ),
    "a receipt that is no object": always(reply(202, [])),
    "a receipt that nests too deep": always(reply(202, "[" * 60_000)),
    "408": problem(408, "request-timeout"),
    "425": always(reply(425)),
    "500": problem(500, "internal-error"),
    "502 of a proxy": html(502),
    "503 without Retry-After": problem(503, "unavailable"),
    "an unknown 5xx": always(reply(599)),
    "a cut answer": cut,
    "a reset": always(Reply([], then="reset")),
    "an end without an answer": always(Reply([], then="close")),
    "no HTTP": always(Reply([b"\x00\xff\x00 hello\r\n\r\n"], then="close")),
    "no HTTP but another protocol": always(Reply([b"SSH-2.0-OpenSSH_9.2\r\n"], then="close")),
    "101": always(Reply([b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"], then="close")),
}


@pytest.mark.parametrize("answer", RETRIED.values(), ids=RETRIED)
def test_what_is_no_receipt_of_this_event_is_sent_again_and_fails_after_the_last_delay(
    site: Site, receiver: Receiver, answer: Answer
) -> None:
    receiver.event = answer
    [event] = site.book()
    summary = site.drain()
    row = site.row(event)
    assert (summary.failed, row["status"], row["attempts"]) == (1, "failed", len(SCHEDULE) + 1)
    assert {request.id for request in receiver.events} == {event}
    assert len({request.body for request in receiver.events}) == 1
    assert (uncovered(row["payload"]) or "").encode() == receiver.events[0].body
    assert site.verbs(event) == ["attempted"] * len(SCHEDULE) + ["failed"]


@pytest.mark.parametrize("answer", RETRIED.values(), ids=RETRIED)
def test_it_is_delivered_once_the_answer_is_right(site: Site, receiver: Receiver, answer: Answer) -> None:
    receiver.event = first(answer, answer)
    [event] = site.book()
    assert site.drain().all_delivered
    assert site.status(event) == "delivered"


def test_the_delays_are_those_of_the_schedule(site: Site, receiver: Receiver) -> None:
    receiver.event = problem(500, "internal-error")
    [event] = site.book()
    site.drain()
    times = [row["at"] for row in site.rows("SELECT at FROM crm_outbox_trail ORDER BY number")]
    gaps = [after - before for before, after in pairwise(times)]
    assert len(gaps) == len(SCHEDULE)
    assert all(gap >= delay for gap, delay in zip(gaps, SCHEDULE, strict=True))
    assert site.status(event) == "failed"


def test_a_delivered_event_keeps_its_digest_ids_and_times_and_loses_its_payload(
    site: Site, receiver: Receiver
) -> None:
    [event] = site.book()
    before = dict(site.row(event))
    assert site.drain().delivered == 1
    after = dict(site.row(event))
    kept = ("id", "event", "contract", "natural_key", "order_key", "reference", "digest", "enqueued_at")
    assert [after[name] for name in kept] == [before[name] for name in kept]
    assert after["payload"] is None
    assert after["finished_at"] >= before["enqueued_at"]
    assert site.verbs(event) == ["delivered"]


def test_the_request_is_what_the_contract_says(site: Site, receiver: Receiver) -> None:
    [event] = site.book()
    site.drain()
    [request] = receiver.events
    assert request.path == "/webhooks/repair-request"
    assert request.headers["authorization"].startswith("Bearer ")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == event
    assert request.headers["webhook-contract"] == CURRENT


def _in_ten_minutes() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 1),
        ("7", 7),
        ("999999", 3600),
        ("9" * 5000, 3600),
        ("soon", 1),
        ("-5", 1),
        ("1e3", 1),
        ("", 1),
        ("²", 1),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        ("Mon, 01 Jan 1990 00:00:00 GMT", 1),
        ("Mon, 01 Jan 0001 00:00:00 -0000", 3600),  # year 1 is read as 2001, after this clock
        ("Fri, 31 Dec 99999 23:59:59 GMT", 1),
    ],
)
def test_retry_after_is_read_in_both_forms_and_kept_within_bounds(
    value: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sender.delivery.SHORTEST_WAIT", 1.0)
    now = 0.0 if "0001" in value else datetime(2026, 11, 24, tzinfo=UTC).timestamp()
    assert read_retry_after(value, now) == seconds


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "retry_after", ["0", "soon", format_datetime(datetime(2001, 1, 1, tzinfo=UTC), usegmt=True)]
)
def test_a_request_for_patience_does_not_count(
    site: Site, receiver: Receiver, status: int, retry_after: str
) -> None:
    patience = always(reply(status, retry_after=retry_after))
    receiver.event = first(*[patience] * (len(SCHEDULE) + 3))
    [event] = site.book()
    assert site.drain().all_delivered
    assert site.row(event)["attempts"] == 1
    assert len(receiver.events) == len(SCHEDULE) + 4


def test_a_429_without_retry_after_does_not_count_either(site: Site, receiver: Receiver) -> None:
    receiver.event = first(*[always(reply(429))] * (len(SCHEDULE) + 3))
    site.book()
    assert site.drain().all_delivered


@pytest.mark.parametrize("retry_after", [lambda: "600", _in_ten_minutes], ids=["seconds", "a date"])
def test_a_request_for_patience_stops_the_whole_relay(
    site: Site, receiver: Receiver, retry_after: Callable[[], str]
) -> None:
    waited = 0.0
    receiver.event = first(always(reply(503, retry_after=retry_after())))
    relay = Relay(site.settings(), threads=1, monotonic=lambda: time.monotonic() + waited)
    site.book(5)
    with running(relay):
        eventually(lambda: receiver.events, "the first attempt")
        eventually(
            lambda: "attempted" in [r["verb"] for r in site.rows("SELECT verb FROM crm_outbox_trail")], "it"
        )
        seen = len(receiver.events)
        site.book(5)
        beats = "SELECT seen_at FROM crm_outbox_relays"
        beat = site.rows(beats)[0]["seen_at"]
        eventually(lambda: site.rows(beats)[0]["seen_at"] > beat, "another turn of the relay")
        assert len(receiver.events) == seen == 1
        waited = 700.0
        eventually(lambda: set(site.statuses()) == {"delivered"}, "all is delivered after the wait")


def test_after_patience_one_is_in_flight_and_then_more(site: Site, receiver: Receiver) -> None:
    at_once, most = 0, []

    def slow(request: Request) -> Reply:
        nonlocal at_once
        at_once += 1
        most.append(at_once)
        time.sleep(0.02)
        at_once -= 1
        return receipt(request)

    site.book(20)
    receiver.event = first(always(reply(429, retry_after="0")), then=slow)
    assert Relay(site.settings(), threads=1).run(drain=True).all_delivered
    most.clear()
    site.book(20)
    receiver.event = first(*[always(reply(429, retry_after="0"))] * 4, then=slow)
    assert site.drain().all_delivered
    assert most[0] == 1
    assert max(most) > 1


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid-event"), (409, "conflict"), (413, "content-too-large")]
)
def test_a_judgement_of_the_crm_fails_the_event_at_once_and_is_kept(
    site: Site, receiver: Receiver, status: int, kind: str
) -> None:
    receiver.event = first(problem(status, kind, errors=FAULTS))
    [event, other] = site.book(2)
    assert site.drain().failed == 1
    row = site.row(event) if site.status(event) == "failed" else site.row(other)
    assert row["attempts"] == 1
    answer = json.loads(row["answer"])
    assert (answer["status"], answer["type"], answer["contract"]) == (status, kind, CURRENT)
    assert answer["pointers"] == ["/repair/priority"]
    assert len(receiver.events) == 2


def test_what_the_crm_says_is_kept_within_bounds_and_never_breaks_the_relay(
    site: Site, receiver: Receiver
) -> None:
    strange = [{"pointer": "/" + "x" * 9_000, "detail": 7, "expected": None}, "no object"] * 3
    receiver.event = problem(400, "t" * 9_000, errors=strange, existing=["no", "object"])
    [event] = site.book()
    site.drain()
    assert site.status(event) == "failed"
    assert len(site.row(event)["answer"]) < 50_000


def test_of_the_faults_only_pointers_are_kept_for_words_may_be_the_customers(
    site: Site, receiver: Receiver
) -> None:
    told = [
        {"pointer": "/repair/notes", "detail": "got 'ada@example.com'", "expected": "Ada"},
        {"pointer": "ada@example.com", "detail": "", "expected": ""},
        {"pointer": "#webhook-id", "detail": "", "expected": ""},
    ]
    receiver.event = problem(400, "invalid-event", errors=told)
    [event] = site.book()
    site.drain()
    assert json.loads(site.row(event)["answer"])["pointers"] == ["/repair/notes", "#webhook-id"]
    assert "ada@" not in site.row(event)["answer"] + site.cli("failed", "--json").stdout


def test_a_proxys_problem_that_names_no_type_is_no_judgement_of_an_event(
    site: Site, receiver: Receiver
) -> None:
    receiver.event = receiver.test = problem(400, "about:blank")
    site.book(3)
    summary = site.drain()
    assert (summary.failed, summary.held + summary.pending) == (0, 3)


@pytest.mark.parametrize("when_away", ["wait", "fail"])
def test_a_crm_that_is_unwell_and_asks_for_patience_ends_a_drain(
    site: Site, receiver: Receiver, when_away: str
) -> None:
    receiver.event = receiver.health = always(reply(503, retry_after="1"))
    [event] = site.book()
    site.drain(when_away=when_away)
    assert site.status(event) == {"wait": "pending", "fail": "failed"}[when_away]
    assert site.row(event)["attempts"] == {"wait": 0, "fail": len(SCHEDULE) + 1}[when_away]


def test_a_failed_event_does_not_hold_back_the_next_of_its_customer(site: Site, receiver: Receiver) -> None:
    receiver.event = first(problem(400, "invalid-event"))
    wrong, right = site.book(2, customer__websiteUserId="ada")
    site.drain()
    assert (site.status(wrong), site.status(right)) == ("failed", "delivered")


def test_a_poison_event_fails_and_stops_nobody_else(site: Site, receiver: Receiver) -> None:
    [poison] = site.book(customer__websiteUserId="poisoner")
    later = site.book(customer__websiteUserId="poisoner")
    others = site.book(20)
    receiver.event = lambda request: reply(500) if request.id == poison else receipt(request)
    summary = site.drain()
    assert (summary.failed, summary.delivered) == (1, 21)
    assert [site.status(event) for event in (poison, *later)] == ["failed", "delivered"]
    order = [request.id for request in receiver.events]
    assert order.index(others[-1]) < len(order) - 1 - order[::-1].index(poison)


def test_events_of_one_customer_arrive_in_their_order_retries_included(
    site: Site, receiver: Receiver
) -> None:
    told = [
        site.crm().repair_requested(repair_request(customer__websiteUserId=f"customer-{number % 3}"))
        for number in range(30)
    ]
    failing = iter(range(1_000))
    receiver.event = lambda request: reply(500) if next(failing) % 3 == 0 else receipt(request)
    site.drain(retry_schedule=(0.01,) * 12)
    taken: dict[str, list[str]] = {}
    for row in site.rows("SELECT id, order_key, finished_at FROM crm_outbox ORDER BY finished_at, sequence"):
        taken.setdefault(row["order_key"], []).append(row["id"])
    for number in range(3):
        assert taken[f"customer-{number}"] == told[number::3]
    for customer, in_order in taken.items():
        ids = [request.id for request in receiver.events if request.customer == customer]
        assert sorted(ids, key=in_order.index) == ids
