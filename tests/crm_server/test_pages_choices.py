"""What staff choose on a request's page: whose it is, and which of two values is right."""

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from crm_server.staff import Role
from tests.crm_server.answers import post
from tests.crm_server.visitors import Html, Visitor, logged_in
from tests.factories import customer_registration, repair_request
from tests.servers import Crm

numbers = itertools.count(1)


@pytest.fixture(scope="module")
def visitors(crm: Crm) -> Mapping[Role, Visitor]:
    roles: tuple[Role, ...] = ("viewer", "approver")
    return {role: logged_in(crm, f"Choosing {role}", role) for role in roles}


@pytest.fixture
def approver(visitors: Mapping[Role, Visitor]) -> Visitor:
    return visitors["approver"]


@pytest.fixture
def viewer(visitors: Mapping[Role, Visitor]) -> Visitor:
    return visitors["viewer"]


@pytest.fixture
def email() -> str:
    """An address that no other test uses."""
    return f"choice-{next(numbers)}@example.test"


def receive(crm: Crm, payload: dict[str, Any]) -> str:
    event = "repair-request" if "repair" in payload else "customer-registration"
    return str(post(crm, event, payload).json["id"])


def customer_of(crm: Crm, approver: Visitor, payload: dict[str, Any]) -> str:
    """Approve a request of a new customer; return their id."""
    assert approver.post(f"/approvals/{receive(crm, payload)}/approve").status_code == 303
    user = payload["customer"]["websiteUserId"]
    (row,) = crm.rows("SELECT id FROM customers WHERE website_user_id = ?", user)
    return str(row["id"])


def record(crm: Crm, customer: str) -> Any:
    (row,) = crm.rows("SELECT * FROM customers WHERE id = ?", customer)
    return row


def radios(html: Html) -> dict[str, dict[str, bool]]:
    """What may be chosen, by name and value, and whether it is chosen."""
    found: dict[str, dict[str, bool]] = {}
    for given in html.all("input", type="radio"):
        found.setdefault(given["name"], {})[given["value"]] = "checked" in given
    return found


def test_who_has_an_equal_address_is_shown_and_nobody_is_joined_unless_that_is_chosen(
    crm: Crm, approver: Visitor, email: str
) -> None:
    first = repair_request(customer__email=email, customer__firstName="Adelaide")
    customer = customer_of(crm, approver, first)
    second = repair_request(customer__email=email.upper(), customer__firstName="Adele")
    page = f"/approvals/{receive(crm, second)}"
    html = approver.html(page)
    assert radios(html)["customer_id"] == {"": True, customer: False}
    assert "Adelaide" in html.text
    assert approver.post(f"{page}/approve", {"customer_id": ""}).status_code == 303
    user = second["customer"]["websiteUserId"]
    assert len(crm.rows("SELECT 1 FROM customers WHERE website_user_id = ?", user)) == 1


def test_who_is_chosen_gets_the_request_and_only_the_values_that_are_chosen(
    crm: Crm, approver: Visitor, email: str
) -> None:
    first, other = (repair_request(customer__email=email, customer__firstName="Adelaide") for _ in range(2))
    customer, another = (customer_of(crm, approver, each) for each in (first, other))
    second = repair_request(customer__email=email, customer__firstName="Adele", customer__phone="+44 20 1")
    page = f"/approvals/{receive(crm, second)}"
    choices = radios(approver.html(page))
    assert set(choices["customer_id"]) == {"", customer, another}
    for name in ("first_name", "phone"):
        assert choices[f"{name}:{customer}"] == {"on_record": True, "sent": False}
    chosen = {
        "customer_id": customer,
        f"first_name:{customer}": "sent",
        f"phone:{customer}": "on_record",
        f"phone:{another}": "sent",
    }
    assert approver.post(f"{page}/approve", chosen).status_code == 303
    joined = crm.rows("SELECT website_user_id FROM customer_website_users WHERE customer_id = ?", customer)
    assert [row["website_user_id"] for row in joined] == [second["customer"]["websiteUserId"]]
    row, before = record(crm, customer), first["customer"]
    assert (row["first_name"], row["phone"], row["email"]) == ("Adele", before["phone"], before["email"])
    assert record(crm, another)["phone"] == before["phone"]


def test_a_known_customers_record_stays_unless_what_was_sent_is_chosen(
    crm: Crm, approver: Visitor, email: str
) -> None:
    registered = customer_registration(customer__email=email)
    customer = customer_of(crm, approver, registered)
    user = registered["customer"]["websiteUserId"]
    sent = {"customer__websiteUserId": user, "customer__email": f"new-{email}", "customer__lastName": "King"}
    first, second = (receive(crm, repair_request(**sent)) for _ in range(2))
    html = approver.html(f"/approvals/{first}")
    both = {"on_record": True, "sent": False}
    assert radios(html) == {f"last_name:{customer}": both, f"email:{customer}": both}
    assert html.all("input", type="hidden", name="customer_id") == [
        {"type": "hidden", "name": "customer_id", "value": customer}
    ]
    kept = {"customer_id": customer, f"email:{customer}": "on_record", f"last_name:{customer}": ""}
    assert approver.post(f"/approvals/{first}/approve", kept).status_code == 303
    assert (record(crm, customer)["email"], record(crm, customer)["last_name"]) == (email, "Lovelace")
    taken = {"customer_id": customer, f"email:{customer}": "sent", f"last_name:{customer}": "on_record"}
    assert approver.post(f"/approvals/{second}/approve", taken).status_code == 303
    assert (record(crm, customer)["email"], record(crm, customer)["last_name"]) == (
        f"new-{email}",
        "Lovelace",
    )
    assert not radios(approver.html(f"/approvals/{second}")), "what is decided is compared no more"


def test_what_was_chosen_is_still_chosen_when_the_number_is_taken(
    crm: Crm, approver: Visitor, email: str
) -> None:
    first = repair_request(customer__email=email)
    customer = customer_of(crm, approver, first)
    number = first["repair"]["ticketNumber"]
    second = repair_request(customer__email=email, customer__firstName="Adele", repair__ticketNumber=number)
    page = f"/approvals/{receive(crm, second)}"
    chosen = {"customer_id": customer, f"first_name:{customer}": "sent"}
    answer = approver.post(f"{page}/approve", chosen)
    assert answer.status_code == 409
    choices = radios(Html(answer.text))
    assert choices["customer_id"] == {"": False, customer: True}
    assert choices[f"first_name:{customer}"] == {"on_record": False, "sent": True}
    assert record(crm, customer)["first_name"] == "Ada", "nothing was changed"
    wrong = Html(approver.post(f"{page}/approve", {**chosen, "ticket_number": "no number"}).text)
    assert wrong.all("input", name="ticket_number", value="no number")
    assert radios(wrong) == choices
    assert approver.post(f"{page}/approve", {**chosen, "ticket_number": f"{number}-B"}).status_code == 303
    assert record(crm, customer)["first_name"] == "Adele"


def test_a_customer_who_is_gone_gets_nothing(crm: Crm, approver: Visitor, email: str) -> None:
    gone = receive(crm, repair_request(customer__email=email))
    approver.post(f"/approvals/{gone}/approve")
    page = f"/approvals/{receive(crm, repair_request(customer__email=email))}"
    (customer,) = (value for value in radios(approver.html(page))["customer_id"] if value)
    assert approver.post(f"/approvals/{gone}/reopen").status_code == 303
    answer = approver.post(f"{page}/approve", {"customer_id": customer})
    assert answer.status_code == 409
    assert "Nothing was changed." in answer.text
    assert not radios(Html(answer.text))


def test_a_viewer_sees_that_somebody_is_suggested_and_that_values_differ_and_none_of_them(
    crm: Crm, approver: Visitor, viewer: Visitor, email: str
) -> None:
    registered = customer_registration(customer__email=email)
    customer_of(crm, approver, registered)
    user = registered["customer"]["websiteUserId"]
    differs = repair_request(customer__websiteUserId=user, customer__email=email, customer__phone="+44 55")
    for payload, words in (
        (repair_request(customer__email=email), "Customers with an equal e-mail address"),
        (differs, "What the customer's record says"),
    ):
        html = viewer.html(f"/approvals/{receive(crm, payload)}")
        assert words in html.text
        assert "•••" in html.text
        assert not html.all("input", type="radio")
        assert not [word for word in (email, "Lovelace", "+44", "7946") if word in html.text]


def test_hostile_values_to_choose_from_are_nothing_but_text(crm: Crm, approver: Visitor, email: str) -> None:
    bad = '"><script>alert(1)</script>'
    customer_of(crm, approver, repair_request(customer__email=email, customer__lastName=bad))
    html = approver.html(f"/approvals/{receive(crm, repair_request(customer__email=email))}")
    assert bad in html.text
    assert len(html.all("script")) == 1
