"""A decision and what it writes are one: customers, tickets and the trail, from the command line."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from crm_server.decisions import TRANSITIONS
from tests.crm_server.answers import post
from tests.crm_server.conftest import ON_BOTH
from tests.factories import customer_registration, repair_request
from tests.servers import Crm

pytestmark = ON_BOTH


def receive(crm: Crm, event: str, payload: dict[str, Any]) -> str:
    answer = post(crm, event, payload)
    assert answer.status == 202
    return str(answer.json["id"])


def approve(crm: Crm, approval: str) -> None:
    done = crm.cli("approvals", "approve", approval)
    assert done.returncode == 0, done.stderr


def customers(crm: Crm, user: str) -> Sequence[Any]:
    return crm.rows("SELECT * FROM customers WHERE website_user_id = ?", user)


def trail(crm: Crm, record: str) -> Iterator[tuple[str, str]]:
    for row in crm.rows("SELECT * FROM audit_trail WHERE record_id = ? ORDER BY sequence", record):
        yield row["verb"], row["record"]


def test_an_approved_registration_is_a_customer(crm: Crm) -> None:
    payload = customer_registration(customer__preferences={"newsletter": True})
    approval = receive(crm, "customer-registration", payload)
    done = crm.cli("approvals", "approve", approval, "--json")
    assert json.loads(done.stdout)["status"] == "approved"
    (row,) = customers(crm, payload["customer"]["websiteUserId"])
    assert (row["first_name"], row["email"], row["language"]) == ("Ada", "ada@example.com", "en")
    assert json.loads(row["preferences"]) == {"newsletter": True}
    assert row["registered_at"] == "2024-12-13T10:00:00Z"
    assert list(trail(crm, approval)) == [("approve", "approval")]
    assert list(trail(crm, row["id"])) == [("create", "customer")]


def test_an_approved_repair_is_an_open_ticket_of_its_customer(crm: Crm) -> None:
    payload = repair_request()
    approve(crm, receive(crm, "repair-request", payload))
    (customer,) = customers(crm, payload["customer"]["websiteUserId"])
    (ticket,) = crm.rows("SELECT * FROM tickets WHERE customer_id = ?", customer["id"])
    assert (ticket["ticket_number"], ticket["status"]) == (payload["repair"]["ticketNumber"], "open")
    assert (ticket["estimated_cost"], ticket["notes"]) == (299.99, "Handle with care")
    assert json.loads(ticket["photos"]) == payload["repair"]["photos"]
    assert list(trail(crm, ticket["id"])) == [("open", "ticket")]


def test_a_registration_fills_what_a_repair_before_it_left_open(crm: Crm) -> None:
    repair = repair_request(customer__phone=..., customer__firstName="Augusta Ada")
    user = repair["customer"]["websiteUserId"]
    registration = customer_registration(customer__websiteUserId=user)
    first = receive(crm, "repair-request", repair)
    second = receive(crm, "customer-registration", registration)
    approve(crm, first)
    (before,) = customers(crm, user)
    assert (before["phone"], before["language"]) == (None, None)
    approve(crm, second)
    (after,) = customers(crm, user)
    assert after["id"] == before["id"]
    assert after["first_name"] == "Augusta Ada", "what is there stays"
    assert (after["phone"], after["language"]) == (registration["customer"]["phone"], "en")
    (entry,) = crm.rows("SELECT * FROM audit_trail WHERE record_id = ? AND verb = 'complete'", after["id"])
    assert {"/phone", "/language"} <= set(json.loads(entry["pointers"]))
    assert "/first_name" not in entry["pointers"]


def test_two_repairs_approved_at_once_make_one_customer(crm: Crm) -> None:
    first = repair_request()
    user = first["customer"]["websiteUserId"]
    second = repair_request(customer__websiteUserId=user)
    approvals = [receive(crm, "repair-request", payload) for payload in (first, second)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda approval: approve(crm, approval), approvals))
    (customer,) = customers(crm, user)
    assert len(crm.rows("SELECT 1 FROM tickets WHERE customer_id = ?", customer["id"])) == 2


def test_of_two_decisions_at_once_one_stands(crm: Crm) -> None:
    approval = receive(crm, "repair-request", repair_request())
    commands = [["approve", approval], ["reject", approval, "--reason", "spam"]]
    with ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(lambda command: crm.cli("approvals", *command).returncode, commands))
    assert sorted(codes) == [0, 1]
    assert len(list(trail(crm, approval))) == 1


@pytest.mark.parametrize("again", [["approve"], ["reject", "--reason", "x"]])
def test_what_is_decided_stays_and_says_by_whom_and_when(crm: Crm, again: list[str]) -> None:
    approval = receive(crm, "repair-request", repair_request())
    approve(crm, approval)
    (row,) = crm.rows("SELECT * FROM approvals WHERE id = ?", approval)
    done = crm.cli("approvals", again[0], approval, *again[1:])
    assert done.returncode == 1
    assert f"approved by {row['decided_by']} at {row['decided_at']}" in done.stderr
    assert row["decided_by"].startswith("cli:")


def test_a_rejected_request_leaves_no_record_but_the_trail(crm: Crm) -> None:
    payload = repair_request()
    approval = receive(crm, "repair-request", payload)
    assert crm.cli("approvals", "reject", approval, "--reason", "Sentinel-reason").returncode == 0
    assert customers(crm, payload["customer"]["websiteUserId"]) == []
    assert list(trail(crm, approval)) == [("reject", "approval")]
    assert "Sentinel-reason" not in json.dumps([list(row) for row in crm.rows("SELECT * FROM audit_trail")])


@pytest.mark.parametrize("decision", [["approve"], ["reject", "--reason", "spam"]])
def test_after_a_decision_a_duplicate_still_gets_its_first_receipt(crm: Crm, decision: list[str]) -> None:
    payload = repair_request()
    first = post(crm, "repair-request", payload).json
    assert crm.cli("approvals", decision[0], first["id"], *decision[1:]).returncode == 0
    again = post(crm, "repair-request", payload)
    assert (again.status, again.json) == (202, {**first, "duplicate": True})
    payload["repair"]["notes"] = "Other"
    assert post(crm, "repair-request", payload).status == 409


def test_a_decision_whose_records_cannot_be_written_is_not_made(own_crm: Crm) -> None:
    approval = receive(own_crm, "repair-request", repair_request())
    own_crm.rows("ALTER TABLE tickets RENAME COLUMN device_type TO broken")
    done = own_crm.cli("approvals", "approve", approval)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (row,) = own_crm.rows("SELECT status FROM approvals")
    assert row["status"] == "pending_approval"
    assert own_crm.rows("SELECT 1 FROM customers UNION SELECT 1 FROM audit_trail") == []


@pytest.mark.engines("sqlite")
def test_the_table_of_transitions_knows_only_the_states_of_the_database(crm: Crm) -> None:
    (table,) = crm.rows("SELECT sql FROM sqlite_master WHERE name = 'approvals'")
    for (before, _), after in TRANSITIONS.items():
        assert f"'{before}'" in table["sql"]
        assert f"'{after}'" in table["sql"]


def test_the_trail_names_fields_and_never_values(crm: Crm) -> None:
    payload = customer_registration(
        customer__firstName="Sentinel-first", customer__email="sentinel@example.com"
    )
    approve(crm, receive(crm, "customer-registration", payload))
    whole = json.dumps([list(row) for row in crm.rows("SELECT * FROM audit_trail")])
    assert "/first_name" in whole
    assert "entinel" not in whole
