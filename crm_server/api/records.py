"""The CRM's records for staff: customers and repair tickets."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from starlette.types import Scope

from crm_server import records
from crm_server.api import Answer, Handler
from crm_server.api.audit import entry
from crm_server.api.lists import page_answer, window_of
from crm_server.api.masking import mask_record, masked
from crm_server.approval_queue import ApprovalQueue
from crm_server.errors import TicketMoved, UnknownTicket
from crm_server.pages import Page, Window
from crm_server.problems import Problem
from crm_server.staff import Staff
from generated.approvals import Customer, MovingTicket, Noting, Ticket
from generated.base import ContractModel


async def list_records(
    read: Callable[[Any, Window], Page], model: type[ContractModel], queue: ApprovalQueue, scope: Scope
) -> Answer:
    """List a page of customers or of tickets."""
    window = window_of(scope["crm.parameters"], str)
    page = await queue.read(lambda connection: read(connection, window))
    return page_answer(page, partial(record, model, scope["crm.staff"]))


def record(model: type[ContractModel], staff: Staff, row: Any) -> dict[str, Any]:
    """Return a record as this member of staff may see it."""
    found = records.as_json(row)
    return found if staff.may("approver") else mask_record(found, model)


async def show_ticket(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Show one ticket."""
    return await shown(queue, scope)


async def move_ticket(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Move a ticket on."""
    status = MovingTicket.model_validate(scope["crm.json"]).status
    return await changed(queue, scope, partial(records.move_ticket, status=status))


async def add_note(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Add a note to a ticket."""
    text = Noting.model_validate(scope["crm.json"]).text.strip()
    return await changed(queue, scope, partial(records.add_note, text=text))


async def changed(queue: ApprovalQueue, scope: Scope, change: Callable[..., None]) -> Answer:
    """Change a ticket; answer with what it is then."""
    ticket_id, actor = scope["crm.parameters"]["id"], scope["crm.staff"].at(scope["client"][0])
    try:
        await queue.write(lambda connection: change(connection, ticket_id, actor=actor))
    except UnknownTicket:
        raise unknown() from None
    except TicketMoved as error:
        raise Problem("ticket-moved", f"The ticket is {error.status}.", ticket_status=error.status) from None
    return await shown(queue, scope)


async def shown(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Answer with one ticket as it is now."""
    staff, ticket_id = scope["crm.staff"], scope["crm.parameters"]["id"]
    try:
        found = await queue.read(lambda connection: records.show_ticket(connection, ticket_id))
    except UnknownTicket:
        raise unknown() from None
    notes = [
        {
            "at": note.at,
            "author": note.author,
            "text": note.text if staff.may("approver") else masked(note.text),
        }
        for note in found.notes
    ]
    history = [entry(row) for row in found.history]
    return Answer(200, {**record(Ticket, staff, found.row), "staff_notes": notes, "history": history})


def unknown() -> Problem:
    """Return the 404 for an id that no ticket has."""
    return Problem("not-found", "There is no ticket with this id.")


OPERATIONS: Mapping[str, Handler] = {
    "list-customers": partial(list_records, records.customers_page, Customer),
    "list-tickets": partial(list_records, records.tickets_page, Ticket),
    "show-ticket": show_ticket,
    "move-ticket": move_ticket,
    "add-note": add_note,
}
"""The contract's operations on the records, by operationId."""
