"""Decisions on everything that matches a filter: previewed, then stored as a job that is done in parts.

What is to be decided is fixed when the job is stored, and left to it by every later one. Each part is decided, and taken off the job, in one
transaction: whoever is killed meanwhile, each request is decided once, and whichever server looks next goes
on where the last one was.
"""

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, String, cast, delete, func, insert, select, update

from crm_server import approval_queue, audit_trail, staff
from crm_server.approval_queue import ApprovalQueue, Filter, streams
from crm_server.audit_trail import Actor
from crm_server.database import is_database_error, new_id, utc_now
from crm_server.decisions import Verb
from crm_server.errors import AlreadyDecided, PreviewChanged, Refused, Unavailable, UnknownDecisions, describe
from crm_server.tables import approvals, bulk_jobs, bulk_parts, bulk_refusals

PART = 10
"""Requests that one transaction decides: webhooks wait meanwhile, some tens of milliseconds."""
STORED_TOGETHER = 1000
"""Requests in one row of what is to be decided, so that a job of a million is quickly stored."""
MOST_SHOWN = 200
"""Refusals that a report lists."""
LOOK_SECONDS = 0.25
"""How often it is looked for jobs."""
AWAY_SECONDS = 5.0
"""How long to wait when the database is away."""

FORBIDDEN = "forbidden"
"""Why nothing more is decided for somebody who was shut out, or is no approver any more."""

RUNNING = bulk_jobs.c.state == "running"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a decision on everything that matches would decide."""

    count: int
    as_of: int
    """The newest request when it was counted, by sequence; none that is newer is among them."""
    digest: str
    """Of the requests' sequences, in hexadecimal."""


def preview(connection: Connection, wanted: Filter) -> Preview:
    """Count the undecided requests that match, exactly, but for those that a job has still to decide."""
    as_of = connection.execute(select(func.coalesce(func.max(approvals.c.sequence), 0))).scalar_one()
    return summary(as_of, undecided(connection, wanted, as_of))


def plan(connection: Connection, wanted: Filter, seen: Preview) -> list[str]:
    """Return what a job has to decide that decides what a preview showed, as rows of it hold it.

    Raises PreviewChanged, with a new preview, when one of them has been decided since, or another job has it.
    """
    sequences = undecided(connection, wanted, seen.as_of)
    if summary(seen.as_of, sequences) != seen:
        raise PreviewChanged(asdict(preview(connection, wanted)))
    starts = range(0, len(sequences), STORED_TOGETHER)
    return [json.dumps(sequences[start : start + STORED_TOGETHER]) for start in starts]


def undecided(connection: Connection, wanted: Filter, as_of: int) -> list[int]:
    """Return the sequences of the undecided requests that match and that no job has still to decide, oldest first.

    As one text for each index: a million rows take a second to fetch, and a third of one so.
    """
    sequence = approvals.c.sequence
    found: list[int] = []
    for stream in streams(connection, wanted):
        rows = (
            stream.with_only_columns(sequence, maintain_column_froms=True).where(sequence <= as_of).subquery()
        )
        joined = select(func.aggregate_strings(cast(rows.c.sequence, String), ","))
        text = connection.execute(joined).scalar()
        found += map(int, text.split(",")) if text else []
    return sorted(set(found).difference(*map(json.loads, connection.scalars(select(bulk_parts.c.sequences)))))


def summary(as_of: int, sequences: Sequence[int]) -> Preview:
    """Return the preview that stands for some requests."""
    text = ",".join(map(str, sequences))
    return Preview(len(sequences), as_of, hashlib.sha256(text.encode()).hexdigest())


def begin(
    connection: Connection, wanted: Filter, seen: Preview, verb: Verb, reason: str | None, actor: Actor
) -> str:
    """Store a job that decides what a preview showed; return its id, or the first one's when it is sent twice.

    Raises PreviewChanged.
    """
    try:
        parts = plan(connection, wanted, seen)
    except PreviewChanged:
        if first := begun(connection, seen, verb, reason, actor):
            return first
        raise
    at = utc_now()
    job = {"id": new_id(), "verb": verb, "state": "running", "reason": reason, "total": seen.count}
    job |= {"decided": 0, "refused": 0, "actor": actor.name, "origin": actor.origin, "started_at": at}
    job |= {"digest": seen.digest}
    connection.execute(insert(bulk_jobs), job)
    rows = [{"job_id": job["id"], "number": number, "sequences": part} for number, part in enumerate(parts)]
    if rows:
        connection.execute(insert(bulk_parts), rows)
    audit_trail.append(
        connection, at=at, actor=actor, verb=f"{verb}-all", record="decisions", record_id=str(job["id"])
    )
    return str(job["id"])


def begun(connection: Connection, seen: Preview, verb: Verb, reason: str | None, actor: Actor) -> str | None:
    """Return the id of the job that somebody began on what a preview showed, if they did."""
    c = bulk_jobs.c
    same = (c.digest == seen.digest) & (c.verb == verb) & (c.actor == actor.name)
    # One that is done has no reason any more.
    same_reason = c.reason.is_(None) | (c.reason == reason)
    job_id = connection.scalar(select(c.id).where(same, same_reason).order_by(c.id.desc()).limit(1))
    # What was taken back since is decided anew, and the preview of before may be equal to that of today.
    return job_id if job_id and not audit_trail.has_happened_since(connection, job_id, "reopen") else None


def running(connection: Connection) -> Sequence[Row[Any]]:
    """Read the jobs that are not done, oldest first."""
    return connection.execute(select(bulk_jobs).where(RUNNING).order_by(bulk_jobs.c.id)).all()


def decide_some(connection: Connection) -> None:
    """Decide some more of the oldest job, or finish it when all is decided; another server's is left to it.

    Whoever began it must still be allowed to: what a job decides, it decides in their name.
    """
    job = connection.execute(
        select(bulk_jobs).where(RUNNING).order_by(bulk_jobs.c.id).limit(1).with_for_update(skip_locked=True)
    ).one_or_none()
    if job is None:
        return
    this, parts = bulk_jobs.c.id == job.id, bulk_parts.c.job_id == job.id
    if not staff.may_still(connection, Actor(job.actor, job.origin), "approver"):
        refuse_rest(connection, job)
    part = connection.execute(
        select(bulk_parts).where(parts).order_by(bulk_parts.c.number).limit(1)
    ).one_or_none()
    if part is None:
        done = {"state": "done", "reason": None, "finished_at": utc_now()}
        connection.execute(update(bulk_jobs).where(this).values(done))
        return
    c, waiting = approvals.c, json.loads(part.sequences)
    now, later = waiting[:PART], waiting[PART:]
    ids = connection.execute(select(c.id).where(c.sequence.in_(now)).order_by(c.sequence)).scalars().all()
    refused = [row for row in (decide(connection, job, approval_id) for approval_id in ids) if row]
    if refused:
        connection.execute(insert(bulk_refusals), refused)
    counts = {"decided": job.decided + len(ids) - len(refused), "refused": job.refused + len(refused)}
    connection.execute(update(bulk_jobs).where(this).values(counts))
    rest = parts & (bulk_parts.c.number == part.number)
    if later:
        connection.execute(update(bulk_parts).where(rest).values(sequences=json.dumps(later)))
    else:
        connection.execute(delete(bulk_parts).where(rest))


def refuse_rest(connection: Connection, job: Row[Any]) -> None:
    """Refuse all that a job has still to decide; of a million, only what a report lists is worth a row."""
    parts, c = bulk_parts.c.job_id == job.id, approvals.c
    waiting = connection.scalars(select(bulk_parts.c.sequences).where(parts).order_by(bulk_parts.c.number))
    left = [sequence for part in waiting for sequence in json.loads(part)]
    listed = select(c.id).where(c.sequence.in_(left[:MOST_SHOWN])).order_by(c.sequence)
    rows = [{"job_id": job.id, "approval_id": each, "why": FORBIDDEN} for each in connection.scalars(listed)]
    if rows:
        connection.execute(insert(bulk_refusals), rows)
    connection.execute(delete(bulk_parts).where(parts))
    counts = {"refused": job.total - job.decided}
    connection.execute(update(bulk_jobs).where(bulk_jobs.c.id == job.id).values(counts))


def decide(connection: Connection, job: Row[Any], approval_id: str) -> dict[str, Any] | None:
    """Decide one request; return the row that says why, when it cannot be decided."""
    row = {"job_id": job.id, "approval_id": approval_id, "status": None, "by": None, "at": None}
    actor = Actor(job.actor, job.origin)
    try:
        with connection.begin_nested():
            if job.verb == "approve":
                approval_queue.approve(connection, approval_id, actor)
            else:
                approval_queue.reject(connection, approval_id, actor, job.reason)
    except AlreadyDecided as error:
        return {**row, "why": error.kind, "status": error.status, "by": error.by, "at": error.at}
    except Refused as error:
        return {**row, "why": error.kind}
    except Exception as error:
        if is_database_error(error):
            raise
        # A bug; the others of this job are decided all the same.
        log.error("A bug: %s", describe(error))
        return {**row, "why": "internal-error"}
    return None


@dataclass(frozen=True, slots=True)
class Report:
    """How far a job is."""

    job: Row[Any]
    refusals: Sequence[Row[Any]]
    """The first, oldest request first."""


def report(connection: Connection, job_id: str) -> Report:
    """Read how far a job is.

    Raises UnknownDecisions.
    """
    job = connection.execute(select(bulk_jobs).where(bulk_jobs.c.id == job_id)).one_or_none()
    if job is None:
        raise UnknownDecisions(f"There is no decision {job_id}.")
    mine = bulk_refusals.c.job_id == job_id
    refusals = select(bulk_refusals).where(mine).order_by(bulk_refusals.c.sequence).limit(MOST_SHOWN)
    return Report(job, connection.execute(refusals).all())


async def keep_deciding(queue: ApprovalQueue) -> None:
    """Do the jobs that there are, also those that a server left unfinished; run until cancelled."""
    while True:
        try:
            began = time.monotonic()
            if await queue.read(is_wanted):
                await queue.write(decide_some)
                await asyncio.sleep(
                    time.monotonic() - began
                )  # as long as it took, the writer is left to others
            else:
                await asyncio.sleep(LOOK_SECONDS)
        except Unavailable:
            await asyncio.sleep(AWAY_SECONDS)
        except Exception as error:
            log.error("A bug: %s", describe(error))
            await asyncio.sleep(AWAY_SECONDS)


def is_wanted(connection: Connection) -> bool:
    """Tell whether there is a job to be done."""
    return connection.execute(select(bulk_jobs.c.id).where(RUNNING).limit(1)).first() is not None
