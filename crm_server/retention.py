"""The task that erases what is kept for a time only, and empties SQLite's log of what was erased."""

import asyncio
import logging
import time
from functools import partial

from crm_server import erasure
from crm_server.approval_queue import ApprovalQueue
from crm_server.audit_trail import Actor
from crm_server.database import Database
from crm_server.errors import Unavailable, describe

LOOK_SECONDS = 1.0
"""How often it is looked whether erased bytes wait in the log."""
EXPIRE_SECONDS = 3600.0
"""How often it is looked for what is past its time."""
SHARE = 4
"""So many times as long as a transaction took, the writer is left to others."""
AWAY_SECONDS = 5.0
"""How long to wait when the database is away."""

RETENTION = Actor("server:retention")

log = logging.getLogger(__name__)


async def keep_erasing(queue: ApprovalQueue, days: int | None) -> None:
    """Erase payloads of requests that were rejected more than some days ago, if any; run until cancelled."""
    expired_at = float("-inf")
    while True:
        try:
            if days is not None and time.monotonic() > expired_at + EXPIRE_SECONDS:
                await expire_all(queue, days)
                expired_at = time.monotonic()
            await empty_log(queue)
            await asyncio.sleep(LOOK_SECONDS)
        except Unavailable:
            await asyncio.sleep(AWAY_SECONDS)
        except Exception as error:
            # A bug; what is erased meanwhile must still leave the log one day.
            log.error("A bug: %s", describe(error))
            await asyncio.sleep(AWAY_SECONDS)


async def expire_all(queue: ApprovalQueue, days: int) -> None:
    """Erase all that is past its time, in small transactions."""
    began = time.monotonic()
    while await queue.write(partial(erasure.expire, days=days, actor=RETENTION)):
        await asyncio.sleep(SHARE * (time.monotonic() - began))
        began = time.monotonic()


async def empty_log(queue: ApprovalQueue, seconds: float = 0.0) -> bool:
    """Empty SQLite's log of what was erased, or try so long; return whether nothing of it is left."""
    until = time.monotonic() + seconds
    while not await try_to_empty_log(queue):
        if time.monotonic() > until:
            return False
        await asyncio.sleep(erasure.PAUSE_SECONDS)
    return True


async def try_to_empty_log(queue: ApprovalQueue) -> bool:
    """Empty the log unless somebody reads or writes this moment; return whether nothing is left in it."""
    since, erasures = await queue.read(erasure.erasing_since)
    if since is None:
        return True
    if not await queue.work(Database.empty_log):
        return False
    await queue.write(partial(erasure.log_emptied, erasures=erasures))
    return True
