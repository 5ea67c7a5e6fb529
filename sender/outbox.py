"""Every statement on the outbox's tables, as verbs that take the caller's connection.

A verb opens and commits nothing, so that it can stand in a booking's own transaction.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    inspect,
    or_,
    select,
    update,
)
from sqlalchemy.exc import OperationalError, ProgrammingError

from sender.database import insert_or_ignore
from sender.delivery import TRANSITIONS, Decision, Delivery, Status
from sender.errors import ConflictingEvent, NotMigrated, UnknownEvent, WrongState
from sender.events import Event
from sender.tables import outbox, relays, state, trail

UNDELIVERED = ("pending", "held")
RELAY_ALIVE = 3.0
"""Seconds after which a relay that was not seen counts as gone."""


DAY = 86_400


class _Payload(str):
    """A body that shows itself in no error and no echo of the caller's engine."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'(payload)'"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many events are in each state that matters to people."""

    pending: int
    delivered: int
    failed: int
    held: int


def outbox_id(connection: Connection) -> str:
    """Return what tells this outbox from any other. Raises NotMigrated where there is none."""
    if not inspect(connection).has_table(state.name):
        raise NotMigrated("the outbox's tables are not there; create them with: crm-sender migrate")
    found = connection.scalar(select(state.c.outbox_id))
    if found is None:
        raise NotMigrated("the outbox has no identity; create it with: crm-sender migrate")
    return str(found)


# pending ← (nothing); delivered, closed, failed → pending with resend


def enqueue(connection: Connection, event: Event, now: float, *, resend: bool = False) -> str:
    """Write an event and return its id, or the id under which the same event is already there.

    Raises ConflictingEvent when the natural key is there with other content.
    """
    row = {
        "id": event.id,
        "event": event.name,
        "contract": event.contract,
        "natural_key": event.natural_key,
        "order_key": event.order_key,
        "reference": event.reference,
        "payload": _Payload(event.payload),
        "digest": event.digest,
        "status": "pending",
        "due_at": now,
        "enqueued_at": now,
    }
    if connection.scalar(insert_or_ignore(connection, outbox).values(row).returning(outbox.c.id)):
        return event.id
    same_key = and_(outbox.c.event == event.name, outbox.c.natural_key == event.natural_key)
    found = connection.execute(select(outbox.c.id, outbox.c.digest, outbox.c.status).where(same_key)).one()
    if found.digest != event.digest:
        raise ConflictingEvent(event.name, event.natural_key, found.id)
    if resend and found.status in {"delivered", "closed", "failed"}:
        _send_again(connection, found.id, found.status, event, now)
    return str(found.id)


def _send_again(connection: Connection, event_id: str, status: str, event: Event, now: float) -> None:
    values = {"payload": _Payload(event.payload), "contract": event.contract}
    _reopen(connection, [event_id], now, **values)
    if status == "delivered":
        connection.execute(update(state).values(delivered=state.c.delivered - 1))
    note(connection, [event_id], now, "site", "resent", f"was {status}")


def _reopen(connection: Connection, ids: Collection[str], now: float, **values: Any) -> None:
    fresh = {
        "status": "pending", "attempts": 0, "due_at": now, "reason": None, "answer": None,
        "held_for": None, "released_from": None, "finished_at": None,
    }  # fmt: skip
    connection.execute(update(outbox).where(outbox.c.id.in_(ids)).values(fresh | values))


# the relay's work: pending, leased


def due(now: float, *, lease: float, longest_delay: float, but_not_of: str | None = None) -> Select[Any]:
    """Select what may be claimed: due, not leased, and no earlier undelivered event of its customer.

    A due time or a lease further ahead than the longest possible counts as over, so that a clock
    that jumped cannot park the work.
    """
    earlier = outbox.alias("earlier")
    waits = exists().where(
        earlier.c.order_key == outbox.c.order_key,
        earlier.c.sequence < outbox.c.sequence,
        earlier.c.status.in_(UNDELIVERED),
    )
    is_due = or_(outbox.c.due_at <= now, outbox.c.due_at > now + longest_delay)
    is_free = or_(
        outbox.c.lease_until.is_(None), outbox.c.lease_until <= now, outbox.c.lease_until > now + lease
    )
    heads = select(outbox.c.sequence).where(outbox.c.status == "pending", is_due, is_free, ~waits)
    if but_not_of is not None:
        heads = heads.where(outbox.c.order_key != but_not_of)
    return heads.order_by(outbox.c.sequence)


def is_anything(connection: Connection, heads: Select[Any]) -> bool:
    """Say whether there is anything to claim, without taking a lock."""
    return connection.execute(heads.limit(1)).first() is not None


def claim(
    connection: Connection, heads: Select[Any], token: str, lease_until: float, limit: int
) -> list[Delivery]:
    """Lease up to `limit` of what is `due`, oldest first."""
    if connection.dialect.name == "postgresql":
        heads = heads.with_for_update(skip_locked=True, of=outbox)
    rows = connection.execute(
        update(outbox)
        .where(outbox.c.sequence.in_(heads.limit(limit)))
        .values(lease_token=token, lease_until=lease_until)
        .returning(
            outbox.c.sequence,
            outbox.c.id,
            outbox.c.event,
            outbox.c.contract,
            outbox.c.natural_key,
            outbox.c.order_key,
            outbox.c.payload,
            outbox.c.digest,
            outbox.c.attempts,
            outbox.c.released_from,
            outbox.c.lease_token,
        )
    )
    return [Delivery(*row[1:]) for row in sorted(rows)]


def give_back(connection: Connection, deliveries: Iterable[Delivery]) -> None:
    """End the leases of events that were not sent."""
    for delivery in deliveries:
        connection.execute(
            update(outbox)
            .where(outbox.c.id == delivery.id, outbox.c.lease_token == delivery.lease_token)
            .values(lease_token=None, lease_until=None)
        )


_RECORD = (
    update(outbox)
    .where(
        outbox.c.id == bindparam("of_id"),
        outbox.c.lease_token == bindparam("of_token"),  # the fence: who lost the lease records nothing
        outbox.c.status == "pending",
    )
    .values(
        status=bindparam("to_status"),
        payload=case((bindparam("to_status") == "delivered", None), else_=outbox.c.payload),
        attempts=bindparam("to_attempts"),
        due_at=bindparam("to_due_at"),
        held_for=bindparam("to_held_for"),
        released_from=None,
        reason=bindparam("to_reason"),
        answer=bindparam("to_answer"),
        finished_at=bindparam("to_finished_at"),
        lease_token=None,
        lease_until=None,
    )
)


def record(
    connection: Connection, decisions: Sequence[tuple[Delivery, Decision]], now: float, actor: str
) -> list[bool]:
    """Write what became of attempts. Return for each whether its lease still held, so that it was written."""
    written = [_record_one(connection, delivery, decision, now) for delivery, decision in decisions]
    entries = [
        (delivery.id, "attempted" if decision.status == "pending" else decision.status, decision.words)
        for (delivery, decision), held in zip(decisions, written, strict=True)
        if held
    ]
    _write_trail(connection, entries, now, actor)
    delivered = sum(verb == "delivered" for _, verb, _ in entries)
    if delivered:
        connection.execute(
            update(state).values(
                delivered=state.c.delivered + delivered,
                erasing_since=func.coalesce(state.c.erasing_since, now),
            )
        )
    return written


def _record_one(connection: Connection, delivery: Delivery, decision: Decision, now: float) -> bool:
    finished = decision.status in {"delivered", "failed"}
    result = connection.execute(
        _RECORD,
        {
            "of_id": delivery.id,
            "of_token": delivery.lease_token,
            "to_status": decision.status,
            "to_attempts": decision.attempts,
            "to_due_at": now + decision.due_in,
            "to_held_for": decision.held_for,
            "to_reason": decision.reason,
            "to_answer": decision.answer,
            "to_finished_at": now if finished else None,
        },
    )
    return result.rowcount == 1


def _write_trail(
    connection: Connection, entries: Sequence[tuple[str, str, str]], now: float, actor: str
) -> None:
    if entries:
        connection.execute(
            trail.insert(),
            [
                {"event_id": event_id, "at": now, "actor": actor, "verb": verb, "detail": detail}
                for event_id, verb, detail in entries
            ],
        )


def note(
    connection: Connection, ids: Iterable[str], now: float, actor: str, verb: str, detail: str = ""
) -> None:
    """Write a line of the trail for each event."""
    _write_trail(connection, [(event_id, verb, detail) for event_id in ids], now, actor)


# held → pending


def held_for(connection: Connection) -> list[str]:
    """Return what held events wait for: paths of webhooks and contract releases."""
    rows = connection.scalars(select(outbox.c.held_for).where(outbox.c.status == "held").distinct())
    return [str(row) for row in rows]


def release(connection: Connection, waited_for: str, now: float, actor: str) -> int:
    """Put the events that were held for this back to pending; return how many."""
    mine = and_(outbox.c.status == "held", outbox.c.held_for == waited_for)
    rows = connection.execute(select(outbox.c.id, outbox.c.answer).where(mine)).all()
    for row in rows:
        status = json.loads(row.answer).get("status") if row.answer else None
        _reopen(connection, [row.id], now, released_from=status)
    note(connection, [row.id for row in rows], now, actor, "released", waited_for)
    return len(rows)


# failed → pending, failed → closed


def retry(connection: Connection, event_id: str, now: float, actor: str) -> None:
    """Put a failed event back to pending. Raises WrongState when it is not failed."""
    _require(connection, event_id, "pending", "failed")
    _reopen(connection, [event_id], now)
    note(connection, [event_id], now, actor, "retried")


def close(connection: Connection, event_id: str, now: float, actor: str) -> None:
    """Give a failed event up: its payload is erased. Raises WrongState when it is not failed."""
    _require(connection, event_id, "closed", "failed")
    connection.execute(
        update(outbox).where(outbox.c.id == event_id).values(status="closed", payload=None, finished_at=now)
    )
    connection.execute(update(state).values(erasing_since=func.coalesce(state.c.erasing_since, now)))
    note(connection, [event_id], now, actor, "closed")


def _require(connection: Connection, event_id: str, to: Status, *states: Status) -> None:
    status: Status | None = connection.scalar(select(outbox.c.status).where(outbox.c.id == event_id))
    if status is None:
        raise UnknownEvent(f"no event has the id {event_id}")
    if status not in states or to not in TRANSITIONS[status]:
        raise WrongState(f"{event_id} is {status}; this can be done only when it is {' or '.join(states)}")


# what people ask


def counts(connection: Connection) -> Counts:
    """Return how many events are in each state."""
    unfinished = ("pending", "held", "failed")
    rows = connection.execute(
        select(outbox.c.status, func.count()).where(outbox.c.status.in_(unfinished)).group_by(outbox.c.status)
    )
    found: dict[str, int] = dict(rows.tuples().all())
    delivered = connection.scalar(select(state.c.delivered)) or 0
    return Counts(found.get("pending", 0), delivered, found.get("failed", 0), found.get("held", 0))


def oldest_pending(connection: Connection) -> float | None:
    """Return when the oldest undelivered event was enqueued."""
    return connection.scalar(
        select(outbox.c.enqueued_at)
        .where(outbox.c.status.in_(UNDELIVERED))
        .order_by(outbox.c.sequence)
        .limit(1)
    )


_SHOWN = (
    outbox.c.id, outbox.c.event, outbox.c.contract, outbox.c.natural_key, outbox.c.reference, outbox.c.status,
    outbox.c.attempts, outbox.c.due_at, outbox.c.held_for, outbox.c.reason, outbox.c.answer,
    outbox.c.enqueued_at, outbox.c.finished_at, outbox.c.digest,
)  # fmt: skip


def in_state(connection: Connection, *states: Status) -> Sequence[Any]:
    """Return the events in these states, oldest first, without their payloads."""
    return connection.execute(
        select(*_SHOWN).where(outbox.c.status.in_(states)).order_by(outbox.c.sequence)
    ).all()


def delivered_since(connection: Connection, since: float) -> Sequence[Any]:
    """Return what was delivered since a time, oldest first."""
    return connection.execute(
        select(*_SHOWN)
        .where(outbox.c.status == "delivered", outbox.c.finished_at >= since)
        .order_by(outbox.c.finished_at, outbox.c.sequence)
    ).all()


def find(connection: Connection, key: str) -> Sequence[Any]:
    """Return the events with this id, natural key or ticket number. Raises UnknownEvent when there is none."""
    mine = or_(outbox.c.id == key, outbox.c.natural_key == key, outbox.c.reference == key)
    rows = connection.execute(select(*_SHOWN).where(mine).order_by(outbox.c.sequence)).all()
    if not rows:
        raise UnknownEvent(f"no event has the id, natural key or ticket number {key}")
    return rows


def payload_of(connection: Connection, event_id: str) -> str | None:
    """Return an event's body, None when it is erased."""
    return connection.scalar(select(outbox.c.payload).where(outbox.c.id == event_id))


def trail_of(connection: Connection, event_id: str) -> Sequence[Any]:
    """Return what happened to an event, oldest first."""
    columns = (trail.c.at, trail.c.actor, trail.c.verb, trail.c.detail)
    return connection.execute(
        select(*columns).where(trail.c.event_id == event_id).order_by(trail.c.number)
    ).all()


# relays and erasure


def see_relay(
    connection: Connection, relay_id: str, host: str, pid: int, now: float, *, running: bool = True
) -> None:
    """Write that a relay looks at this outbox, or that it has stopped."""
    values = {"host": host, "pid": pid, "running": running, "seen_at": now}
    if not connection.execute(update(relays).where(relays.c.relay_id == relay_id).values(values)).rowcount:
        connection.execute(relays.delete().where(relays.c.seen_at < now - DAY))
        connection.execute(relays.insert().values(relay_id=relay_id, **values))


def running_relays(connection: Connection, now: float) -> tuple[int, float | None]:
    """Return how many relays look at this outbox now, and when one did last."""
    seen = relays.c.seen_at.between(now - RELAY_ALIVE, now + RELAY_ALIVE)
    alive = connection.scalar(select(func.count()).where(relays.c.running, seen))
    return alive or 0, connection.scalar(select(func.max(relays.c.seen_at)))


def erasing_since(connection: Connection) -> float | None:
    """Return since when erased bytes wait in SQLite's write-ahead log."""
    return connection.scalar(select(state.c.erasing_since))


def erased(connection: Connection, started: float) -> None:
    """Write that what was erased until `started` has left the log."""
    connection.execute(update(state).where(state.c.erasing_since <= started).values(erasing_since=None))


def is_missing_table(error: Exception) -> bool:
    """Say whether an error of the database means that the outbox's tables are not there."""
    return isinstance(error, OperationalError | ProgrammingError) and (
        "no such table" in str(error.orig) or "does not exist" in str(error.orig)
    )
