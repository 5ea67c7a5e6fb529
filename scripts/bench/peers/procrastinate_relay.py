"""procrastinate with httpx on PostgreSQL: what one would take for background delivery."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import httpx
from procrastinate import App, PsycopgConnector

from scripts.bench.processes import KEY
from scripts.bench.site import new_repair

CONCURRENCY = 8


def deliver(database: str, url: str, count: int) -> float:
    """Deliver so many events from a new PostgreSQL database; return deliveries a second."""
    return asyncio.run(run(database, url, count))


async def run(database: str, url: str, count: int) -> float:
    """Defer the jobs, then work them off."""
    app = App(connector=PsycopgConnector(conninfo=database))
    client = httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"})

    @app.task(name="deliver")
    async def send(event: dict[str, Any]) -> None:
        (await client.post(url, json=event)).raise_for_status()

    async with app.open_async(), client:
        await app.schema_manager.apply_schema_async()
        for _ in range(count):
            await send.defer_async(event=new_repair())
        started = perf_counter()
        await app.run_worker_async(wait=False, concurrency=CONCURRENCY, install_signal_handlers=False)
        return count / (perf_counter() - started)
