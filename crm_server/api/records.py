"""The CRM's records for staff: customers and repair tickets."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from starlette.types import Scope

from crm_server import records
from crm_server.api import Answer, Handler
from crm_server.api.lists import page_answer, window_of
from crm_server.api.masking import mask_record
from crm_server.approval_queue import ApprovalQueue
from crm_server.pages import Page, Window
from crm_server.staff import Staff
from generated.approvals import Customer, Ticket
from generated.base import ContractModel

IN_JSON = {"preferences", "photos"}
"""Columns that hold JSON."""


async def list_records(
    read: Callable[[Any, Window], Page], model: type[ContractModel], queue: ApprovalQueue, scope: Scope
) -> Answer:
    """List a page of customers or of tickets."""
    window = window_of(scope["crm.parameters"], str)
    page = await queue.read(lambda connection: read(connection, window))
    return page_answer(page, partial(record, model, scope["crm.staff"]))


def record(model: type[ContractModel], staff: Staff, row: Any) -> dict[str, Any]:
    """Return a record as this member of staff may see it."""
    found = {
        name: json.loads(value) if name in IN_JSON and value is not None else value
        for name, value in row._mapping.items()
    }
    return found if staff.may("approver") else mask_record(found, model)


OPERATIONS: Mapping[str, Handler] = {
    "list-customers": partial(list_records, records.customers_page, Customer),
    "list-tickets": partial(list_records, records.tickets_page, Ticket),
}
"""The contract's operations on the records, by operationId."""
