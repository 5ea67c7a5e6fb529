"""What telling the CRM costs a booking's transaction."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import httpx

from scripts.bench.processes import KEY, our_server
from scripts.bench.report import Measurement
from scripts.bench.site import Site, new_repair

WORK = "a booking's transaction"
REPEAT = 300


def measure(rounds: int, seconds: float) -> list[Measurement]:
    """Measure the transaction bare, with an event, and with a post in it, round by round."""
    with tempfile.TemporaryDirectory() as folder, our_server(Path(folder)) as port:
        site = Site(Path(folder), port)
        client = httpx.Client(headers={"authorization": f"Bearer {KEY}"})

        def post() -> None:
            event = new_repair()
            site.book(None, event["repair"]["websiteRepairId"])
            client.post(site.crm_url + "/repair-request", json=event).raise_for_status()

        def bare() -> None:
            site.book(None, new_repair()["repair"]["websiteRepairId"])

        def ours() -> None:
            event = new_repair()
            site.book(event, event["repair"]["websiteRepairId"])

        works: dict[str, Callable[[], None]] = {
            "bare booking": bare,
            "ours": ours,
            "post inline with httpx": post,
        }
        found = []
        for number in range(rounds):
            cost = {name: time_one(work) for name, work in works.items()}
            found += [Measurement(WORK, name, "µs", value, number) for name, value in cost.items()]
            for name, value in cost.items():
                if name != "bare booking":
                    found.append(Measurement(WORK, name, "µs on top", value - cost["bare booking"], number))
        client.close()
    return found


def time_one(work: Callable[[], None]) -> float:
    """Return the microseconds of one call."""
    started = perf_counter()
    for _ in range(REPEAT):
        work()
    return (perf_counter() - started) / REPEAT * 1e6
