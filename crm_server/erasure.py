"""Find, export and erase what is held of a person, and erase what is kept for a time only.

A person is found by an e-mail address, in any field of any payload and in the records, and then by every
`websiteUserId` that this brings. An erased request keeps its identity, disguised; a ticket keeps what is
the shop's: number, device, states, times and cost. See docs/privacy.md.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta
from itertools import islice
from operator import attrgetter, itemgetter
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

from crm_server import approval_queue, audit_trail, records, search
from crm_server.audit_trail import Actor
from crm_server.database import Database, insert_or_ignore, utc_now
from crm_server.errors import CannotReopen, ConfigurationError, PersonChanged, Unavailable
from crm_server.idempotency import Identity, disguise
from crm_server.tables import (
    EXPIRING,
    approvals,
    corrections,
    customer_website_users,
    customers,
    decision_records,
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
    """What staff noted on the tickets."""
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
    theirs = rows_of(connection, customers, customers.c.website_user_id, sorted(person.users), lock=lock)
    their_ids = [row.id for row in theirs]
    repairs = rows_of(connection, tickets, tickets.c.customer_id, their_ids, lock=lock)
    notes = rows_of(
        connection, ticket_notes, ticket_notes.c.ticket_id, [row.id for row in repairs], lock=lock
    )
    ids = [row.id for row in (*theirs, *repairs)]
    corrected = rows_of(connection, corrections, corrections.c.record_id, ids, lock=lock)
    return Held([row for row in mine if row.payload is not None], theirs, repairs, notes, corrected)


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


REMAINS = ("id", "contract", "received_at", *(part.name for part in fields(Identity)))
"""What stays of an erased request; its identity is disguised."""
RECORDS = {"approvals": "approval", "customers": "customer", "tickets": "ticket"}


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
    """Erase the oldest of the requests that were rejected more than some days ago; return how many."""
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
        erase_alone(connection, rows, actor, at)
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


def journal_of(database: Database) -> Path | None:
    """Return where erasures are noted for a later restore: beside the database, None where that is no file."""
    return Path(f"{database.file}.erasures") if database.file else None


@dataclass(frozen=True, slots=True)
class Journal:
    """All that was ever erased."""

    ids: Mapping[str, Mapping[str, str]]
    """By the records' kinds and ids, when it was for the last time."""
    requests: Mapping[str, Mapping[str, Any]]
    """What is left of the requests, by id; not of those that a release erased which did not note it."""


def write_journal(
    journal: Path, at: str, ids: Mapping[str, Sequence[str]], requests: Sequence[Mapping[str, Any]]
) -> None:
    """Note what is about to be erased, durably: ids of the CRM and what is left of requests, see `remains`.

    Neither tells anything of a person without the key, which only the database and its backups hold.

    Whoever calls it erases nothing before it has returned, and it returns when the whole line is on the disk. So a
    last line without its end belongs to a write that failed, by whose transaction nothing was erased: it is taken
    out before the next one is written, and `read_journal` passes over it. Who erases is alone, as all who write.
    Raises Unavailable, with the file as long as it was, when the line cannot be written.
    """
    rest = memoryview(json.dumps({"at": at, **ids, "requests": requests}).encode() + b"\n")
    try:
        with open(os.open(journal, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0) as file:
            end = file.seek(file.read().rfind(b"\n") + 1)
            file.truncate()
            try:
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
                sync_folder(journal)
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise Unavailable(
            f"{journal} cannot be written: {error.strerror}. Nothing was erased: mend that, and erase again."
        ) from None


def read_journal(journal: Path) -> Journal:
    """Return all that was ever erased.

    A last line without its end is none, see `write_journal`. Raises ConfigurationError for any other line that
    cannot be read.
    """
    found: dict[str, dict[str, str]] = {kind: {} for kind in RECORDS}
    requests: dict[str, dict[str, Any]] = {}
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            for kind, ids in found.items():
                ids.update(dict.fromkeys(entry[kind], entry["at"]))
            for request in entry.get("requests", []):
                requests[request["id"]] = {name: request[name] for name in REMAINS}
        except (ValueError, TypeError, KeyError):
            raise ConfigurationError(
                f"{journal}, line {number}, is damaged, so not all that was erased is known. Put a sound copy of that"
                " file in its place; or take the line out, restore, and erase again by `erase-person` who was"
                " erased at that time. Nothing was restored."
            ) from None
    return Journal(found, requests)


@dataclass(frozen=True, slots=True)
class ErasedAgain:
    """What was erased in a database of before."""

    count: int = 0
    """How many records."""
    doubtful: Sequence[str] = ()
    """The ids of customers, other people, who may hold what an erased request said."""
    misled: Sequence[str] = ()
    """The ids of other people's requests that stay approved for a customer who is erased."""
    unknown: Sequence[str] = ()
    """The ids of erased requests that came later, and of which nothing is left to know them by."""


def erase_again(database: Database, journal: Journal, actor: Actor) -> ErasedAgain:
    """Erase in a database of before what was erased since.

    What was erased is empty afterwards, also where it had been filled again; and what came later and was erased
    is known there when it is sent again.
    """
    erased = journal.ids
    with database.reading() as connection:
        newest = connection.execute(select(func.coalesce(func.max(approvals.c.sequence), 0))).scalar_one()
        mine = rows_of(connection, approvals, approvals.c.id, sorted(erased["approvals"]))
        back = [row for row in mine if row.payload is not None]
        known = rows_of(connection, customers, customers.c.id, sorted(erased["customers"]))
    found = {row.sequence: (row.id, user_of(row, json.loads(row.payload))) for row in back}
    users = {user for _, user in found.values()} | {row.website_user_id for row in known if not row.erased_at}
    # Only what was erased: the person may have come again later, as is their right.
    ids = {sequence: approval_id for sequence, (approval_id, _) in found.items()}
    person = Person("", frozenset(users), ids, newest, None)
    later = erased["approvals"].keys() - {row.id for row in mine}
    with database.writing() as connection:
        kept = take_back_again(connection, person, erased, actor)
        own = [each for each in kept if each.approval_id in erased["approvals"]]
        repairs = [each.record_id for each in own if each.record == "ticket"]
        erased = {**erased, "tickets": {**dict.fromkeys(repairs, utc_now()), **erased["tickets"]}}
        gone = spare(connection, held(connection, person), person, erased)
        erase_held(connection, gone, actor, utc_now())
        left = left_of(connection, erased)
        erase_held(connection, left, actor, utc_now())
        noted = [journal.requests[approval_id] for approval_id in later & journal.requests.keys()]
        store_remains(connection, noted, erased["approvals"], actor)
    filled = {each.record_id for each in own if each.record == "customer" and json.loads(each.fields)}
    return ErasedAgain(
        sum(len(ids) for each in (gone, left) for ids in each.ids().values()),
        sorted(filled - {row.id for row in gone.customers}),
        sorted({each.approval_id for each in kept} - erased["approvals"].keys()),
        sorted(later - journal.requests.keys()),
    )


def store_remains(
    connection: Connection,
    requests: Sequence[Mapping[str, Any]],
    erased_at: Mapping[str, str],
    actor: Actor,
) -> None:
    """Store what is left of erased requests that came after a backup, in order of receipt."""
    if not requests:
        return
    requests = sorted(requests, key=itemgetter("received_at", "id"))
    taken = disguises_since(connection, requests[0]["received_at"])
    # The queue is never reordered, also when the backup is of another history than the journal.
    received_at = connection.execute(approval_queue.NEWEST).scalar() or ""
    statement = insert_or_ignore(connection.dialect.name, approvals)
    stored = []
    for request in requests:
        if {request["natural_key"], request["webhook_id"]} & taken:
            continue
        received_at, at = max(received_at, request["received_at"]), erased_at[request["id"]]
        row = {
            **request,
            "status": "rejected",
            "received_at": received_at,
            "decided_at": max(at, received_at),
            "decided_by": actor.name,
            "erased_at": at,
        }
        if connection.execute(statement, row).rowcount:
            stored.append(request["id"])
    note_on_trail(connection, "erase", {"approvals": stored}, actor, utc_now())


def disguises_since(connection: Connection, at: str) -> set[str]:
    """Return what erasing the whole requests that were received since would leave of their identities.

    Who put a backup in place by hand may have received there anew what is erased. That is known as it is, and
    beside another with its identity it could never be erased.
    """
    c = approvals.c
    whole = select(approvals).where(c.received_at >= at, c.payload.is_not(None))
    key = connection.execute(select(erasure_state.c.key)).scalar_one()
    found = (disguised_identity(key, row) for row in connection.execute(whole))
    return {part for each in found for part in (each.natural_key, each.webhook_id) if part is not None}


def take_back_again(
    connection: Connection, person: Person, erased: Mapping[str, Mapping[str, str]], actor: Actor
) -> list[Row[Any]]:
    """Take back the decisions that had been taken back before a person was erased, the newest first.

    Of a decision on their request that stood at that time, customer and ticket were erased with it; so one that
    leads to others did not stand. Nor did one on another's request that leads to their customer, for by that
    customer it would have been erased too. Returns what those did that cannot be taken back.
    """
    c, known = decision_records.c, {*erased["customers"], *erased["tickets"]}
    done = rows_of(connection, decision_records, c.approval_id, sorted(person.approvals.values()))
    theirs = rows_of(connection, customers, customers.c.website_user_id, sorted(person.users))
    fallen = [effect for effect in done if effect.record_id not in known]
    fallen += made_by_others(connection, [row.id for row in theirs], person, erased)
    effects: dict[str, list[Row[Any]]] = {}
    for effect in sorted(fallen, key=attrgetter("sequence"), reverse=True):
        effects.setdefault(effect.approval_id, []).append(effect)
    kept = []
    for approval_id, its in effects.items():
        try:
            with connection.begin_nested():
                approval_queue.reopen(connection, approval_id, actor)
        except CannotReopen:
            kept += its
    return kept


def made_by_others(
    connection: Connection, ids: Sequence[str], person: Person, erased: Mapping[str, Mapping[str, str]]
) -> list[Row[Any]]:
    """Read what decisions on the requests of people who were not erased did to some records."""
    effects = rows_of(connection, decision_records, decision_records.c.record_id, ids)
    unnamed = {effect.approval_id for effect in effects} - erased["approvals"].keys()
    others = {
        row.id
        for row in rows_of(connection, approvals, approvals.c.id, sorted(unnamed))
        if row.payload is not None and user_of(row, json.loads(row.payload)) not in person.users
    }
    return [effect for effect in effects if effect.approval_id in others]


def spare(
    connection: Connection, found: Held, person: Person, erased: Mapping[str, Mapping[str, str]]
) -> Held:
    """Leave out the tickets that other people's requests made and that were not erased."""
    unnamed = [row.id for row in found.tickets if row.id not in erased["tickets"]]
    spared = {effect.record_id for effect in made_by_others(connection, unnamed, person, erased)}
    return replace(
        found,
        tickets=[row for row in found.tickets if row.id not in spared],
        notes=[row for row in found.notes if row.ticket_id not in spared],
        corrections=[row for row in found.corrections if row.record_id not in spared],
    )


def left_of(connection: Connection, erased: Mapping[str, Mapping[str, str]]) -> Held:
    """Read what is in customers and tickets that were erased, and what was noted on them until then."""
    people, repairs = erased["customers"], erased["tickets"]
    of_customer = customer_website_users.c.customer_id
    joined = {
        row.customer_id for row in rows_of(connection, customer_website_users, of_customer, sorted(people))
    }
    return Held(
        [],
        [
            row
            for row in rows_of(connection, customers, customers.c.id, sorted(people))
            if row.id in joined or is_filled(customers, row)
        ],
        [
            row
            for row in rows_of(connection, tickets, tickets.c.id, sorted(repairs))
            if is_filled(tickets, row)
        ],
        # What staff noted later is the shop's, of a device that it still has.
        [
            row
            for row in rows_of(connection, ticket_notes, ticket_notes.c.ticket_id, sorted(repairs))
            if row.at <= repairs[row.ticket_id]
        ],
        rows_of(connection, corrections, corrections.c.record_id, sorted([*people, *repairs])),
    )


def is_filled(table: Table, row: Row[Any]) -> bool:
    """Tell whether a record has something personal."""
    return any(
        row._mapping[column.name] is not None for column in table.columns if column.info.get("personal")
    )


def sync(file: Path) -> None:
    """Wait until a file's content is on the disk."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(file: Path) -> None:
    """Wait until a file's name is on the disk."""
    sync(file.absolute().parent)
