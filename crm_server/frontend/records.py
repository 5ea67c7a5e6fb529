"""The records' pages: customers, repair tickets, and the sheet that goes with a device to the workbench."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from starlette.responses import Response

from crm_server import approval_queue, records
from crm_server.api.approvals import told
from crm_server.api.audit import entry
from crm_server.api.records import correct, corrections, notes, record, unknown
from crm_server.database import new_id
from crm_server.decisions import TICKET_TRANSITIONS
from crm_server.errors import Erased, TicketMoved, UnknownCustomer, UnknownTicket
from crm_server.frontend.lists import ID, ORDERS, listing_of
from crm_server.frontend.payload import Field, is_link, label
from crm_server.frontend.rendering import cost, page, see_other
from crm_server.frontend.visits import Visit
from generated.approvals import CorrectingCustomer, CorrectingTicket, Customer, Noting, Ticket
from generated.base import ContractModel

TICKET_STATES = ("open", *TICKET_TRANSITIONS.values())
IN_HEADING = {"id", "customer_id", "status", "created_at", "currency"}
"""Fields that stand elsewhere on a record's page."""
NOT_RIGHT = "The field cannot hold that: see which characters it takes, and how many."
NO_NOTE = "A note has 1 to 5,000 characters."


async def list_customers(visit: Visit) -> Response:
    """Show a page of the customers."""
    listing = listing_of(visit, "/customers", ID)
    found = await visit.queue.read(
        lambda connection: records.records_page(connection, "customer", listing.window())
    )
    rows = [record(Customer, visit.staff, row) for row in found.rows]
    return page(visit, "customers.html", listing=listing, found=found, rows=rows, orders=ORDERS)


async def show_customer(visit: Visit) -> Response:
    """Show a customer."""
    return await shown_customer(visit)


async def shown_customer(visit: Visit, fault: str = "", status: int = HTTPStatus.OK) -> Response:
    """Show a customer with their tickets and requests, and why what was wanted could not be done."""

    def read(connection: Any) -> tuple[Any, ...]:
        try:
            found = records.show_customer(connection, visit.id)
        except UnknownCustomer:
            raise unknown() from None
        tickets = records.tickets_of(connection, visit.id)
        requests = approval_queue.requests_of(connection, visit.id)
        return found, tickets, requests

    found, tickets, requests = await visit.queue.read(read)
    customer = record(Customer, visit.staff, found.row)
    return page(
        visit,
        "customer.html",
        status,
        fault=fault,
        customer=customer,
        fields=fields_of(customer),
        corrected=corrected_of(visit, Customer, found.corrections),
        correctable=correctable(CorrectingCustomer),
        is_link=is_link,
        tickets=[record(Ticket, visit.staff, ticket) for ticket in tickets],
        requests=requests,
        history=[entry(each) for each in found.history],
    )


async def list_tickets(visit: Visit) -> Response:
    """Show a page of the tickets, of all states or of one."""
    listing = listing_of(visit, "/tickets", ID, status="|".join(TICKET_STATES))
    status = listing.chosen.get("status")
    found = await visit.queue.read(
        lambda connection: records.records_page(connection, "ticket", listing.window(), status=status)
    )
    rows = [record(Ticket, visit.staff, row) for row in found.rows]
    return page(
        visit, "tickets.html", listing=listing, found=found, rows=rows, orders=ORDERS, states=TICKET_STATES
    )


async def show_ticket(visit: Visit) -> Response:
    """Show a ticket."""
    return await shown(visit)


async def shown(visit: Visit, fault: str = "", status: int = HTTPStatus.OK) -> Response:
    """Show a ticket as it is now, and why what was wanted could not be done."""
    ticket = await read_ticket(visit)
    return page(
        visit,
        "ticket.html",
        status,
        ticket=ticket,
        is_link=is_link,
        fault=fault,
        note=new_id(),
        text=visit.field("text"),
    )


async def job_sheet(visit: Visit) -> Response:
    """Show a ticket as it is printed."""
    return page(visit, "job_sheet.html", ticket=await read_ticket(visit))


@dataclass(frozen=True, slots=True)
class TicketView:
    """A ticket as its pages show it."""

    record: Mapping[str, Any]
    fields: list[Field]
    following: str | None
    """Where it goes next."""
    notes: list[dict[str, Any]]
    corrected: list[Mapping[str, Any]]
    """What was corrected, oldest first."""
    correctable: Mapping[str, str]
    """What may be, by its label."""
    requests: list[Any]
    history: list[Mapping[str, Any]]
    told: Mapping[str, Any]
    """What the website has told of it."""


async def read_ticket(visit: Visit) -> TicketView:
    """Read all that is shown of a ticket. Raises the 404."""

    def read(connection: Any) -> tuple[records.ShownTicket, list[Any]]:
        return records.show_ticket(connection, visit.id), approval_queue.requests_of(connection, visit.id)

    try:
        found, requests = await visit.queue.read(read)
    except UnknownTicket:
        raise unknown() from None
    ticket = record(Ticket, visit.staff, found.row)
    return TicketView(
        ticket,
        fields_of(ticket),
        TICKET_TRANSITIONS.get(ticket["status"]),
        notes(visit.staff, found.notes),
        corrected_of(visit, Ticket, found.corrections),
        correctable(CorrectingTicket),
        requests,
        [entry(row) for row in found.history],
        told(visit.staff, found.told),
    )


def fields_of(found: Mapping[str, Any]) -> list[Field]:
    """Return what a record holds, by its labels, in the contract's order."""
    return [
        Field(
            label(name, {}),
            cost(value, found["currency"]) if name == "estimated_cost" else value,
            is_links=name == "photos",
        )
        for name, value in found.items()
        if name not in IN_HEADING and value is not None
    ]


def corrected_of(visit: Visit, model: type[ContractModel], rows: Any) -> list[Mapping[str, Any]]:
    """Return what was corrected of a record, by the fields' labels."""
    return [
        {**each, "label": label(each["field"].removeprefix("/"), {})}
        for each in corrections(visit.staff, model, rows)
    ]


def correctable(model: type[ContractModel]) -> Mapping[str, str]:
    """Return the fields that may be corrected, with their labels."""
    return {name: label(name, {}) for name in model.model_fields}


async def correct_ticket(visit: Visit) -> Response:
    """Correct one field of a ticket."""
    try:
        right = right_of(visit, CorrectingTicket)
    except ValidationError:
        return await shown(visit, NOT_RIGHT, HTTPStatus.BAD_REQUEST)
    return await changed(visit, partial(correct, "ticket", right))


async def correct_customer(visit: Visit) -> Response:
    """Correct one field of a customer."""
    try:
        right = right_of(visit, CorrectingCustomer)
    except ValidationError:
        return await shown_customer(visit, NOT_RIGHT, HTTPStatus.BAD_REQUEST)
    return await changed(visit, partial(correct, "customer", right), "/customers")


def right_of(visit: Visit, model: type[ContractModel]) -> dict[str, Any]:
    """Return the field that is corrected and what is right, as a form says. Raises ValidationError."""
    text = visit.field("right").replace("\r\n", "\n")  # browsers send line breaks as CRLF
    return model.model_validate({visit.field("field"): text}).model_dump(exclude_none=True)


async def move_ticket(visit: Visit) -> Response:
    """Move a ticket on, from the state in which it was seen."""
    return await changed(visit, partial(records.move_ticket, status=visit.field("status")))


async def add_note(visit: Visit) -> Response:
    """Add a note to a ticket."""
    try:
        text = Noting(text=visit.field("text")).text
    except ValidationError:
        return await shown(visit, NO_NOTE, HTTPStatus.BAD_REQUEST)
    return await changed(visit, partial(records.add_note, text=text, form=visit.field("note")))


async def changed(visit: Visit, change: Callable[..., None], path: str = "/tickets") -> Response:
    """Change a record; show it as it is then."""
    try:
        await visit.queue.write(lambda connection: change(connection, visit.id, actor=visit.actor))
    except (UnknownCustomer, UnknownTicket):
        raise unknown() from None
    except TicketMoved as error:
        words = error.status.replace("_", " ")
        return await shown(visit, f"Somebody has moved the ticket: it is {words}.", HTTPStatus.CONFLICT)
    except Erased as error:
        show = shown_customer if path == "/customers" else shown
        return await show(visit, str(error), HTTPStatus.CONFLICT)
    return see_other(f"{path}/{visit.id}")
