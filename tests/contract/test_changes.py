"""Each single change of the contract gets its right verdict, in the corpus beside this file."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest

from scripts.contract.comparison import Comparison, compare
from scripts.generate import released
from tests.contract.corpus import CASES, WORDS_OF_OPENAPI, Case

pytestmark = pytest.mark.long  # CI compares the contract itself; this is about who compares

BASE: dict[str, Any] = json.loads(json.dumps(released()["1.0.0"]))


def edited(case: Case) -> dict[str, Any]:
    """Return the first release with a case's change."""
    document = copy.deepcopy(BASE)
    case.edit(document)
    return document


@pytest.fixture(scope="module")
def comparisons() -> dict[str, Comparison]:
    """Return what the comparison says of each case, asked at once."""
    found = compare([(BASE, edited(case)) for case in CASES])
    return {case.name: comparison for case, comparison in zip(CASES, found, strict=True)}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_change_gets_its_verdict(case: Case, comparisons: dict[str, Comparison]) -> None:
    comparison = comparisons[case.name]
    said = {side for finding in comparison.breaks for side in finding.breaks}
    assert said == case.breaks, comparison
    due = {"patch": "1.0.1", "minor": "1.1.0"}
    assert case.breaks or comparison.due("1.0.0") == due[case.due], comparison
    assert bool(case.breaks) is (case.due == "major")


@pytest.mark.parametrize(
    "case", [case for case in CASES if "staff" in case.breaks and "CRM" not in case.breaks and not re.search("personal|beside", case.name)],
    ids=lambda case: case.name,
)  # fmt: skip
def test_a_body_that_would_be_refused_is_shown(case: Case, comparisons: dict[str, Comparison]) -> None:
    assert comparisons[case.name].proofs


def test_nothing_is_named_by_its_number_in_a_list(comparisons: dict[str, Comparison]) -> None:
    said = [finding.sentence for comparison in comparisons.values() for finding in comparison.findings]
    assert [sentence for sentence in said if re.search(r"^`\d+` was|of `\d+`", sentence)] == []


SENTENCES = {
    f"an optional field named {name} is added to a body": f"`{name}` was added (body of POST /repair-request)."
    for name in WORDS_OF_OPENAPI
}
SENTENCES |= {
    f"an optional field named {name} is added to an answer": f"`{name}` was added (answer 202 of each webhook)."
    for name in WORDS_OF_OPENAPI
}
SENTENCES |= {
    "a body's example is another": "`value` of example `guide` changed (body of POST /repair-request).",
    "an answer's example is another": "`example` of `application/problem+json` changed (answer 409 of each webhook).",
    "a field's schema moves into the components": "The document is written in another way, which no message shows.",
    "required fields stand in another order": (
        "`required` of `repair` changed its order (body of POST /repair-request)."
    ),
    "an optional header is added": "Header `webhook-shop` was added (POST /repair-request).",
    "an optional header is added to every webhook": "Header `webhook-shop` was added (each webhook).",
    "a header of every webhook is removed": "`webhook-signature` header parameter was removed (each webhook).",
    "an answer is added to every webhook": "The answer was added (answer 422 of each webhook).",
    "a release is given up": "Release `1.0.0` is given up: it should not be sent from 2027-01-01 on.",
}


@pytest.mark.parametrize("name", SENTENCES)
def test_a_change_is_said_in_one_sentence(name: str, comparisons: dict[str, Comparison]) -> None:
    assert [finding.sentence for finding in comparisons[name].findings] == [SENTENCES[name]]


@pytest.mark.parametrize(
    ("name", "sentences"),
    {
        "a header is added before the others, of which one takes more": {
            "Header `webhook-shop` was added (each webhook).",
            "`maxLength` of header `webhook-signature` changed from 2048 to 4096 (each webhook).",
        },
        "the first header is removed, and another takes more": {
            "`webhook-id` header parameter was removed (each webhook).",
            "`maxLength` of header `webhook-signature` changed from 2048 to 4096 (each webhook).",
        },
        "a tag is added before another, which has better words": {
            "Tag `first` was added.",
            '`description` of tag `webhooks` changed from "Events of the website." to "Better.".',
        },
    }.items(),
)  # fmt: skip
def test_a_thing_of_a_list_is_known_by_its_name_wherever_it_stands(
    name: str, sentences: set[str], comparisons: dict[str, Comparison]
) -> None:
    assert {finding.sentence for finding in comparisons[name].findings} == sentences


@pytest.mark.parametrize(
    ("name", "sentence"),
    {
        "a field's schema becomes one of the components and keeps its description":
            "`priority` is written in another way, and takes the same (body of POST /repair-request).",
        "a field's schema becomes one of the components and takes more":
            "`priority` is written in another way, and takes more (body of POST /repair-request).",
        "a header's schema becomes one of the components":
            "Header `webhook-id` is written in another way, and takes the same (each webhook).",
        "a body's schema is named in a list of one":
            "The schema is written in another way, and takes the same (body of POST /repair-request).",
        "a part of an answer is no longer in a list of one":
            "`existing` is written in another way, and promises the same (answers of each webhook).",
    }.items(),
)  # fmt: skip
def test_a_schema_that_is_written_in_another_way_is_told_of_once_beside_its_words(
    name: str, sentence: str, comparisons: dict[str, Comparison]
) -> None:
    said = [finding.sentence for finding in comparisons[name].findings]
    assert [one for one in said if not one.startswith("`description`")] == [sentence]


def test_the_corpus_has_every_kind_of_verdict_and_no_case_twice() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40
    assert {case.due for case in CASES} == {"patch", "minor", "major"}


def test_a_document_is_no_change_of_itself() -> None:
    [comparison] = compare([(BASE, copy.deepcopy(BASE))])
    assert comparison == Comparison((), (), ())
    assert comparison.due("1.0.0") == "1.0.0"
