"""Find, export and erase what is held of a person, and erase what is kept for a time only.

A person is found by an e-mail address, in any field of any payload and in the records, and then by every
`websiteUserId` that this brings. An erased request keeps its identity, disguised; a ticket keeps what is
the shop's: number, device, states, times and cost. See docs/privacy.md.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Table,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
    update,
)

from crm_server import approval_queue, audit_trail, records, search, website_statuses
from crm_server.audit_trail import Actor
from crm_server.database import Database, utc_now
from crm_server.erasure_journal import RECORDS, REMAINS, journal_of, write_journal
from crm_server.errors import PersonChanged
from crm_server.idempotency import Identity, disguise
from crm_server.tables import (
    EXPIRING,
    approvals,
    corrections,
    customer_website_users,
    customers,
    erasure_state,
    rejection_reasons,
    searches,
    ticket_notes,
    tickets,
)
from generated.operations import RELEASES

PART = 20_000
"""Requests that one transaction looks through, so that no snapshot stays open for long."""
AT_ONCE = 200
"""Values that one statement compares with."""
PAUSE_SECONDS = 0.05
"""Between two tries to empty the log."""
EMPTY_SECONDS = 3.0
"""How long one who erases a person waits for readers, which keep erased bytes in the log."""
EXPIRED_AT_ONCE = 50
"""Requests that one transaction of retention erases: webhooks wait meanwhile."""


@dataclass(frozen=True, slots=True)
class Person:
    """Where to look for what is held of a person."""

    email: str = field(repr=False)
    """In lower case; empty when they are known by what was erased before."""
    users: frozenset[str]
    """Their ids on the website."""
    approvals: Mapping[int, str]
    """Ids of their requests, by sequence."""
    newest: int
    """Up to this sequence requests were looked through."""
    journal: Path | None
    """Where it is noted for a later restore; None where there is no file to be restored."""


@dataclass(frozen=True, slots=True)
class Held:
    """What is held of a person."""

    approvals: Sequence[Row[Any]]
    customers: Sequence[Row[Any]]
    tickets: Sequence[Row[Any]]
    notes: Sequence[Row[Any]]
    """What staff noted on the tickets, oldest first; their ids do not say so."""
    corrections: Sequence[Row[Any]]
    """What the records said before they were corrected."""

    @property
    def is_empty(self) -> bool:
        """Whether that is nothing."""
        return not (self.approvals or self.customers or self.tickets)

    def ids(self) -> dict[str, list[str]]:
        """Return the ids of the records, by their kind."""
        kinds = {"approvals": self.approvals, "customers": self.customers, "tickets": self.tickets}
        return {kind: [row.id for row in rows] for kind, rows in kinds.items()}


def find(database: Database, email: str) -> Person:
    """Look through everything for a person, in short transactions."""
    email = email.strip().lower()
    with database.reading() as connection:
        newest = connection.execute(select(func.coalesce(func.max(approvals.c.sequence), 0))).scalar_one()
        users = users_with(connection, email)
    found = look_through(database, newest, [email], lambda payload, _: email in texts(payload))
    with database.reading() as connection:
        users = all_ids(connection, users | {user for _, user in found.values()})
    for some in in_parts(sorted(users)):
        found |= look_through(database, newest, some, lambda _, user: user in users)
    ids = {sequence: approval_id for sequence, (approval_id, _) in found.items()}
    return Person(email, frozenset(users), ids, newest, journal_of(database))


def users_with(connection: Connection, email: str) -> set[str]:
    """Return whose records hold an address, or held it before a correction: ids on the website."""
    c, was = customers.c, corrections.c
    corrected = select(was.record_id).where(func.lower(was.before) == email)
    theirs = select(c.website_user_id).where(or_(func.lower(c.email) == email, c.id.in_(corrected)))
    on_tickets = (
        select(c.website_user_id)
        .join(tickets)
        .where(or_(func.lower(tickets.c.customer_email) == email, tickets.c.id.in_(corrected)))
    )
    return all_ids(connection, set(connection.execute(theirs.union(on_tickets)).scalars()))


def all_ids(connection: Connection, users: set[str]) -> set[str]:
    """Return these ids on the website and the others of the same customers."""
    first, other = customers.c.website_user_id, customer_website_users.c
    for some in in_parts(sorted(users)):
        joined = select(other.customer_id).where(other.website_user_id.in_(some))
        mine = select(customers.c.id).where(or_(first.in_(some), customers.c.id.in_(joined)))
        ids = select(first).where(customers.c.id.in_(mine))
        ids_beside = select(other.website_user_id).where(other.customer_id.in_(mine))
        users = users | set(connection.execute(ids.union(ids_beside)).scalars())
    return users


Wanted = Callable[[Any, str], bool]
"""Whether a request is wanted, by its payload and its customer's id on the website."""


def look_through(
    database: Database, newest: int, words: Sequence[str], wanted: Wanted
) -> dict[int, tuple[str, str]]:
    """Return id and customer's id of every wanted request, by sequence; each must hold one of the words."""
    found: dict[int, tuple[str, str]] = {}
    for after in range(0, newest, PART):
        with database.reading() as connection:
            found |= matching(connection, after, min(after + PART, newest), words, wanted)
    return found


def matching(
    connection: Connection, after: int, until: int | None, words: Sequence[str], wanted: Wanted
) -> dict[int, tuple[str, str]]:
    """Look through some requests; the database passes over those in whose text no word stands."""
    c = approvals.c
    statement = select(c.sequence, c.id, c.event, c.contract, c.payload).where(
        c.sequence > after, c.payload.is_not(None), or_(*mentions(words))
    )
    if until is not None:
        statement = statement.where(c.sequence <= until)
    found = {}
    for row in connection.execute(statement):
        payload = json.loads(row.payload)
        user = user_of(row, payload)
        if wanted(payload, user):
            found[row.sequence] = (row.id, user)
    return found


def mentions(words: Sequence[str]) -> Iterator[ColumnElement[bool]]:
    """Yield what a payload's text meets that may hold a word, which JSON may have written with escapes."""
    for word in (*words, "\\u", "\\/"):
        yield approvals.c.payload.icontains(word, autoescape=True)


def user_of(row: Any, payload: Any) -> str:
    """Return the id on the website of a request's customer."""
    for name in RELEASES[row.contract][row.event].order_key:
        payload = payload[name]
    return str(payload)


def texts(value: Any) -> set[str]:
    """Return every text in a JSON value, in lower case."""
    if isinstance(value, str):
        return {value.lower()}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {text for each in inner for text in texts(each)}


def held(connection: Connection, person: Person, *, lock: bool = False) -> Held:
    """Read what is held of a person; with `lock` nobody else changes it before the transaction ends."""
    c = approvals.c
    mine = rows_of(connection, approvals, c.sequence, sorted(person.approvals), lock=lock)
    # A booking may have passed to another account since, and nobody else's is what is told of it.
    told = [row for row in told_of(connection, mine, lock=lock) if row.sequence not in person.approvals]
    theirs = rows_of(connection, customers, customers.c.website_user_id, sorted(person.users), lock=lock)
    their_ids = [row.id for row in theirs]
    repairs = rows_of(connection, tickets, tickets.c.customer_id, their_ids, lock=lock)
    notes = rows_of(
        connection, ticket_notes, ticket_notes.c.ticket_id, [row.id for row in repairs], lock=lock
    )
    ids = [row.id for row in (*theirs, *repairs)]
    corrected = rows_of(connection, corrections, corrections.c.record_id, ids, lock=lock)
    requests = sorted((row for row in (*mine, *told) if row.payload is not None), key=attrgetter("sequence"))
    return Held(requests, theirs, repairs, sorted(notes, key=attrgetter("at")), corrected)


def told_of(connection: Connection, rows: Sequence[Row[Any]], *, lock: bool = False) -> list[Row[Any]]:
    """Read what the website told of those of some requests that ask for a repair."""
    repairs = [row.natural_key for row in rows if row.event == website_statuses.REPAIR]
    return rows_of(connection, approvals, approvals.c.about, repairs, lock=lock)


def rows_of(
    connection: Connection,
    table: Table,
    column: ColumnElement[Any],
    values: Sequence[Any],
    *,
    lock: bool = False,
) -> list[Row[Any]]:
    """Read the rows in which a column has one of some values, oldest first."""
    rows: list[Row[Any]] = []
    for some in in_parts(values):
        statement = select(table).where(column.in_(some)).order_by(*table.primary_key.columns)
        rows += connection.execute(statement.with_for_update() if lock else statement)
    return rows


def in_parts(values: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield some values after the other, as many as one statement compares with."""
    rest = iter(values)
    while some := list(islice(rest, AT_ONCE)):
        yield some


def export(connection: Connection, person: Person, actor: Actor) -> dict[str, Any]:
    """Return all that is held of a person as JSON, and note on the trail that it was taken."""
    found = held(connection, person)
    of_these = rejection_reasons.c.approval_id
    given = rows_of(connection, rejection_reasons, of_these, found.ids()["approvals"])
    reasons = {row.approval_id: row.reason for row in given}
    note_on_trail(connection, "export", found.ids(), actor, utc_now())
    return {
        "approvals": [
            {**approval_queue.as_json(row), "reason": reasons.get(row.id)} for row in found.approvals
        ],
        "customers": [
            {**records.as_json(row), "corrections": corrections_of(found, row.id)} for row in found.customers
        ],
        "tickets": [
            {
                **records.as_json(row),
                "corrections": corrections_of(found, row.id),
                "staff_notes": [
                    {"at": note.at, "text": note.text} for note in found.notes if note.ticket_id == row.id
                ],
            }
            for row in found.tickets
        ],
    }


def corrections_of(found: Held, record_id: str) -> list[dict[str, Any]]:
    """Return what a record said before it was corrected."""
    return [
        {"at": row.at, "author": row.author, "field": f"/{row.field}", "before": row.before}
        for row in found.corrections
        if row.record_id == record_id
    ]


def erase(connection: Connection, person: Person, actor: Actor) -> Held:
    """Erase what is held of a person; return what that was.

    Raises PersonChanged when more has come since they were looked for, Unavailable when it cannot be noted for a
    later restore.
    """
    require_the_same(connection, person)
    found = held(connection, person, lock=True)
    at = utc_now()
    if person.journal is not None:
        write_journal(person.journal, at, found.ids(), remains(connection, found.approvals))
    erase_held(connection, found, actor, at)
    return found


def erase_held(connection: Connection, found: Held, actor: Actor, at: str) -> None:
    """Erase what was found."""
    erase_requests(connection, found.approvals, actor, at)
    for table, key, rows in (
        (customers, "website_user_id", found.customers),
        (tickets, "website_repair_id", found.tickets),
    ):
        empty(connection, table, [row.id for row in rows], {key: table.c.id, "erased_at": at})
    for some in in_parts([row.id for row in found.notes]):
        connection.execute(update(ticket_notes).where(ticket_notes.c.id.in_(some)).values(text=None))
    for some in in_parts([row.sequence for row in found.corrections]):
        connection.execute(update(corrections).where(corrections.c.sequence.in_(some)).values(before=None))
    for some in in_parts([row.id for row in found.customers]):
        of_these = customer_website_users.c.customer_id.in_(some)
        connection.execute(delete(customer_website_users).where(of_these))
    # Somebody may have searched for this person; all of them last for a day only.
    connection.execute(delete(searches))
    note_on_trail(connection, "erase", found.ids(), actor, at)
    note_erasure(connection, at)


def require_the_same(connection: Connection, person: Person) -> None:
    """Raise PersonChanged when something of a person is there that was not found."""
    if not person.email:
        return
    words = [person.email, *person.users]
    new: dict[int, tuple[str, str]] = {}
    for some in in_parts(words):
        new |= matching(
            connection,
            person.newest,
            None,
            some,
            lambda payload, user: user in person.users or person.email in texts(payload),
        )
    if not (set(new) <= set(person.approvals) and users_with(connection, person.email) <= person.users):
        raise PersonChanged("More has come of this person meanwhile. Nothing was erased: look again.")


def erase_requests(connection: Connection, rows: Sequence[Row[Any]], actor: Actor, at: str) -> None:
    """Erase payloads, reasons and what is found by them; what waits for approval is rejected."""
    if not rows:
        return
    key = connection.execute(select(erasure_state.c.key)).scalar_one()
    c = approvals.c
    waits = c.status == "pending_approval"
    statement = (
        update(approvals)
        .where(c.sequence == bindparam("of_sequence"))
        .values(
            payload=None,
            erased_at=at,
            about=None,
            status=case((waits, "rejected"), else_=c.status),
            decided_at=case((waits, bindparam("to_decided_at")), else_=c.decided_at),
            decided_by=case((waits, actor.name), else_=c.decided_by),
            natural_key=bindparam("to_natural_key"),
            webhook_id=bindparam("to_webhook_id"),
            digest=bindparam("to_digest"),
        )
    )
    connection.execute(
        statement, [{**disguised(key, row), "to_decided_at": max(at, row.received_at)} for row in rows]
    )
    for some in in_parts(rows):
        of_these = rejection_reasons.c.approval_id.in_([row.id for row in some])
        connection.execute(update(rejection_reasons).where(of_these).values(reason=None))
        search.erase(connection, [row.sequence for row in some])
    waiting = [row.id for row in rows if row.status == "pending_approval"]
    note_on_trail(connection, "reject", {"approvals": waiting}, actor, at)


def disguised(key: str, row: Row[Any]) -> dict[str, Any]:
    """Return the parameters by which a request's identity is disguised."""
    mine = disguised_identity(key, row)
    return {
        "of_sequence": row.sequence,
        "to_natural_key": mine.natural_key,
        "to_webhook_id": mine.webhook_id,
        "to_digest": mine.digest,
    }


def disguised_identity(key: str, row: Row[Any]) -> Identity:
    """Return what an erased request's identity leaves."""
    return disguise(key, Identity(row.event, row.natural_key, row.webhook_id, row.digest))


def remains(connection: Connection, rows: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    """Return what an erasure leaves of requests: enough to know them when they are sent again."""
    key = connection.execute(select(erasure_state.c.key)).scalar_one()
    return [
        {name: row._mapping[name] for name in REMAINS} | asdict(disguised_identity(key, row)) for row in rows
    ]


def empty(connection: Connection, table: Table, ids: Sequence[str], values: dict[str, Any]) -> None:
    """Empty the personal columns of some records, and set others."""
    personal = {column.name: None for column in table.columns if column.info.get("personal")}
    for some in in_parts(ids):
        connection.execute(update(table).where(table.c.id.in_(some)).values({**personal, **values}))


def note_on_trail(
    connection: Connection, verb: str, ids: Mapping[str, Sequence[str]], actor: Actor, at: str
) -> None:
    """Write an entry of the trail for each record."""
    for kind, of_kind in ids.items():
        for record_id in of_kind:
            audit_trail.append(
                connection, at=at, actor=actor, verb=verb, record=RECORDS[kind], record_id=record_id
            )


def expire(connection: Connection, days: int, actor: Actor) -> int:
    """Erase the oldest of the requests that were rejected more than some days ago; return how many.

    What the website told of a repair while it was approved goes with it.
    """
    at = utc_now()
    before = datetime.fromisoformat(at) - timedelta(days=days)
    until = before.isoformat(timespec="microseconds").replace("+00:00", "Z")
    statement = (
        select(approvals)
        .where(EXPIRING, approvals.c.decided_at < until)
        .order_by(approvals.c.decided_at)
        .limit(EXPIRED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    rows = connection.execute(statement).all()
    if rows:
        # No ticket shows it any more, and once the repair request is erased nobody finds whose it is.
        told = [row for row in told_of(connection, rows, lock=True) if row.status == "approved"]
        erase_alone(connection, [*rows, *told], actor, at)
    return len(rows)


def erase_alone(connection: Connection, rows: Sequence[Row[Any]], actor: Actor, at: str) -> None:
    """Erase requests of which no record came."""
    erase_requests(connection, rows, actor, at)
    note_on_trail(connection, "erase", {"approvals": [row.id for row in rows]}, actor, at)
    note_erasure(connection, at)


def note_erasure(connection: Connection, at: str) -> None:
    """Count an erasure, whose bytes wait in SQLite's write-ahead log."""
    c = erasure_state.c
    since = func.coalesce(c.erasing_since, at)
    connection.execute(update(erasure_state).values(erasures=c.erasures + 1, erasing_since=since))


def erasing_since(connection: Connection) -> tuple[str | None, int]:
    """Return since when erased bytes wait in the log, None when none do, and how often something was erased."""
    c = erasure_state.c
    since, erasures = connection.execute(select(c.erasing_since, c.erasures)).one()
    return since, erasures


def log_emptied(connection: Connection, erasures: int) -> None:
    """Note that the log was emptied after so many erasures; what another erased meanwhile waits since now."""
    c = erasure_state.c
    since = case((c.erasures == erasures, None), else_=utc_now())
    connection.execute(update(erasure_state).values(erasing_since=since))


def empty_log(database: Database, seconds: float) -> bool:
    """Empty SQLite's log of what was erased, or try so long; return whether nothing of it is left."""
    until = time.monotonic() + seconds
    while True:
        with database.reading() as connection:
            since, erasures = erasing_since(connection)
        if since is None:
            return True
        if database.empty_log():
            with database.writing() as connection:
                log_emptied(connection, erasures)
            return True
        if time.monotonic() > until:
            return False
        time.sleep(PAUSE_SECONDS)
