"""What staff do with a million requests, beside a thousand, on both databases."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

import httpx
from sqlalchemy import URL, create_engine, func, make_url, select, text

from crm_server import search
from crm_server.tables import search_terms
from scripts.bench.decisions import approver, decide
from scripts.bench.postgresql import cluster, new_database
from scripts.bench.processes import environment, free_port, our_server
from scripts.bench.report import Measurement

MOST_HITS = 1_000
REPEAT = 40
SEEDED, COPIES = 1_000, 999
SIZES = {"a thousand": 0, "ours": COPIES}
"""How often the requests are copied that are seeded."""
SEED = ["--days", "365", "--decided", "0.05", "--seed", "bench"]

MULTIPLY = (
    """CREATE TEMPORARY TABLE copies AS
    WITH RECURSIVE copies(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM copies WHERE n < :copies) SELECT n FROM copies""",
    """INSERT INTO approvals (sequence, id, event, natural_key, webhook_id, contract, payload, digest, status,
        received_at, decided_at, decided_by, about)
    SELECT sequence + n * :seeded, CAST(1000 + n AS VARCHAR) || substr(id, 5), event,
        natural_key || '-' || CAST(n AS VARCHAR), CAST(1000 + n AS VARCHAR) || substr(webhook_id, 5), contract,
        replace(payload, 'seed-bench-', 'seed-bench' || CAST(n AS VARCHAR) || '-'), digest, status, received_at,
        decided_at, decided_by, about || '-' || CAST(n AS VARCHAR)
    FROM approvals, copies ORDER BY n, sequence""",
    """INSERT INTO search_documents (sequence, public_words, personal_words)
    SELECT sequence + n * :seeded, public_words, personal_words FROM search_documents, copies
    ORDER BY n, sequence""",
    """INSERT INTO search_terms (term, sequence, personal)
    SELECT term, sequence + n * :seeded, personal FROM search_terms, copies
    ORDER BY term, sequence + n * :seeded""",
)
"""A thousand people a thousand times over: other events, of words that are found a thousand times as often."""
SETTLE = {
    "sqlite": (),
    "postgresql": (
        "SELECT setval(pg_get_serial_sequence('approvals', 'sequence'), (SELECT max(sequence) FROM approvals))",
        "VACUUM (ANALYZE)",
    ),
}
"""What PostgreSQL does by itself while a queue grows, and has no time for here."""


def measure(rounds: int, seconds: float) -> list[Measurement]:
    """Measure the queue's page, search, a decision and an exact count by turns at both sizes."""
    found: list[Measurement] = []
    with ExitStack() as stack:
        server = stack.enter_context(cluster())
        for engine in ("SQLite", "PostgreSQL"):
            queues: dict[str, Queue] = {}
            for who, copies in SIZES.items():
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                url = f"sqlite:///{folder}/crm.sqlite3" if engine == "SQLite" else new_database(server)
                seed(url, copies)
                staff_port = free_port()
                stack.enter_context(our_server(folder, url, staff_port=staff_port))
                queues[who] = Queue(stack.enter_context(approver(folder, url, staff_port)), url)
            for number in range(rounds):
                for who, queue in queues.items():
                    for work, value in queue.works():
                        found.append(Measurement(f"{work} ({engine})", who, "ms", value * 1000, number))
                found.append(Measurement(f"an exact count ({engine})", "a second", "ms", 1000, number))
    return found


def seed(url: str, copies: int) -> None:
    """Fill a new database with people who do not exist."""
    command = [sys.executable, "-m", "scripts.seed", str(SEEDED), *SEED]
    subprocess.run(command, env=environment(CRM_DATABASE_URL=url), check=True, stdout=subprocess.DEVNULL)
    engine = create_engine(database_url(url))
    with engine.begin() as connection:
        for statement in MULTIPLY if copies else ():
            connection.execute(text(statement), {"copies": copies, "seeded": SEEDED})
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        for statement in SETTLE[connection.dialect.name]:
            connection.execute(text(statement))


def database_url(url: str) -> URL:
    """Return an address with the driver that we use."""
    return make_url(url.replace("postgresql:", "postgresql+psycopg:"))


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
    some = select(c.term).where(c.sequence <= SEEDED).distinct().subquery()
    statement = (
        select(some.c.term)
        .join(search_terms, c.term.between(some.c.term, some.c.term + search.LAST_CHARACTER))
        .group_by(some.c.term)
        .having(hits <= MOST_HITS)
        .order_by(hits.desc(), some.c.term)
        .limit(1)
    )
    with create_engine(database_url(url)).connect() as connection:
        return str(connection.execute(statement).scalar_one())
