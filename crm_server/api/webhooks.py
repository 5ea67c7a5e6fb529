"""The webhook endpoints, what became of an event, and health."""

from collections.abc import Mapping
from typing import Any

from starlette.types import Scope

from crm_server.api import Answer, Handler
from crm_server.approval_queue import ApprovalQueue, ReceivedEvent, find_outcome
from crm_server.database import utc_now
from crm_server.errors import UnknownApproval
from crm_server.idempotency import Conflict
from crm_server.problems import Problem, unavailable
from generated.operations import WEBHOOKS

RESERVED = "webhook-test"
"""The natural key of our probes: only with the header that says so, so that a proxy which strips headers
cannot turn a probe into a request."""


async def receive_webhook(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Put a valid event into the approval queue, once."""
    event: ReceivedEvent = scope["crm.event"]
    if scope["crm.headers"].get("webhook-test"):
        refuse(await queue.judge(event.identity))
        return Answer(200, {"status": "test_ok"})
    if event.identity.natural_key == RESERVED:
        raise Problem(
            "reserved-natural-key", "This natural key is for tests: send it with 'webhook-test: true'."
        )
    receipt = refuse(await queue.receive(event))
    return Answer(
        202,
        {
            "id": receipt.id,
            "status": "pending_approval",
            "duplicate": receipt.duplicate,
            "natural_key": receipt.identity.natural_key,
            "digest": receipt.identity.digest,
        },
    )


CONFLICTS = {
    "conflict": "The CRM has other content under this natural key.",
    "webhook-id-conflict": "This webhook-id belongs to another event.",
    "erased": "What the CRM had under this natural key was erased, and this is not it.",
}


def refuse(outcome: Any) -> Any:
    """Return what is no conflict; raise the 409 otherwise."""
    if isinstance(outcome, Conflict):
        existing = {"id": outcome.known.id, "event": outcome.known.identity.event}
        raise Problem(outcome.kind, CONFLICTS[outcome.kind], existing=existing)
    return outcome


async def receipt(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Tell what became of the event that a receipt was given for."""
    receipt_id = scope["crm.parameters"]["id"]
    try:
        found = await queue.read(lambda connection: find_outcome(connection, receipt_id))
    except UnknownApproval:
        raise Problem("unknown-receipt", "The CRM has given no receipt with this id.") from None
    return Answer(200, {name: value for name, value in found._mapping.items() if value is not None})


async def health(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Tell whether an event could be stored now, and which contract releases we speak."""
    known = {"time": utc_now(), "contract": queue.releases.spoken}
    if await queue.is_healthy():
        return Answer(200, {"status": "ok", "database": "ok", **known})
    raise unavailable(database="unavailable", **known)


OPERATIONS: Mapping[str, Handler] = {
    **dict.fromkeys(WEBHOOKS, receive_webhook),
    "receipt": receipt,
    "health": health,
}
"""The contract's operations, by operationId."""
