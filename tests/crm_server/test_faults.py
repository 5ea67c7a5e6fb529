"""Every fault of a body at once, each by its place, none by its value."""

from typing import Any

import pytest

from tests.crm_server.answers import post
from tests.factories import customer_registration, repair_request
from tests.servers import Crm

SENTINEL = "Sentinel-7f3a"


def test_every_fault_is_named_at_once(crm: Crm) -> None:
    payload = repair_request(
        repair__customerEmail=...,
        repair__estimatedCost="299.99",
        repair__priority="whenever",
        repair__createdAt="2024-02-30T10:00:00Z",
        repair__photos=["ok", ""],
        customer__websiteUserId="a b",
        customer__lastName=...,
        customer__firstName="",
        metadata__surprise=1,
    )
    answer = post(crm, "repair-request", payload)
    assert (answer.status, answer.type) == (400, "invalid-event")
    assert sorted(answer.pointers) == [
        "/customer/firstName",
        "/customer/lastName",
        "/customer/websiteUserId",
        "/metadata/surprise",
        "/repair/createdAt",
        "/repair/customerEmail",
        "/repair/estimatedCost",
        "/repair/photos/1",
        "/repair/priority",
    ]
    assert answer.json["detail"] == "9 faults. Nothing was stored."


def test_all_that_is_missing_is_named(crm: Crm) -> None:
    assert sorted(post(crm, "repair-request", {}).pointers) == ["/customer", "/metadata", "/repair"]
    answer = post(crm, "repair-request", {"repair": {}, "customer": {}, "metadata": {}})
    assert {"/repair/ticketNumber", "/repair/websiteRepairId", "/customer/email"} <= set(answer.pointers)
    assert {fault["detail"] for fault in answer.json["errors"]} == {"is required"}
    assert {fault["expected"] for fault in answer.json["errors"]} == {"string"}


@pytest.mark.parametrize(
    ("over", "pointer"),
    [
        ({"customer__firstName": SENTINEL * 50}, "/customer/firstName"),
        ({"customer__email": f"{SENTINEL} at home"}, "/customer/email"),
        ({"customer__language": SENTINEL * 9}, "/customer/language"),
        ({"customer__registrationDate": SENTINEL}, "/customer/registrationDate"),
        ({"customer__source": SENTINEL}, "/customer/source"),
        ({"customer__phone": [SENTINEL]}, "/customer/phone"),
        ({"customer__preferences": {SENTINEL: [SENTINEL]}}, "/customer/preferences"),
        ({"customer__preferences": {SENTINEL: None}}, "/customer/preferences"),
        ({"customer__preferences": {SENTINEL: SENTINEL * 100}}, "/customer/preferences"),
        ({"customer__preferences": {f"{SENTINEL}\n": 1}}, "/customer/preferences"),
        ({"customer__preferences": {f"{SENTINEL}{n}": 1 for n in range(101)}}, "/customer/preferences"),
        ({f"customer__{SENTINEL} is unknown": 1}, "/customer"),
        ({f"customer__{SENTINEL}/~": 1}, "/customer"),
    ],
)
def test_a_fault_never_shows_the_value_or_the_customers_words(
    crm: Crm, over: dict[str, Any], pointer: str
) -> None:
    answer = post(crm, "customer-registration", customer_registration(**over))
    assert set(answer.pointers) == {pointer}
    assert SENTINEL.encode() not in answer.body
    assert SENTINEL not in crm.log


def test_an_unknown_field_is_named_when_it_looks_like_one(crm: Crm) -> None:
    answer = post(crm, "customer-registration", customer_registration(customer__loyaltyPoints=3))
    assert answer.pointers == ["/customer/loyaltyPoints"]


def test_fields_by_their_python_names_are_unknown(crm: Crm) -> None:
    payload = repair_request(repair__ticketNumber=..., repair__ticket_number="REV-1")
    answer = post(crm, "repair-request", payload)
    assert sorted(answer.pointers) == ["/repair/ticketNumber", "/repair/ticket_number"]


def test_a_flood_of_faults_is_counted_and_cut(crm: Crm) -> None:
    payload = customer_registration(**{f"metadata__x{number}": 1 for number in range(300)})
    answer = post(crm, "customer-registration", payload)
    assert len(answer.json["errors"]) == 100
    assert answer.json["detail"].startswith("300 faults.")


@pytest.mark.parametrize("value", [None, [], "text", 3, True])
def test_a_body_that_is_no_object_is_an_invalid_event(crm: Crm, value: Any) -> None:
    answer = post(crm, "repair-request", value)
    assert (answer.type, answer.pointers) == ("invalid-event", [""])
