"""The CRM's records for staff: customers and repair tickets."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from starlette.types import Scope

from crm_server import records
from crm_server.api import Answer, Handler
from crm_server.api.approvals import told, words_of
from crm_server.api.audit import entry
from crm_server.api.lists import page_answer, window_of
from crm_server.api.masking import is_personal, masked, visible
from crm_server.approval_queue import ApprovalQueue
from crm_server.audit_trail import Actor
from crm_server.database import utc_now
from crm_server.errors import Erased, TicketMoved, UnknownCustomer, UnknownTicket
from crm_server.pages import Page
from crm_server.problems import Problem
from crm_server.records import Kind, Sought
from crm_server.staff import Staff
from generated.approvals import (
    CorrectingCustomer,
    CorrectingTicket,
    Customer,
    MovingTicket,
    Note,
    Noting,
    Ticket,
)
from generated.base import ContractModel

Found = TypeVar("Found")


async def list_records(kind: Kind, model: type[ContractModel], queue: ApprovalQueue, scope: Scope) -> Answer:
    """List a page of customers or of tickets."""
    asked, staff = scope["crm.parameters"], scope["crm.staff"]
    window = window_of(asked, str)

    def read_page(connection: Any) -> Page:
        words = words_of(connection, staff, asked.get("search"))
        sought = None if words is None else Sought(words, personal=staff.may("approver"))
        return records.records_page(connection, kind, window, sought)

    return page_answer(await queue.read(read_page), partial(record, model, staff))


def record(model: type[ContractModel], staff: Staff, row: Any) -> dict[str, Any]:
    """Return a record as this member of staff may see it."""
    return visible(staff, records.as_json(row), model)


async def show_ticket(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Show one ticket."""
    staff, ticket_id = scope["crm.staff"], scope["crm.parameters"]["id"]
    found = await read(queue, lambda connection: records.show_ticket(connection, ticket_id))
    detail = {
        **record(Ticket, staff, found.row),
        "staff_notes": notes(staff, found.notes),
        "corrections": corrections(staff, Ticket, found.corrections),
        "history": [entry(row) for row in found.history],
        **told(staff, found.told),
    }
    return Answer(200, detail)


async def show_customer(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Show one customer."""
    staff, customer_id = scope["crm.staff"], scope["crm.parameters"]["id"]
    found = await read(queue, lambda connection: records.show_customer(connection, customer_id))
    detail = {
        **record(Customer, staff, found.row),
        "website_user_ids": found.website_user_ids,
        "corrections": corrections(staff, Customer, found.corrections),
        "history": [entry(row) for row in found.history],
    }
    return Answer(200, detail)


def notes(staff: Staff, rows: Iterable[Any]) -> list[dict[str, Any]]:
    """Return what was noted on a ticket, as this member of staff may see it."""
    return [visible(staff, {"at": row.at, "author": row.author, "text": row.text}, Note) for row in rows]


def corrections(staff: Staff, model: type[ContractModel], rows: Iterable[Any]) -> list[dict[str, Any]]:
    """Return what was corrected of a record, as this member of staff may see it."""
    return [
        {
            "at": row.at,
            "author": row.author,
            "field": f"/{row.field}",
            "before": masked(row.before)
            if is_personal(model, row.field) and not staff.may("approver")
            else row.before,
        }
        for row in rows
    ]


async def move_ticket(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Move a ticket on."""
    status = MovingTicket.model_validate(scope["crm.json"]).status
    await change(queue, scope, partial(records.move_ticket, status=status))
    return await show_ticket(queue, scope)


async def add_note(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Add a note to a ticket."""
    text = Noting.model_validate(scope["crm.json"]).text.strip()
    await change(queue, scope, partial(records.add_note, text=text))
    return await show_ticket(queue, scope)


async def correct_ticket(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Correct fields of a ticket."""
    right = CorrectingTicket.model_validate(scope["crm.json"]).model_dump(exclude_none=True)
    await change(queue, scope, partial(correct, "ticket", right))
    return await show_ticket(queue, scope)


async def correct_customer(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Correct fields of a customer."""
    right = CorrectingCustomer.model_validate(scope["crm.json"]).model_dump(exclude_none=True)
    await change(queue, scope, partial(correct, "customer", right))
    return await show_customer(queue, scope)


def correct(kind: Kind, right: dict[str, Any], connection: Any, record_id: str, actor: Actor) -> None:
    """Correct a record, now."""
    records.correct(connection, kind, record_id, right, at=utc_now(), actor=actor)


async def change(queue: ApprovalQueue, scope: Scope, write: Callable[..., None]) -> None:
    """Change the record that is named; raise 404 and 409."""
    record_id, actor = scope["crm.parameters"]["id"], scope["crm.staff"].at(scope["crm.address"])
    try:
        await queue.write(lambda connection: write(connection, record_id, actor=actor))
    except (UnknownCustomer, UnknownTicket):
        raise unknown() from None
    except TicketMoved as error:
        raise Problem("ticket-moved", f"The ticket is {error.status}.", ticket_status=error.status) from None
    except Erased as error:
        raise Problem(error.kind, str(error)) from None


async def read(queue: ApprovalQueue, question: Callable[[Any], Found]) -> Found:
    """Read a record; raise 404."""
    try:
        return await queue.read(question)
    except (UnknownCustomer, UnknownTicket):
        raise unknown() from None


def unknown() -> Problem:
    """Return the 404 for an id that no record has."""
    return Problem("not-found", "There is nothing with this id.")


OPERATIONS: Mapping[str, Handler] = {
    "list-customers": partial(list_records, "customer", Customer),
    "list-tickets": partial(list_records, "ticket", Ticket),
    "show-customer": show_customer,
    "correct-customer": correct_customer,
    "show-ticket": show_ticket,
    "correct-ticket": correct_ticket,
    "move-ticket": move_ticket,
    "add-note": add_note,
}
"""The contract's operations on the records, by operationId."""
