"""What became of delivered events: asked at the CRM by their receipts, a few at a time, and not for long."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

from sender.delivery import Answer, Fault, Outcome, read_json, read_problem, status_words
from sender.settings import SenderSettings
from sender.transport import Transport

MOST = 10
"""Events about which the CRM is asked at once: those of a ticket, and not a customer's whole history."""
SECONDS = 3.0
"""How long its answers may take together."""

_WORD = re.compile("[a-z][a-z_]{0,31}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z")


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of an event in the CRM, as far as that is told."""

    status: str | None
    """The CRM's word: `pending_approval`, `approved`, `rejected`; None where it told none."""
    at: str | None
    """When it was decided (RFC 3339, UTC)."""
    words: str
    """The same for people, or why it is not known."""


def _not_told(why: str) -> Decided:
    return Decided(None, None, f"not told: {why}")


NOT_KEPT = _not_told("an older release delivered it, and kept no receipt; the CRM's staff pages show it")
TOO_OLD = _not_told("the CRM is too old to tell, contract 1.0; its staff pages show it")
UNKNOWN = _not_told(
    "the CRM knows no such receipt; if it was restored from a backup, send this again: resend"
)
TOO_MANY = _not_told(f"only the newest {MOST} are asked about; look at this one by its id")
TOO_BUSY = _not_told("too many ask at once; ask again")
STRANGER = _not_told("something other than the CRM answers; check CRM_WEBHOOK_URL")


def with_decisions(settings: SenderSettings, events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return events as `deliveries.story` tells them, what is delivered with what became of it, `decided`.

    The newest are asked about, one after the other, until the CRM does not answer as it should: then it
    would not about the others either.
    """
    told = [dict(event) for event in events]
    deadline, asked, trouble = time.monotonic() + SECONDS, 0, None
    with Transport(settings) as crm:
        for event in reversed(told):
            if event["status"] != "delivered":
                continue
            if event["receipt_id"] is None:
                decided = NOT_KEPT
            elif trouble or asked == MOST:
                decided = trouble or TOO_MANY
            else:
                asked += 1
                outcome = crm.receipt(event["receipt_id"], deadline - time.monotonic())
                decided = read(outcome, event["receipt_id"], event["event"])
                trouble = None if decided.status or decided == UNKNOWN else decided
            event["decided"] = asdict(decided)
    return told


def read(outcome: Outcome, receipt_id: str, event: str) -> Decided:
    """Return what an answer about a receipt says (pure)."""
    if isinstance(outcome, Fault):
        return _not_told(f"the CRM is away: {outcome.words}")
    if outcome.status == HTTPStatus.OK:
        return _read_outcome(read_json(outcome) or {}, receipt_id, event)
    if outcome.status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
        return _read_absence(outcome)
    return _not_told(f"the CRM does not say: {status_words(outcome.status)}")


def _read_outcome(told: Mapping[str, Any], receipt_id: str, event: str) -> Decided:
    status, at = str(told.get("status")), str(told.get("decided_at"))
    if (told.get("id"), told.get("event")) != (receipt_id, event) or not _WORD.fullmatch(status):
        return STRANGER
    if status == "pending_approval":
        return Decided(status, None, "waits for the CRM's staff")
    if not _TIME.fullmatch(at):
        return Decided(status, None, status)
    return Decided(status, at, f"{status} {at}")


def _read_absence(answer: Answer) -> Decided:
    problem = read_problem(answer)
    if problem is None:
        return STRANGER
    return UNKNOWN if problem.get("type") == "unknown-receipt" else TOO_OLD
