"""The audit trail for staff."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.types import Scope

from crm_server import audit_trail
from crm_server.api import Answer, Handler
from crm_server.api.lists import page_answer, window_of
from crm_server.approval_queue import ApprovalQueue


async def list_audit(queue: ApprovalQueue, scope: Scope) -> Answer:
    """List a page of the trail."""
    asked = scope["crm.parameters"]
    window, record_id = window_of(asked, int), asked.get("record_id")
    page = await queue.read(lambda connection: audit_trail.page(connection, window, record_id))
    return page_answer(page, entry)


def entry(row: Any) -> dict[str, Any]:
    """Return an entry as staff see it; it holds nothing to be masked."""
    return {
        "at": row.at,
        "actor": row.actor,
        "origin": row.origin,
        "verb": row.verb,
        "record": row.record,
        "record_id": row.record_id,
        "pointers": json.loads(row.pointers),
    }


OPERATIONS: Mapping[str, Handler] = {"list-audit": list_audit}
"""The contract's operations on the trail, by operationId."""
