"""The approval queue for staff: list, search, show, approve, reject, reopen."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from starlette.types import Scope

from crm_server import approval_queue, search, website_statuses
from crm_server.api import Answer, Handler
from crm_server.api.audit import entry
from crm_server.api.lists import page_answer, window_of
from crm_server.api.masking import mask_payload, masked, visible
from crm_server.approval_queue import ApprovalQueue, Filter, Shown
from crm_server.audit_trail import Actor
from crm_server.database import utc_now
from crm_server.decisions import COMPARED, Choice
from crm_server.errors import AlreadyDecided, Refused, UnknownApproval
from crm_server.pages import Page
from crm_server.problems import Problem
from crm_server.staff import Staff
from crm_server.website_statuses import Told
from generated.approvals import (
    Approving,
    Change,
    Difference,
    Rejecting,
    SearchWords,
    Suggestion,
    WebsiteStatus,
)


async def list_approvals(queue: ApprovalQueue, scope: Scope) -> Answer:
    """List a page of requests."""
    asked, staff = scope["crm.parameters"], scope["crm.staff"]
    window = window_of(asked, int)

    def read(connection: Any) -> Page:
        return approval_queue.page(connection, window, filter_of(connection, staff, asked))

    return page_answer(await queue.read(read), partial(item, staff))


def filter_of(connection: Any, staff: Staff, asked: Mapping[str, Any]) -> Filter:
    """Return the filter that is asked for; raise 404 for a search that is not theirs."""
    return Filter(
        asked.get("status"),
        asked.get("event"),
        words_of(connection, staff, asked.get("search")),
        personal=staff.may("approver"),
    )


def words_of(connection: Any, staff: Staff, search_id: str | None) -> str | None:
    """Return the words of a saved search; raise 404 when it is not theirs."""
    words = None if search_id is None else search.saved(connection, staff.id, search_id, utc_now())
    if words is None and search_id is not None:
        raise Problem("not-found", "This is none of your searches of the last day.")
    return words


async def save_search(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Save the words of a search, so that they stand in no URL."""
    staff, text = scope["crm.staff"], SearchWords.model_validate(scope["crm.json"]).text
    search_id = await queue.write(lambda connection: search.save(connection, staff.id, text, utc_now()))
    return Answer(201, {"id": search_id})


async def show_approval(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Show one request."""
    return await shown(queue, scope)


async def approve(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Approve a request."""
    given = Approving.model_validate(scope["crm.json"])
    use_sent = [pointer.removeprefix("/") for pointer in given.use_sent or ()]
    choice = Choice(given.ticket_number, given.customer_id, use_sent)
    return await decided(queue, scope, partial(approval_queue.approve, choice=choice))


async def reject(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Reject a request for a reason."""
    reason = Rejecting.model_validate(scope["crm.json"]).reason.strip()
    return await decided(queue, scope, partial(approval_queue.reject, reason=reason))


async def reopen(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Take a decision back."""
    return await decided(queue, scope, approval_queue.reopen)


async def decided(queue: ApprovalQueue, scope: Scope, decide: Callable[[Any, str, Actor], Any]) -> Answer:
    """Decide a request; answer with what it is then."""
    approval_id, actor = scope["crm.parameters"]["id"], scope["crm.staff"].at(scope["crm.address"])
    try:
        await queue.write(lambda connection: decide(connection, approval_id, actor))
    except UnknownApproval:
        raise unknown() from None
    except AlreadyDecided as error:
        decision = {"status": error.status, "by": error.by, "at": error.at}
        detail = "Somebody has decided this request before."
        raise Problem(error.kind, detail, decided=decision) from None
    except Refused as error:
        raise Problem(error.kind, str(error)) from None
    return await shown(queue, scope)


async def shown(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Answer with one request as it is now."""
    staff, approval_id = scope["crm.staff"], scope["crm.parameters"]["id"]
    try:
        found = await queue.read(lambda connection: approval_queue.show(connection, approval_id))
    except UnknownApproval:
        raise unknown() from None
    return Answer(200, detail(staff, found))


def unknown() -> Problem:
    """Return the 404 for an id that no request has."""
    return Problem("not-found", "There is no approval request with this id.")


def item(staff: Staff, row: Any) -> dict[str, Any]:
    """Return a request as this member of staff may see it."""
    found = approval_queue.as_json(row)
    return found if staff.may("approver") else mask_payload(found)


def detail(staff: Staff, found: Shown) -> dict[str, Any]:
    """Return a request with its history as this member of staff may see it."""
    seen, repair = found.comparison, found.repair
    differences = [{**asdict(each), "field": f"/{each.field}"} for each in seen.differences]
    suggestions = [
        {"customer_id": each.row.id, **{name: each.row._mapping[name] for name in COMPARED}}
        for each in seen.suggestions
    ]
    return {
        **item(staff, found.row),
        "reason": found.reason if staff.may("approver") else masked(found.reason),
        "customer_id": seen.customer_id,
        "differences": [visible(staff, each, Difference) for each in differences],
        "changes": [
            visible(staff, {**asdict(each), "field": f"/{each.field}"}, Change) for each in seen.changes
        ],
        "suggestions": [visible(staff, each, Suggestion) for each in suggestions],
        "history": [entry(row) for row in found.history],
        "repair_request": repair
        and {"id": repair.id, "status": repair.status, "received_at": repair.received_at},
        "ticket_id": found.ticket and found.ticket.id,
        **told(staff, found.told),
    }


def told(staff: Staff, found: Told) -> dict[str, Any]:
    """Return what the website told of a repair, as this member of staff may see it."""

    def status(each: website_statuses.WebsiteStatus | None) -> dict[str, Any] | None:
        return None if each is None else visible(staff, each.as_json(), WebsiteStatus)

    return {
        "payment_status": status(found.payment),
        "booking_status": status(found.booking),
        "website_events": [status(each) for each in found.statuses],
    }


OPERATIONS: Mapping[str, Handler] = {
    "list-approvals": list_approvals,
    "save-search": save_search,
    "show-approval": show_approval,
    "approve": approve,
    "reject": reject,
    "reopen": reopen,
}
"""The contract's operations on the queue, by operationId."""
