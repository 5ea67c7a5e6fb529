"""Whose request it is: found by its id on the website alone, suggested, joined, compared and corrected."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from crm_server.staff import Role
from tests.crm_server.answers import Answer, ask, post
from tests.crm_server.conftest import ON_BOTH_IN_TIME
from tests.factories import Payload, customer_registration, repair_request
from tests.servers import Crm

pytestmark = ON_BOTH_IN_TIME

Tokens = Mapping[Role, str]


def receive(crm: Crm, payload: dict[str, Any]) -> str:
    event = "repair-request" if "repair" in payload else "customer-registration"
    return str(post(crm, event, payload).json["id"])


def act(crm: Crm, tokens: Tokens, path: str, payload: Any = ...) -> Answer:
    return ask(crm, tokens["approver"], "POST", path, payload)


def see(crm: Crm, tokens: Tokens, path: str, role: Role = "approver") -> Any:
    answer = ask(crm, tokens[role], "GET", path)
    assert answer.status == 200, answer
    return answer.json


def customers_of(crm: Crm, payload: dict[str, Any]) -> Sequence[Any]:
    return crm.rows(
        "SELECT id FROM customers WHERE website_user_id = ?", payload["customer"]["websiteUserId"]
    )


@pytest.fixture
def email(request: pytest.FixtureRequest) -> str:
    """An address that no other test uses."""
    return f"{abs(hash(request.node.nodeid))}@Example.test"


@pytest.fixture
def first(email: str) -> dict[str, Any]:
    """What the customer's first request says."""
    return repair_request(customer__email=email)


@pytest.fixture
def customer(crm: Crm, tokens: Tokens, first: dict[str, Any]) -> str:
    """The id of a customer whose first request was approved."""
    assert act(crm, tokens, f"/approvals/{receive(crm, first)}/approve").status == 200
    return str(customers_of(crm, first)[0]["id"])


def test_an_equal_address_is_suggested_and_alone_joins_nobody(
    crm: Crm, tokens: Tokens, email: str, customer: str
) -> None:
    second = repair_request(customer__email=email.upper())
    approval = receive(crm, second)
    seen = see(crm, tokens, f"/approvals/{approval}")
    assert [each["customer_id"] for each in seen["suggestions"]] == [customer]
    assert seen["suggestions"][0]["last_name"] == "Lovelace"
    assert (seen["customer_id"], seen["differences"]) == (None, [])
    masked = see(crm, tokens, f"/approvals/{approval}", "viewer")["suggestions"]
    assert masked == [
        {"customer_id": customer, "first_name": "•••", "last_name": "•••", "email": "•••", "phone": "•••"}
    ]
    decided = act(crm, tokens, f"/approvals/{approval}/approve").json
    assert decided["suggestions"] == [], "there is nothing more to choose"
    assert customers_of(crm, second)[0]["id"] != customer


def test_who_staff_say_it_is_has_one_more_id_and_is_found_by_it(
    crm: Crm, tokens: Tokens, email: str, first: dict[str, Any], customer: str
) -> None:
    second = repair_request(customer__email=email)
    user = second["customer"]["websiteUserId"]
    approval = receive(crm, second)
    assert act(crm, tokens, f"/approvals/{approval}/approve", {"customer_id": customer}).status == 200
    assert customers_of(crm, second) == []
    seen = see(crm, tokens, f"/customers/{customer}")
    assert seen["website_user_ids"] == [first["customer"]["websiteUserId"], user]
    assert [entry["verb"] for entry in seen["history"]] == ["create", "join"]
    third = receive(crm, customer_registration(customer__websiteUserId=user, customer__firstName="Augusta"))
    waiting = see(crm, tokens, f"/approvals/{third}")
    assert waiting["customer_id"] == customer
    assert [each["field"] for each in waiting["differences"]] == ["/first_name", "/email"]
    assert act(crm, tokens, f"/approvals/{third}/approve").status == 200
    assert act(crm, tokens, f"/approvals/{approval}/reopen").type == "cannot-reopen", "the third used it"
    assert act(crm, tokens, f"/approvals/{third}/reopen").status == 200
    assert act(crm, tokens, f"/approvals/{approval}/reopen").status == 200
    seen = see(crm, tokens, f"/customers/{customer}")
    assert seen["website_user_ids"] == [first["customer"]["websiteUserId"]]
    assert seen["language"] is None, "what the registration filled in is empty again"


def test_nobody_becomes_somebody_else(
    crm: Crm, tokens: Tokens, email: str, first: dict[str, Any], customer: str
) -> None:
    other = repair_request()
    act(crm, tokens, f"/approvals/{receive(crm, other)}/approve")
    theirs = customers_of(crm, other)[0]["id"]
    approval = receive(
        crm, repair_request(customer__websiteUserId=first["customer"]["websiteUserId"], customer__email=email)
    )
    path = f"/approvals/{approval}/approve"
    assert act(crm, tokens, path, {"customer_id": theirs}).type == "customer-known"
    assert act(crm, tokens, path, {"customer_id": customer}).status == 200
    unknown = receive(crm, repair_request())
    assert (
        act(crm, tokens, f"/approvals/{unknown}/approve", {"customer_id": "none"}).type == "no-such-customer"
    )
    assert see(crm, tokens, f"/approvals/{unknown}")["status"] == "pending_approval"


def test_what_differs_is_shown_and_stays_unless_it_is_chosen(
    crm: Crm, tokens: Tokens, email: str, first: dict[str, Any], customer: str
) -> None:
    later = repair_request(
        customer__websiteUserId=first["customer"]["websiteUserId"],
        customer__email=email,
        customer__firstName="Augusta",
        customer__phone="+44 20 0000 1111",
    )
    approval = receive(crm, later)
    seen = see(crm, tokens, f"/approvals/{approval}")
    assert seen["differences"] == [
        {"field": "/first_name", "on_record": "Ada", "sent": "Augusta"},
        {"field": "/phone", "on_record": "+44 20 7946 0000", "sent": "+44 20 0000 1111"},
    ]
    assert "Augusta" not in json.dumps(see(crm, tokens, f"/approvals/{approval}", "viewer"))
    act(crm, tokens, f"/approvals/{approval}/approve", {"use_sent": ["/phone", "/last_name"]})
    seen = see(crm, tokens, f"/customers/{customer}")
    assert (seen["first_name"], seen["phone"]) == ("Ada", "+44 20 0000 1111")
    (correction,) = seen["corrections"]
    assert (correction["field"], correction["before"]) == ("/phone", "+44 20 7946 0000")
    assert [(e["verb"], e["pointers"]) for e in seen["history"]][1:] == [("correct", ["/phone"])]
    assert act(crm, tokens, f"/approvals/{approval}/reopen").status == 200
    seen = see(crm, tokens, f"/customers/{customer}")
    assert (seen["phone"], seen["corrections"]) == ("+44 20 7946 0000", [])
    done = crm.cli("approvals", "approve", approval, "--use-sent", "phone", "--customer-id", customer)
    assert done.returncode == 0, done.stderr
    assert see(crm, tokens, f"/customers/{customer}")["phone"] == "+44 20 0000 1111"
    act(crm, tokens, f"/customers/{customer}/corrections", {"phone": "+44 20 0000 2222"})
    answer = act(crm, tokens, f"/approvals/{approval}/reopen")
    assert (answer.type, "corrected" in answer.json["detail"]) == ("cannot-reopen", True)


def test_a_correction_stands_beside_what_was_sent(
    crm: Crm, tokens: Tokens, email: str, customer: str
) -> None:
    path = f"/customers/{customer}/corrections"
    act(crm, tokens, path, {"email": "right@example.test"})
    seen = act(crm, tokens, path, {"email": "righter@example.test", "last_name": "Lovelace"}).json
    assert seen["email"] == "righter@example.test"
    assert [(each["field"], each["before"], each["author"]) for each in seen["corrections"]] == [
        ("/email", email, "staff:Approver"),
        ("/email", "right@example.test", "staff:Approver"),
    ]
    viewed = json.dumps(see(crm, tokens, f"/customers/{customer}", "viewer"))
    assert "right" not in viewed
    trail = see(crm, tokens, f"/audit?record_id={customer}")["items"]
    assert "right" not in json.dumps(trail)
    assert trail[0]["pointers"] == ["/email"]
    again = receive(crm, repair_request(customer__email="Righter@example.test"))
    assert see(crm, tokens, f"/approvals/{again}")["suggestions"][0]["customer_id"] == customer


def test_a_corrected_ticket_holds_its_decision_and_the_payload_stays(crm: Crm, tokens: Tokens) -> None:
    payload = repair_request()
    approval = receive(crm, payload)
    act(crm, tokens, f"/approvals/{approval}/approve")
    ticket = see(crm, tokens, "/tickets?limit=1")["items"][0]["id"]
    right = {"device_model": "Air 13", "issue_description": "It hums.\nLoudly."}
    seen = act(crm, tokens, f"/tickets/{ticket}/corrections", right).json
    assert {name: seen[name] for name in right} == right
    assert {each["field"] for each in seen["corrections"]} == {"/device_model", "/issue_description"}
    befores = {
        e["field"]: e["before"] for e in see(crm, tokens, f"/tickets/{ticket}", "viewer")["corrections"]
    }
    assert befores == {"/device_model": payload["repair"]["deviceModel"], "/issue_description": "•••"}
    assert see(crm, tokens, f"/approvals/{approval}")["payload"] == payload
    answer = act(crm, tokens, f"/approvals/{approval}/reopen")
    assert (answer.type, "corrected" in answer.json["detail"]) == ("cannot-reopen", True)


def test_a_corrected_customer_holds_the_decision_that_made_them(
    crm: Crm, tokens: Tokens, first: dict[str, Any], customer: str
) -> None:
    act(crm, tokens, f"/customers/{customer}/corrections", {"phone": "1234"})
    (row,) = crm.rows("SELECT approval_id FROM decision_records WHERE record_id = ?", customer)
    assert "corrected" in act(crm, tokens, f"/approvals/{row['approval_id']}/reopen").json["detail"]


@pytest.mark.parametrize(
    ("kind", "right", "pointers"),
    [
        ("customers", {}, [""]),
        ("customers", {"email": "nowhere"}, ["/email"]),
        ("customers", {"phone": "", "first_name": "a\nb"}, ["/first_name", "/phone"]),
        ("customers", {"website_user_id": "other"}, ["/website_user_id"]),
        ("tickets", {"status": "closed"}, ["/status"]),
        ("tickets", {"address": "x" * 1001}, ["/address"]),
    ],
)
def test_what_cannot_be_right_is_refused(
    crm: Crm, tokens: Tokens, kind: str, right: dict[str, str], pointers: list[str]
) -> None:
    answer = act(crm, tokens, f"/{kind}/none/corrections", right)
    assert (answer.status, sorted(answer.pointers)) == (400, pointers)


def test_who_is_not_there_is_not_found(crm: Crm, tokens: Tokens) -> None:
    assert ask(crm, tokens["viewer"], "GET", "/customers/none").status == 404
    assert act(crm, tokens, "/customers/none/corrections", {"phone": "1234"}).status == 404
    assert act(crm, tokens, "/tickets/none/corrections", {"address": "x"}).status == 404


def test_an_erased_customer_and_their_ticket_stay_empty(
    crm: Crm, tokens: Tokens, email: str, customer: str
) -> None:
    (ticket,) = crm.rows("SELECT id FROM tickets WHERE customer_id = ?", customer)
    assert ask(crm, tokens["admin"], "POST", "/people/erasure", {"email": email}).status == 200
    approval = receive(crm, repair_request(customer__email=f"new-{email}"))
    choice = {"customer_id": customer, "use_sent": ["/email", "/first_name", "/last_name", "/phone"]}
    answers = [
        act(crm, tokens, f"/approvals/{approval}/approve", choice),
        act(crm, tokens, f"/approvals/{approval}/approve", {"customer_id": customer}),
        act(crm, tokens, f"/customers/{customer}/corrections", {"phone": "1234"}),
        act(crm, tokens, f"/tickets/{ticket['id']}/corrections", {"address": "1 Lane"}),
    ]
    assert [(answer.status, answer.type) for answer in answers] == [(409, "erased")] * 4
    assert "is erased, and stays empty" in answers[0].json["detail"]
    done = crm.cli("approvals", "approve", approval, "--customer-id", customer, "--use-sent", "email")
    assert (done.returncode, "is erased, and stays empty" in done.stderr) == (1, True)
    assert see(crm, tokens, f"/approvals/{approval}")["status"] == "pending_approval"
    seen = see(crm, tokens, f"/customers/{customer}")
    assert {seen[name] for name in ("email", "first_name", "last_name", "phone")} == {None}
    assert (seen["website_user_ids"], seen["corrections"]) == ([customer], [])
    assert act(crm, tokens, f"/approvals/{approval}/approve").status == 200, (
        "they are a customer of their own"
    )


@pytest.mark.parametrize("sent", [customer_registration, repair_request])
def test_no_request_fills_an_erased_customer_by_their_id(
    crm: Crm, tokens: Tokens, email: str, customer: str, sent: Callable[..., Payload]
) -> None:
    assert ask(crm, tokens["admin"], "POST", "/people/erasure", {"email": email}).status == 200
    approval = receive(crm, sent(customer__websiteUserId=customer))
    answer = act(crm, tokens, f"/approvals/{approval}/approve")
    assert (answer.status, answer.type) == (409, "erased")
    seen = see(crm, tokens, f"/customers/{customer}")
    assert (seen["language"], seen["phone"]) == (None, None)
