"""Changed profiles: what would change is shown, what is approved is written, and what is reopened is restored."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import event

from crm_server.approval_queue import Receipt, ReceivedEvent, approve, receive
from crm_server.audit_trail import Actor
from crm_server.database import Database
from crm_server.decisions import changes
from crm_server.idempotency import Identity
from crm_server.staff import Role
from generated.operations import CURRENT
from generated.webhooks import CustomerProfile
from tests.crm_server.answers import Answer, ask, post
from tests.crm_server.conftest import ON_BOTH
from tests.factories import Payload, customer_profile, customer_registration
from tests.servers import Crm

Tokens = Mapping[Role, str]


def send(crm: Crm, name: str, payload: Payload) -> str:
    answer = post(crm, name, payload)
    assert answer.status == 202, answer
    return str(answer.json["id"])


def decide(crm: Crm, tokens: Tokens, approval: str, verb: str, *payload: Any) -> Answer:
    return ask(crm, tokens["approver"], "POST", f"/approvals/{approval}/{verb}", *payload)


def customer_of(crm: Crm, payload: Payload) -> Any:
    [row] = crm.rows(
        "SELECT * FROM customers WHERE website_user_id = ?", payload["customer"]["websiteUserId"]
    )
    return row


@pytest.fixture
def registered(crm: Crm, tokens: Tokens) -> Payload:
    payload = customer_registration(customer__language="en")
    assert decide(crm, tokens, send(crm, "customer-registration", payload), "approve").status == 200
    return payload


WHOLE = {
    "customer__firstName": "Augusta",
    "customer__lastName": "King",
    "customer__email": "augusta@example.com",
    "customer__preferences": {"newsletter": False},
}


@ON_BOTH
def test_a_profile_shows_what_changes_writes_it_and_restores_it(
    crm: Crm, tokens: Tokens, registered: Payload
) -> None:
    profile = send(crm, "customer-profile", customer_profile(registered, **WHOLE))
    before = dict(customer_of(crm, registered))
    seen = ask(crm, tokens["approver"], "GET", f"/approvals/{profile}").json
    assert seen["customer_id"] == before["id"]
    expected = {
        "/first_name": ("Ada", "Augusta"),
        "/last_name": ("Lovelace", "King"),
        "/email": ("ada@example.com", "augusta@example.com"),
        "/phone": ("+44 20 7946 0000", "+44 20 7946 0001"),
        "/language": ("en", "en-GB"),
        "/preferences": ('{"newsletter": true, "contact hours": "after 6"}', '{"newsletter": false}'),
    }
    assert {each["field"]: (each["on_record"], each["sent"]) for each in seen["changes"]} == expected
    decided = decide(crm, tokens, profile, "approve").json
    assert decided["changes"] == seen["changes"], "what it has changed is what it said"
    after = customer_of(crm, registered)
    assert (after["first_name"], after["email"], after["language"]) == (
        "Augusta",
        "augusta@example.com",
        "en-GB",
    )
    assert json.loads(after["preferences"]) == {"newsletter": False}
    trail = ask(crm, tokens["viewer"], "GET", f"/audit?record_id={after['id']}").json["items"]
    assert (trail[0]["verb"], set(trail[0]["pointers"])) == ("correct", set(expected))
    assert decide(crm, tokens, profile, "reopen").status == 200
    assert dict(customer_of(crm, registered)) == before


@pytest.mark.engines("sqlite")
def test_a_decision_on_a_profile_reads_what_its_customer_sent_and_nobody_elses(database: Database) -> None:
    registered = customer_registration()
    asked: list[tuple[str, Any]] = []
    with database.writing() as connection:
        first, profile = receive(
            connection,
            [
                ReceivedEvent(Identity(name, key, None, "0" * 64), CURRENT, json.dumps(payload))
                for name, key, payload in [
                    ("customer-registration", registered["customer"]["websiteUserId"], registered),
                    ("customer-profile", "a-change", customer_profile(registered, **WHOLE)),
                ]
            ],
        )
        assert isinstance(first, Receipt)
        assert isinstance(profile, Receipt)
        approve(connection, first.id, Actor("me"))
        event.listen(connection.engine, "before_cursor_execute", lambda *a: asked.append((a[2], a[3])))
        approve(connection, profile.id, Actor("me"))
        plans = [
            row[3]
            for statement, parameters in list(asked)
            if statement.startswith("SELECT")
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    reads = [plan for plan in plans if "approvals" in plan]
    assert reads
    assert not [plan for plan in reads if "SCAN" in plan or "(event=?)" in plan]


@ON_BOTH
@pytest.mark.parametrize("is_known", [False, True], ids=["changes it", "says what is on record"])
def test_of_two_profiles_what_was_changed_last_counts_whatever_was_decided_last(
    crm: Crm, tokens: Tokens, registered: Payload, is_known: bool
) -> None:
    on_record = customer_of(crm, registered)["phone"]
    phone = on_record if is_known else "+44 20 7946 0016"
    # The same day by the website's clock, an hour apart: times are compared, not their texts.
    newer = {"customer__phone": phone, "metadata__changedAt": "2024-12-16T09:00:00Z"}
    older = {"customer__lastName": "King", "metadata__changedAt": "2024-12-16T10:00:00+02:00"}
    last, first = (
        send(crm, "customer-profile", customer_profile(registered, **each)) for each in (newer, older)
    )
    assert decide(crm, tokens, last, "approve").status == 200
    seen = ask(crm, tokens["approver"], "GET", f"/approvals/{first}").json
    assert [each["field"] for each in seen["changes"]] == ["/last_name"]
    assert decide(crm, tokens, first, "approve").json["changes"] == seen["changes"]
    after = customer_of(crm, registered)
    assert (after["phone"], after["last_name"]) == (phone, "King")
    for each in (first, last):
        assert decide(crm, tokens, each, "reopen").status == 200
    assert customer_of(crm, registered)["phone"] == on_record
    decide(crm, tokens, first, "approve")
    assert customer_of(crm, registered)["phone"] == "+44 20 7946 0001", "what waits again does not count"
    decide(crm, tokens, last, "approve")
    assert customer_of(crm, registered)["phone"] == phone


def test_of_two_changes_of_one_moment_the_later_receipt_counts(
    crm: Crm, tokens: Tokens, registered: Payload
) -> None:
    phones = ("+44 20 7946 0001", "+44 20 7946 0002")
    first, last = (
        send(crm, "customer-profile", customer_profile(registered, customer__phone=each)) for each in phones
    )
    for each in (last, first):
        assert decide(crm, tokens, each, "approve").status == 200
    assert customer_of(crm, registered)["phone"] == phones[1]


@ON_BOTH
def test_a_profile_of_somebody_who_is_not_on_record_waits_for_the_registration(
    crm: Crm, tokens: Tokens
) -> None:
    registration = customer_registration()
    registered = send(crm, "customer-registration", registration)
    profile = send(crm, "customer-profile", customer_profile(registration))
    refused = decide(crm, tokens, profile, "approve")
    assert (refused.status, refused.type) == (409, "customer-unknown")
    assert "registration first" in refused.json["detail"]
    decide(crm, tokens, registered, "approve")
    assert decide(crm, tokens, profile, "approve").json["status"] == "approved"
    assert customer_of(crm, registration)["phone"] == "+44 20 7946 0001"


def test_a_profile_that_says_nothing_new_changes_nothing(
    crm: Crm, tokens: Tokens, registered: Payload
) -> None:
    same = {f"customer__{name}": registered["customer"][name] for name in ("phone", "language")}
    turned = dict(reversed(registered["customer"]["preferences"].items()))
    payload = customer_profile(registered, **same, customer__preferences=turned)
    before = dict(customer_of(crm, registered))
    profile = send(crm, "customer-profile", payload)
    assert decide(crm, tokens, profile, "approve").json["changes"] == []
    assert dict(customer_of(crm, registered)) == before
    assert decide(crm, tokens, profile, "reopen").json["status"] == "pending_approval"


def test_a_rejected_profile_changes_nothing(crm: Crm, tokens: Tokens, registered: Payload) -> None:
    before = dict(customer_of(crm, registered))
    profile = send(crm, "customer-profile", customer_profile(registered, **WHOLE))
    assert decide(crm, tokens, profile, "reject", {"reason": "Not them"}).json["changes"] == []
    assert dict(customer_of(crm, registered)) == before


def test_a_profile_whose_fields_were_corrected_since_stays(
    crm: Crm, tokens: Tokens, registered: Payload
) -> None:
    profile = send(crm, "customer-profile", customer_profile(registered))
    decide(crm, tokens, profile, "approve")
    customer = customer_of(crm, registered)["id"]
    path = f"/customers/{customer}/corrections"
    assert ask(crm, tokens["approver"], "POST", path, {"phone": "+44 1"}).status == 200
    assert decide(crm, tokens, profile, "reopen").type == "cannot-reopen"


def test_a_viewer_sees_which_fields_change_and_not_how(crm: Crm, tokens: Tokens, registered: Payload) -> None:
    profile = send(crm, "customer-profile", customer_profile(registered, **WHOLE))
    seen = ask(crm, tokens["viewer"], "GET", f"/approvals/{profile}").json
    assert len(seen["changes"]) == 6
    assert {(each["on_record"], each["sent"]) for each in seen["changes"]} == {("•••", "•••")}


def test_what_is_not_on_record_yet_is_filled() -> None:
    nobody = dict.fromkeys(("first_name", "last_name", "email", "phone", "language", "preferences"))
    event = CustomerProfile.model_validate_json(json.dumps(customer_profile()), by_alias=True, by_name=False)
    assert [(each.field, each.on_record) for each in changes(nobody, event)] == [
        ("phone", None),
        ("language", None),
    ]
