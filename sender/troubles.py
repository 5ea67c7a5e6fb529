"""The integration guide's four common issues, and the answers by which each is known (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trouble:
    """A common issue, in the guide's words."""

    name: str
    symptom: str
    cause: str
    solution: str
    words: re.Pattern[str]
    """How the words of an answer, and so a reason, begin when it is this: see `delivery.Judgement.words`."""


CONNECTION_REFUSED = Trouble(
    "Connection refused",
    '"Connection refused" error in logs',
    "CRM system not running or wrong port",
    "Check CRM container status, verify port configuration: CRM_WEBHOOK_URL",
    re.compile(r"Connection (refused|reset|closed)|Cannot connect"),
)
AUTHENTICATION_FAILED = Trouble(
    "Authentication failed",
    "401 Unauthorized responses",
    "Invalid or missing API key",
    "Verify API key in both systems' environment variables: CRM_API_KEY here, WEBHOOK_API_KEY in the CRM; "
    "where webhooks are signed, CRM_SIGNING_SECRET and WEBHOOK_SIGNING_SECRET too",
    re.compile(r"401\b"),
)
WEBHOOK_TIMEOUTS = Trouble(
    "Webhook timeouts",
    "Timeout errors in webhook calls",
    "CRM system overloaded or slow response",
    "Increase timeout (CRM_TIMEOUT), check CRM system performance",
    re.compile(r"timeout|(408|504)\b"),
)
VALIDATION_ERRORS = Trouble(
    "Validation errors",
    "400 Bad Request responses",
    "Invalid payload format or missing required fields",
    "Check payload structure against expected schema: the JSON pointers of the failed delivery say where",
    re.compile(r"400\b"),
)

TROUBLES = (CONNECTION_REFUSED, AUTHENTICATION_FAILED, WEBHOOK_TIMEOUTS, VALIDATION_ERRORS)
"""In the guide's order."""


def trouble_of(words: str) -> Trouble | None:
    """Return the common issue that an answer or a reason shows, or None when it is none of them."""
    return next((trouble for trouble in TROUBLES if trouble.words.match(words)), None)


def seen_in(said: Iterable[str]) -> frozenset[Trouble]:
    """Return the common issues that any of these answers and reasons shows."""
    return frozenset(filter(None, map(trouble_of, said)))
