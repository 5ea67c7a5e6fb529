"""Decisions on everything that matches a filter, for staff."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from starlette.types import Scope

from crm_server import bulk_decisions
from crm_server.api import Answer, Handler
from crm_server.api.approvals import filter_of
from crm_server.approval_queue import ApprovalQueue
from crm_server.bulk_decisions import Preview, Report
from crm_server.errors import PreviewChanged, UnknownDecisions
from crm_server.problems import Problem
from crm_server.staff import Staff
from generated.approvals import DecidingAll


async def preview_decisions(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Say what a decision on everything would decide."""
    asked, staff = {**scope["crm.parameters"], "status": "pending_approval"}, scope["crm.staff"]
    found = await queue.read(
        lambda connection: bulk_decisions.preview(connection, filter_of(connection, staff, asked))
    )
    return Answer(200, asdict(found))


async def decide_all(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Store a decision on everything; it is done beside everything else."""
    staff, given = scope["crm.staff"], DecidingAll.model_validate(scope["crm.json"])
    try:
        job_id = await store(queue, staff, given, scope["crm.address"])
    except PreviewChanged as error:
        raise Problem("preview-changed", str(error), preview=error.preview) from None
    return Answer(202, await read_report(queue, job_id))


async def store(queue: ApprovalQueue, staff: Staff, given: DecidingAll, address: str) -> str:
    """Store a decision on everything; return its id, which is the first one's when it was sent twice.

    Raises PreviewChanged, and the 404 for a search that is not theirs.
    """
    seen = Preview(**given.preview.model_dump())
    asked = {"event": given.event, "search": given.search, "status": "pending_approval"}
    reason = given.reason.strip() if given.reason and given.verb == "reject" else None
    wanted = await queue.read(lambda connection: filter_of(connection, staff, asked))
    begin = partial(bulk_decisions.begin, wanted=wanted, seen=seen, verb=given.verb, reason=reason)
    return await queue.write(partial(begin, actor=staff.at(address)))


async def show_decisions(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Show how far a decision on everything is."""
    try:
        return Answer(200, await read_report(queue, scope["crm.parameters"]["id"]))
    except UnknownDecisions:
        raise Problem("not-found", "There is no decision with this id.") from None


async def read_report(queue: ApprovalQueue, job_id: str) -> dict[str, Any]:
    """Return how far a decision is, as staff see it; it holds nothing to be masked."""
    found: Report = await queue.read(lambda connection: bulk_decisions.report(connection, job_id))
    return {
        "id": found.job.id,
        "verb": found.job.verb,
        "state": found.job.state,
        "by": found.job.actor,
        "started_at": found.job.started_at,
        "finished_at": found.job.finished_at,
        "total": found.job.total,
        "decided": found.job.decided,
        "refused_total": found.job.refused,
        "refused": [refusal(row) for row in found.refusals],
    }


def refusal(row: Any) -> dict[str, Any]:
    """Return why a request could not be decided."""
    stands = {"decided": {"status": row.status, "by": row.by, "at": row.at}} if row.status else {}
    return {"id": row.approval_id, "why": row.why, **stands}


OPERATIONS: Mapping[str, Handler] = {
    "preview-decisions": preview_decisions,
    "decide-all": decide_all,
    "show-decisions": show_decisions,
}
"""The contract's operations on everything that matches, by operationId."""
