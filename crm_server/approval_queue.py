"""The approval queue: receive, list, approve, reject, one transaction each; every statement on it."""

import asyncio
import functools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Row,
    Select,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from crm_server import audit_trail, records, search, website_statuses
from crm_server.audit_trail import Actor
from crm_server.database import (
    BUSY_SECONDS,
    Database,
    execute_as_is,
    insert_new,
    new_id,
    utc_now,
)
from crm_server.decisions import (
    NO_CHOICE,
    TRANSITIONS,
    Change,
    Choice,
    Difference,
    Records,
    Verb,
    changed_customer,
    changes,
    differences,
    records_of,
)
from crm_server.errors import (
    AlreadyDecided,
    CannotReopen,
    CustomerKnown,
    CustomerUnknown,
    Erased,
    NoTicket,
    Unavailable,
    UnknownApproval,
)
from crm_server.group_commit import GroupCommit
from crm_server.idempotency import Conflict, Duplicate, Identity, Known, New, Verdict, decide, disguise
from crm_server.metrics import Metrics
from crm_server.pages import MOST_COUNTED, Page, Window, count, read_page
from crm_server.releases import Releases
from crm_server.tables import (
    approvals,
    decision_records,
    erasure_state,
    heartbeat,
    rejection_reasons,
    search_documents,
)
from crm_server.upcast import read_event
from crm_server.webhook_keys import record_use
from crm_server.website_statuses import Told
from generated.operations import RELEASES
from generated.webhooks import BookingStatus, CustomerProfile, PaymentStatus

Found = TypeVar("Found")

FRESH_SECONDS = 5.0
"""So long a commit shows that the database can be written."""
RECEIVING_SECONDS = 1.0
"""So long after an event more are expected."""
PROBE_SECONDS = 1.0
"""How long health waits for a write, and how long it believes what it found."""


# Statements of every batch; to build one costs more than to run it.
NEWEST = select(approvals.c.received_at).order_by(approvals.c.sequence.desc()).limit(literal_column("1"))
STORED = select(approvals.c.id).where(approvals.c.id.in_(bindparam("ids", expanding=True)))
ERASURE_KEY = select(erasure_state.c.key).where(erasure_state.c.erasures > literal_column("0"))
"""What the identities of erased requests are disguised by; nothing as long as nothing was erased."""
STATE = select(NEWEST.scalar_subquery(), ERASURE_KEY.scalar_subquery())
"""When the newest request was received, and that key."""


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """A valid event as it arrived."""

    identity: Identity
    contract: str
    payload: str
    """Its JSON, character for character."""
    by: str | None = None
    """The fingerprint of the key that it came with."""
    origin: str | None = None
    """The address that it came from."""
    about: str | None = None
    """The natural key of the repair request that it tells more of."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the sender may rely on once the event is stored."""

    id: str
    duplicate: bool
    identity: Identity


class ApprovalQueue:
    """What the server does with the queue, through one committer."""

    def __init__(self, database: Database, metrics: Metrics | None = None) -> None:
        """Prepare; nothing is written before `start`. What becomes of events is counted in `metrics`."""
        self._database = database
        self._metrics = metrics or Metrics(events=EVENTS, releases=RELEASES)
        self.releases = Releases(self._metrics.webhooks)
        self._commits: GroupCommit[ReceivedEvent, Receipt | Conflict] = GroupCommit(
            database, receive, metrics=self._metrics
        )
        self._healthy = (float("-inf"), False)
        self._probe: asyncio.Task[bool] | None = None

    def start(self) -> None:
        """Start to take events."""
        self._commits.start()

    async def close(self) -> None:
        """Store what was taken, then stop."""
        await self._commits.close()

    async def receive(self, event: ReceivedEvent) -> Receipt | Conflict:
        """Store an event once; return after it is durable.

        Raises Unavailable when it could not be stored, or when nobody knows whether it was.
        """
        outcome = await self._commits.submit(event)
        if isinstance(outcome, Conflict):
            word = "conflict"
        else:
            word = "duplicate" if outcome.duplicate else "accepted"
        self._metrics.events.add((event.identity.event, word))
        return outcome

    @property
    def is_receiving(self) -> bool:
        """Whether events have come within the last second."""
        return time.monotonic() - self._commits.state.grouped_at < RECEIVING_SECONDS

    async def judge(self, identity: Identity) -> Verdict:
        """Tell what `receive` would find, and store nothing."""
        verdict = await self.read(lambda connection: judge(connection, identity))
        self._metrics.events.add((identity.event, "test"))
        return verdict

    async def read(self, question: Callable[[Connection], Found]) -> Found:
        """Answer a question in a thread, in a transaction that only reads.

        Raises Unavailable when the database fails, or does not answer in time.
        """
        try:
            async with asyncio.timeout(BUSY_SECONDS):
                return await asyncio.to_thread(self._read, question)
        except (TimeoutError, SQLAlchemyError):
            raise Unavailable("The database did not answer.") from None

    def _read(self, question: Callable[[Connection], Found]) -> Found:
        with self._database.reading() as connection:
            return question(connection)

    async def work(self, job: Callable[[Database], Found]) -> Found:
        """Run a longer job in a thread, which opens short transactions of its own that only read.

        Raises Unavailable when the database fails.
        """
        try:
            return await asyncio.to_thread(job, self._database)
        except SQLAlchemyError:
            raise Unavailable("The database failed.") from None

    async def write(self, job: Callable[[Connection], Found], seconds: float = BUSY_SECONDS) -> Found:
        """Run a job in a transaction of its own, by the one thread that writes; return after the commit.

        Raises Unavailable when it could not be done in time, or when nobody knows whether it was.
        """
        outcome: Found = await self._commits.run(job, seconds)
        return outcome

    async def note_key(self, key: str) -> None:
        """Store that a webhook key, by its fingerprint, was used now. Raises Unavailable."""
        await self._commits.run(lambda connection: record_use(connection, key))

    @property
    def alive(self) -> bool:
        """Whether the thread that writes runs."""
        return self._commits.alive

    @property
    def waiting(self) -> int:
        """How many wait for their commit."""
        return self._commits.waiting

    async def is_healthy(self) -> bool:
        """Tell whether an event could be stored now, by the last commit or by trying; at most a second old."""
        until, healthy = self._healthy
        if time.monotonic() < until:
            return healthy
        if self._probe is None:
            self._probe = asyncio.create_task(self._find_out())
        return await asyncio.shield(self._probe)

    async def _find_out(self) -> bool:
        try:
            healthy = self._commits.alive and (self._has_just_written() or await self._can_write())
            self._healthy = (time.monotonic() + PROBE_SECONDS, healthy)
        finally:
            self._probe = None
        return healthy

    def _has_just_written(self) -> bool:
        state = self._commits.state
        return not state.failed and time.monotonic() - state.succeeded_at < FRESH_SECONDS

    async def _can_write(self) -> bool:
        try:
            await self._commits.run(beat, PROBE_SECONDS)
        except Unavailable:
            return False
        return True


def receive(connection: Connection, events: Sequence[ReceivedEvent]) -> list[Receipt | Conflict]:
    """Store those events that are new, in the order of their identities, and judge the others."""
    newest, erasure_key = execute_as_is(connection, state_statement(connection.dialect)).fetchone()
    # The queue is never reordered, when the clock has jumped back neither.
    at = max(utc_now(), newest or "")
    rows = [new_row(event, at) for event in events]
    stored = store(connection, sorted(rows, key=itemgetter("event", "natural_key")))
    new = {row["id"]: event.identity for row, event in zip(rows, events, strict=True) if row["id"] in stored}
    if erasure_key:
        stored -= withdraw_erased(connection, erasure_key, new)
    return [
        Receipt(row["id"], duplicate=False, identity=event.identity)
        if row["id"] in stored
        else known_outcome(connection, event.identity)
        for row, event in zip(rows, events, strict=True)
    ]


@functools.cache
def state_statement(dialect: Dialect) -> str:
    """Return STATE as text: SQLAlchemy takes longer to find it again than the database to answer it."""
    return str(STATE.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def new_row(event: ReceivedEvent, at: str) -> dict[str, Any]:
    """Return the row of a request that waits for approval."""
    identity = event.identity
    return {
        "id": new_id(),
        "event": identity.event,
        "natural_key": identity.natural_key,
        "webhook_id": identity.webhook_id,
        "contract": event.contract,
        "payload": event.payload,
        "digest": identity.digest,
        "status": "pending_approval",
        "received_at": at,
        "received_by": event.by,
        "received_from": event.origin,
        "about": event.about,
    }


def store(connection: Connection, rows: list[dict[str, Any]]) -> set[str]:
    """Insert the rows whose identity is new; return the ids of those."""
    ids = [row["id"] for row in rows]
    if insert_new(connection, approvals, rows) == len(rows):
        return set(ids)
    return set(connection.execute(STORED, {"ids": ids}).scalars())


def withdraw_erased(connection: Connection, key: str, stored: dict[str, Identity]) -> set[str]:
    """Delete those just stored that were known before and are erased; return their ids."""
    disguised = {approval_id: disguise(key, identity) for approval_id, identity in stored.items()}
    c = approvals.c
    keys = c.event.in_(EVENTS) & c.natural_key.in_([each.natural_key for each in disguised.values()])
    webhook_ids = c.webhook_id.in_([each.webhook_id for each in disguised.values() if each.webhook_id])
    # Each by its own index.
    found = select(c.natural_key).where(keys).union_all(select(c.webhook_id).where(webhook_ids))
    known = set(connection.execute(found).scalars())
    again = {id_ for id_, each in disguised.items() if known & {each.natural_key, each.webhook_id}}
    if again:
        connection.execute(delete(approvals).where(c.id.in_(again)))
    return again


def known_outcome(connection: Connection, identity: Identity) -> Receipt | Conflict:
    """Return the outcome for an event that was not inserted: something with its identity is there."""
    match judge(connection, identity):
        case Duplicate(known):
            return Receipt(known.id, duplicate=True, identity=identity)
        case Conflict() as conflict:
            return conflict
        case New():
            raise Unavailable("The row that was in the way is gone.")


def judge(connection: Connection, identity: Identity) -> Verdict:
    """Judge an event against what is stored, also against what is erased."""
    key = connection.execute(ERASURE_KEY).scalar()
    disguised = None if key is None else disguise(key, identity)
    forms = [identity] if disguised is None else [identity, disguised]
    return decide(identity, find_known(connection, forms), disguised)


def find_known(connection: Connection, forms: Sequence[Identity]) -> list[Known]:
    """Read the requests that share a natural key or a webhook-id with any of the forms of an event."""
    c = approvals.c
    same: ColumnElement[bool] = c.event.in_([form.event for form in forms]) & c.natural_key.in_(
        [form.natural_key for form in forms]
    )
    if webhook_ids := [form.webhook_id for form in forms if form.webhook_id is not None]:
        same = or_(same, c.webhook_id.in_(webhook_ids))
    columns = (c.id, c.event, c.natural_key, c.webhook_id, c.digest, c.erased_at)
    found = connection.execute(select(*columns).where(same).order_by(c.sequence))
    return [
        Known(
            row.id,
            Identity(row.event, row.natural_key, row.webhook_id, row.digest),
            erased=row.erased_at is not None,
        )
        for row in found
    ]


def beat(connection: Connection) -> Any:
    """Write one row, to see whether the database can be written."""
    at = utc_now()
    if not connection.execute(update(heartbeat).values(at=at)).rowcount:
        connection.execute(insert(heartbeat), {"id": 1, "at": at})


def list_approvals(
    connection: Connection, status: str | None = None, after: int = 0, limit: int | None = None
) -> Sequence[Row[Any]]:
    """Read the requests, of all states or of one, that come `after` a sequence, oldest first."""
    statement = select(approvals).where(approvals.c.sequence > after).order_by(approvals.c.sequence)
    if status is not None:
        statement = statement.where(approvals.c.status == status)
    return connection.execute(statement.limit(limit)).all()


STATUSES = ("pending_approval", "approved", "rejected")
EVENTS = tuple(dict.fromkeys(event for webhooks in RELEASES.values() for event in webhooks))


@dataclass(frozen=True, slots=True)
class Depth:
    """How many requests of an event are in a state: 10,001 says more than 10,000."""

    event: str
    status: str
    count: int
    oldest: str | None
    """When the first of them was received."""


def depths(connection: Connection) -> list[Depth]:
    """Count the requests, in a millisecond or two however many there are: no further than lists do."""
    return [depth(connection, event, status) for event in EVENTS for status in STATUSES]


def depth(connection: Connection, event: str, status: str) -> Depth:
    """Count the requests of an event that are in a state, by their index."""
    c = approvals.c
    these = select(c.sequence).where(c.event == event, c.status == status)
    some = these.limit(MOST_COUNTED + 1).subquery()
    first = select(c.received_at).where(c.event == event, c.status == status).order_by(c.sequence).limit(1)
    count = connection.execute(select(func.count()).select_from(some)).scalar_one()
    return Depth(event, status, count, connection.execute(first).scalar())


@dataclass(frozen=True, slots=True)
class Filter:
    """Which requests are wanted; None does not matter."""

    status: str | None = None
    event: str | None = None
    words: str | None = None
    """What is searched for."""
    personal: bool = False
    """Whether it is searched for in personal fields too."""


def page(connection: Connection, window: Window, wanted: Filter) -> Page:
    """Read a page of the requests that a filter lets pass."""
    return read_page(connection, streams(connection, wanted), approvals.c.sequence, window)


def count_since(connection: Connection, wanted: Filter, sequence: int) -> int:
    """Count the requests that a filter lets pass and that came after one, up to 10,000."""
    later = [stream.where(approvals.c.sequence > sequence) for stream in streams(connection, wanted)]
    number: int = connection.execute(count(later)).scalar_one()
    return min(number, MOST_COUNTED)


def streams(connection: Connection, wanted: Filter) -> list[Select[Any]]:
    """Return what a filter lets pass, as streams that have no row in common."""
    return found(connection, wanted) if wanted.words is not None else listed(wanted)


def listed(wanted: Filter) -> list[Select[Any]]:
    """Return the streams of a list, each in the order of one index."""
    return [
        select(approvals).where(approvals.c.event == event, approvals.c.status == status)
        for event in (EVENTS if wanted.event is None else (wanted.event,))
        for status in (STATUSES if wanted.status is None else (wanted.status,))
    ]


def found(connection: Connection, wanted: Filter) -> list[Select[Any]]:
    """Return what is found by a search, as one stream."""
    of_this = search_documents.c.sequence == approvals.c.sequence
    statement = select(approvals).join(search_documents, of_this)
    statement = statement.where(*search.conditions(connection, wanted.words or "", personal=wanted.personal))
    for column, value in ((approvals.c.event, wanted.event), (approvals.c.status, wanted.status)):
        if value is not None:
            statement = statement.where(column == value)
    return [statement]


@dataclass(frozen=True, slots=True)
class Shown:
    """One request with all that is known of it."""

    row: Row[Any]
    reason: str | None
    """Why it was rejected; None also once it is erased."""
    comparison: "Comparison"
    history: list[Row[Any]]
    """What was done to it, oldest first."""
    told: Told
    """What the website has told of its repair."""
    repair: Row[Any] | None
    """The repair request that a status is about, if it has come."""
    ticket: Row[Any] | None
    """The ticket of the repair that a status is about."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a request that waits says of a customer, beside what is on record."""

    customer_id: str | None = None
    """The customer with its `websiteUserId`."""
    differences: Sequence[Difference] = ()
    """From that customer's record."""
    changes: Sequence[Change] = ()
    """What a changed profile would change of it, or has changed when it was approved."""
    outdated: Sequence[str] = ()
    """The fields that are left out of these, since the customer has changed them again."""
    suggestions: Sequence["Suggested"] = ()
    """Customers with an equal e-mail address, where its `websiteUserId` is not known."""


@dataclass(frozen=True, slots=True)
class Suggested:
    """A customer who may have sent a request."""

    row: Row[Any]
    differences: Sequence[Difference]
    """From their record."""


def compare(connection: Connection, row: Row[Any]) -> Comparison:
    """Look for the customer of a request; nothing is compared once it is decided or erased."""
    if row.payload is None or row.about is not None:
        return Comparison()
    event = read_event(row)
    if isinstance(event, CustomerProfile):
        return compare_profile(connection, row, event)
    if row.status != "pending_approval":
        return Comparison()
    sent = records_of(event).customer
    known = records.find_customer(connection, sent["website_user_id"])
    if known is None:
        like = records.customers_with_email(connection, sent["email"])
        return Comparison(
            suggestions=[Suggested(row, list(differences(row._asdict(), sent))) for row in like]
        )
    return Comparison(known.id, list(differences(known._asdict(), sent)))


def compare_profile(connection: Connection, row: Row[Any], event: CustomerProfile) -> Comparison:
    """Say what a changed profile would change of its customer's record, or has changed."""
    known = records.find_customer(connection, event.customer.website_user_id)
    if known is None or row.status == "rejected":
        return Comparison()
    outdated = outdated_fields(connection, row, event, known.id)
    if row.status == "approved":
        sent = changed_customer(event)
        made = records.corrections_by(connection, row.id)
        changed = [Change(each.field, each.before, sent[each.field]) for each in made if each.field in sent]
        return Comparison(changes=changed, outdated=outdated)
    return Comparison(known.id, changes=list(changes(known._asdict(), event, outdated)), outdated=outdated)


def outdated_fields(
    connection: Connection, row: Row[Any], event: CustomerProfile, customer_id: str
) -> list[str]:
    """Return the fields of a changed profile that a later one, approved before it, has said anew.

    What happened last counts, not what was decided last; of the same moment it is what was received last.
    """
    c = decision_records.c
    mine = select(c.sequence).where(c.approval_id == row.id).scalar_subquery()
    before = select(c.approval_id).where(c.record_id == customer_id, or_(mine.is_(None), c.sequence < mine))
    said: set[str] = set()
    # All of the customer's, of whatever event: by that SQLite would look through everybody's.
    for other in connection.execute(select(approvals).where(approvals.c.id.in_(before))):
        if other.event != row.event or other.payload is None:
            continue
        later = read_event(other)
        if isinstance(later, CustomerProfile) and (later.metadata.changed_at, other.sequence) > (
            event.metadata.changed_at,
            row.sequence,
        ):
            said |= changed_customer(later).keys()
    return [name for name in changed_customer(event) if name in said]


def find_approval(connection: Connection, approval_id: str) -> Row[Any]:
    """Read one request.

    Raises UnknownApproval.
    """
    row = connection.execute(select(approvals).where(approvals.c.id == approval_id)).one_or_none()
    if row is None:
        raise UnknownApproval(f"There is no approval request {approval_id}.")
    return row


def find_outcome(connection: Connection, approval_id: str) -> Row[Any]:
    """Read what became of a request, and nothing of whom it is from.

    Raises UnknownApproval.
    """
    c = approvals.c
    columns = [c.id, c.event, c.status, c.received_at, c.decided_at]
    row = connection.execute(select(*columns).where(c.id == approval_id)).one_or_none()
    if row is None:
        raise UnknownApproval("There is no such approval request.")
    return row


def show(connection: Connection, approval_id: str) -> Shown:
    """Read one request, its history, and how it compares with what is on record.

    Raises UnknownApproval.
    """
    row = find_approval(connection, approval_id)
    of_this = rejection_reasons.c.approval_id == approval_id
    reason = connection.execute(select(rejection_reasons.c.reason).where(of_this)).scalar()
    history = list(audit_trail.history(connection, approval_id))
    repair: Row[Any] | None = None
    ticket: Row[Any] | None = None
    told = Told()
    if row.about is not None:
        repair = website_statuses.find_repair(connection, row.about)
        ticket = website_statuses.find_ticket(connection, row.about)
        told = website_statuses.told_of(connection, row.about)
    elif row.event == website_statuses.REPAIR and row.payload is not None:
        told = website_statuses.told_of(connection, row.natural_key)
    return Shown(row, reason, compare(connection, row), history, told, repair, ticket)


def requests_of(connection: Connection, record_id: str) -> list[Row[Any]]:
    """Read the requests whose approval made or used a customer or a ticket, the newest first, some at most."""
    c = decision_records.c
    these = select(c.approval_id).where(c.record_id == record_id)
    statement = select(approvals).where(approvals.c.id.in_(these)).order_by(approvals.c.sequence.desc())
    return list(connection.execute(statement.limit(records.MOST_SHOWN)).all())


def as_json(row: Row[Any]) -> dict[str, Any]:
    """Return a request as the command line and the staff API show it."""
    return {
        "id": row.id,
        "event": row.event,
        "status": row.status,
        "received_at": row.received_at,
        "webhook_id": row.webhook_id,
        "natural_key": row.natural_key,
        "contract": row.contract,
        "payload": None if row.payload is None else json.loads(row.payload),
        "decided_at": row.decided_at,
        "decided_by": row.decided_by,
        "about": row.about,
    }


def approve(connection: Connection, approval_id: str, actor: Actor, choice: Choice = NO_CHOICE) -> Row[Any]:
    """Approve a request: what it asks for is recorded. Return the decided row.

    That is its customer, and for a repair its ticket; of a changed profile what has changed; a status of the
    website stands on the ticket as it is. Raises UnknownApproval, AlreadyDecided, Erased, CustomerKnown,
    CustomerUnknown, UnknownCustomer, NumberTaken and NoTicket.
    """
    row = decide_once(connection, approval_id, "approve", actor)
    if row.payload is None:
        raise Erased("What was received is erased: reject it.")
    match read_event(row):
        case PaymentStatus() | BookingStatus():
            require_ticket(connection, row.about)
        case CustomerProfile() as event:
            change_customer(connection, row, event, actor)
        case event:
            make_records(connection, row, records_of(event), actor, choice)
    return row


def require_ticket(connection: Connection, website_repair_id: str) -> None:
    """Raise NoTicket unless there is a ticket on which a status can stand."""
    if website_statuses.find_ticket(connection, website_repair_id) is None:
        raise NoTicket("Its repair has no ticket: approve the repair request first, or reject this.")


def change_customer(connection: Connection, row: Row[Any], event: CustomerProfile, actor: Actor) -> None:
    """Write what has changed of a profile, and is not outdated, to its customer's record.

    Raises CustomerUnknown.
    """
    known = records.find_customer(connection, event.customer.website_user_id)
    if known is None:
        raise CustomerUnknown(
            "Its customer is not on record: approve their registration first, or reject this."
        )
    outdated = outdated_fields(connection, row, event, known.id)
    right = {change.field: change.sent for change in changes(known._asdict(), event, outdated)}
    corrected = records.correct(
        connection, "customer", known.id, right, at=row.decided_at, actor=actor, approval_id=row.id
    )
    remember(connection, row.id, "customer", known.id, created=False, fields=corrected)


def make_records(
    connection: Connection, row: Row[Any], wanted: Records, actor: Actor, choice: Choice
) -> None:
    """Record a customer and, for a repair, a ticket.

    Raises CustomerKnown, UnknownCustomer and NumberTaken.
    """
    customer_id = record_customer(connection, row, wanted, actor, choice)
    if wanted.ticket:
        ticket = wanted.ticket | ({"ticket_number": choice.ticket_number} if choice.ticket_number else {})
        at = row.decided_at
        ticket_id = records.open_ticket(connection, customer_id, ticket, at)
        audit_trail.append(connection, at=at, actor=actor, verb="open", record="ticket", record_id=ticket_id)
        remember(connection, row.id, "ticket", ticket_id, created=True)


def record_customer(
    connection: Connection, row: Row[Any], wanted: Records, actor: Actor, choice: Choice
) -> str:
    """Find, or make, the customer of a request that is approved, and write what it says of them; return the id.

    Raises CustomerKnown and UnknownCustomer.
    """
    at, sent = row.decided_at, wanted.customer
    user_id, chosen = sent["website_user_id"], choice.customer_id
    known = records.find_customer(connection, user_id)
    if chosen and known and known.id != chosen:
        raise CustomerKnown("Its websiteUserId is another customer's.")
    if chosen and not known:
        records.join_customer(connection, chosen, user_id, row.id)
    customer_id, created = records.add_customer(connection, sent, at)
    if created:
        done = {"create": [name for name, value in sent.items() if value is not None]}
    else:
        done = {
            "join": [records.JOINED] if chosen and not known else [],
            "complete": records.complete_customer(connection, customer_id, sent),
        }
    for verb, fields in done.items():
        if fields:
            pointers = [f"/{name}" for name in fields]
            audit_trail.append(
                connection,
                at=at,
                actor=actor,
                verb=verb,
                record="customer",
                record_id=customer_id,
                pointers=pointers,
            )
    right = {name: sent[name] for name in choice.use_sent if sent[name] is not None}
    corrected = records.correct(
        connection, "customer", customer_id, right, at=at, actor=actor, approval_id=row.id
    )
    fields = [name for names in (*done.values(), corrected) for name in names]
    remember(connection, row.id, "customer", customer_id, created=created, fields=fields)
    return customer_id


def remember(
    connection: Connection,
    approval_id: str,
    record: str,
    record_id: str,
    *,
    created: bool,
    fields: Sequence[str] = (),
) -> None:
    """Keep what an approval did to a record, so that it can be taken back."""
    row = {"approval_id": approval_id, "record": record, "record_id": record_id, "created": created}
    connection.execute(insert(decision_records), {**row, "fields": json.dumps(list(fields))})


def reopen(connection: Connection, approval_id: str, actor: Actor) -> Row[Any]:
    """Take a decision back: remove what it made, and nothing else. Return the row, which waits again.

    Raises UnknownApproval and CannotReopen.
    """
    before = find_approval(connection, approval_id)
    if before.payload is None:
        raise CannotReopen("The payload is erased.")
    if before.about is not None and before.status == "approved":
        raise CannotReopen("It says what happened on the website: there is nothing to take back.")
    row = decide_once(connection, approval_id, "reopen", actor)
    of_this = decision_records.c.approval_id == approval_id
    newest_first = decision_records.c.sequence.desc()
    effects = connection.execute(select(decision_records).where(of_this).order_by(newest_first)).all()
    if before.status == "approved" and not effects:
        raise CannotReopen("What the decision made was not noted.")
    for effect in effects:  # the ticket before its customer
        take_back(connection, effect, actor)
    connection.execute(delete(decision_records).where(of_this))
    connection.execute(delete(rejection_reasons).where(rejection_reasons.c.approval_id == approval_id))
    return row


def take_back(connection: Connection, effect: Row[Any], actor: Actor) -> None:
    """Undo what a decision did to one record.

    Raises CannotReopen.
    """
    fields = json.loads(effect.fields)
    if effect.record == "ticket":
        records.remove_ticket(connection, effect.record_id)
    elif not (effect.created or fields):
        return
    else:
        c = decision_records.c
        later = (c.record_id == effect.record_id) & (c.sequence > effect.sequence)
        if connection.execute(select(c.sequence).where(later).limit(1)).first():
            raise CannotReopen("A later decision used the customer.")
        if effect.created:
            records.remove_customer(connection, effect.record_id)
        else:
            records.restore_customer(connection, effect.record_id, effect.approval_id, fields)
    audit_trail.append(
        connection,
        at=utc_now(),
        actor=actor,
        verb="remove" if effect.created else "restore",
        record=effect.record,
        record_id=effect.record_id,
        pointers=[] if effect.created else [f"/{name}" for name in fields],
    )


def reject(connection: Connection, approval_id: str, actor: Actor, reason: str) -> Row[Any]:
    """Reject a request for a reason. Return the decided row.

    Raises UnknownApproval and AlreadyDecided.
    """
    row = decide_once(connection, approval_id, "reject", actor)
    connection.execute(insert(rejection_reasons), {"approval_id": approval_id, "reason": reason})
    return row


def decide_once(connection: Connection, approval_id: str, verb: Verb, actor: Actor) -> Row[Any]:
    """Move a request on, unless somebody else has; put it on the trail; return the row as it is then."""
    this = approvals.c.id == approval_id
    row = connection.execute(select(approvals).where(this).with_for_update()).one_or_none()
    if row is None:
        raise UnknownApproval(f"There is no approval request {approval_id}.")
    status = TRANSITIONS.get((row.status, verb))
    if status is None and verb == "reopen":
        raise CannotReopen(f"{approval_id} waits for approval.")
    if status is None:
        raise AlreadyDecided(approval_id, row.status, row.decided_by, row.decided_at)
    at = max(utc_now(), row.received_at)
    waits = status == "pending_approval"
    decided = {
        "status": status,
        "decided_at": None if waits else at,
        "decided_by": None if waits else actor.name,
    }
    connection.execute(update(approvals).where(this).values(decided))
    audit_trail.append(connection, at=at, actor=actor, verb=verb, record="approval", record_id=approval_id)
    return connection.execute(select(approvals).where(this)).one()
