"""Every statement on the outbox's tables, as verbs that take the caller's connection.

A verb opens and commits nothing, so that it can stand in a booking's own transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    CompoundSelect,
    Connection,
    Float,
    FromClause,
    Integer,
    ScalarSelect,
    Select,
    String,
    and_,
    bindparam,
    case,
    exists,
    func,
    inspect,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.exc import OperationalError, ProgrammingError

from sender.database import insert_or_ignore
from sender.delivery import TRANSITIONS, Decision, Delivery, Status
from sender.errors import ConflictingEvent, NotMigrated, UnknownEvent, WrongState
from sender.events import Event
from sender.tables import outbox, relays, state, trail

DAY = 86_400

AT_ONCE = 0.0
"""When an event is due that need not wait: no clock of a site's host can put that off."""


def _is(status: ColumnElement[str], *states: Status) -> ColumnElement[bool]:
    """Compare with states that stand in the statement: bound ones would keep SQLite off its partial indexes."""
    return status.in_([literal_column(f"'{state}'") for state in states])


_UNDELIVERED = _is(outbox.c.status, "pending", "held")
_UNFINISHED = _is(outbox.c.status, "pending", "held", "failed")


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
        "due_at": AT_ONCE,
        "enqueued_at": now,
    }
    if event.traceparent:  # or not named at all: an outbox that is not migrated yet takes events still
        row["traceparent"] = event.traceparent
    if connection.scalar(insert_or_ignore(connection.dialect.name, outbox, outbox.c.id), row):
        return event.id
    same_key = and_(outbox.c.event == event.name, outbox.c.natural_key == event.natural_key)
    found = connection.execute(select(outbox.c.id, outbox.c.digest, outbox.c.status).where(same_key)).one()
    if found.digest != event.digest:
        raise ConflictingEvent(event.name, event.natural_key, found.id)
    if resend and found.status in {"delivered", "closed", "failed"}:
        _send_again(connection, found.id, found.status, event, now)
    return str(found.id)


def _send_again(connection: Connection, event_id: str, status: str, event: Event, now: float) -> None:
    still = select(outbox.c.id).where(outbox.c.id == event_id, outbox.c.status == status).with_for_update()
    if connection.scalar(still) is None:
        return  # somebody else was quicker
    values = {"payload": _Payload(event.payload), "contract": event.contract}
    _reopen(connection, [event_id], **values)
    if status == "delivered":
        connection.execute(update(state).values(delivered=state.c.delivered - 1))
    note(connection, [event_id], now, "site", "resent", f"was {status}")


def _reopen(connection: Connection, ids: Collection[str], **values: Any) -> None:
    fresh = {
        "status": "pending", "attempts": 0, "due_at": AT_ONCE, "reason": None, "answer": None,
        "held_for": None, "held_by": None, "finished_at": None,
    }  # fmt: skip
    connection.execute(update(outbox).where(outbox.c.id.in_(ids)).values(fresh | values))


# the relay's work: pending, leased


# Built once: to build a statement takes longer than to run it.
_now, _lease = bindparam("now", type_=Float), bindparam("lease", type_=Float)
_IS_DUE = or_(outbox.c.due_at <= _now, outbox.c.due_at > _now + bindparam("longest_delay", type_=Float))
NEAR = 128
"""Events at each end of what is due among which a look begins: behind them may be many of one customer."""


def _is_undelivered(table: FromClause) -> ColumnElement[bool]:
    return _is(table.c.status, "pending", "held")


def _is_leased(table: FromClause) -> ColumnElement[bool]:
    """A lease is over by its end, or when it is further ahead than any that another relay could take now."""
    return and_(table.c.lease_until > _now, table.c.lease_until <= _now + 2 * _lease)


def _is_first(row: FromClause) -> ColumnElement[bool]:
    """Say that no earlier event of its customer is undelivered."""
    earlier = outbox.alias()
    return ~exists().where(
        earlier.c.order_key == row.c.order_key,
        earlier.c.sequence < row.c.sequence,
        _is_undelivered(earlier),
    )


def _is_alone(row: FromClause) -> ColumnElement[bool]:
    """Say that no event of its customer is in flight: a later one may be, when this is put back to pending."""
    leased = outbox.alias()
    return ~exists().where(
        leased.c.order_key == row.c.order_key, leased.c.lease_until.is_not(None), _is_leased(leased)
    )


def _end_of_what_is_due(name: str, order: ColumnElement[int]) -> CTE:
    free = or_(outbox.c.lease_until.is_(None), ~_is_leased(outbox))
    due = select(outbox.c.sequence, outbox.c.order_key).where(
        _UNFINISHED, _is(outbox.c.status, "pending"), _IS_DUE, free
    )
    return due.order_by(order).limit(NEAR).cte(name)


def _claimable_of(end: CTE, order: ColumnElement[int], most: str) -> Select[Any]:
    rows = select(end.c.sequence, end.c.order_key).where(_is_first(end), _is_alone(end)).order_by(order)
    return rows.limit(bindparam(most, type_=Integer)).subquery().select()


def _around(name: str, start: ColumnElement[str], *conditions: ColumnElement[bool]) -> Select[Any]:
    """Go from customer to customer in the order of their keys, however many events each of them has."""

    def next_of(key: ColumnElement[str]) -> ScalarSelect[int]:
        row = outbox.alias()
        later = select(row.c.sequence).where(_is_undelivered(row), row.c.order_key > key)
        return later.order_by(row.c.order_key, row.c.sequence).limit(1).scalar_subquery()

    firsts = select(next_of(start).label("sequence")).where(*conditions).cte(name, recursive=True)
    here = outbox.alias()
    firsts = firsts.union_all(select(next_of(here.c.order_key)).where(here.c.sequence == firsts.c.sequence))
    return select(outbox.c.sequence, outbox.c.order_key).where(
        outbox.c.sequence == firsts.c.sequence, _is(outbox.c.status, "pending"), _IS_DUE, _is_alone(outbox)
    )


def _look() -> CompoundSelect[Any]:
    oldest = _end_of_what_is_due("oldest", outbox.c.sequence.asc())
    newest = _end_of_what_is_due("newest", outbox.c.sequence.desc())
    more = or_(
        bindparam("of_oldest", type_=Integer) == 0,
        select(func.count()).select_from(oldest).scalar_subquery() == NEAR,
    )
    return union_all(
        _claimable_of(newest, newest.c.sequence.desc(), "of_newest"),
        _claimable_of(oldest, oldest.c.sequence.asc(), "of_oldest"),
        _around("on", bindparam("after", type_=String), more),
        _around("again", literal_column("''"), more),
    ).limit(bindparam("most", type_=Integer))


_LOOK = _look()
_ANY_HEAD = (
    select(outbox.c.sequence).where(_UNFINISHED, _is(outbox.c.status, "pending"), _is_first(outbox)).limit(1)
)


@dataclass(frozen=True, slots=True)
class Due:
    """What may be claimed: the first undelivered event of each customer, if it is due and they have no lease.

    The lease is the customer's: a later event may be in flight when one is put back to pending. A due
    time further ahead than the longest possible counts as over, and so does a lease (by twice, for
    another relay's clock or time-out may differ a little), so that a clock that jumped cannot park
    the work.
    """

    now: float
    lease: float
    longest_delay: float


@dataclass(frozen=True, slots=True)
class Share:
    """Of what a look finds: at most so many in all, and of these so many of the newest and of the oldest.

    The rest, and what those leave, go to customers by turns, from the one `after` this order key on.
    """

    most: int
    of_newest: int
    of_oldest: int
    after: str


def look(connection: Connection, due: Due, share: Share) -> list[tuple[int, str]]:
    """Return the sequence and the order key of what is `due`, without taking a lock: `claim` says if it still is."""
    rows = connection.execute(_LOOK, asdict(due) | asdict(share))
    return [(row.sequence, row.order_key) for row in rows]


def is_any_head(connection: Connection) -> bool:
    """Say whether any pending event is the first of its customer, so that it will go by itself."""
    return connection.execute(_ANY_HEAD).first() is not None


# Whoever writes a row now is let be: what it leaves is looked at later.
_DUE = (
    select(outbox.c.sequence)
    .where(
        outbox.c.sequence.in_(bindparam("sequences", expanding=True)),
        _is(outbox.c.status, "pending"),
        _IS_DUE,
        _is_first(outbox),
        _is_alone(outbox),
    )
    .with_for_update(skip_locked=True, of=outbox)  # no words to SQLite
)
_CLAIM = (
    update(outbox)
    .where(outbox.c.sequence.in_(_DUE))
    .values(lease_token=bindparam("token"), lease_until=bindparam("until"))
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
        outbox.c.held_by,
        outbox.c.lease_token,
        outbox.c.traceparent,
    )
)


def claim(
    connection: Connection, due: Due, token: str, lease_until: float, sequences: Collection[int]
) -> list[Delivery]:
    """Lease those of some events that are `due`, and return them, oldest first.

    Only one transaction may do so at a time (`begin_claim`): each must see the leases of all before it.
    """
    to_claim = {"token": token, "until": lease_until, "sequences": list(sequences)}
    rows = connection.execute(_CLAIM, asdict(due) | to_claim)
    return [Delivery(*row[1:]) for row in sorted(rows)]


# The fence: who lost the lease records nothing.
_IS_MINE = tuple_(outbox.c.id, outbox.c.lease_token).in_(bindparam("leases", expanding=True))
_STILL_LEASED = (
    select(outbox.c.id, outbox.c.lease_token)
    .where(_IS_MINE, outbox.c.status == "pending")
    .with_for_update()  # no words to SQLite
)
_RECORD = (
    update(outbox)
    .where(outbox.c.id == bindparam("of_id"))
    .values(
        status=bindparam("to_status"),
        payload=case((bindparam("to_status") == "delivered", None), else_=outbox.c.payload),
        attempts=bindparam("to_attempts"),
        due_at=bindparam("to_due_at"),
        held_for=bindparam("to_held_for"),
        held_by=bindparam("to_held_by"),
        reason=bindparam("to_reason"),
        answer=bindparam("to_answer"),
        finished_at=bindparam("to_finished_at"),
        lease_token=None,
        lease_until=None,
    )
)
_GIVE_BACK = update(outbox).where(_IS_MINE).values(lease_token=None, lease_until=None)


def give_back(connection: Connection, deliveries: Sequence[Delivery]) -> None:
    """End the leases of events that were not sent."""
    if deliveries:
        connection.execute(_GIVE_BACK, {"leases": _leases(deliveries)})


def record(
    connection: Connection, decisions: Sequence[tuple[Delivery, Decision]], now: float, actor: str
) -> list[bool]:
    """Write what became of attempts. Return for each whether its lease still held, so that it was written."""
    leases = _leases([delivery for delivery, _ in decisions])
    still = {tuple(row) for row in connection.execute(_STILL_LEASED, {"leases": leases})} if leases else set()
    held = [lease in still for lease in leases]
    written = [decided for decided, is_held in zip(decisions, held, strict=True) if is_held]
    if written:
        connection.execute(_RECORD, [_recorded(delivery, decision, now) for delivery, decision in written])
    entries = [
        (delivery.id, "attempted" if decision.status == "pending" else decision.status, decision.words)
        for delivery, decision in written
    ]
    _write_trail(connection, entries, now, actor)
    delivered = sum(verb == "delivered" for _, verb, _ in entries)
    if delivered:
        _note_erasure(connection, now, delivered)
    return held


def _leases(deliveries: Sequence[Delivery]) -> list[tuple[str, str]]:
    return [(delivery.id, delivery.lease_token) for delivery in deliveries]


def _recorded(delivery: Delivery, decision: Decision, now: float) -> dict[str, Any]:
    return {
        "of_id": delivery.id,
        "to_status": decision.status,
        "to_attempts": decision.attempts,
        "to_due_at": now + decision.due_in,
        "to_held_for": decision.held_for,
        "to_held_by": decision.held_by,
        "to_reason": decision.reason,
        "to_answer": decision.answer,
        "to_finished_at": now if decision.status in {"delivered", "failed"} else None,
    }


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
    held = and_(_UNFINISHED, _is(outbox.c.status, "held"))
    rows = connection.scalars(select(outbox.c.held_for).where(held).distinct())
    return [str(row) for row in rows]


def release(connection: Connection, waited_for: str, now: float, actor: str) -> int:
    """Put the events that were held for this back to pending; return how many."""
    mine = and_(_UNFINISHED, _is(outbox.c.status, "held"), outbox.c.held_for == waited_for)
    freed = {"status": "pending", "due_at": AT_ONCE, "held_for": None, "reason": None, "answer": None}
    ids = connection.scalars(update(outbox).where(mine).values(freed).returning(outbox.c.id)).all()
    note(connection, ids, now, actor, "released", waited_for)
    return len(ids)


# failed → pending, failed → closed


def retry(connection: Connection, event_id: str, now: float, actor: str) -> None:
    """Put a failed event back to pending. Raises WrongState when it is not failed."""
    _require(connection, event_id, "pending", "failed")
    _reopen(connection, [event_id])
    note(connection, [event_id], now, actor, "retried")


def close(connection: Connection, event_id: str, now: float, actor: str) -> None:
    """Give a failed event up: its payload is erased. Raises WrongState when it is not failed."""
    _require(connection, event_id, "closed", "failed")
    connection.execute(
        update(outbox).where(outbox.c.id == event_id).values(status="closed", payload=None, finished_at=now)
    )
    _note_erasure(connection, now)
    note(connection, [event_id], now, actor, "closed")


def _require(connection: Connection, event_id: str, to: Status, *states: Status) -> None:
    found = select(outbox.c.status).where(outbox.c.id == event_id).with_for_update()
    status: Status | None = connection.scalar(found)
    if status is None:
        raise UnknownEvent(f"no event has the id {event_id}")
    if status not in states or to not in TRANSITIONS[status]:
        raise WrongState(f"{event_id} is {status}; this can be done only when it is {' or '.join(states)}")


# what people ask


def counts(connection: Connection) -> Counts:
    """Return how many events are in each state."""
    rows = connection.execute(
        select(outbox.c.status, func.count()).where(_UNFINISHED).group_by(outbox.c.status)
    )
    found = {status: count for status, count in rows}  # noqa: C416  # rows are no pairs to mypy
    delivered = connection.scalar(select(state.c.delivered)) or 0
    return Counts(found.get("pending", 0), delivered, found.get("failed", 0), found.get("held", 0))


def oldest_pending(connection: Connection) -> float | None:
    """Return when the oldest undelivered event was enqueued."""
    oldest: float | None = connection.scalar(select(func.min(outbox.c.enqueued_at)).where(_UNDELIVERED))
    return oldest


_SHOWN = (
    outbox.c.id, outbox.c.event, outbox.c.contract, outbox.c.natural_key, outbox.c.reference, outbox.c.status,
    outbox.c.attempts, outbox.c.due_at, outbox.c.held_for, outbox.c.reason, outbox.c.answer,
    outbox.c.enqueued_at, outbox.c.finished_at, outbox.c.digest,
)  # fmt: skip


def failed(connection: Connection) -> Sequence[Any]:
    """Return the failed events, oldest first, without their payloads."""
    mine = and_(_UNFINISHED, _is(outbox.c.status, "failed"))
    return connection.execute(select(*_SHOWN).where(mine).order_by(outbox.c.sequence)).all()


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
        # Also those from a future that a clock has jumped back from: one would be "last seen" till then.
        connection.execute(relays.delete().where(~relays.c.seen_at.between(now - DAY, now + DAY)))
        connection.execute(relays.insert().values(relay_id=relay_id, **values))


def running_relays(connection: Connection, now: float, lease: float) -> tuple[int, float | None]:
    """Return how many relays look at this outbox (one unseen for a lease is gone), and when one did last."""
    seen = relays.c.seen_at.between(now - lease, now + lease)
    alive = connection.scalar(select(func.count()).where(relays.c.running, seen))
    return alive or 0, connection.scalar(select(func.max(relays.c.seen_at)))


_NOTE_ERASURE = update(state).values(
    delivered=state.c.delivered + bindparam("more"),
    erasures=state.c.erasures + 1,
    erasing_since=func.coalesce(state.c.erasing_since, bindparam("at", type_=Float)),
)


def _note_erasure(connection: Connection, now: float, delivered: int = 0) -> None:
    connection.execute(_NOTE_ERASURE, {"more": delivered, "at": now})


def erasing_since(connection: Connection) -> tuple[float | None, int]:
    """Return since when erased bytes wait in SQLite's write-ahead log, and how often something was erased."""
    since, erasures = connection.execute(select(state.c.erasing_since, state.c.erasures)).one()
    return since, erasures


def erased(connection: Connection, erasures: int, now: float) -> None:
    """Write that what was erased so often has left the log; what another erased meanwhile waits since now."""
    waits_since = case((state.c.erasures == erasures, None), else_=now)
    connection.execute(update(state).values(erasing_since=waits_since))


def is_missing_table(error: Exception) -> bool:
    """Say whether an error of the database means that the outbox's tables are not there."""
    return isinstance(error, OperationalError | ProgrammingError) and (
        "no such table" in str(error.orig) or "does not exist" in str(error.orig)
    )
