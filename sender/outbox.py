"""Every statement on the outbox's tables, as verbs that take the caller's connection.

A verb opens and commits nothing, so that it can stand in a booking's own transaction.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import (
    CTE,
    ColumnElement,
    CompoundSelect,
    Connection,
    Dialect,
    Executable,
    Float,
    FromClause,
    Insert,
    Integer,
    Result,
    Row,
    ScalarSelect,
    Select,
    String,
    Text,
    TypeDecorator,
    Update,
    and_,
    bindparam,
    case,
    exists,
    func,
    inspect,
    literal,
    literal_column,
    or_,
    select,
    type_coerce,
    union_all,
    update,
)
from sqlalchemy.exc import OperationalError, ProgrammingError

from generated.operations import WEBHOOKS
from sender.database import cover_of, given_rows, insert_one, insert_or_add, insert_or_ignore, uncovered
from sender.errors import ConflictingEvent, NotMigrated, UnknownEvent, WrongState
from sender.events import Event
from sender.statistics import hour_of, rung_of
from sender.tables import alerts, hours, outbox, relays, releases, state, trail

if TYPE_CHECKING:
    from sender.delivery import Decision, Delivery, Status

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


class _Given(TypeDecorator[str]):
    """Reads a body as it was given."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Leave the cover out; where there are none, white space is the payload's own."""
        return uncovered(value) if dialect.name == "sqlite" else value


_payload = type_coerce(outbox.c.payload, _Given).label("payload")


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
        raise NotMigrated(
            "the outbox's tables have no identity; give them one with: crm-sender migrate, or in the site's own "
            "migration, with op.execute(sender.outbox_identity())"
        )
    return str(found)


# pending ← (nothing); delivered, closed, failed → pending with resend


def add(connection: Connection, event: Event, now: float) -> bool:
    """Write an event, unless its id or its natural key is already there; say whether it was written.

    Raises NotMigrated when neither is, and the number that the database gave the row is taken.
    """
    row = {
        "id": event.id,
        "event": event.name,
        "contract": event.contract,
        "natural_key": event.natural_key,
        "order_key": event.order_key,
        "reference": event.reference,
        "payload": _Payload(cover_of(connection) + event.payload),
        "digest": event.digest,
        "status": "pending",
        "due_at": AT_ONCE,
        "enqueued_at": now,
    }
    if event.traceparent:  # or not named at all: an outbox that is not migrated yet takes events still
        row["traceparent"] = event.traceparent
    if insert_one(connection, insert_or_ignore(connection.dialect.name, outbox), row):
        return True
    if not known(connection, event):
        raise NotMigrated(
            "the database counts its events from the beginning again, as after a copy of the tables; have it count on with:"
            " crm-sender migrate"
        )
    return False


def enqueue(connection: Connection, event: Event, now: float, *, resend: bool = False) -> str:
    """Write an event and return its id, or the id under which the same event is already there.

    Raises ConflictingEvent when the natural key is there with other content, which `resend` puts in the place
    of what was closed; and WrongState when what should be sent again was erased.
    """
    if add(connection, event, now):
        return event.id
    same_key = and_(outbox.c.event == event.name, outbox.c.natural_key == event.natural_key)
    found = connection.execute(select(outbox.c.id, outbox.c.digest, outbox.c.status).where(same_key)).one()
    is_other = found.digest != event.digest
    if is_other and not (resend and found.status == "closed"):
        raise ConflictingEvent(event.name, event.natural_key, found.id)
    if resend and found.status == "erased":
        raise WrongState(f"{found.id} was erased, and is not sent again")
    if resend and found.status in {"delivered", "closed", "failed"}:
        how = f"was {found.status}{', with other content' if is_other else ''}"
        _send_again(connection, found.id, found.status, event, now, how)
    return str(found.id)


ACCEPTED = "accepted"
"""On the trail: the event came by the outbox's own door, perhaps under an id that the client chose."""


def known(connection: Connection, event: Event) -> Sequence[Any]:
    """Return what is there under an event's id, and under its natural key; that of its id first.

    Each: `id, event, natural_key, digest, status`, and `was_accepted`, whether it came by the door.
    """
    was_accepted = exists().where(trail.c.event_id == outbox.c.id, trail.c.verb == ACCEPTED)
    columns = (outbox.c.id, outbox.c.event, outbox.c.natural_key, outbox.c.digest, outbox.c.status)
    same_key = and_(outbox.c.event == event.name, outbox.c.natural_key == event.natural_key)
    found = select(*columns, was_accepted.label("was_accepted"))
    rows = connection.execute(found.where(or_(outbox.c.id == event.id, same_key))).all()
    return sorted(rows, key=lambda row: row.id != event.id)


def try_to_write(connection: Connection) -> None:
    """Write a row as it is, so that who asks knows whether one could be written."""
    connection.execute(update(state).values(one=state.c.one))


def _send_again(
    connection: Connection, event_id: str, status: str, event: Event, now: float, how: str
) -> None:
    this = select(outbox.c.status, outbox.c.digest).where(outbox.c.id == event_id).with_for_update()
    now_there = connection.execute(this).one()
    if now_there.status != status:  # somebody else was quicker
        if now_there.digest != event.digest:
            raise ConflictingEvent(event.name, event.natural_key, event_id)
        return
    payload = _Payload(cover_of(connection) + event.payload)
    values = {"payload": payload, "contract": event.contract, "digest": event.digest}
    values |= {"order_key": event.order_key, "reference": event.reference}
    if status == "delivered":
        its_release = select(outbox.c.contract).where(outbox.c.id == event_id).scalar_subquery()
        fewer = update(releases).where(releases.c.contract == its_release)
        connection.execute(fewer.values(delivered=releases.c.delivered - 1))
    connection.execute(update(outbox).where(outbox.c.id == event_id).values(_FRESH | values))
    if status == "delivered":
        connection.execute(update(state).values(delivered=state.c.delivered - 1))
    note(connection, [event_id], now, "site", "resent", how)


_FRESH: dict[str, Any] = {
    "status": "pending", "attempts": 0, "due_at": AT_ONCE, "reason": None, "answer": None,
    "held_for": None, "held_by": None, "finished_at": None,
}  # fmt: skip
"""What a row has that begins anew."""


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
    # One after another, as far as must be gone: for a join both databases may go through all customers first.
    this = outbox.c.sequence == firsts.c.sequence
    claimable = select(outbox.c.order_key).where(
        this, _is(outbox.c.status, "pending"), _IS_DUE, _is_alone(outbox)
    )
    key = claimable.scalar_subquery()
    return select(firsts.c.sequence, key).where(key.is_not(None))


@cache  # by whom it is needed: to build it takes as long as to import this module, which booking code does too
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
    rows = connection.execute(_look(), asdict(due) | asdict(share))
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
    # Worked out once: without statistics PostgreSQL did it again for each row of a small table.
    .cte("due")
)
_CLAIM = (
    update(outbox)
    # The state again: on PostgreSQL a row that somebody erases meanwhile is looked at anew by this line alone.
    .where(outbox.c.sequence.in_(select(_DUE.c.sequence)), _is(outbox.c.status, "pending"))
    .values(lease_token=bindparam("token"), lease_until=bindparam("until"))
    .returning(
        outbox.c.sequence,
        outbox.c.id,
        outbox.c.event,
        outbox.c.contract,
        outbox.c.natural_key,
        outbox.c.order_key,
        _payload,
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
    from sender.delivery import Delivery  # noqa: PLC0415  # booking code, which imports this module, claims nothing

    to_claim = {"token": token, "until": lease_until, "sequences": list(sequences)}
    rows = connection.execute(_CLAIM, asdict(due) | to_claim)
    return [Delivery(*row[1:]) for row in sorted(rows)]


_LEASE = (outbox.c.id, outbox.c.lease_token)
_DECIDED = (
    outbox.c.status,
    outbox.c.attempts,
    outbox.c.due_at,
    outbox.c.held_for,
    outbox.c.held_by,
    outbox.c.reason,
    outbox.c.answer,
    outbox.c.finished_at,
    outbox.c.receipt_id,
)
_ENTRY = (trail.c.event_id, trail.c.at, trail.c.actor, trail.c.verb, trail.c.detail)


def _is_leased_by(given: FromClause) -> ColumnElement[bool]:
    """The fence: who lost the lease records nothing."""
    return and_(outbox.c.id == given.c.id, outbox.c.lease_token == given.c.lease_token)


@cache
def _still_leased(dialect: str) -> Select[Any]:
    given = given_rows(dialect, *_LEASE)
    return (
        select(outbox.c.id, outbox.c.lease_token, outbox.c.enqueued_at)
        .join_from(given, outbox, _is_leased_by(given))
        .where(outbox.c.status == "pending")
        .with_for_update(of=outbox)  # no words to SQLite
    )


@cache
def _give_back(dialect: str) -> Update:
    given = given_rows(dialect, *_LEASE)
    return update(outbox).where(_is_leased_by(given)).values(lease_token=None, lease_until=None)


@cache
def _record(dialect: str) -> Update:
    given = given_rows(dialect, outbox.c.id, *_DECIDED)
    decided = {column: given.c[column.name] for column in _DECIDED}
    kept = case((given.c.status == "delivered", None), else_=outbox.c.payload)
    ended = {outbox.c.payload: kept, outbox.c.lease_token: None, outbox.c.lease_until: None}
    return update(outbox).where(outbox.c.id == given.c.id).values(decided | ended)


@cache
def _add_to_trail(dialect: str) -> Insert:
    return trail.insert().from_select(_ENTRY, select(given_rows(dialect, *_ENTRY)))


def _execute(
    connection: Connection, statement: Callable[[str], Executable], rows: Sequence[object]
) -> Result[Any]:
    """Execute a statement on rows that are given: a round trip for each costs more than what it does."""
    return connection.execute(statement(connection.dialect.name), {"rows": json.dumps(rows)})


def give_back(connection: Connection, deliveries: Sequence[Delivery]) -> None:
    """End the leases of events that were not sent."""
    if deliveries:
        _execute(connection, _give_back, [_lease_of(delivery) for delivery in deliveries])


def record(
    connection: Connection, decisions: Sequence[tuple[Delivery, Decision]], now: float, actor: str
) -> list[bool]:
    """Write what became of attempts. Return for each whether its lease still held, so that it was written."""
    if not decisions:
        return []
    rows = _execute(connection, _still_leased, [_lease_of(delivery) for delivery, _ in decisions])
    enqueued = {(row.id, row.lease_token): row.enqueued_at for row in rows}
    held = [(delivery.id, delivery.lease_token) in enqueued for delivery, _ in decisions]
    written = [decided for decided, is_held in zip(decisions, held, strict=True) if is_held]
    if not written:
        return held
    _execute(connection, _record, [_recorded(delivery, decision, now) for delivery, decision in written])
    entries = [
        (delivery.id, "attempted" if decision.status == "pending" else decision.status, decision.words)
        for delivery, decision in written
    ]
    _write_trail(connection, entries, now, actor)
    delays = [now - enqueued[delivery.id, delivery.lease_token] for delivery, _ in written]
    _count_hour(connection, [verb for _, verb, _ in entries], delays, now)
    of_releases = Counter(
        delivery.contract for delivery, decision in written if decision.status == "delivered"
    )
    if delivered := of_releases.total():
        # Sorted, so that two relays lock the rows in one order.
        rows_of = [{"contract": name, "delivered": count} for name, count in sorted(of_releases.items())]
        connection.execute(insert_or_add(connection.dialect.name, releases, releases.c.delivered), rows_of)
        _note_erasure(connection, now, delivered)
    return held


def _lease_of(delivery: Delivery) -> dict[str, Any]:
    return {"id": delivery.id, "lease_token": delivery.lease_token}


def _recorded(delivery: Delivery, decision: Decision, now: float) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "status": decision.status,
        "attempts": decision.attempts,
        "due_at": now + decision.due_in,
        "held_for": decision.held_for,
        "held_by": decision.held_by,
        "reason": decision.reason,
        "answer": decision.answer,
        "finished_at": now if decision.status in {"delivered", "failed"} else None,
        "receipt_id": decision.receipt_id,
    }


def _write_trail(
    connection: Connection, entries: Sequence[tuple[str, str, str]], now: float, actor: str
) -> None:
    if entries:
        rows = [
            {"event_id": event_id, "at": now, "actor": actor, "verb": verb, "detail": detail}
            for event_id, verb, detail in entries
        ]
        _execute(connection, _add_to_trail, rows)


def _count_hour(connection: Connection, verbs: Sequence[str], delays: Sequence[float], now: float) -> None:
    """Count what became of attempts, and of deliveries how long it took since the commit."""
    counted = Counter(
        (verb, rung_of(delay) if verb == "delivered" else 0)
        for verb, delay in zip(verbs, delays, strict=True)
    )
    # Sorted, so that two relays lock the rows of an hour in one order.
    rows = [
        {"hour": hour_of(now), "verb": verb, "within_ms": rung, "count": count}
        for (verb, rung), count in sorted(counted.items())
    ]
    if rows:
        connection.execute(insert_or_add(connection.dialect.name, hours, hours.c.count), rows)


def note(
    connection: Connection, ids: Iterable[str], now: float, actor: str, verb: str, detail: str = ""
) -> None:
    """Write a line of the trail for each event."""
    _write_trail(connection, [(event_id, verb, detail) for event_id in ids], now, actor)


# held → pending


_HELD = and_(_UNFINISHED, _is(outbox.c.status, "held"))


def held_for(connection: Connection) -> list[str]:
    """Return what held events wait for: paths of webhooks, contract releases, and names of webhooks."""
    rows = connection.scalars(select(outbox.c.held_for).where(_HELD).distinct())
    return [str(row) for row in rows]


def holds(connection: Connection) -> Sequence[Any]:
    """Return why events are held, the longest first: `held_for, held_by, reason, answer, since, count`."""
    because = (outbox.c.held_for, outbox.c.held_by, outbox.c.reason)
    since = func.min(outbox.c.due_at).label("since")
    return connection.execute(
        select(*because, func.min(outbox.c.answer).label("answer"), since, func.count().label("count"))
        .where(_HELD)
        .group_by(*because)
        .order_by(since)
    ).all()


def release(connection: Connection, waited_for: str, now: float, actor: str, limit: int) -> int:
    """Put the oldest events that were held for this back to pending, up to `limit`; return how many."""
    mine = select(outbox.c.sequence).where(_HELD, outbox.c.held_for == waited_for)
    oldest = mine.order_by(outbox.c.sequence).limit(limit).with_for_update(skip_locked=True)
    freed = {"status": "pending", "due_at": AT_ONCE, "held_for": None, "reason": None, "answer": None}
    releasing = update(outbox).where(outbox.c.sequence.in_(oldest)).values(freed)
    ids = connection.scalars(releasing.returning(outbox.c.id)).all()
    note(connection, ids, now, actor, "released", waited_for)
    return len(ids)


# failed → pending, failed → closed


@dataclass(frozen=True, slots=True)
class Failures:
    """Which deliveries that did not go are meant: of these, what each field that is given asks for."""

    status: Literal["failed", "held"] = "failed"
    event: str | None = None
    answer: int | str | None = None
    """An HTTP status, or in the guide's words why there was no answer: `timeout`."""
    since: float | None = None
    """Failed, or held, at this time or later."""
    ids: Sequence[str] | None = None
    reference: str | None = None
    """The ticket number, or the natural key."""


@dataclass(frozen=True, slots=True)
class Preview:
    """The deliveries that match, when they were looked at."""

    count: int
    digest: str
    """Of which they are, and since when they stand so, in hexadecimal."""
    ids: tuple[str, ...] = field(repr=False)
    """In their order."""


_IS_FAILED = _is(outbox.c.status, "failed")
"""For statements on given ids: with `_UNFINISHED` SQLite might look through all that failed."""
_stands_since = func.coalesce(outbox.c.finished_at, outbox.c.due_at)
"""When an event failed or was held: one that is held is due since then."""


def list_unfinished(
    connection: Connection, wanted: Failures, after: int = 0, limit: int | None = None
) -> Sequence[Any]:
    """Return the deliveries that match and come `after` a sequence, oldest first, without their payloads."""
    later = outbox.c.sequence > after
    found = select(*_SHOWN).where(*_matching(wanted), later).order_by(outbox.c.sequence)
    return connection.execute(found.limit(limit)).all()


def preview(connection: Connection, wanted: Failures) -> Preview:
    """Return which deliveries match now, so that what is acted on is what was seen."""
    found = select(outbox.c.id, _stands_since).where(*_matching(wanted)).order_by(outbox.c.sequence)
    rows = connection.execute(found).all()
    seen = sha256(",".join(f"{event_id} {since}" for event_id, since in rows).encode())
    return Preview(len(rows), seen.hexdigest(), tuple(event_id for event_id, _ in rows))


def _matching(wanted: Failures) -> list[ColumnElement[bool]]:
    conditions = [_UNFINISHED, _is(outbox.c.status, wanted.status)]
    if wanted.event is not None:
        conditions.append(outbox.c.event == wanted.event)
    if wanted.answer is not None:
        # Text to both databases, which have no way in common to look into JSON; what is asked for comes first.
        said = {"status" if isinstance(wanted.answer, int) else "fault": wanted.answer}
        conditions.append(outbox.c.answer.startswith(json.dumps(said)[:-1] + ",", autoescape=True))
    if wanted.since is not None:
        conditions.append(_stands_since >= wanted.since)
    if wanted.ids is not None:
        conditions.append(outbox.c.id.in_(wanted.ids))
    if wanted.reference is not None:
        conditions.append(or_(outbox.c.reference == wanted.reference, _has_natural_key(wanted.reference)))
    return conditions


def failed_payloads(connection: Connection, ids: Collection[str]) -> Sequence[Any]:
    """Return the failed ones of these events, in their order: `id, event, contract, payload, digest`."""
    columns = (outbox.c.id, outbox.c.event, outbox.c.contract, _payload, outbox.c.digest)
    mine = select(*columns).where(outbox.c.id.in_(ids), _IS_FAILED)
    return connection.execute(mine.order_by(outbox.c.sequence)).all()


def retry(connection: Connection, ids: Collection[str], now: float, actor: str) -> list[str]:
    """Put those of these events that are failed back to pending, as they were sent; return their ids."""
    again = update(outbox).where(outbox.c.id.in_(ids), _IS_FAILED).values(_FRESH)
    back = list(connection.scalars(again.returning(outbox.c.id)))
    note(connection, back, now, actor, "retried")
    return back


def close(connection: Connection, ids: Collection[str], now: float, actor: str) -> list[str]:
    """Give those of these events up that are failed: their payloads are erased; return their ids."""
    given_up = {"status": "closed", "payload": None, "finished_at": now}
    ending = update(outbox).where(outbox.c.id.in_(ids), _IS_FAILED).values(given_up)
    closed = list(connection.scalars(ending.returning(outbox.c.id)))
    if closed:
        _note_erasure(connection, now)
    note(connection, closed, now, actor, "closed")
    return closed


def statuses(connection: Connection, ids: Collection[str]) -> dict[str, Status]:
    """Return the status of each of these events that there is."""
    rows = connection.execute(select(outbox.c.id, outbox.c.status).where(outbox.c.id.in_(ids)))
    return {event_id: status for event_id, status in rows}  # noqa: C416  # rows are no pairs to mypy


# pending, held, failed → erased


def _erased(now: float) -> dict[str, Any]:
    """Return what an erased event has: its reason and the CRM's answer stay, they hold no values."""
    return {
        "status": "erased", "payload": None, "held_for": None, "lease_token": None, "lease_until": None,
        "finished_at": now,
    }  # fmt: skip


def erase(
    connection: Connection, ids: Collection[str], now: float, lease: float, actor: str
) -> tuple[list[str], list[str]]:
    """Erase the payloads of those of these events that are not delivered, nor in flight.

    Return those that are erased, and those that are left: they are leased, or locked by who leases them.
    The others are locked, so that nobody can lease them before the transaction ends.
    """
    mine = select(outbox.c.id).where(_UNFINISHED, outbox.c.id.in_(ids))
    is_over = or_(
        outbox.c.lease_until.is_(None), outbox.c.lease_until <= now, outbox.c.lease_until > now + 2 * lease
    )
    unfinished = set(connection.scalars(mine))
    gone = list(connection.scalars(mine.where(is_over).with_for_update(skip_locked=True)))
    connection.execute(update(outbox).where(outbox.c.id.in_(gone)).values(_erased(now)))
    _note_erased(connection, gone, now, actor)
    return gone, sorted(unfinished - set(gone))


def expire(connection: Connection, before: float, now: float, limit: int) -> int:
    """Erase up to `limit` payloads that failed, or were last held, before a time; return how many."""
    old = select(outbox.c.sequence).where(_stays_since(before)).limit(limit)
    old = old.with_for_update(skip_locked=True)  # no words to SQLite
    erasing = update(outbox).where(outbox.c.sequence.in_(old)).values(_erased(now)).returning(outbox.c.id)
    gone = list(connection.scalars(erasing))
    _note_erased(connection, gone, now, "retention")
    return len(gone)


def _stays_since(before: float) -> ColumnElement[bool]:
    """Compare with what failed, or was last held, before a time, and was left so since."""
    return and_(_UNFINISHED, _is(outbox.c.status, "failed", "held"), _stands_since < before)


def _note_erased(connection: Connection, ids: Collection[str], now: float, actor: str) -> None:
    if ids:
        _note_erasure(connection, now)
        note(connection, ids, now, actor, "erased")


# what people ask


def counts(connection: Connection) -> Counts:
    """Return how many events are in each state."""
    rows = connection.execute(
        select(outbox.c.status, func.count()).where(_UNFINISHED).group_by(outbox.c.status)
    )
    found = {status: count for status, count in rows}  # noqa: C416  # rows are no pairs to mypy
    delivered = connection.scalar(select(state.c.delivered)) or 0
    return Counts(found.get("pending", 0), delivered, found.get("failed", 0), found.get("held", 0))


def by_release(connection: Connection) -> dict[str, dict[str, int]]:
    """Return how many events of each release of the contract are undelivered, and were delivered."""
    waiting = select(outbox.c.contract, func.count()).where(_UNDELIVERED).group_by(outbox.c.contract)
    found: dict[str, dict[str, int]] = {}
    for word, statement in (
        ("undelivered", waiting),
        ("delivered", select(releases.c.contract, releases.c.delivered)),
    ):
        for contract, count in connection.execute(statement):
            found.setdefault(contract, {"undelivered": 0, "delivered": 0})[word] = count
    return dict(sorted(found.items()))


def oldest_pending(connection: Connection) -> float | None:
    """Return when the oldest undelivered event was enqueued."""
    oldest: float | None = connection.scalar(select(func.min(outbox.c.enqueued_at)).where(_UNDELIVERED))
    return oldest


_SHOWN = (
    outbox.c.sequence, outbox.c.id, outbox.c.event, outbox.c.contract, outbox.c.natural_key, outbox.c.reference, outbox.c.status,
    outbox.c.attempts, outbox.c.due_at, outbox.c.held_for, outbox.c.held_by, outbox.c.reason,
    outbox.c.answer, outbox.c.enqueued_at, outbox.c.finished_at, outbox.c.digest, outbox.c.receipt_id,
)  # fmt: skip


def contents(connection: Connection) -> Sequence[Any]:
    """Return all events with their payloads, in their order: what a site's own tests look at."""
    shown = (outbox.c.id, outbox.c.event, outbox.c.natural_key, outbox.c.status, _payload)
    return connection.execute(select(*shown).order_by(outbox.c.sequence)).all()


def delivered_since(connection: Connection, since: float) -> Iterator[Any]:
    """Yield what was delivered since a time, oldest first; a part at a time, for it may be long."""
    mine = and_(outbox.c.status == "delivered", outbox.c.finished_at >= since)
    statement = select(*_SHOWN).where(mine).order_by(outbox.c.finished_at, outbox.c.sequence)
    yield from connection.execution_options(yield_per=1000).execute(statement)


def find(connection: Connection, key: str) -> Sequence[Any]:
    """Return the events with this id, natural key or ticket number. Raises UnknownEvent when there is none."""
    mine = or_(outbox.c.id == key, outbox.c.reference == key, _has_natural_key(key))
    rows = connection.execute(select(*_SHOWN).where(mine).order_by(outbox.c.sequence)).all()
    if not rows:
        raise UnknownEvent(f"no event has the id, natural key or ticket number {key}")
    return rows


def one(connection: Connection, event_id: str) -> Any:
    """Return the event with this id, None where there is none."""
    return connection.execute(select(*_SHOWN).where(outbox.c.id == event_id)).one_or_none()


def _has_natural_key(key: str) -> ColumnElement[bool]:
    """Compare by the index, which begins with the event."""
    return and_(outbox.c.event.in_(WEBHOOKS), outbox.c.natural_key == key)


def trail_of(connection: Connection, event_id: str) -> Sequence[Any]:
    """Return what happened to an event, oldest first."""
    columns = (trail.c.at, trail.c.actor, trail.c.verb, trail.c.detail)
    return connection.execute(
        select(*columns).where(trail.c.event_id == event_id).order_by(trail.c.number)
    ).all()


def hours_since(connection: Connection, hour: int) -> Sequence[Any]:
    """Return what became of attempts since an hour: hour, verb, rung of the delay in milliseconds, count."""
    columns = (hours.c.hour, hours.c.verb, hours.c.within_ms, hours.c.count)
    return connection.execute(select(*columns).where(hours.c.hour >= hour)).all()


def counted(connection: Connection) -> Sequence[Any]:
    """Return what became of all attempts ever: verb, rung of the delay in milliseconds, count."""
    total = func.sum(hours.c.count)
    return connection.execute(
        select(hours.c.verb, hours.c.within_ms, total).group_by(hours.c.verb, hours.c.within_ms)
    ).all()


def words_of_trouble(connection: Connection, limit: int) -> set[str]:
    """Return what the CRM said, instead of a receipt, of events that still wait or have failed.

    Of each state `limit` events are read, so that it costs the same after a long outage.
    """
    found: set[str] = set()
    for status in ("failed", "held"):
        mine = and_(_UNFINISHED, _is(outbox.c.status, status))
        newest = select(outbox.c.reason).where(mine).order_by(outbox.c.sequence.desc()).limit(limit)
        found.update(connection.scalars(newest))
    waiting = and_(_UNFINISHED, _is(outbox.c.status, "pending"))
    oldest = select(outbox.c.id).where(waiting).order_by(outbox.c.sequence).limit(limit).subquery()
    said = select(trail.c.detail).join(oldest, trail.c.event_id == oldest.c.id)
    found.update(connection.scalars(said.where(trail.c.verb == "attempted").distinct()))
    return found


_HISTORY = union_all(
    select(
        outbox.c.enqueued_at.label("at"),
        outbox.c.id.label("event_id"),
        outbox.c.event,
        outbox.c.natural_key,
        literal("site").label("actor"),
        literal("enqueued").label("verb"),
        literal("").label("detail"),
        literal(0).label("number"),
    ),
    select(
        trail.c.at,
        trail.c.event_id,
        outbox.c.event,
        outbox.c.natural_key,
        trail.c.actor,
        trail.c.verb,
        trail.c.detail,
        trail.c.number,
    ).join_from(trail, outbox, trail.c.event_id == outbox.c.id),
).subquery()
"""The whole trail. That an event was enqueued its own row says: a booking writes one row, not two."""


def history(connection: Connection, since: float) -> Iterator[Row[Any]]:
    """Yield what happened to all events since a time, oldest first; a part at a time, for it may be long."""
    columns = [column for column in _HISTORY.c if column.name != "number"]
    statement = select(*columns).where(_HISTORY.c.at >= since).order_by(_HISTORY.c.at, _HISTORY.c.number)
    yield from connection.execution_options(yield_per=1000).execute(statement)


def payloads_after(
    connection: Connection, status: Status, sequence: int, limit: int
) -> Sequence[tuple[int, str, str, str]]:
    """Return sequence, id, order key and payload of the next events in a state that is not final."""
    columns = (outbox.c.sequence, outbox.c.id, outbox.c.order_key, _payload)
    mine = and_(_UNFINISHED, _is(outbox.c.status, status), outbox.c.sequence > sequence)
    rows = connection.execute(select(*columns).where(mine).order_by(outbox.c.sequence).limit(limit))
    return [tuple(row) for row in rows]


def unfinished_of(connection: Connection, order_keys: Collection[str], ids: Collection[str]) -> Sequence[Any]:
    """Return what is not delivered yet of some customers, and of some events, oldest first."""
    mine = and_(_UNFINISHED, or_(outbox.c.order_key.in_(order_keys), outbox.c.id.in_(ids)))
    return connection.execute(select(*_SHOWN).where(mine).order_by(outbox.c.sequence)).all()


# alerts


@dataclass(frozen=True, slots=True)
class Trouble:
    """What people should know of: counts and times, nothing personal."""

    failed: int
    newest_failure: float | None
    untouched: int
    """Those that failed, or are held, for long."""
    held: Mapping[int, int]
    """How many are held, by the answer's status; 0 for none."""


def trouble(connection: Connection, untouched_before: float) -> Trouble:
    """Return what is wrong in the outbox."""
    failures = select(func.count(), func.max(outbox.c.finished_at)).where(_UNFINISHED, _IS_FAILED)
    failed, newest_failure = connection.execute(failures).one()
    untouched = connection.scalar(select(func.count()).where(_stays_since(untouched_before))) or 0
    held = Counter[int]()
    for row in holds(connection):
        held[row.held_by or 0] += row.count
    return Trouble(failed, newest_failure, untouched, held)


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of a condition, and what people were told of it last. Times in seconds since 1970."""

    since: float | None = None
    """When it was first seen; None while it is not so."""
    told_at: float | None = None
    mark: float = 0.0
    """How bad it was then; more is worse."""
    over_at: float | None = None
    """When people were last told that it is over."""
    seen_at: float | None = None
    """When it was last so."""
    seen_by: str | None = None
    """Who saw that."""


_TOLD = [alerts.c.condition, *(alerts.c[each.name] for each in fields(Told))]


def told(connection: Connection) -> dict[str, Told]:
    """Return what is known of each condition."""
    return {condition: Told(*rest) for condition, *rest in connection.execute(select(*_TOLD))}


def told_for_change(connection: Connection, conditions: Collection[str]) -> dict[str, Told]:
    """Return the same, and let no other relay change it before the transaction ends."""
    insert = insert_or_ignore(connection.dialect.name, alerts)
    connection.execute(insert, [{"condition": condition} for condition in sorted(conditions)])
    rows = connection.execute(select(*_TOLD).order_by(alerts.c.condition).with_for_update())
    return {condition: Told(*rest) for condition, *rest in rows}


def write_told(connection: Connection, condition: str, now: float, known: Told, notice: str | None) -> None:
    """Write what people are told of a condition; a notice is to be posted, in place of an older one."""
    values: dict[str, Any] = asdict(known)
    if notice is not None:
        values |= {"unposted": notice, "post_at": now}
    connection.execute(update(alerts).where(alerts.c.condition == condition).values(values))


def has_unposted(connection: Connection) -> bool:
    """Say whether a notice waits to be posted."""
    return connection.scalar(select(func.count()).where(alerts.c.unposted.is_not(None))) != 0


def drop_notices(connection: Connection, before: float) -> None:
    """Forget what was to be posted since before a time."""
    written_at = func.coalesce(alerts.c.told_at, alerts.c.over_at)
    old = and_(alerts.c.unposted.is_not(None), written_at < before)
    connection.execute(update(alerts).where(old).values(unposted=None, post_at=None))


def claim_notices(connection: Connection, now: float, again: float, skew: float) -> list[tuple[str, str]]:
    """Return condition and text of what is to be posted now; nobody else does so for `again` seconds.

    Nor does one whose clock is up to `skew` seconds behind.
    """
    due = or_(alerts.c.post_at <= now, alerts.c.post_at > now + again + skew)  # a clock that jumped back
    claimed = (
        update(alerts)
        .where(alerts.c.unposted.is_not(None), due)
        .values(post_at=now + again)
        .returning(alerts.c.condition, alerts.c.unposted)
    )
    return sorted((condition, notice) for condition, notice in connection.execute(claimed))


def posted(connection: Connection, condition: str, notice: str) -> None:
    """Write that a notice was taken; a newer one stays."""
    mine = and_(alerts.c.condition == condition, alerts.c.unposted == notice)
    connection.execute(update(alerts).where(mine).values(unposted=None, post_at=None))


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
    """Say whether an error of the database means that the outbox's tables, or columns of them, are not there."""
    if not isinstance(error, OperationalError | ProgrammingError):
        return False
    # An unknown table, column and schema, of PostgreSQL; a database or a role may be unknown too.
    is_unknown = getattr(error.orig, "sqlstate", None) in {"42P01", "42703", "3F000"}
    return is_unknown or any(words in str(error.orig) for words in ("no such table", "no such column"))
