"""The task that keeps the search index up to date, beside everything else that the server does."""

import asyncio
import json
import logging
import time
from functools import partial
from typing import Any

from sqlalchemy import Connection

from crm_server import search
from crm_server.approval_queue import ApprovalQueue
from crm_server.database import utc_now
from crm_server.errors import Unavailable, describe

LOOK_SECONDS = 0.25
"""How often it is looked for new requests."""
SHARE, BUSY_SHARE = 2, 20
"""So many times as long as a batch took, the processor and the writer are left to others; while webhooks come."""
BUSY_BATCH = 5
"""Requests that one transaction puts into the index while webhooks come, which wait for it."""
FORGET_SECONDS = 600.0
"""How often searches whose day is over are erased."""
AWAY_SECONDS = 5.0
"""How long to wait when the database is away."""

log = logging.getLogger(__name__)


async def keep_indexed(queue: ApprovalQueue) -> None:
    """Put every request into the index, soon after it is received; run until cancelled."""
    forgotten = float("-inf")
    while True:
        try:
            if time.monotonic() > forgotten + FORGET_SECONDS:
                await queue.write(lambda connection: search.forget(connection, utc_now()))
                forgotten = time.monotonic()
            began = time.monotonic()
            share, most = (BUSY_SHARE, BUSY_BATCH) if queue.is_receiving else (SHARE, search.BATCH)
            indexed = await index_some(queue, most)
            await asyncio.sleep(share * (time.monotonic() - began) if indexed else LOOK_SECONDS)
        except Unavailable:
            await asyncio.sleep(AWAY_SECONDS)
        except Exception as error:
            # A bug; what is received meanwhile must still be found one day.
            log.error("A bug: %s", describe(error))
            await asyncio.sleep(AWAY_SECONDS)


async def index_some(queue: ApprovalQueue, most: int) -> int:
    """Put the oldest requests that are not there into the index, so many at most; return how many."""
    documents = await queue.read(partial(read_documents, most=most))
    if documents:
        await queue.write(lambda connection: search.add(connection, documents))
    return len(documents)


def read_documents(connection: Connection, most: int = search.BATCH) -> list[search.Document]:
    """Read what is not in the index, as documents; out of the writer's way."""
    return [
        search.document(row.sequence, row.event, row.contract, payload_of(row))
        for row in search.waiting(connection, most)
    ]


def payload_of(row: Any) -> Any:
    """Return a request's payload, None once it is erased."""
    return None if row.payload is None else json.loads(row.payload)
