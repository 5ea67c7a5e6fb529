"""The task that approves what needs no staff: a status that the website sends of a repair which has a ticket.

Staff have decided the repair itself; that it was paid, or that its customer comes another day, is no
question. As long as there is no ticket a status waits. A task looks, and not who opens the ticket or
receives the status: whichever comes last, and whoever is killed meanwhile, the next look finds both.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection

from crm_server import approval_queue, website_statuses
from crm_server.approval_queue import ApprovalQueue
from crm_server.audit_trail import Actor
from crm_server.database import is_database_error
from crm_server.errors import Refused, Unavailable, describe

LOOK_SECONDS = 0.25
"""How often it is looked."""
PART = 10
"""Statuses that one transaction approves: webhooks wait meanwhile."""
AWAY_SECONDS = 5.0
"""How long to wait when the database is away."""

WEBSITE = Actor("website")

log = logging.getLogger(__name__)


async def keep_approving(queue: ApprovalQueue) -> None:
    """Approve the statuses of repairs that have a ticket, soon after both are there; run until cancelled."""
    after = 0
    broken: set[str] = set()
    while True:
        try:
            look = await queue.read(partial(website_statuses.look, after=after))
            ids = [approval_id for approval_id in look.ids if approval_id not in broken]
            for start in range(0, len(ids), PART):
                began = time.monotonic()
                some = ids[start : start + PART]
                broken |= await queue.write(partial(approve_some, ids=some))
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


def approve_some(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Approve some statuses; return those at which we fail, which are left to staff.

    One that somebody has decided meanwhile, or whose ticket is gone, is left as it is.
    """
    broken = set()
    for approval_id in ids:
        try:
            with connection.begin_nested():
                approval_queue.approve(connection, approval_id, WEBSITE)
        except Refused as refusal:
            log.debug("%s was not approved: %s", approval_id, refusal.kind)
        except Exception as error:
            if is_database_error(error):
                raise
            log.error("A bug: %s", describe(error))
            broken.add(approval_id)
    return broken
