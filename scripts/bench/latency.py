"""From a booking's commit to the CRM's receipt, at fifty bookings a second."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import httpx
from sqlalchemy import select

from scripts.bench.processes import KEY, our_server
from scripts.bench.report import Measurement
from scripts.bench.site import Site, new_repair
from sender.tables import outbox

WORK = "commit to receipt at 50 events/s"
RATE = 50


def measure(rounds: int, seconds: float) -> list[Measurement]:
    """Measure the way through the outbox and a plain post in turn, round by round."""
    found = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder, our_server(Path(folder)) as port:
            site = Site(Path(folder), port)
            for name, waits in (
                ("ours", through_outbox(site, seconds)),
                ("one plain post", posts(site, seconds)),
            ):
                waits.sort()
                found.append(Measurement(WORK, name, "p50 ms", waits[len(waits) // 2] * 1000, number))
                found.append(Measurement(WORK, name, "p99 ms", waits[len(waits) * 99 // 100] * 1000, number))
    return found


def through_outbox(site: Site, seconds: float) -> list[float]:
    """Book at the rate while a relay runs; return the seconds from commit to the recorded receipt."""
    committed: dict[str, float] = {}
    with site.crm.relay():
        time.sleep(0.5)
        for due in ticks(seconds):
            time.sleep(max(0.0, due - time.perf_counter()))
            event = new_repair()
            site.book(event, event["repair"]["websiteRepairId"])
            committed[event["repair"]["websiteRepairId"]] = time.time()
        time.sleep(1)
    with site.engine.connect() as connection:
        rows = connection.execute(select(outbox.c.natural_key, outbox.c.finished_at)).all()
    return [row.finished_at - committed[row.natural_key] for row in rows]


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
    return waits


def ticks(seconds: float) -> list[float]:
    """Return when each booking is due."""
    start = time.perf_counter()
    return [start + number / RATE for number in range(int(seconds * RATE))]
