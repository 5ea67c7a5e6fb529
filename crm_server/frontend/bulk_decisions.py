"""Decisions on everything that matches what somebody looks at: what they would decide, and how far they are."""

from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from starlette.responses import Response

from crm_server import bulk_decisions
from crm_server.api.approvals import filter_of
from crm_server.api.bulk_decisions import read_report, store
from crm_server.errors import PreviewChanged, UnknownDecisions
from crm_server.frontend.approvals import ALL, NO_REASON, START, View, reason_of, view_of
from crm_server.frontend.rendering import page, see_other
from crm_server.frontend.visits import Visit
from crm_server.problems import Problem
from generated.approvals import DecidingAll

PATH = "/approvals/bulk"
NUMBERS = ("count", "as_of")
"""The numbers of a preview, as the form holds them."""
WHY: Mapping[str, str] = {
    "already-decided": "Somebody else was first",
    "erased": "What was received is erased",
    "customer-known": "Its account is another customer's",
    "no-such-customer": "Its customer is gone",
    "customer-unknown": "Its customer is not on record: approve their registration first",
    "no-ticket": "Its repair has no ticket: approve the repair request first",
    "number-taken": "Another ticket has its number: approve it with a number of its own",
    "forbidden": "Whoever began this may no longer decide",
    "internal-error": "A fault of this program: its log says more",
}
"""What the words for why a request was not decided mean."""


async def show_preview(visit: Visit) -> Response:
    """Show what a decision on everything would decide."""
    return await previewed(visit)


async def previewed(visit: Visit, status: int = 200, *, fault: str = "") -> Response:
    """Show what a decision on everything would decide now."""
    view = matching(view_of(visit))
    asked = {**wanted(view), "status": view.status}

    def read(connection: Any) -> tuple[Any, str | None, Any]:
        found = filter_of(connection, visit.staff, asked)
        running = bulk_decisions.running(connection)
        return bulk_decisions.preview(connection, found), found.words, running

    preview, words, running = await visit.queue.read(read)
    return page(
        visit,
        "bulk_preview.html",
        status,
        view=view,
        preview=asdict(preview),
        words_asked=words,
        running=running,
        fault=fault,
        reason=visit.field("reason"),
    )


def matching(view: View) -> View:
    """Return which part of the queue is decided of what somebody looks at: from its beginning what waits."""
    return view.but(status=START.status)


def wanted(view: View) -> dict[str, str]:
    """Return a view's event and search as the staff API is asked for them."""
    return ({"event": view.event} if view.event != ALL else {}) | (
        {"search": view.search} if view.search else {}
    )


async def decide_all(visit: Visit) -> Response:
    """Store a decision on everything, if that is still what was seen; show how far it is."""
    view, verb = matching(view_of(visit)), visit.field("decision")
    reason = {"reason": reason_of(visit)} if verb == "reject" else {}
    if None in reason.values():
        return await previewed(visit, HTTPStatus.BAD_REQUEST, fault=NO_REASON)
    try:
        numbers = {name: int(visit.field(name)) for name in NUMBERS}
        preview = {**numbers, "digest": visit.field("digest")}
        given = DecidingAll.model_validate({"verb": verb, "preview": preview, **reason, **wanted(view)})
    except (ValidationError, ValueError):
        raise Problem("malformed-request", "Choose a decision on what the page showed.") from None
    try:
        job_id = await store(visit.queue, visit.staff, given, visit.address)
    except PreviewChanged:
        fault = "Some of what you saw has been decided since, or is being decided. This is what matches now."
        return await previewed(visit, HTTPStatus.CONFLICT, fault=fault)
    return see_other(f"{PATH}/{job_id}{'?' if view.query else ''}{view.query}")


async def show_job(visit: Visit) -> Response:
    """Show how far a decision on everything is, and what could not be decided."""
    try:
        job = await read_report(visit.queue, visit.id)
    except UnknownDecisions:
        raise Problem("not-found", "There is no decision with this id.") from None
    return page(visit, "bulk_job.html", view=view_of(visit), job=job, why=WHY)
