"""The task that decides what needs no staff: a status that the website sends of a repair.

Staff have decided the repair itself; that it was paid, or that its customer comes another day, is no
question. As long as there is no ticket a status waits; when the repair request is erased there never is one,
nobody would find the status any more, and so it is erased as well. A task looks, and not who opens the ticket or
receives the status: whichever comes last, and whoever is killed meanwhile, the next look finds both.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection

from crm_server import approval_queue, erasure, website_statuses
from crm_server.approval_queue import ApprovalQueue
from crm_server.audit_trail import Actor
from crm_server.database import is_database_error, utc_now
from crm_server.errors import Refused, Unavailable, describe

LOOK_SECONDS = 0.25
"""How often it is looked."""
PART = 10
"""Statuses that one transaction settles: webhooks wait meanwhile."""
AWAY_SECONDS = 5.0
"""How long to wait when the database is away."""

WEBSITE = Actor("website")

log = logging.getLogger(__name__)


async def keep_approving(queue: ApprovalQueue) -> None:
    """Settle the statuses of repairs that have a ticket, or are erased, soon after both; run until cancelled."""
    after = 0
    broken: set[str] = set()
    while True:
        try:
            look = await queue.read(partial(website_statuses.look, after=after))
            ids = [approval_id for approval_id in look.ids if approval_id not in broken]
            for start in range(0, len(ids), PART):
                began = time.monotonic()
                some = ids[start : start + PART]
                broken |= await queue.write(partial(settle_some, ids=some))
                # As long as it took, the writer is left to others.
                await asyncio.sleep(time.monotonic() - began)
            after = look.after
            await asyncio.sleep(LOOK_SECONDS)
        except Unavailable:
            await asyncio.sleep(AWAY_SECONDS)
        except Exception as error:
            # A bug; what comes later must still be approved one day.
            log.error("A bug: %s", describe(error))
            await asyncio.sleep(AWAY_SECONDS)


def settle_some(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Approve or erase some statuses; return those at which we fail, which are left to staff.

    One that somebody has decided meanwhile, or whose ticket is gone, is left as it is.
    """
    broken = set()
    for approval_id in ids:
        try:
            with connection.begin_nested():
                settle(connection, approval_id)
        except Refused as refusal:
            log.debug("%s was not settled: %s", approval_id, refusal.kind)
        except Exception as error:
            if is_database_error(error):
                raise
            log.error("A bug: %s", describe(error))
            broken.add(approval_id)
    return broken


def settle(connection: Connection, approval_id: str) -> None:
    """Approve a status, or reject and erase it when the repair request that it is about is erased.

    Raises Refused when it cannot be approved.
    """
    row = approval_queue.find_approval(connection, approval_id)
    repair = row.about and website_statuses.find_repair(connection, row.about)
    if repair and repair.erased_at and row.status == "pending_approval":
        erasure.erase_alone(connection, [row], WEBSITE, utc_now())
    else:
        approval_queue.approve(connection, approval_id, WEBSITE)
