"""Customers and repair tickets: every statement on their tables, each in the caller's transaction."""

from typing import Any

from sqlalchemy import Connection, insert, select, update

from crm_server.database import insert_or_ignore, new_id
from crm_server.pages import Page, Window, read_page
from crm_server.tables import customers, tickets

Row = dict[str, Any]


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
    """Open a repair ticket and return its id."""
    row = {"id": new_id(), "customer_id": customer_id, "created_at": at, **ticket}
    connection.execute(insert(tickets), row)
    ticket_id: str = row["id"]
    return ticket_id


def customers_page(connection: Connection, window: Window) -> Page:
    """Read a page of the customers: their ids sort by the time at which they were made."""
    return read_page(connection, [select(customers)], customers.c.id, window)


def tickets_page(connection: Connection, window: Window) -> Page:
    """Read a page of the tickets: their ids sort by the time at which they were made."""
    return read_page(connection, [select(tickets)], tickets.c.id, window)
