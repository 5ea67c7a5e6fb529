"""Payments and bookings that move on: they need no staff where the repair has been approved, and wait until then."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, select

from crm_server.approval_queue import ReceivedEvent, receive
from crm_server.audit_trail import Actor
from crm_server.database import Database, new_id, utc_now
from crm_server.erasure import erase_alone, note_erasure
from crm_server.idempotency import Identity
from crm_server.staff import Role
from crm_server.tables import approvals, customers, erasure_state, tickets
from crm_server.validation import field
from crm_server.website_approvals import settle_some
from crm_server.website_statuses import LOOKED_AT, look, told_of
from generated.operations import CURRENT, WEBHOOKS
from tests.crm_server.answers import Answer, ask, post, until
from tests.crm_server.conftest import ON_BOTH
from tests.factories import FACTORIES, Payload, booking_status, payment_status, repair_request
from tests.servers import Crm, start_crm

Tokens = Mapping[Role, str]

EACH = pytest.mark.parametrize("name", ["payment-status", "booking-status"])


def send(crm: Crm, name: str, payload: Payload) -> str:
    answer = post(crm, name, payload)
    assert answer.status == 202, answer
    return str(answer.json["id"])


def show(crm: Crm, tokens: Tokens, approval: str, role: Role = "approver") -> Any:
    return ask(crm, tokens[role], "GET", f"/approvals/{approval}").json


def decide(crm: Crm, tokens: Tokens, approval: str, verb: str, *payload: Any) -> Answer:
    return ask(crm, tokens["approver"], "POST", f"/approvals/{approval}/{verb}", *payload)


def approved(crm: Crm, tokens: Tokens, approval: str) -> Any:
    """Wait until a request is approved; return it."""

    def found() -> Any:
        seen = show(crm, tokens, approval)
        return seen if seen["status"] == "approved" else None

    return until(found)


@pytest.fixture
def repair() -> Payload:
    return repair_request()


@ON_BOTH
@EACH
def test_a_status_of_an_approved_repair_is_approved_by_itself_and_stands_on_the_ticket(
    crm: Crm, tokens: Tokens, repair: Payload, name: str
) -> None:
    decide(crm, tokens, send(crm, "repair-request", repair), "approve")
    status = send(crm, name, FACTORIES[name](repair))
    seen = approved(crm, tokens, status)
    assert seen["decided_by"] == "website"
    assert [(e["verb"], e["actor"], e["origin"]) for e in seen["history"]] == [("approve", "website", None)]
    ticket = ask(crm, tokens["approver"], "GET", f"/tickets/{seen['ticket_id']}").json
    assert ticket["ticket_number"] == repair["repair"]["ticketNumber"]
    assert [each["id"] for each in ticket["website_events"]] == [status]
    assert ticket[name.replace("-", "_")] == ticket["website_events"][0]


@ON_BOTH
def test_a_status_waits_for_its_repair_and_is_shown_on_its_request(
    crm: Crm, tokens: Tokens, repair: Payload
) -> None:
    request = send(crm, "repair-request", repair)
    paid = send(crm, "payment-status", payment_status(repair))
    moved = send(crm, "booking-status", booking_status(repair))
    seen = show(crm, tokens, request)
    assert [each["id"] for each in seen["website_events"]] == [moved, paid]
    assert {each["approval_status"] for each in seen["website_events"]} == {"pending_approval"}
    assert (seen["payment_status"]["status"], seen["payment_status"]["amount"]) == ("paid", 299.99)
    assert seen["booking_status"]["scheduled_for"] == "2024-12-20T14:00:00Z"
    about = show(crm, tokens, paid)
    assert about["about"] == repair["repair"]["websiteRepairId"]
    assert (about["repair_request"]["id"], about["repair_request"]["status"]) == (request, "pending_approval")
    refused = decide(crm, tokens, paid, "approve")
    assert (refused.status, refused.type) == (409, "no-ticket")
    decide(crm, tokens, request, "approve")
    assert {approved(crm, tokens, each)["decided_by"] for each in (paid, moved)} == {"website"}


def test_a_status_whose_repair_has_not_come_waits_until_it_has(
    crm: Crm, tokens: Tokens, repair: Payload
) -> None:
    paid = send(crm, "payment-status", payment_status(repair))
    seen = show(crm, tokens, paid)
    assert (seen["status"], seen["repair_request"], seen["ticket_id"]) == ("pending_approval", None, None)
    decide(crm, tokens, send(crm, "repair-request", repair), "approve")
    approved(crm, tokens, paid)


def test_a_status_of_a_rejected_repair_stays_for_staff_who_may_reject_it_and_think_again(
    crm: Crm, tokens: Tokens, repair: Payload
) -> None:
    request = send(crm, "repair-request", repair)
    decide(crm, tokens, request, "reject", {"reason": "Spam"})
    paid = send(crm, "payment-status", payment_status(repair))
    assert show(crm, tokens, paid)["repair_request"]["status"] == "rejected"
    assert decide(crm, tokens, paid, "approve").type == "no-ticket"
    assert decide(crm, tokens, paid, "reject", {"reason": "Of a spammer"}).json["status"] == "rejected"
    shown = show(crm, tokens, request)
    assert (shown["payment_status"], len(shown["website_events"])) == (None, 1)
    assert decide(crm, tokens, paid, "reopen").json["status"] == "pending_approval"


def test_an_approved_status_cannot_be_taken_back(crm: Crm, tokens: Tokens, repair: Payload) -> None:
    decide(crm, tokens, send(crm, "repair-request", repair), "approve")
    paid = send(crm, "payment-status", payment_status(repair))
    approved(crm, tokens, paid)
    answer = decide(crm, tokens, paid, "reopen")
    assert (answer.status, answer.type) == (409, "cannot-reopen")
    assert "nothing to take back" in answer.json["detail"]


@ON_BOTH
def test_a_repair_taken_back_shows_its_statuses_again_and_can_be_approved_again(
    crm: Crm, tokens: Tokens, repair: Payload
) -> None:
    request = send(crm, "repair-request", repair)
    decide(crm, tokens, request, "approve")
    paid = send(crm, "payment-status", payment_status(repair))
    approved(crm, tokens, paid)
    reopened = decide(crm, tokens, request, "reopen").json
    assert [each["approval_status"] for each in reopened["website_events"]] == ["approved"]
    assert show(crm, tokens, paid)["ticket_id"] is None
    later = send(crm, "payment-status", payment_status(repair, payment__status="refunded"))
    assert decide(crm, tokens, request, "approve").status == 200
    ticket = ask(crm, tokens["viewer"], "GET", f"/tickets/{approved(crm, tokens, later)['ticket_id']}").json
    assert ticket["payment_status"]["id"] in (paid, later)
    assert len(ticket["website_events"]) == 2


def test_what_happened_last_counts_whatever_came_first(crm: Crm, tokens: Tokens, repair: Payload) -> None:
    request = send(crm, "repair-request", repair)
    late = payment_status(repair, payment__status="refunded", payment__occurredAt="2024-12-16T10:00:00+02:00")
    early = payment_status(repair, payment__occurredAt="2024-12-16T09:00:00+02:00")
    ids = [send(crm, "payment-status", each) for each in (late, early)]
    seen = show(crm, tokens, request)
    assert [each["id"] for each in seen["website_events"]] == ids
    assert seen["payment_status"]["status"] == "refunded"
    assert seen["payment_status"]["occurred_at"] == "2024-12-16T08:00:00Z"


def test_a_viewer_sees_no_reason(crm: Crm, tokens: Tokens, repair: Payload) -> None:
    request = send(crm, "repair-request", repair)
    send(crm, "booking-status", booking_status(repair))
    assert show(crm, tokens, request)["booking_status"]["reason"].startswith("Lovelace")
    assert show(crm, tokens, request, "viewer")["booking_status"]["reason"] == "•••"


@ON_BOTH
def test_repairs_approved_while_their_statuses_arrive_leave_none_waiting(crm: Crm, tokens: Tokens) -> None:
    repairs = [repair_request() for _ in range(8)]
    requests = [send(crm, "repair-request", repair) for repair in repairs]
    with ThreadPoolExecutor(4) as pool:
        decisions = [pool.submit(decide, crm, tokens, request, "approve") for request in requests]
        sent = [pool.submit(send, crm, "payment-status", payment_status(repair)) for repair in repairs]
        assert {each.result().status for each in decisions} == {200}
    for each in sent:
        assert len(approved(crm, tokens, each.result())["history"]) == 1


def test_a_decision_on_everything_decides_repairs_before_their_statuses_and_reports_those_without(
    own_staff: tuple[Crm, Tokens],
) -> None:
    crm, tokens = own_staff
    repair = repair_request()
    send(crm, "repair-request", repair)
    send(crm, "payment-status", payment_status(repair))
    alone = send(crm, "payment-status", payment_status())
    preview = ask(crm, tokens["approver"], "GET", "/approvals/decisions").json
    began = ask(
        crm, tokens["approver"], "POST", "/approvals/decisions", {"verb": "approve", "preview": preview}
    )

    def done() -> Any:
        found = ask(crm, tokens["approver"], "GET", f"/approvals/decisions/{began.json['id']}").json
        return found if found["state"] == "done" else None

    report = until(done)
    why = {each["id"]: each["why"] for each in report["refused"]}
    assert why.pop(alone) == "no-ticket"
    assert set(why.values()) <= {"already-decided"}, "the website was quicker, where it was"


@pytest.mark.long
def test_what_came_while_no_server_for_staff_ran_is_approved_once_by_two_that_start(tmp_path: Path) -> None:
    with start_crm(tmp_path) as webhooks:
        repair = repair_request()
        request = send(webhooks, "repair-request", repair)
        ids = [send(webhooks, "payment-status", payment_status(repair)) for _ in range(25)]
        assert webhooks.cli("approvals", "approve", request).returncode == 0
        with start_crm(tmp_path, only="staff") as one, start_crm(tmp_path, only="staff") as other:
            until(lambda: len(webhooks.rows("SELECT 1 FROM approvals WHERE status = 'approved'")) == 26)
        logs = one.log + other.log
    entries = webhooks.rows("SELECT record_id FROM audit_trail WHERE actor = 'website'")
    assert sorted(row["record_id"] for row in entries) == sorted(ids)
    assert "ERROR" not in logs


# Without a server, so that it is known who looks when.


def received(database: Database, name: str, payload: Payload) -> str:
    webhook = WEBHOOKS[name]
    key = field(payload, webhook.natural_key)
    about = field(payload, webhook.about) if webhook.about else None
    one = ReceivedEvent(Identity(name, key, None, "0" * 64), CURRENT, json.dumps(payload), about=about)
    with database.writing() as connection:
        [receipt] = receive(connection, [one])
    return str(receipt.id)  # type: ignore[union-attr]


def open_ticket(database: Database, payload: Payload) -> None:
    """Have a ticket without a request, as long as it is one."""
    ids = {"customer": new_id(), "ticket": new_id()}
    with database.writing() as connection:
        connection.execute(
            insert(customers), {"id": ids["customer"], "website_user_id": new_id(), "created_at": "now"}
        )
        ticket = {"id": ids["ticket"], "customer_id": ids["customer"], "status": "open", "device_type": "x"}
        ticket |= {"website_repair_id": payload["repair"]["websiteRepairId"], "ticket_number": new_id()}
        connection.execute(insert(tickets), {**ticket, "booked_at": "now", "created_at": "now"})


@ON_BOTH
def test_a_look_finds_those_with_a_ticket_and_a_killed_one_is_made_again(
    database: Database, repair: Payload
) -> None:
    waiting = received(database, "payment-status", payment_status())
    ready = received(database, "booking-status", booking_status(repair))
    open_ticket(database, repair)
    with database.reading() as connection:
        assert look(connection, 0).ids == [ready]
    with pytest.raises(KeyboardInterrupt), database.writing() as connection:  # noqa: PT012
        settle_some(connection, [ready])
        raise KeyboardInterrupt
    with database.writing() as connection:
        assert look(connection, 0).ids == [ready]
        # Whoever else looked at the same time, and at what has no ticket any more.
        assert settle_some(connection, [ready, ready, waiting]) == set()
        assert look(connection, 0).ids == []
        states = {row.id: row.status for row in connection.execute(select(approvals))}
    assert states == {waiting: "pending_approval", ready: "approved"}


@ON_BOTH
def test_a_status_of_a_repair_that_is_erased_goes_with_it_and_no_other_does(
    database: Database, repair: Payload
) -> None:
    request = received(database, "repair-request", repair)
    received(database, "repair-request", repair_request())
    orphan = received(database, "booking-status", booking_status(repair))
    waiting = received(database, "booking-status", booking_status())
    with database.reading() as connection:
        assert look(connection, 0).ids == []
    with database.writing() as connection:
        gone = connection.execute(select(approvals).where(approvals.c.id == request)).all()
        erase_alone(connection, gone, Actor("server:retention"), utc_now())
    with database.writing() as connection:
        assert look(connection, 0).ids == [orphan]
        assert settle_some(connection, [orphan, orphan, waiting]) == set()
        assert look(connection, 0).ids == []
        states = {row.id: (row.status, row.payload is None) for row in connection.execute(select(approvals))}
        erasures = connection.execute(select(erasure_state.c.erasures)).scalar_one()
    assert (states[orphan], states[waiting]) == (("rejected", True), ("pending_approval", False))
    assert erasures == 2, "and its bytes leave the log"


def test_looks_go_round_through_however_many_wait(database: Database, repair: Payload) -> None:
    row = {"event": "payment-status", "contract": CURRENT, "payload": "{}", "digest": "0" * 64}
    row |= {"status": "pending_approval", "received_at": "now", "about": "nothing"}
    with database.writing() as connection:
        connection.execute(
            insert(approvals), [{**row, "id": str(n), "natural_key": str(n)} for n in range(LOOKED_AT)]
        )
    ready = received(database, "payment-status", payment_status(repair))
    open_ticket(database, repair)
    with database.reading() as connection:
        first = look(connection, 0)
        assert (first.ids, first.after) == ([], LOOKED_AT)
        second = look(connection, first.after)
    assert (second.ids, second.after) == ([ready], 0)


def test_a_look_and_a_ticket_read_by_indexes_alone(database: Database) -> None:
    asked: list[tuple[str, Any]] = []
    received(database, "payment-status", payment_status())
    with database.writing() as connection:
        note_erasure(connection, utc_now())
    with database.reading() as connection:
        event.listen(connection.engine, "before_cursor_execute", lambda *a: asked.append((a[2], a[3])))
        look(connection, 0)
        told_of(connection, "a")
        plans = [
            row[3]
            for statement, parameters in list(asked)
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    reads = [plan for plan in plans if "approvals" in plan or "tickets" in plan]
    assert reads
    assert all("USING" in plan and "SCAN" not in plan for plan in reads), reads
    assert any("ix_approvals_about (about=?)" in plan for plan in reads)
    assert any("event=? AND natural_key=?" in plan for plan in reads)


def test_the_trail_names_the_website(database: Database, repair: Payload) -> None:
    ready = received(database, "payment-status", payment_status(repair))
    open_ticket(database, repair)
    with database.writing() as connection:
        settle_some(connection, [ready])
        row = connection.execute(select(approvals)).one()
    assert row.decided_by == Actor("website").name
