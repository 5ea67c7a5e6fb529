"""Customers, repair tickets and notes: every statement on their tables, each in the caller's transaction."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy import Row as Found

from crm_server import audit_trail
from crm_server.audit_trail import Actor
from crm_server.database import insert_or_ignore, new_id, utc_now
from crm_server.decisions import TICKET_TRANSITIONS
from crm_server.errors import CannotReopen, NumberTaken, TicketMoved, UnknownTicket
from crm_server.pages import Page, Window, read_page
from crm_server.tables import customers, ticket_notes, tickets

Row = dict[str, Any]

MOST_SHOWN = 100
"""So many tickets stand on a customer's page."""


def add_customer(connection: Connection, customer: Row, at: str) -> tuple[str, bool]:
    """Return the id of the customer with this `website_user_id`, and whether it was created now.

    Two at once make one: who comes second finds the row of the first.
    """
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


def customers_page(connection: Connection, window: Window) -> Page:
    """Read a page of the customers: their ids sort by the time at which they were made."""
    return read_page(connection, [select(customers)], customers.c.id, window)


def customer(connection: Connection, customer_id: str) -> Found[Any] | None:
    """Read a customer, None when there is none."""
    return connection.execute(select(customers).where(customers.c.id == customer_id)).one_or_none()


def tickets_page(connection: Connection, window: Window, status: str | None = None) -> Page:
    """Read a page of the tickets, of all states or of one: their ids sort by the time at which they were made."""
    statement = select(tickets)
    if status is not None:
        statement = statement.where(tickets.c.status == status)
    return read_page(connection, [statement], tickets.c.id, window)


def tickets_of(connection: Connection, customer_id: str) -> list[Found[Any]]:
    """Read a customer's tickets, the newest first, some at most."""
    mine = select(tickets).where(tickets.c.customer_id == customer_id)
    return list(connection.execute(mine.order_by(tickets.c.id.desc()).limit(MOST_SHOWN)).all())


def remove_ticket(connection: Connection, ticket_id: str) -> None:
    """Remove a ticket on which nothing was done.

    Raises CannotReopen.
    """
    ticket = find_ticket(connection, ticket_id)
    notes = select(func.count()).where(ticket_notes.c.ticket_id == ticket_id)
    if ticket.status != "open":
        raise CannotReopen(f"The ticket has moved on: it is {ticket.status}.")
    if connection.execute(notes).scalar_one():
        raise CannotReopen("The ticket has a note.")
    connection.execute(delete(tickets).where(tickets.c.id == ticket_id))


def remove_customer(connection: Connection, customer_id: str, fields: list[str] | None) -> None:
    """Remove a customer, or empty what was filled in."""
    this = customers.c.id == customer_id
    if fields is None:
        connection.execute(delete(customers).where(this))
    else:
        connection.execute(update(customers).where(this).values(dict.fromkeys(fields)))


@dataclass(frozen=True, slots=True)
class ShownTicket:
    """A ticket with what staff noted and did."""

    row: Found[Any]
    notes: list[Found[Any]]
    """Oldest first."""
    history: list[Found[Any]]
    """Oldest first."""


def show_ticket(connection: Connection, ticket_id: str) -> ShownTicket:
    """Read a ticket, its notes and its history.

    Raises UnknownTicket.
    """
    row = find_ticket(connection, ticket_id)
    mine = ticket_notes.c.ticket_id == ticket_id
    notes = connection.execute(select(ticket_notes).where(mine).order_by(ticket_notes.c.id)).all()
    return ShownTicket(row, list(notes), list(audit_trail.history(connection, ticket_id)))


def move_ticket(connection: Connection, ticket_id: str, status: str, actor: Actor) -> None:
    """Move a ticket on to its next state.

    Raises UnknownTicket and TicketMoved.
    """
    ticket = find_ticket(connection, ticket_id, lock=True)
    if TICKET_TRANSITIONS.get(ticket.status) != status:
        raise TicketMoved(ticket_id, ticket.status)
    connection.execute(update(tickets).where(tickets.c.id == ticket_id).values(status=status))
    audit_trail.append(
        connection, at=utc_now(), actor=actor, verb=status, record="ticket", record_id=ticket_id
    )


def add_note(connection: Connection, ticket_id: str, text: str, actor: Actor) -> None:
    """Add a note to a ticket.

    Raises UnknownTicket.
    """
    find_ticket(connection, ticket_id, lock=True)
    at = utc_now()
    row = {"id": new_id(), "ticket_id": ticket_id, "at": at, "author": actor.name, "text": text}
    connection.execute(insert(ticket_notes), row)
    audit_trail.append(connection, at=at, actor=actor, verb="note", record="ticket", record_id=ticket_id)


def find_ticket(connection: Connection, ticket_id: str, *, lock: bool = False) -> Found[Any]:
    """Read a ticket; with `lock` nobody else changes it before the transaction ends.

    Raises UnknownTicket.
    """
    statement = select(tickets).where(tickets.c.id == ticket_id)
    row = connection.execute(statement.with_for_update() if lock else statement).one_or_none()
    if row is None:
        raise UnknownTicket(f"There is no ticket {ticket_id}.")
    return row
