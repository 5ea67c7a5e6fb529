"""Every fault of a body at once, each by its place, none by its value."""

import json
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


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (json.dumps(repair_request()).encode(), []),
        (json.dumps(repair_request(repair__priority="whenever")).encode(), ["/repair/priority"]),
        (json.dumps(repair_request()).replace("299.99", "NaN").encode(), ["/repair/estimatedCost"]),
        (b"{", [""]),
    ],
)
def test_headers_and_body_are_judged_in_one_answer(crm: Crm, body: bytes, pointers: list[str]) -> None:
    headers = {"webhook_id": f"{SENTINEL} no id", "webhook_test": SENTINEL}
    answer = post(crm, "repair-request", body, **headers)
    assert (answer.status, answer.type) == (400, "malformed-request")
    assert answer.pointers == ["#webhook-id", "#webhook-test", *pointers]
    assert answer.json["detail"].startswith(f"{2 + len(pointers)} faults.")
    assert SENTINEL.encode() not in answer.body


def test_a_body_whose_release_cannot_be_told_is_not_judged(crm: Crm) -> None:
    answer = post(crm, "repair-request", {}, webhook_contract="1" * 33)
    assert (answer.type, set(answer.pointers)) == ("malformed-request", {"#webhook-contract"})


TEXT = "holds U+0000 or half a surrogate pair"
LARGE = "is a number that is too large"

AMBIGUOUS: dict[str, tuple[str, str, list[tuple[str, str]]]] = {
    "NaN": ("299.99", "NaN", [("/repair/estimatedCost", "is NaN or Infinity")]),
    "Infinity": ("299.99", "-Infinity", [("/repair/estimatedCost", "is NaN or Infinity")]),
    "1e400": ("299.99", "1e400", [("/repair/estimatedCost", LARGE)]),
    "5,000 digits": ("299.99", "9" * 5000, [("/repair/estimatedCost", LARGE)]),
    "in a list": ('["https://example.com/1.jpg"', '["a", NaN', [("/repair/photos/1", "is NaN or Infinity")]),
    "U+0000": ("Handle", "\\u0000", [("/repair/notes", TEXT)]),
    "half a pair": ("Handle", "\\udc00", [("/repair/notes", TEXT)]),
    "a name twice": ('"en"', '"en", "language": "de"', [("/repair/language", "is there more than once")]),
    "a block twice": (
        '"customer":',
        '"customer": 1, "customer":',
        [("/customer", "is there more than once")],
    ),
    "an odd name twice": (
        '"language"',
        f'"{SENTINEL} x": 1, "{SENTINEL} x": 2, "language"',
        [
            ("/repair", "is there more than once"),
            ("/repair", "has 1 more whose names are not in the contract, nor shown"),
        ],
    ),
    "below an odd name": (
        '"language"',
        f'"{SENTINEL} x": {{"a": NaN}}, "language"',
        [("/repair", "is NaN or Infinity")],
    ),
    "U+0000 in a name": (
        '"language"',
        f'"{SENTINEL}\\u0000": 1, "language"',
        [("/repair", TEXT), ("/repair", "has 1 more whose names are not in the contract, nor shown")],
    ),
    "several, and the schema's": (
        '"normal"',
        '"whenever", "priority": "soon", "notes": "\\udc00", "address": Infinity',
        [
            ("/repair/priority", "is there more than once"),
            ("/repair/notes", "is there more than once"),
            ("/repair/address", "is there more than once"),
            ("/repair/priority", "is not one of the known values"),
        ],
    ),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_json_readers_differ_on_is_told_by_its_place(crm: Crm, case: str) -> None:
    old, new, faults = AMBIGUOUS[case]
    answer = post(crm, "repair-request", json.dumps(repair_request()).replace(old, new, 1).encode())
    assert (answer.status, answer.type) == (400, "invalid-json")
    assert [(fault["pointer"], fault["detail"]) for fault in answer.json["errors"]] == faults
    assert SENTINEL.encode() not in answer.body


def test_what_is_ambiguous_in_an_open_map_is_told_at_the_map(crm: Crm) -> None:
    text = json.dumps(customer_registration()).replace(
        '"newsletter": true', f'"{SENTINEL}": NaN, "{SENTINEL}": 1, "b": "\\u0000", "c": 1e999'
    )
    answer = post(crm, "customer-registration", text.encode())
    assert set(answer.pointers) == {"/customer/preferences"}
    assert len(answer.pointers) == 3
    assert SENTINEL.encode() not in answer.body


def test_ambiguity_before_broken_json_is_broken_json(crm: Crm) -> None:
    answer = post(crm, "repair-request", b'{"a": NaN, }')
    assert (answer.type, answer.pointers) == ("invalid-json", [""])


def test_fields_whose_names_are_not_shown_are_counted(crm: Crm) -> None:
    payload = customer_registration(**{f"customer__{SENTINEL} {number}": 1 for number in range(7)})
    (fault,) = post(crm, "customer-registration", payload).json["errors"]
    assert fault["pointer"] == "/customer"
    assert fault["detail"] == "has 7 more whose names are not in the contract, nor shown"
