"""Customers, repair tickets, notes and corrections: every statement on their tables, each in the caller's transaction."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import NAMESPACE_OID, uuid5

from sqlalchemy import CompoundSelect, Connection, Table, delete, func, insert, or_, select, union, update
from sqlalchemy import Row as Found

from crm_server import audit_trail, search
from crm_server.audit_trail import Actor
from crm_server.database import insert_or_ignore, new_id, utc_now
from crm_server.decisions import IN_JSON, TICKET_TRANSITIONS
from crm_server.errors import CannotReopen, Erased, NumberTaken, TicketMoved, UnknownCustomer, UnknownTicket
from crm_server.pages import Page, Window, read_page
from crm_server.tables import (
    approvals,
    corrections,
    customer_website_users,
    customers,
    decision_records,
    search_documents,
    ticket_notes,
    tickets,
)
from crm_server.website_statuses import Told, told_of

Row = dict[str, Any]
Kind = Literal["customer", "ticket"]

TABLES: Mapping[Kind, Table] = {"customer": customers, "ticket": tickets}
MOST_SUGGESTED = 10
"""Customers with an equal e-mail address that are suggested."""
JOINED = "website_user_ids"
"""Stands in the list of what a decision did to a customer, when it gave them another id on the website."""


def find_customer(connection: Connection, website_user_id: str) -> Found[Any] | None:
    """Read the customer who has this id on the website, as their first or as another."""
    other = customer_website_users.c
    joined = select(other.customer_id).where(other.website_user_id == website_user_id).scalar_subquery()
    mine = or_(customers.c.website_user_id == website_user_id, customers.c.id == joined)
    return connection.execute(select(customers).where(mine)).first()


def customers_with_email(connection: Connection, email: str) -> Sequence[Found[Any]]:
    """Read the customers with an equal e-mail address, whatever its case; newest first, some at most."""
    equal = func.lower(customers.c.email) == email.lower()
    found = select(customers).where(equal).order_by(customers.c.id.desc()).limit(MOST_SUGGESTED)
    return connection.execute(found).all()


def join_customer(connection: Connection, customer_id: str, website_user_id: str, approval_id: str) -> None:
    """Give a customer another id on the website, by a decision.

    Raises UnknownCustomer, and Erased.
    """
    if find_record(connection, "customer", customer_id).erased_at is not None:
        raise Erased("This customer is erased, and stays empty: choose another, or none for a new one.")
    row = {"website_user_id": website_user_id, "customer_id": customer_id, "approval_id": approval_id}
    connection.execute(insert(customer_website_users), row)


def as_json(row: Found[Any]) -> Row:
    """Return a customer or a ticket as the command line and the staff API show it."""
    return {
        name: json.loads(value) if name in IN_JSON and value is not None else value
        for name, value in row._mapping.items()
    }


MOST_SHOWN = 100
"""So many tickets stand on a customer's page."""


def add_customer(connection: Connection, customer: Row, at: str) -> tuple[str, bool]:
    """Return the id of the customer with this `website_user_id`, and whether it was created now.

    Two at once make one: who comes second finds the row of the first.
    """
    known = find_customer(connection, customer["website_user_id"])
    if known is not None:
        return str(known.id), False
    row = {"id": new_id(), "created_at": at, **customer}
    connection.execute(insert_or_ignore(connection.dialect.name, customers), row)
    key = customers.c.website_user_id == customer["website_user_id"]
    found: str = connection.execute(select(customers.c.id).where(key)).scalar_one()
    return found, found == row["id"]


def complete_customer(connection: Connection, customer_id: str, customer: Row) -> list[str]:
    """Fill what is missing of a customer; what is there stays. Return the names of what was filled."""
    row = connection.execute(select(customers).where(customers.c.id == customer_id)).mappings().one()
    missing = {name: value for name, value in customer.items() if row[name] is None and value is not None}
    if missing:
        connection.execute(update(customers).where(customers.c.id == customer_id).values(missing))
    return list(missing)


def open_ticket(connection: Connection, customer_id: str, ticket: Row, at: str) -> str:
    """Open a repair ticket and return its id.

    Raises NumberTaken.
    """
    number = tickets.c.ticket_number == ticket["ticket_number"]
    if connection.execute(select(tickets.c.id).where(number).limit(1)).first():
        raise NumberTaken("Another ticket has this number: approve with a number of its own.")
    row = {"id": new_id(), "customer_id": customer_id, "created_at": at, **ticket}
    connection.execute(insert(tickets), row)
    ticket_id: str = row["id"]
    return ticket_id


@dataclass(frozen=True, slots=True)
class Sought:
    """What is searched for in customers or tickets."""

    words: str
    personal: bool
    """Whether in personal fields too."""


def records_page(
    connection: Connection,
    kind: Kind,
    window: Window,
    sought: Sought | None = None,
    status: str | None = None,
) -> Page:
    """Read a page of the customers or the tickets, or of the tickets of one state.

    Their ids sort by the time at which they were made.
    """
    table = TABLES[kind]
    rows = select(table)
    if sought is not None:
        rows = rows.where(table.c.id.in_(found_ids(connection, kind, sought)))
    if status is not None:
        rows = rows.where(table.c.status == status)
    return read_page(connection, [rows], table.c.id, window)


def found_ids(connection: Connection, kind: Kind, sought: Sought) -> CompoundSelect[Any]:
    """Return the ids of what is found: by the requests that it came of, and by what it is called now."""
    made = (
        select(decision_records.c.record_id)
        .join(approvals, approvals.c.id == decision_records.c.approval_id)
        .join(search_documents, search_documents.c.sequence == approvals.c.sequence)
        .where(
            decision_records.c.record == kind,
            *search.conditions(connection, sought.words, personal=sought.personal),
        )
    )
    text = sought.words.strip()
    if kind == "ticket":
        return union(made, select(tickets.c.id).where(tickets.c.ticket_number == text))
    if not sought.personal:
        return union(made)
    return union(made, select(customers.c.id).where(func.lower(customers.c.email) == text.lower()))


def tickets_of(connection: Connection, customer_id: str) -> list[Found[Any]]:
    """Read a customer's tickets, the newest first, some at most."""
    mine = select(tickets).where(tickets.c.customer_id == customer_id)
    return list(connection.execute(mine.order_by(tickets.c.id.desc()).limit(MOST_SHOWN)).all())


def remove_ticket(connection: Connection, ticket_id: str) -> None:
    """Remove a ticket on which nothing was done.

    Raises CannotReopen.
    """
    ticket = find_record(connection, "ticket", ticket_id, lock=False)
    notes = select(func.count()).where(ticket_notes.c.ticket_id == ticket_id)
    if ticket.status != "open":
        raise CannotReopen(f"The ticket has moved on: it is {ticket.status}.")
    if connection.execute(notes).scalar_one():
        raise CannotReopen("The ticket has a note.")
    if corrections_of(connection, ticket_id):
        raise CannotReopen("The ticket has been corrected.")
    connection.execute(delete(tickets).where(tickets.c.id == ticket_id))


def remove_customer(connection: Connection, customer_id: str) -> None:
    """Remove a customer on whom nothing was done.

    Raises CannotReopen.
    """
    if corrections_of(connection, customer_id):
        raise CannotReopen("The customer has been corrected since.")
    connection.execute(delete(customers).where(customers.c.id == customer_id))


def restore_customer(
    connection: Connection, customer_id: str, approval_id: str, fields: Sequence[str]
) -> None:
    """Take back what a decision filled in, corrected or joined.

    Raises CannotReopen.
    """
    before: dict[str, str | None] = dict.fromkeys(name for name in fields if name != JOINED)
    since = 0
    for row in corrections_of(connection, customer_id):
        if row.approval_id == approval_id:
            before[row.field], since = row.before, row.sequence
    later = (row for row in corrections_of(connection, customer_id) if row.sequence > since)
    if any(row.field in before for row in later):
        raise CannotReopen("The customer has been corrected since.")
    if before:
        connection.execute(update(customers).where(customers.c.id == customer_id).values(before))
    for table in (corrections, customer_website_users):
        connection.execute(delete(table).where(table.c.approval_id == approval_id))


def correct(
    connection: Connection,
    kind: Kind,
    record_id: str,
    right: Mapping[str, Any],
    *,
    at: str,
    actor: Actor,
    approval_id: str | None = None,
) -> list[str]:
    """Write what is right, and keep what was there before; return the names of what has changed.

    Raises UnknownCustomer, UnknownTicket and Erased.
    """
    row = find_record(connection, kind, record_id)._mapping
    if row["erased_at"] is not None:
        raise Erased(f"This {kind} is erased, and stays empty: it cannot be corrected.")
    changed = {name: value for name, value in right.items() if row[name] != value}
    if changed:
        of_all = {"record": kind, "record_id": record_id, "at": at, "author": actor.name}
        rows = [
            {**of_all, "approval_id": approval_id, "field": name, "before": row[name]} for name in changed
        ]
        connection.execute(insert(corrections), rows)
        table = TABLES[kind]
        connection.execute(update(table).where(table.c.id == record_id).values(changed))
        audit_trail.append(
            connection,
            at=at,
            actor=actor,
            verb="correct",
            record=kind,
            record_id=record_id,
            pointers=[f"/{name}" for name in changed],
        )
    return list(changed)


def corrections_of(connection: Connection, record_id: str) -> Sequence[Found[Any]]:
    """Read what was corrected of a record, oldest first."""
    mine = corrections.c.record_id == record_id
    return connection.execute(select(corrections).where(mine).order_by(corrections.c.sequence)).all()


def corrections_by(connection: Connection, approval_id: str) -> Sequence[Found[Any]]:
    """Read what a decision corrected."""
    these = corrections.c.approval_id == approval_id
    return connection.execute(select(corrections).where(these).order_by(corrections.c.sequence)).all()


@dataclass(frozen=True, slots=True)
class ShownCustomer:
    """A customer with all that is known of them."""

    row: Found[Any]
    website_user_ids: list[str]
    """The first one first."""
    corrections: Sequence[Found[Any]]
    """Oldest first."""
    history: list[Found[Any]]
    """Oldest first."""


def show_customer(connection: Connection, customer_id: str) -> ShownCustomer:
    """Read a customer, their ids on the website, what was corrected, and their history.

    Raises UnknownCustomer.
    """
    row = find_record(connection, "customer", customer_id, lock=False)
    other = customer_website_users.c
    others = (
        select(other.website_user_id).where(other.customer_id == customer_id).order_by(other.website_user_id)
    )
    return ShownCustomer(
        row,
        [row.website_user_id, *connection.execute(others).scalars()],
        corrections_of(connection, customer_id),
        list(audit_trail.history(connection, customer_id)),
    )


@dataclass(frozen=True, slots=True)
class ShownTicket:
    """A ticket with what staff noted and did."""

    row: Found[Any]
    notes: list[Found[Any]]
    """Oldest first."""
    corrections: Sequence[Found[Any]]
    """Oldest first."""
    history: list[Found[Any]]
    """Oldest first."""
    told: Told
    """What the website has told of it."""


def show_ticket(connection: Connection, ticket_id: str) -> ShownTicket:
    """Read a ticket, its notes, what was corrected, and its history.

    Raises UnknownTicket.
    """
    row = find_record(connection, "ticket", ticket_id, lock=False)
    mine = ticket_notes.c.ticket_id == ticket_id
    notes = connection.execute(select(ticket_notes).where(mine).order_by(ticket_notes.c.at)).all()
    return ShownTicket(
        row,
        list(notes),
        corrections_of(connection, ticket_id),
        list(audit_trail.history(connection, ticket_id)),
        told_of(connection, row.website_repair_id),
    )


def move_ticket(connection: Connection, ticket_id: str, status: str, actor: Actor) -> None:
    """Move a ticket on to its next state.

    Raises UnknownTicket and TicketMoved.
    """
    ticket = find_record(connection, "ticket", ticket_id)
    if TICKET_TRANSITIONS.get(ticket.status) != status:
        raise TicketMoved(ticket_id, ticket.status)
    connection.execute(update(tickets).where(tickets.c.id == ticket_id).values(status=status))
    audit_trail.append(
        connection, at=utc_now(), actor=actor, verb=status, record="ticket", record_id=ticket_id
    )


def add_note(connection: Connection, ticket_id: str, text: str, actor: Actor, form: str = "") -> None:
    """Add a note to a ticket, once: the same note from the same `form` is there already.

    Raises UnknownTicket.
    """
    find_record(connection, "ticket", ticket_id)
    at, note_id = utc_now(), new_id()
    if form:
        # Of its text too, for who goes back to a form and writes something else has another note. By the id
        # nobody guesses a text that is erased: it takes the form's number, which is chance and not kept.
        note_id = str(uuid5(NAMESPACE_OID, json.dumps([form, ticket_id, actor.name, text])))
    row = {"id": note_id, "ticket_id": ticket_id, "at": at, "author": actor.name, "text": text}
    statement = insert_or_ignore(connection.dialect.name, ticket_notes)
    if connection.execute(statement, row).rowcount:
        audit_trail.append(connection, at=at, actor=actor, verb="note", record="ticket", record_id=ticket_id)


def find_record(connection: Connection, kind: Kind, record_id: str, *, lock: bool = True) -> Found[Any]:
    """Read a customer or a ticket; with `lock` nobody else changes it before the transaction ends.

    Raises UnknownCustomer and UnknownTicket.
    """
    table = TABLES[kind]
    statement = select(table).where(table.c.id == record_id)
    row = connection.execute(statement.with_for_update() if lock else statement).one_or_none()
    if row is None:
        raise {"customer": UnknownCustomer, "ticket": UnknownTicket}[kind](f"There is no {kind} {record_id}.")
    return row
