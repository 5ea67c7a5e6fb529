"""Erase in a restored database what was erased since its backup. See docs/backup.md."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter, itemgetter
from typing import Any

from sqlalchemy import Connection, Row, Table, func, select

from crm_server import approval_queue
from crm_server.audit_trail import Actor
from crm_server.database import Database, insert_or_ignore, utc_now
from crm_server.erasure import (
    Held,
    Person,
    disguised_identity,
    erase_held,
    held,
    note_on_trail,
    rows_of,
    user_of,
)
from crm_server.erasure_journal import Journal
from crm_server.errors import CannotReopen
from crm_server.tables import (
    approvals,
    corrections,
    customer_website_users,
    customers,
    decision_records,
    erasure_state,
    ticket_notes,
    tickets,
)


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
