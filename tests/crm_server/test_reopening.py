"""Decisions that are taken back, and the tickets that come of those that stand, over HTTP."""

from collections.abc import Mapping
from typing import Any

import pytest

from crm_server.decisions import TICKET_TRANSITIONS
from crm_server.staff import Role
from tests.crm_server.answers import Answer, ask, post
from tests.crm_server.conftest import ON_BOTH_IN_TIME
from tests.factories import customer_registration, repair_request
from tests.servers import Crm

pytestmark = ON_BOTH_IN_TIME

Tokens = Mapping[Role, str]


def receive(crm: Crm, event: str, payload: dict[str, Any]) -> str:
    return str(post(crm, event, payload).json["id"])


def decide(crm: Crm, tokens: Tokens, approval: str, verb: str, *payload: Any) -> Answer:
    return ask(crm, tokens["approver"], "POST", f"/approvals/{approval}/{verb}", *payload)


def change(crm: Crm, tokens: Tokens, ticket: str, what: str, **payload: str) -> Answer:
    return ask(crm, tokens["approver"], "POST", f"/tickets/{ticket}/{what}", payload)


def ticket_of(crm: Crm, payload: dict[str, Any]) -> str | None:
    key = payload["repair"]["websiteRepairId"]
    rows = crm.rows("SELECT id FROM tickets WHERE website_repair_id = ?", key)
    return rows[0]["id"] if rows else None


def customer_of(crm: Crm, payload: dict[str, Any]) -> Any:
    key = payload["customer"]["websiteUserId"]
    rows = crm.rows("SELECT * FROM customers WHERE website_user_id = ?", key)
    return rows[0] if rows else None


@pytest.fixture
def payload() -> dict[str, Any]:
    return repair_request()


@pytest.fixture
def approved(crm: Crm, tokens: Tokens, payload: dict[str, Any]) -> str:
    """The id of a repair request that was approved."""
    approval = receive(crm, "repair-request", payload)
    assert decide(crm, tokens, approval, "approve").status == 200
    return approval


@pytest.fixture
def ticket(crm: Crm, approved: str, payload: dict[str, Any]) -> str:
    return str(ticket_of(crm, payload))


def test_an_approval_taken_back_leaves_nothing_but_the_trail_and_can_be_made_again(
    crm: Crm, tokens: Tokens, payload: dict[str, Any], approved: str, ticket: str
) -> None:
    answer = decide(crm, tokens, approved, "reopen").json
    assert (answer["status"], answer["decided_by"], answer["decided_at"]) == ("pending_approval", None, None)
    assert [entry["verb"] for entry in answer["history"]] == ["approve", "reopen"]
    assert (ticket_of(crm, payload), customer_of(crm, payload)) == (None, None)
    trail = ask(crm, tokens["viewer"], "GET", f"/audit?record_id={ticket}").json["items"]
    assert [entry["verb"] for entry in trail] == ["remove", "open"]
    assert decide(crm, tokens, approved, "approve").json["status"] == "approved"
    assert ticket_of(crm, payload) is not None


def test_a_rejection_taken_back_forgets_its_reason(crm: Crm, tokens: Tokens, payload: dict[str, Any]) -> None:
    approval = receive(crm, "repair-request", payload)
    decide(crm, tokens, approval, "reject", {"reason": "Spam"})
    assert decide(crm, tokens, approval, "reopen").json["reason"] is None
    assert decide(crm, tokens, approval, "reject", {"reason": "Still spam"}).json["reason"] == "Still spam"


def test_what_waits_cannot_be_reopened(crm: Crm, tokens: Tokens, payload: dict[str, Any]) -> None:
    approval = receive(crm, "repair-request", payload)
    answer = decide(crm, tokens, approval, "reopen")
    assert (answer.status, answer.type) == (409, "cannot-reopen")
    done = crm.cli("approvals", "reopen", approval)
    assert done.returncode == 1
    assert "waits for approval" in done.stderr


@pytest.mark.parametrize(
    ("what", "change_"),
    [("moved on", ("status", {"status": "in_repair"})), ("note", ("notes", {"text": "x"}))],
)
def test_a_ticket_on_which_something_was_done_holds_its_decision(
    crm: Crm,
    tokens: Tokens,
    payload: dict[str, Any],
    approved: str,
    ticket: str,
    what: str,
    change_: tuple[str, dict[str, str]],
) -> None:
    assert change(crm, tokens, ticket, change_[0], **change_[1]).status == 200
    answer = decide(crm, tokens, approved, "reopen")
    assert (answer.status, answer.type) == (409, "cannot-reopen")
    assert what in answer.json["detail"]
    assert ticket_of(crm, payload) == ticket
    shown = ask(crm, tokens["viewer"], "GET", f"/approvals/{approved}").json
    assert shown["status"] == "approved"


def test_a_customer_whom_a_later_decision_used_holds_the_first(
    crm: Crm, tokens: Tokens, payload: dict[str, Any], approved: str
) -> None:
    second = repair_request(customer__websiteUserId=payload["customer"]["websiteUserId"])
    later = receive(crm, "repair-request", second)
    decide(crm, tokens, later, "approve")
    answer = decide(crm, tokens, approved, "reopen")
    assert (answer.status, answer.type) == (409, "cannot-reopen")
    assert ticket_of(crm, payload) is not None, "nothing is taken back in part"
    assert decide(crm, tokens, later, "reopen").status == 200
    assert customer_of(crm, payload) is not None, "the first decision's customer stays"
    assert decide(crm, tokens, approved, "reopen").status == 200
    assert customer_of(crm, payload) is None


def test_what_a_registration_filled_in_is_empty_again_and_nothing_else(crm: Crm, tokens: Tokens) -> None:
    first = repair_request(customer__phone=...)
    user = first["customer"]["websiteUserId"]
    decide(crm, tokens, receive(crm, "repair-request", first), "approve")
    second = customer_registration(customer__websiteUserId=user, customer__firstName="Augusta")
    registration = receive(crm, "customer-registration", second)
    decide(crm, tokens, registration, "approve")
    assert customer_of(crm, first)["phone"] == "+44 20 7946 0000"
    assert decide(crm, tokens, registration, "reopen").status == 200
    customer = customer_of(crm, first)
    assert (customer["phone"], customer["language"], customer["first_name"]) == (None, None, "Ada")


def test_a_repair_fills_what_is_missing_and_that_is_empty_again_when_it_is_taken_back(
    crm: Crm, tokens: Tokens
) -> None:
    registration = customer_registration(customer__phone=...)
    decide(crm, tokens, receive(crm, "customer-registration", registration), "approve")
    user = registration["customer"]["websiteUserId"]
    before = dict(customer_of(crm, registration))
    repair = receive(
        crm, "repair-request", repair_request(customer__websiteUserId=user, customer__firstName="Augusta")
    )
    assert decide(crm, tokens, repair, "approve").status == 200
    assert dict(customer_of(crm, registration)) == before | {"phone": "+44 20 7946 0000"}, (
        "what is there stays"
    )
    trail = ask(crm, tokens["viewer"], "GET", f"/audit?record_id={before['id']}").json["items"]
    assert (trail[0]["verb"], trail[0]["pointers"]) == ("complete", ["/phone"])
    assert decide(crm, tokens, repair, "reopen").status == 200
    assert dict(customer_of(crm, registration)) == before


def test_what_is_erased_stays_decided(own_crm: Crm) -> None:
    approval = receive(own_crm, "repair-request", repair_request())
    assert own_crm.cli("approvals", "approve", approval).returncode == 0
    own_crm.rows("UPDATE approvals SET payload = NULL, erased_at = received_at")
    done = own_crm.cli("approvals", "reopen", approval)
    assert done.returncode == 1
    assert "erased" in done.stderr


def test_a_number_that_another_ticket_has_is_decided_with_one_of_its_own(
    crm: Crm, tokens: Tokens, payload: dict[str, Any], approved: str
) -> None:
    number = payload["repair"]["ticketNumber"]
    second = repair_request(repair__ticketNumber=number)
    approval = receive(crm, "repair-request", second)
    for choice in ({}, {"ticket_number": number}):
        answer = decide(crm, tokens, approval, "approve", choice)
        assert (answer.status, answer.type) == (409, "number-taken")
    assert crm.cli("approvals", "approve", approval).returncode == 1
    done = crm.cli("approvals", "approve", approval, "--ticket-number", f"{number}-B")
    assert done.returncode == 0, done.stderr
    (row,) = crm.rows("SELECT ticket_number FROM tickets WHERE id = ?", ticket_of(crm, second))
    assert row["ticket_number"] == f"{number}-B"


def test_a_ticket_goes_one_step_at_a_time_and_never_back(crm: Crm, tokens: Tokens, ticket: str) -> None:
    status = "open"
    while status in TICKET_TRANSITIONS:
        for other in ("in_repair", "ready", "closed"):
            if other != TICKET_TRANSITIONS[status]:
                answer = change(crm, tokens, ticket, "status", status=other)
                assert (answer.type, answer.json["ticket_status"]) == ("ticket-moved", status)
        status = TICKET_TRANSITIONS[status]
        assert change(crm, tokens, ticket, "status", status=status).json["status"] == status
    history = ask(crm, tokens["viewer"], "GET", f"/tickets/{ticket}").json["history"]
    assert [entry["verb"] for entry in history] == ["open", "in_repair", "ready", "closed"]
    assert {entry["actor"] for entry in history} == {"staff:Approver"}


@pytest.mark.engines("sqlite")
def test_the_database_knows_no_other_state(crm: Crm) -> None:
    (table,) = crm.rows("SELECT sql FROM sqlite_master WHERE name = 'tickets'")
    states = {*TICKET_TRANSITIONS, *TICKET_TRANSITIONS.values()}
    assert table["sql"].count("CHECK") == 1
    assert all(f"'{state}'" in table["sql"] for state in states)


def test_notes_are_staffs_own_and_masked_for_viewers(crm: Crm, tokens: Tokens, ticket: str) -> None:
    change(crm, tokens, ticket, "notes", text=" Sentinel note\n")
    notes = change(crm, tokens, ticket, "notes", text="Second").json["staff_notes"]
    assert [(note["text"], note["author"]) for note in notes] == [
        ("Sentinel note", "staff:Approver"),
        ("Second", "staff:Approver"),
    ]
    seen = ask(crm, tokens["viewer"], "GET", f"/tickets/{ticket}").json
    assert [note["text"] for note in seen["staff_notes"]] == ["•••", "•••"]
    assert seen["customer_name"] == "•••"
    assert change(crm, tokens, ticket, "notes", text=" ").type == "invalid-request"


def test_what_is_no_ticket_is_not_found(crm: Crm, tokens: Tokens) -> None:
    assert ask(crm, tokens["viewer"], "GET", "/tickets/none").status == 404
    assert change(crm, tokens, "none", "notes", text="x").status == 404
    assert change(crm, tokens, "none", "status", status="ready").status == 404
