"""The guide's four common issues are known by what the relay and the CRM say."""

from __future__ import annotations

import pytest

from sender.delivery import status_words
from sender.transport import REFUSED
from sender.troubles import (
    AUTHENTICATION_FAILED,
    CONNECTION_REFUSED,
    TROUBLES,
    VALIDATION_ERRORS,
    WEBHOOK_TIMEOUTS,
    Trouble,
    seen_in,
    trouble_of,
)


@pytest.mark.parametrize(
    ("words", "trouble"),
    [
        (REFUSED, CONNECTION_REFUSED),
        ("Connection closed before the whole answer", CONNECTION_REFUSED),
        ("Cannot connect", CONNECTION_REFUSED),
        (f"{status_words(401)}: the CRM refuses the key", AUTHENTICATION_FAILED),
        ("timeout", WEBHOOK_TIMEOUTS),
        (status_words(504), WEBHOOK_TIMEOUTS),
        (status_words(400), VALIDATION_ERRORS),
        (status_words(409), None),
        (status_words(500), None),
        ("4001", None),
        ("", None),
    ],
)
def test_an_answer_shows_its_common_issue(words: str, trouble: Trouble | None) -> None:
    assert trouble_of(words) is trouble


def test_what_is_seen_is_each_issue_once() -> None:
    assert seen_in([REFUSED, "timeout", REFUSED, "409 Conflict"]) == {CONNECTION_REFUSED, WEBHOOK_TIMEOUTS}


def test_the_four_are_in_the_guides_order_and_words() -> None:
    assert [trouble.name.lower() for trouble in TROUBLES] == [
        "connection refused", "authentication failed", "webhook timeouts", "validation errors",
    ]  # fmt: skip
