"""What `make contract` says of a release since the one before: in words, once, and of whom."""

from __future__ import annotations

import itertools
import re

import pytest

from generated.operations import RELEASES
from scripts.contract.comparison import Comparison, compare
from tests.contract.contracts import contract

PAIRS = list(itertools.pairwise(RELEASES))

SINCE_1_0_0 = """
`description` of the document changed.
`POST /booking-status` was added: A booking has moved on.
`POST /customer-profile` was added: A customer changed their profile on the website.
`POST /payment-status` was added: A payment for a repair has moved on.
`GET /receipts/{id}` was added: What became of an event.
`example` of header `webhook-contract` changed from "1.0.0" to "1.1.0" (each webhook).
`currency` was added (body of POST /repair-request).
Tag `receipts` was added.
"""


@pytest.fixture(scope="module")
def comparisons() -> dict[tuple[str, str], Comparison]:
    """Return each release compared with the one before."""
    found = compare([(contract(old), contract(new)) for old, new in PAIRS])
    return dict(zip(PAIRS, found, strict=True))


def test_what_1_1_0_brought_is_said(comparisons: dict[tuple[str, str], Comparison]) -> None:
    said = {finding.sentence for finding in comparisons["1.0.0", "1.1.0"].findings}
    assert set(SINCE_1_0_0.strip().splitlines()) <= said


def test_no_release_broke_the_one_before(comparisons: dict[tuple[str, str], Comparison]) -> None:
    assert {pair: found.breaks for pair, found in comparisons.items()} == dict.fromkeys(PAIRS, ())


def test_nothing_is_named_by_its_number_in_a_list_and_nothing_said_twice(
    comparisons: dict[tuple[str, str], Comparison],
) -> None:
    for comparison in comparisons.values():
        said = [finding.sentence for finding in comparison.findings]
        assert len(set(said)) == len(said)
        assert [sentence for sentence in said if re.search(r"^`\d+` was|of `\d+`", sentence)] == []
