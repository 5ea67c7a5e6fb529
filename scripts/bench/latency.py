"""From a booking's commit to the CRM's receipt, at fifty bookings a second."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import httpx
from sqlalchemy import select

from scripts.bench.postgresql import cluster, new_database
from scripts.bench.processes import KEY, our_server
from scripts.bench.report import Measurement
from scripts.bench.site import Site, new_repair
from sender.tables import outbox

WORK = "commit to receipt at 50 events/s"
ON_POSTGRESQL = f"{WORK}, on PostgreSQL"
RATE = 50
WARM = 25
"""Bookings, or posts, that are not measured: the first of each take long."""


def measure(rounds: int, seconds: float) -> list[Measurement]:
    """Measure the way through the outbox, in SQLite and in PostgreSQL, and a plain post in turn, round by round."""
    found = []
    with cluster() as server:
        for number in range(rounds):
            for work, url in ((WORK, None), (ON_POSTGRESQL, new_database(server))):
                with tempfile.TemporaryDirectory() as folder, our_server(Path(folder)) as port:
                    site = Site(Path(folder), port, url)
                    for name, waits in (
                        ("ours", through_outbox(site, seconds)),
                        ("one plain post", posts(site, seconds)),
                    ):
                        waits.sort()
                        found += [
                            Measurement(
                                work, name, f"p{part} ms", waits[len(waits) * part // 100] * 1000, number
                            )
                            for part in (50, 99)
                        ]
    return found


def through_outbox(site: Site, seconds: float) -> list[float]:
    """Book at the rate while a relay runs; return the seconds from commit to the recorded receipt."""
    committed: dict[str, float] = {}
    with site.crm.relay():
        time.sleep(0.5)
        for number, due in enumerate(ticks(seconds)):
            time.sleep(max(0.0, due - time.perf_counter()))
            event = new_repair()
            site.book(event, event["repair"]["websiteRepairId"])
            if number >= WARM:
                committed[event["repair"]["websiteRepairId"]] = time.time()
        time.sleep(1)
    with site.engine.connect() as connection:
        rows = connection.execute(select(outbox.c.natural_key, outbox.c.finished_at)).all()
    return [row.finished_at - committed[row.natural_key] for row in rows if row.natural_key in committed]


def posts(site: Site, seconds: float) -> list[float]:
    """Post at the rate; return the seconds of each."""
    waits = []
    with httpx.Client(headers={"authorization": f"Bearer {KEY}"}) as client:
        for due in ticks(seconds):
            time.sleep(max(0.0, due - time.perf_counter()))
            event = new_repair()
            started = time.perf_counter()
            client.post(site.crm_url + "/repair-request", json=event).raise_for_status()
            waits.append(time.perf_counter() - started)
    return waits[WARM:]


def ticks(seconds: float) -> list[float]:
    """Return when each booking is due."""
    start = time.perf_counter()
    return [start + number / RATE for number in range(WARM + int(seconds * RATE))]
