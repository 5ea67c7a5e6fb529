"""Deliveries a second, of a backlog in SQLite, and of one in PostgreSQL."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx

from scripts.bench.peers.procrastinate_relay import deliver as deliver_by_procrastinate
from scripts.bench.postgresql import cluster, new_database
from scripts.bench.processes import KEY, our_server
from scripts.bench.report import Measurement
from scripts.bench.site import Site, new_repair
from sender.relay import THREADS, Relay

WORK, ON_POSTGRESQL = "relay", "relay on PostgreSQL"
EVENTS = 2_000


def measure(rounds: int, seconds: float) -> list[Measurement]:
    """Measure our relay, a bare httpx loop and procrastinate in turn, round by round."""
    found = []
    with cluster() as server:
        for number in range(rounds):
            for works, name, work in (
                ([WORK], "ours", ours),
                ([ON_POSTGRESQL], "ours", lambda folder, port: ours(folder, port, new_database(server))),
                ([WORK, ON_POSTGRESQL], "bare httpx loop", bare),
                ([WORK, ON_POSTGRESQL], "procrastinate + httpx", lambda _, port: procrastinate(server, port)),
            ):
                with tempfile.TemporaryDirectory() as folder, our_server(Path(folder)) as port:
                    rate = work(Path(folder), port)
                found += [Measurement(each, name, "deliveries/s", rate, number) for each in works]
    return found


def ours(folder: Path, port: int, url: str | None = None) -> float:
    """Drain an outbox."""
    site = Site(folder, port, url)
    with site.engine.begin() as connection:
        for _ in range(EVENTS):
            site.crm.repair_requested(new_repair(), connection)
    started = perf_counter()
    summary = Relay(site.settings).run(drain=True)
    took = perf_counter() - started
    if summary.delivered != EVENTS:
        raise RuntimeError(f"not all were delivered: {summary}")
    return EVENTS / took


def bare(folder: Path, port: int) -> float:
    """Post in a loop, with as many threads and a client each."""
    url = f"http://127.0.0.1:{port}/webhooks/repair-request"
    events = [new_repair() for _ in range(EVENTS)]

    def post(part: list[dict[str, Any]]) -> None:
        with httpx.Client(headers={"authorization": f"Bearer {KEY}"}) as client:
            for event in part:
                client.post(url, json=event).raise_for_status()

    threads = [threading.Thread(target=post, args=(events[n::THREADS],)) for n in range(THREADS)]
    started = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return EVENTS / (perf_counter() - started)


def procrastinate(server: Any, port: int) -> float:
    """Let procrastinate deliver from PostgreSQL."""
    url = f"http://127.0.0.1:{port}/webhooks/repair-request"
    return deliver_by_procrastinate(new_database(server), url, EVENTS // 4)
