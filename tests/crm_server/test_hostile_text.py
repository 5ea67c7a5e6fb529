"""Texts that break software elsewhere: each is stored as it is or refused by its pointer, and soon."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from crm_server.validation import load_rules
from generated.operations import CURRENT
from tests.crm_server.answers import post
from tests.factories import Payload, customer_registration, repair_request
from tests.servers import Crm

FOX = "\U0001f98a"
EVENTS = {"customer-registration": customer_registration, "repair-request": repair_request}


def is_stored(crm: Crm, event: str, payload: Payload) -> bool:
    """Send an event; tell whether it was stored, which is then as it was sent."""
    answer = post(crm, event, json.dumps(payload, ensure_ascii=False).encode())
    if answer.status == 400:
        assert answer.type == "invalid-event"
        return False
    (row,) = crm.rows("SELECT payload FROM approvals WHERE id = ?", answer.json["id"])
    assert json.loads(row["payload"]) == payload
    return True


NAMES = {
    # Lengths are of code points, not of bytes or UTF-16.
    "200 foxes": (FOX * 200, True),
    "201 foxes": (FOX * 201, False),
    "200 letters of two code points": ("e\u0301" * 100, True),
    "right to left": ("\u202e\u05d0\u05d1\u202c", True),
    "a stack of accents": ("Z" + "\u0351" * 199, True),
    "joined": ("\U0001f469\u200d\U0001f4bb", True),
    "noncharacters": ("\ufffe\uffff\U0010ffff\ufdd0", True),
    "private use": ("\ue000\U000f0000", True),
    "U+FEFF": ("\ufeff", True),
    "line separator": ("a\u2028b\u2029c\x85d", True),
    "white space": (" \u00a0\u3000", True),
    "SQL": ("Robert'); DROP TABLE approvals;--", True),
    "HTML": ("<script>alert(1)</script>", True),
    "a template": ("{{7*7}}${7*7}%s%n", True),
    "line feed": ("a\nb", False),
    "line feed behind": ("Ada\n", False),
    "carriage return behind": ("Ada\r", False),
    "tab": ("a\tb", False),
    "escape": ("\x1b[31m", False),
    "delete": ("a\x7f", False),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_text_is_stored_as_it_is_or_refused(crm: Crm, name: str) -> None:
    text, fits = NAMES[name]
    payload = customer_registration(customer__firstName=text)
    assert is_stored(crm, "customer-registration", payload) is fits


@pytest.mark.parametrize(
    ("over", "fits"),
    [
        ({"repair__issueDescription": FOX * 5000}, True),
        ({"repair__issueDescription": FOX * 5001}, False),
        ({"repair__issueDescription": "a\nb\r\nc\td"}, True),
        ({"repair__notes": "\x7f\x01"}, False),
        ({"repair__ticketNumber": "REV-1\n"}, False),
        ({"repair__ticketNumber": "REV-\u0661"}, False),
        ({"repair__ticketNumber": "\uff32EV-1"}, False),
        ({"repair__createdAt": "2024-12-13T10:00:00Z\n"}, False),
        ({"repair__createdAt": "\u0662024-12-13T10:00:00Z"}, False),
        ({"repair__createdAt": "0000-01-01T00:00:00Z"}, False),
        ({"repair__createdAt": "9999-12-31T23:59:59.999999-23:59"}, True),
        ({"repair__createdAt": "0001-01-01T00:00:00+23:59"}, True),
        ({"repair__estimatedCost": "299.99"}, False),
        ({"repair__estimatedCost": True}, False),
        ({"repair__photos": ["\n"]}, False),
        ({"customer__email": "ada@example.com\n"}, False),
        ({"customer__email": "ad\u0430@ex\u0430mple.com"}, False),
    ],
)
def test_fields_are_read_by_code_points_and_ascii_digits(crm: Crm, over: Payload, fits: bool) -> None:
    assert is_stored(crm, "repair-request", repair_request(**over)) is fits


@pytest.mark.parametrize(
    ("preferences", "fits"),
    [
        ({"__proto__": True, "constructor": "x", "toString": 1, "": True}, False),
        ({"__proto__": True, "constructor": "x", "hasOwnProperty": 1}, True),
        ({FOX * 64: True}, True),
        ({FOX * 65: True}, False),
        ({"a/b~c": True, "a~1b": 1, " ": 0}, True),
        ({str(number): FOX * 1000 for number in range(100)}, True),
        ({str(number): True for number in range(101)}, False),
        ({"a": FOX * 1001}, False),
        ({"a": {"a": {"a": 1}}}, False),
        # Equal hashes of numbers in CPython, and names that only look alike.
        ({str(number * (2**61 - 1)): 1 for number in range(100)}, True),
        ({"\u00e9": 1, "e\u0301": 2, "K": 3, "\u212a": 4}, True),
    ],
)
def test_an_open_map_is_stored_as_it_is_or_refused(crm: Crm, preferences: Payload, fits: bool) -> None:
    payload = customer_registration(customer__preferences=preferences)
    assert is_stored(crm, "customer-registration", payload) is fits


@pytest.mark.parametrize("name", ["__proto__", "constructor", "__class__", "model_config", "\u0441ustomer"])
def test_a_name_of_the_language_is_an_unknown_field(crm: Crm, name: str) -> None:
    payload = {**customer_registration(), name: {"admin": True}}
    assert not is_stored(crm, "customer-registration", payload)


def patterns(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each text that the contract has a pattern for."""
    if "pattern" in schema:
        yield path
    for name, part in schema.get("properties", {}).items():
        yield from patterns(part, (*path, name))


# What makes a backtracking matcher of such patterns take for ever.
BACKTRACKING = [
    "a" * 100_000 + "!",
    "a@" + "a" * 100_000 + "!",
    "a@" + "a-" * 50_000,
    "a@" + "a." * 50_000,
    "a@" + ("a" * 63 + ".") * 1500 + "\n",
    "0" * 100_000,
    "2024-12-13T10:00:00." + "0" * 100_000,
    "aa" + "-aaaaaaaa" * 10_000 + "-",
    " " * 100_000 + "\x1f",
    "\u0301" * 5_000 + "\n",
]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("number", range(len(BACKTRACKING)))
def test_no_pattern_of_the_contract_backtracks(crm: Crm, event: str, number: int) -> None:
    paths = list(patterns(load_rules()[CURRENT][event].schema))
    payload = EVENTS[event]()
    for *parents, name in paths:
        block = payload
        for parent in parents:
            block = block[parent]
        block[name] = BACKTRACKING[number][: 900_000 // len(paths)]
    answer = post(crm, event, payload)
    assert {f"/{'/'.join(path)}" for path in paths} <= set(answer.pointers)
