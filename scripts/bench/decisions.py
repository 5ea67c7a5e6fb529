"""One decision of staff while webhooks come as fast as they can, beside one in quiet."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from time import perf_counter

import httpx

from scripts.bench.processes import crm_server, free_port, our_server
from scripts.bench.report import Measurement
from scripts.bench.webhooks import loading, run_load

DATABASE = "sqlite:///var/crm.sqlite3"
CONNECTIONS = 8
UNDER_LOAD = 0.9
"""The share of the load's time in which decisions are made."""


def measure(rounds: int, seconds: float) -> list[Measurement]:
    """Measure decisions by turns without webhooks and with them, on one database."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder, staff_port = Path(name), free_port()
        with our_server(folder, DATABASE, staff_port=staff_port) as port:
            run_load(port, CONNECTIONS, seconds)
            with approver(folder, DATABASE, staff_port) as staff:
                decide_for(staff, 0.5)
                for number in range(rounds):
                    quiet = decide_for(staff, seconds)
                    with loading(port, CONNECTIONS, seconds / UNDER_LOAD) as load:
                        busy = decide_for(staff, seconds)
                        load.communicate()
                    if load.returncode:
                        raise RuntimeError("the load failed; see above")
                    for who, times in (("ours", busy), ("in quiet", quiet)):
                        for figure, value in percentiles(times).items():
                            found.append(
                                Measurement("a decision under full load", who, figure, value, number)
                            )
    return found


@contextmanager
def approver(folder: Path, database: str, staff_port: int) -> Iterator[httpx.Client]:
    """Yield a client who may decide, by the staff API and on the pages."""
    password = secrets.token_urlsafe()
    somebody = ["staff", "add", "bench", "--role", "approver", "--password-stdin"]
    crm_server(folder, database, *somebody, stdin=password)
    token = crm_server(folder, database, "staff", "token", "bench").strip()
    address = f"http://127.0.0.1:{staff_port}"
    form = {"name": "bench", "password": password, "next": "/"}
    with httpx.Client(base_url=address, headers={"authorization": f"Bearer {token}"}, timeout=60) as client:
        logged_in = client.post("/login", data=form, headers={"origin": address})
        if logged_in.status_code != HTTPStatus.SEE_OTHER:
            raise RuntimeError(f"the log-in was answered {logged_in.status_code}")
        yield client


def decide_for(staff: httpx.Client, seconds: float) -> list[float]:
    """Approve the oldest requests, one after another; return the seconds of each."""
    times: list[float] = []
    end = perf_counter() + seconds
    while perf_counter() < end:
        found = staff.get("/api/approvals?status=pending_approval&order=oldest&limit=100").raise_for_status()
        for each in found.json()["items"]:
            times.append(decide(staff, each["id"]))
            if perf_counter() > end:
                break
    return times


def decide(staff: httpx.Client, approval_id: str) -> float:
    """Approve a request; return the seconds that it took."""
    began = perf_counter()
    staff.post(f"/api/approvals/{approval_id}/approve", json={}).raise_for_status()
    return perf_counter() - began


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """Return the percentiles of times, in ms."""
    ordered = sorted(times)
    return {"p50": ordered[len(ordered) // 2] * 1000, "p99": ordered[len(ordered) * 99 // 100] * 1000}
