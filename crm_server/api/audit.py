"""The audit trail for staff."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.types import Scope

from crm_server import audit_trail
from crm_server.api import Answer, Handler, Stream
from crm_server.api.lists import page_answer, window_of
from crm_server.approval_queue import ApprovalQueue
from crm_server.audit_trail import Notation
from crm_server.pages import Page, Window

EXPORTED = 1000
"""Entries that are read at once."""
TYPES: Mapping[Notation, str] = {
    "csv": "text/csv; charset=utf-8; header=present",
    "jsonl": "application/jsonl",
}


async def list_audit(queue: ApprovalQueue, scope: Scope) -> Answer:
    """List a page of the trail."""
    asked = scope["crm.parameters"]
    window, record_id = window_of(asked, str), asked.get("record_id")
    page = await queue.read(lambda connection: audit_trail.page(connection, window, record_id))
    return page_answer(page, entry)


async def export_audit(queue: ApprovalQueue, scope: Scope) -> Stream:
    """Give the whole trail, oldest first, however long it is."""
    notation: Notation = scope["crm.parameters"]["format"]
    first = await read(queue, None)
    return Stream(TYPES[notation], f"audit.{notation}", exported(queue, first, notation))


async def exported(queue: ApprovalQueue, page: Page, notation: Notation) -> AsyncIterator[bytes]:
    """Yield the trail from its first page on, a page at a time."""
    yield audit_trail.head_of(notation).encode()
    yield audit_trail.as_lines(page.rows, notation).encode()
    while page.next is not None:
        page = await read(queue, page.next)
        yield audit_trail.as_lines(page.rows, notation).encode()


async def read(queue: ApprovalQueue, after: str | None) -> Page:
    """Read the next entries."""
    window = Window(EXPORTED, newest_first=False, after=after)
    return await queue.read(lambda connection: audit_trail.page(connection, window))


def entry(row: Any) -> dict[str, Any]:
    """Return an entry as staff see it; it holds nothing to be masked."""
    return audit_trail.as_json(row)


OPERATIONS: Mapping[str, Handler] = {"list-audit": list_audit, "export-audit": export_audit}
"""The contract's operations on the trail, by operationId."""
