"""What staff do with a million requests, beside a thousand, on both databases. To make them takes most of an hour."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

import httpx
from sqlalchemy import func, make_url, select

from crm_server import search
from crm_server.database import Database
from crm_server.tables import search_terms
from scripts.bench.decisions import approver, decide
from scripts.bench.postgresql import cluster, new_database
from scripts.bench.processes import environment, free_port, our_server
from scripts.bench.report import Measurement

SIZES = {"a thousand": 1_000, "ours": int(os.environ.get("BENCH_REQUESTS", "1000000"))}
MOST_HITS = 1_000
REPEAT = 40
SEED = ["--days", "365", "--decided", "0.05", "--seed", "bench"]


def measure(rounds: int, seconds: float) -> list[Measurement]:
    """Measure the queue's page, search, a decision and an exact count by turns at both sizes."""
    found: list[Measurement] = []
    with ExitStack() as stack:
        server = stack.enter_context(cluster())
        for engine in ("SQLite", "PostgreSQL"):
            queues: dict[str, Queue] = {}
            for who, size in SIZES.items():
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                url = f"sqlite:///{folder}/crm.sqlite3" if engine == "SQLite" else new_database(server)
                seed(url, size)
                staff_port = free_port()
                stack.enter_context(our_server(folder, url, staff_port=staff_port))
                queues[who] = Queue(stack.enter_context(approver(folder, url, staff_port)), url)
            for number in range(rounds):
                for who, queue in queues.items():
                    for work, value in queue.works():
                        found.append(Measurement(f"{work} ({engine})", who, "ms", value * 1000, number))
                found.append(Measurement(f"an exact count ({engine})", "a second", "ms", 1000, number))
    return found


def seed(url: str, size: int) -> None:
    """Fill a new database with people who do not exist."""
    command = [sys.executable, "-m", "scripts.seed", str(size), *SEED]
    subprocess.run(command, env=environment(CRM_DATABASE_URL=url), check=True, stdout=subprocess.DEVNULL)


class Queue:
    """A queue, and somebody who works on it."""

    def __init__(self, staff: httpx.Client, url: str) -> None:
        self._staff = staff
        word = frequent_word(url)
        answer = staff.post("/api/searches", json={"text": word}).raise_for_status()
        self._search = answer.json()["id"]

    def works(self) -> Iterator[tuple[str, float]]:
        """Do each work some times; yield its name and the seconds of one."""
        yield "a page of the queue", self.time_one(self.show_page)
        yield "a search", self.time_one(self.search)
        yield "a decision", self.decide_some()
        yield "an exact count", self.time_one(self.count, 3)

    def time_one(self, work: Callable[[], httpx.Response], repeat: int = REPEAT) -> float:
        """Return the seconds of one call."""
        began = perf_counter()
        for _ in range(repeat):
            work().raise_for_status()
        return (perf_counter() - began) / repeat

    def show_page(self) -> httpx.Response:
        """Ask for the page of what waits."""
        return self._staff.get("/approvals?status=pending_approval")

    def search(self) -> httpx.Response:
        """Ask for the first page of what a search finds."""
        return self._staff.get(f"/api/approvals?search={self._search}&limit=50")

    def count(self) -> httpx.Response:
        """Ask for the preview of a decision on everything."""
        return self._staff.get("/api/approvals/decisions")

    def decide_some(self) -> float:
        """Approve some requests; return the seconds of one."""
        page = self._staff.get(f"/api/approvals?status=pending_approval&order=oldest&limit={REPEAT // 4}")
        items = page.raise_for_status().json()["items"]
        return sum(decide(self._staff, each["id"]) for each in items) / len(items)


def frequent_word(url: str) -> str:
    """Return a word that finds as many requests as it may."""
    c = search_terms.c
    hits = func.count().label("hits")
    some = select(c.term).where(c.sequence <= SIZES["a thousand"]).distinct().subquery()
    statement = (
        select(some.c.term)
        .join(search_terms, c.term.between(some.c.term, some.c.term + search.LAST_CHARACTER))
        .group_by(some.c.term)
        .having(hits <= MOST_HITS)
        .order_by(hits.desc(), some.c.term)
        .limit(1)
    )
    database = Database(make_url(url))
    try:
        with database.reading() as connection:
            return str(connection.execute(statement).scalar_one())
    finally:
        database.close()
