"""A developer who is refused before the booking, and one who is refused by the CRM, read the same words."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from crm_server.validation import describe_faults, load_rules
from generated.operations import CURRENT, WEBHOOKS
from sender.validation import find_faults
from tests.contract.contracts import example
from tests.factories import customer_profile, customer_registration, payment_status, repair_request
from tests.servers import ROOT

RULES = load_rules()[CURRENT]

BODIES: dict[str, tuple[str, Any]] = {
    "no object": ("repair-request", []),
    "everything missing": ("repair-request", {}),
    "fields missing": ("repair-request", repair_request(repair__ticketNumber=..., customer__email=...)),
    "wrong types": ("repair-request", repair_request(repair__estimatedCost="cheap", repair__photos={})),
    "unknown fields": ("repair-request", repair_request(repair__colour="red", **{"repair__a b": 1})),
    "unknown value": ("repair-request", repair_request(repair__priority="now")),
    "wrong form": ("repair-request", repair_request(repair__ticketNumber="no spaces", customer__email="ada")),
    "no such day": ("repair-request", repair_request(repair__createdAt="2024-02-30T10:00:00Z")),
    "no time zone": ("repair-request", repair_request(repair__createdAt="2024-02-28T10:00:00")),
    "too short": ("repair-request", repair_request(customer__firstName="")),
    "too long": ("repair-request", repair_request(repair__notes="x" * 5001)),
    "too small": ("repair-request", repair_request(repair__estimatedCost=-1)),
    "too large": ("repair-request", repair_request(repair__estimatedCost=1e9)),
    "too many items": ("repair-request", repair_request(repair__photos=["p"] * 51)),
    "too many names": (
        "customer-registration",
        customer_registration(customer__preferences={str(number): True for number in range(101)}),
    ),
    "too few names": ("customer-profile", customer_profile(customer__phone=..., customer__language=...)),
    "a setting of the wrong type": (
        "customer-registration",
        customer_registration(customer__preferences={"a": []}),
    ),
    "more than are judged": (
        "repair-request",
        repair_request(**{f"repair__x {number}": 1 for number in range(2000)}),
    ),
    "a single name missing": (
        "customer-registration",
        customer_registration(metadata__timestamp=...),
    ),
    "all missing below": ("payment-status", payment_status(customer__websiteUserId=..., metadata__x=1)),
    "a setting's name": ("customer-registration", customer_registration(customer__preferences={"": True})),
}


@pytest.mark.parametrize("case", BODIES)
def test_both_sides_describe_faults_alike(case: str) -> None:
    name, body = BODIES[case]
    ours = [
        (fault.pointer, fault.detail, fault.expected) for fault in find_faults(body, WEBHOOKS[name], CURRENT)
    ]
    theirs = describe_faults(RULES[name], body).faults
    assert ours == [(fault.pointer, fault.detail, fault.expected) for fault in theirs]
    assert ours


def test_what_has_the_wrong_form_is_not_said_to_have_the_right_one() -> None:
    name, body = BODIES["no time zone"]
    faults = [str(fault) for fault in find_faults(body, WEBHOOKS[name], CURRENT)]
    assert [fault.partition(";")[0] for fault in faults] == [
        "/repair/createdAt has the wrong form",
        "/repair/createdAt is no value of this format",
    ]


def objects(
    schema: Any, value: Any, place: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield each object of a valid body that has required names, with its place and its schema."""
    if isinstance(value, dict):
        if schema.get("required"):
            yield place, schema, value
        for name, part in schema.get("properties", {}).items():
            if name in value:
                yield from objects(part, value[name], (*place, name))


@pytest.mark.parametrize("name", WEBHOOKS)
def test_whatever_required_name_is_missing_is_named_alone_and_with_others(name: str) -> None:
    whole, schema = example(name), RULES[name].schema
    for place, part, _ in list(objects(schema, whole)):
        required = part["required"]
        for missing in [*([each] for each in required), required]:
            body = copy.deepcopy(whole)
            *_, spoiled = (found for at, _, found in objects(schema, body) if at == place)
            for each in missing:
                del spoiled[each]
            expected = {"".join(f"/{step}" for step in (*place, each)) for each in missing}
            assert {fault.pointer for fault in find_faults(body, WEBHOOKS[name], CURRENT)} == expected
            assert {fault.pointer for fault in describe_faults(RULES[name], body).faults} == expected


def keywords(schema: Any) -> set[str]:
    """Return every keyword by which a schema can refuse a body."""
    found: set[str] = set()
    if isinstance(schema, dict):
        found |= schema.keys() - {"$schema", "properties", "items"}
        for key, part in schema.items():
            parts = part.values() if key == "properties" else part if isinstance(part, list) else [part]
            for one in parts:
                found |= keywords(one)
    return found


def test_every_keyword_of_the_contract_has_been_refused_here() -> None:
    used = keywords([])
    for rules in RULES.values():
        used |= keywords(rules.schema)
    refused = {
        error.kind.name for name, body in BODIES.values() for error in RULES[name].validator.iter_errors(body)
    }
    assert refused == used, (
        f"put a body into BODIES that breaks {sorted(used ^ refused)}, and say what is told of it"
    )


FULL_OF_FAULTS = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from tests.conformance.test_faults import CURRENT, RULES, WEBHOOKS, describe_faults, find_faults
from tests.contract.contracts import example
from tests.factories import customer_profile, customer_registration
name = "customer-registration"
body = customer_registration(customer__preferences={f"\\n{number}": "v" * 300 for number in range(3000)})
print(len(find_faults(body, WEBHOOKS[name], CURRENT)), len(describe_faults(RULES[name], body).faults))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_body_full_of_faults_takes_neither_side_much_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_OF_FAULTS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("2 2\n", 0)
