"""A developer who is refused before the booking, and one who is refused by the CRM, read the same words."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from crm_server.validation import describe_faults, load_rules
from generated.operations import CURRENT, WEBHOOKS
from sender.validation import find_faults
from tests.factories import customer_profile, customer_registration, repair_request
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
    assert refused == used


FULL_OF_FAULTS = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from tests.conformance.test_faults import CURRENT, RULES, WEBHOOKS, describe_faults, find_faults
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
