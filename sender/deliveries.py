"""Deliveries as people see and mend them: failed, held, or on their way; the same for programs and for pages.

What is shown holds ids, keys, times, answers and JSON pointers, and nothing that a customer wrote.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row

from generated.operations import CURRENT, RELEASES
from sender import outbox
from sender.database import PAUSE, begin_work, reading
from sender.delivery import Cause, cause_of, read_answer
from sender.errors import DamagedEvent, InvalidEvent, PreviewChanged, SenderError, UnknownEvent, WrongState
from sender.events import check, is_intact
from sender.outbox import Failures

PART = 100
"""Events that one transaction writes, some milliseconds: bookings must get their turn."""


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of a wish to send failed deliveries again."""

    retried: int
    refused: dict[str, SenderError]
    """Why, by id: InvalidEvent, DamagedEvent, WrongState or UnknownEvent."""
    remarks: dict[str, str]
    """Where today's contract says something else of an older release's event, by id."""


@dataclass(frozen=True, slots=True)
class Closed:
    """What became of a wish to give failed deliveries up."""

    closed: int
    refused: dict[str, SenderError]
    """Why, by id: WrongState or UnknownEvent."""


def unfinished(
    connection: Connection, wanted: Failures, after: int = 0, limit: int | None = None
) -> list[dict[str, Any]]:
    """Return the failed or held deliveries that match and come `after` a sequence, oldest first."""
    return [described(row) for row in outbox.list_unfinished(connection, wanted, after, limit)]


def described(row: Row[Any]) -> dict[str, Any]:
    """Return an event as it is shown; times are RFC 3339, None for what has not happened."""
    answer = read_answer(row.answer)
    return {
        "sequence": row.sequence,
        "id": row.id,
        "event": row.event,
        "natural_key": row.natural_key,
        "reference": row.reference,
        "contract": row.contract,
        "status": row.status,
        "reason": row.reason,
        "answer": answer,
        "waits_for": _cause(row).waits_for if row.status == "held" else None,
        "attempts": row.attempts,
        "enqueued_at": shown(row.enqueued_at),
        "next_at": shown(row.due_at if row.status == "pending" and row.attempts else None),
        "held_at": shown(row.due_at if row.status == "held" else None),
        "failed_at": shown(row.finished_at if row.status == "failed" else None),
        "received_at": shown(row.finished_at if row.status == "delivered" else None),
        "receipt_id": row.receipt_id if row.status == "delivered" else None,
    }


def story(connection: Connection, key: str) -> list[dict[str, Any]]:
    """Return all events with this id, natural key or ticket number, each with its `trail` from the first.

    `decided` is None: what the CRM's staff decided `receipts.with_decisions` asks. Raises UnknownEvent when there is none.
    """
    return [
        described(row) | {"decided": None, "trail": _trail(connection, row)}
        for row in outbox.find(connection, key)
    ]


def _trail(connection: Connection, row: Row[Any]) -> list[dict[str, Any]]:
    begun = {"at": shown(row.enqueued_at), "actor": "site", "what": "enqueued", "detail": ""}
    steps = outbox.trail_of(connection, row.id)
    return [begun] + [
        {"at": shown(step.at), "actor": step.actor, "what": step.verb, "detail": step.detail}
        for step in steps
    ]


def holds(connection: Connection) -> list[dict[str, Any]]:
    """Return what held events wait for, the longest first.

    `{waits_for, held_for, reason, cause, cure, since, held}`: since when, and how many.
    """
    return [
        {
            "waits_for": (cause := _cause(row)).waits_for,
            "held_for": row.held_for,
            "reason": row.reason,
            "cause": cause.what,
            "cure": cause.cure,
            "since": shown(row.since),
            "held": row.count,
        }
        for row in outbox.holds(connection)
    ]


def _cause(row: Row[Any]) -> Cause:
    return cause_of(row.held_for, row.held_by, (read_answer(row.answer) or {}).get("type"))


def retry_matching(engine: Engine, wanted: Failures, actor: str, seen: str | None = None) -> Retried:
    """Put the failed deliveries that match back to pending, each as it was sent, some in each transaction.

    An event goes again only when it is what was committed, and what the release that it was written for
    allows: by that the CRM will judge it. `seen` is the digest of the preview that somebody decided by.

    Raises PreviewChanged when it is another by now; then nothing was changed.
    """
    retried, refused, remarks = 0, dict[str, SenderError](), dict[str, str]()
    for part in _parts(engine, wanted, seen):
        with reading(engine) as connection:
            rows = outbox.failed_payloads(connection, part)
        faults = {row.id: fault for row in rows if (fault := _fault(row))}
        remarks |= {row.id: remark for row in rows if (remark := _remark(row, faults.get(row.id)))}
        with engine.begin() as connection:
            now = begin_work(connection, time.time)
            back = outbox.retry(connection, list(set(part) - set(faults)), now, actor)
            refused |= faults | _refusals(connection, set(part) - set(faults) - set(back))
        retried += len(back)
    return Retried(retried, refused, remarks)


def close_matching(engine: Engine, wanted: Failures, actor: str, seen: str | None = None) -> Closed:
    """Give the failed deliveries up that match: their payloads are erased. As `retry_matching` otherwise."""
    closed, refused = 0, dict[str, SenderError]()
    for part in _parts(engine, wanted, seen):
        with engine.begin() as connection:
            done = outbox.close(connection, part, begin_work(connection, time.time), actor)
            refused |= _refusals(connection, set(part) - set(done))
        closed += len(done)
    return Closed(closed, refused)


def _parts(engine: Engine, wanted: Failures, seen: str | None) -> Iterator[Sequence[str]]:
    """Yield the ids that match now, in their order, and then those that were asked for and do not."""
    with reading(engine) as connection:
        found = outbox.preview(connection, wanted)
    if seen not in {None, found.digest}:
        raise PreviewChanged("these are not the deliveries that were seen; look again")
    ids = list(dict.fromkeys([*found.ids, *(wanted.ids or ())]))
    for start in range(0, len(ids), PART):
        yield ids[start : start + PART]
        time.sleep(PAUSE)


def _fault(row: Row[Any]) -> SenderError | None:
    """Return why an event must not be sent again as it is."""
    if row.contract not in RELEASES:  # after a step back to an older sender: the CRM will judge
        return None
    try:
        check(row.event, row.payload, row.contract)
    except InvalidEvent as error:
        return error
    if is_intact(row.payload, row.digest, RELEASES[row.contract][row.event]):
        return None
    return DamagedEvent(
        "its payload in the outbox is damaged; restore the outbox from a backup, or close this"
    )


def _remark(row: Row[Any], fault: SenderError | None) -> str | None:
    """Return what today's contract says of an older release's event, where that is something else."""
    if row.contract == CURRENT or row.contract not in RELEASES:
        return None
    try:
        check(row.event, row.payload)
    except InvalidEvent as error:
        same = isinstance(fault, InvalidEvent) and fault.faults == error.faults
        return (
            None if same else f"contract {CURRENT}, today's, refuses it: {'; '.join(map(str, error.faults))}"
        )
    return f"contract {CURRENT}, today's, takes it: enqueue it again with resend" if fault else None


def _refusals(connection: Connection, ids: Collection[str]) -> dict[str, SenderError]:
    """Return why nothing was done to these events."""
    found = outbox.statuses(connection, ids)
    return {
        event_id: WrongState(f"is {found[event_id]}; this can be done only when it is failed")
        if event_id in found
        else UnknownEvent("no event has this id")
        for event_id in ids
    }


def shown(seconds: float | None) -> str | None:
    """Return a time as people and programs read it (RFC 3339, UTC)."""
    return (
        None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    )
