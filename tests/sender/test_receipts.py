"""What became of a delivered event: the receipt that is kept, and what the CRM says by it, or why it says nothing."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from sender import receipts
from sender.database import reading
from sender.deliveries import story
from sender.delivery import Answer, Fault, Outcome
from sender.receipts import NOT_KEPT, STRANGER, TOO_OLD, UNKNOWN, Decided, read, with_decisions
from sender.testing import receipt_id
from tests.crm_server.conftest import ON_BOTH_IN_TIME
from tests.factories import booking_status, customer_profile, payment_status, repair_request
from tests.receiver import Receiver, Reply, Request, always, html, problem, receipt, reply
from tests.sender.engines import ENGINES
from tests.sender.site import SENTINEL, Site

ID = "0193bf5a-7c01-7000-8000-000000000002"
OUTCOME = {
    "id": ID,
    "event": "repair-request",
    "status": "pending_approval",
    "received_at": "2024-12-13T10:00:00Z",
}


def told(status: int, body: object, kind: str = "application/json") -> Answer:
    return Answer(status, kind, json.dumps(body).encode())


def of_type(status: int, type_: str) -> Answer:
    return told(status, {"type": type_, "title": "x", "status": status}, "application/problem+json")


ANSWERS: dict[str, tuple[Outcome, Decided]] = {
    "pending": (
        told(200, OUTCOME),
        Decided("pending_approval", None, "waits for the CRM's staff"),
    ),
    "approved": (
        told(200, OUTCOME | {"status": "approved", "decided_at": "2024-12-13T10:20:00.123456Z"}),
        Decided("approved", "2024-12-13T10:20:00.123456Z", "approved 2024-12-13T10:20:00.123456Z"),
    ),
    "rejected, no time": (told(200, OUTCOME | {"status": "rejected"}), Decided("rejected", None, "rejected")),
    "a word of a later release, and more": (
        told(200, OUTCOME | {"status": "deferred", "note": SENTINEL}),
        Decided("deferred", None, "deferred"),
    ),
    "of another receipt": (told(200, OUTCOME | {"id": "other"}), STRANGER),
    "of another event": (told(200, OUTCOME | {"event": "payment-status"}), STRANGER),
    "no word": (told(200, OUTCOME | {"status": f"\x1b[2J{SENTINEL}"}), STRANGER),
    "no time": (
        told(200, OUTCOME | {"status": "approved", "decided_at": SENTINEL}),
        Decided("approved", None, "approved"),
    ),
    "something else": (told(200, ["x"]), STRANGER),
    "unknown": (of_type(404, "unknown-receipt"), UNKNOWN),
    "a CRM of contract 1.0": (of_type(404, "not-found"), TOO_OLD),
    "a CRM that only takes": (of_type(405, "method-not-allowed"), TOO_OLD),
    "a proxy": (told(404, "<html>", "text/html"), STRANGER),
    "a redirect": (told(302, ""), Decided(None, None, "not told: the CRM does not say: 302 Found")),
    "a wrong key": (
        of_type(401, "unauthorized"),
        Decided(None, None, "not told: the CRM does not say: 401 Unauthorized"),
    ),
    "away": (
        Fault("refused", "Connection refused"),
        Decided(None, None, "not told: the CRM is away: Connection refused"),
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_says_what_became_of_an_event_or_why_it_is_not_known(name: str) -> None:
    outcome, decided = ANSWERS[name]
    assert read(outcome, ID, "repair-request") == decided
    assert SENTINEL not in decided.words


@pytest.mark.engines(*ENGINES)
def test_show_says_what_was_decided_by_the_receipt_that_is_kept(site: Site, receiver: Receiver) -> None:
    [event] = site.book()
    assert site.json("show", event)[0]["decided"] is None
    site.drain()
    [arrived] = receiver.events
    assert site.row(event)["receipt_id"] == receipt_id(arrived)
    [shown] = site.json("show", event)
    assert (shown["receipt_id"], shown["decided"]["status"]) == (receipt_id(arrived), "pending_approval")
    assert "decided     waits for the CRM's staff" in site.cli("show", event).stdout
    receiver.decides("approved")
    [shown] = site.json("show", event)
    assert shown["decided"]["status"] == "approved"
    assert f"decided     approved {shown['decided']['at']}" in site.cli("show", event).stdout
    assert site.json("delivered", "--since", "2024-01-01T00:00Z")[0]["receipt_id"] == receipt_id(arrived)


def test_show_tells_of_a_ticket_all_that_the_website_said_of_it(site: Site, receiver: Receiver) -> None:
    crm, repair = site.crm(), repair_request()
    ids = [
        crm.repair_requested(repair),
        crm.payment_changed(payment_status(repair)),
        crm.booking_changed(booking_status(repair)),
    ]
    crm.profile_changed(customer_profile(repair))
    site.drain()
    shown = site.json("show", repair["repair"]["ticketNumber"])
    assert [each["id"] for each in shown] == ids
    assert [each["event"] for each in shown] == ["repair-request", "payment-status", "booking-status"]
    assert {each["decided"]["status"] for each in shown} == {"pending_approval"}
    [profile] = site.json("show", repair["customer"]["websiteUserId"])
    assert profile["event"] == "customer-profile"


def test_show_says_why_the_crm_does_not_tell(site: Site, receiver: Receiver) -> None:
    [event] = site.book()
    site.drain()

    def words() -> str:
        return str(site.json("show", event)[0]["decided"]["words"])

    receiver.told = problem(404, "not-found")
    assert words() == TOO_OLD.words
    receiver.told = always(reply(302, location="http://127.0.0.1:9/"))
    assert words() == "not told: the CRM does not say: 302 Found"
    receiver.go_away()
    assert words() == "not told: the CRM is away: Connection refused"
    site.rows("UPDATE crm_outbox SET receipt_id = NULL")
    assert words() == NOT_KEPT.words
    receiver.come()


def decided(site: Site, key: str) -> list[dict[str, Any]]:
    """Return what is told of events, in this process."""
    crm = site.crm()
    with reading(crm._engine) as connection:
        found = story(connection, key)
    return with_decisions(site.settings(), found)


def test_no_more_than_some_are_asked_about_and_none_after_a_refusal(site: Site, receiver: Receiver) -> None:
    ids = site.book(receipts.MOST + 2, repair__ticketNumber="REV-7")
    site.drain()
    shown = decided(site, "REV-7")
    assert [each["id"] for each in shown] == ids
    assert [each["decided"]["status"] for each in shown] == [None] * 2 + ["pending_approval"] * receipts.MOST
    assert len(receiver.questions) == receipts.MOST
    assert "look at this one by its id" in shown[0]["decided"]["words"]
    receiver.told = problem(401, "unauthorized")
    assert {each["decided"]["status"] for each in decided(site, "REV-7")} == {None}
    assert len(receiver.questions) == receipts.MOST + 1, "a wrong key is not tried ten times"
    receiver.told = problem(404, "unknown-receipt")
    assert {each["decided"]["words"] for each in decided(site, "REV-7")[2:]} == {UNKNOWN.words}


def test_a_question_bears_the_key_and_nothing_of_the_event(site: Site, receiver: Receiver) -> None:
    [event] = site.book()
    site.drain()
    decided(site, event)
    [question] = receiver.questions
    assert (question.method, question.body) == ("GET", b"")
    assert question.headers["authorization"].startswith("Bearer ")
    assert not [name for name in question.headers if name.startswith("webhook-")]


def test_a_crm_that_does_not_answer_is_not_waited_for_long(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.book(5, repair__ticketNumber="REV-7")
    site.drain()

    def slow(request: Request) -> Reply:
        time.sleep(0.25)
        return receiver.tells(request)

    receiver.told = slow
    monkeypatch.setattr(receipts, "SECONDS", 0.6)
    began = time.monotonic()
    shown = decided(site, "REV-7")
    assert time.monotonic() - began < 2
    assert shown[-1]["decided"]["status"] == "pending_approval"
    assert shown[0]["decided"]["words"] == "not told: the CRM is away: timeout"


@ON_BOTH_IN_TIME
def test_an_id_that_nothing_can_be_asked_by_is_not_kept(site: Site, receiver: Receiver) -> None:
    ids = ["x" * 129, f"\x1b[2J{SENTINEL}", "../health", "", 7]
    left = iter(ids)
    receiver.event = lambda request: receipt(request, id=next(left))
    site.book(len(ids))
    site.drain()
    assert [(row["status"], row["receipt_id"]) for row in site.rows()] == [("delivered", None)] * len(ids)


def test_what_is_sent_again_has_the_receipt_of_the_last_delivery(site: Site, receiver: Receiver) -> None:
    body = repair_request()
    event = site.crm().repair_requested(body)
    site.drain()
    receiver.event = lambda request: receipt(request, id="another")
    site.crm().repair_requested(body, resend=True)
    assert site.json("show", event)[0]["decided"] is None
    site.drain()
    assert site.row(event)["receipt_id"] == "another"


def test_a_proxy_that_answers_for_the_crm_is_said(site: Site, receiver: Receiver) -> None:
    [event] = site.book()
    site.drain()
    receiver.told = html(200)
    assert decided(site, event)[0]["decided"]["words"] == STRANGER.words
