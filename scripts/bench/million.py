"""The same work beside a million delivered events and a million stored requests."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from sqlalchemy import text

from scripts.bench.postgresql import cluster, new_database
from scripts.bench.processes import our_server
from scripts.bench.report import Measurement
from scripts.bench.site import Site, new_repair
from scripts.bench.webhooks import run_load
from sender import outbox
from sender.database import begin_look, open_engine, reading
from sender.integration.deliveries import PAGE_SIZE
from sender.integration.overview import READ
from sender.statistics import hour_of

MILLION = 1_000_000
REPEAT = 200

FILL_OUTBOX = """
INSERT INTO crm_outbox (id, event, contract, natural_key, order_key, reference, digest, status, attempts, due_at,
                        enqueued_at, finished_at)
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
SELECT printf('01a20000-0000-7000-8000-%012d', i), 'repair-request', '1.0.0', 'r' || i, 'u' || (i % 100000), 't' || i,
       hex(randomblob(32)), 'delivered', 1, 0, i, i FROM n
"""

FILL_ON_POSTGRESQL = """
INSERT INTO crm_outbox (id, event, contract, natural_key, order_key, reference, digest, status, attempts, due_at,
                        enqueued_at, finished_at)
SELECT '01a20000-0000-7000-8000-' || lpad(i::text, 12, '0'), 'repair-request', '1.0.0', 'r' || i, 'u' || (i % 100000),
       't' || i, repeat(md5(i::text), 2), 'delivered', 1, 0, i, i FROM generate_series(1, :count) AS i
"""

FILL_QUEUE = """
INSERT INTO approvals (id, event, natural_key, webhook_id, contract, payload, digest, status, received_at)
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
SELECT printf('01a20000-0000-7000-8000-%012d', i), 'repair-request', 'r' || i,
       printf('01a20000-0000-7000-9000-%012d', i), '1.0.0', :payload, hex(randomblob(32)), 'pending_approval',
       '2024-12-13T10:00:00.000000Z' FROM n
"""


def measure(rounds: int, seconds: float) -> list[Measurement]:
    """Measure enqueue, claim, status, what the dashboard reads, and webhook, empty and full, in turn."""
    found = []
    with (
        cluster() as server,
        tempfile.TemporaryDirectory() as empty,
        tempfile.TemporaryDirectory() as full,
        our_server(Path(empty)) as few,
        our_server(Path(full)) as many,
    ):
        sites = {
            "": {"empty": Site(Path(empty), few), "ours": Site(Path(full), many)},
            " on PostgreSQL": {
                "empty": Site(Path(empty), few, new_database(server)),
                "ours": Site(Path(full), many, new_database(server)),
            },
        }
        fill(sites[""]["ours"].url, FILL_OUTBOX)
        fill(sites[" on PostgreSQL"]["ours"].url, FILL_ON_POSTGRESQL)
        fill(f"sqlite:///{full}/var/crm.sqlite3", FILL_QUEUE, payload="{}" * 400)
        for number in range(rounds):
            for engine, pair in sites.items():
                for who, site in pair.items():
                    for work, value in measure_site(site).items():
                        found.append(Measurement(f"a million rows: {work}{engine}", who, "µs", value, number))
            for who, port in (("empty", few), ("ours", many)):
                rate = run_load(port, 8, seconds)["rate"]
                found.append(Measurement("a million rows: webhook", who, "µs", 1e6 / rate, number))
    return found


def fill(url: str, statement: str, **values: object) -> None:
    """Write a million rows at once."""
    with open_engine(url).begin() as connection:
        connection.execute(text(statement), {"count": MILLION, **values})


def measure_site(site: Site) -> dict[str, float]:
    """Return the microseconds of each work on a site's outbox."""
    engine = open_engine(site.url)

    def enqueue() -> None:
        event = new_repair()
        site.book(event, event["repair"]["websiteRepairId"])

    def claim() -> None:
        with reading(engine) as connection:
            due = outbox.Due(begin_look(connection, time.time), lease=10, longest_delay=3600)
            found = outbox.look(connection, due, outbox.Share(1, 0, 1, ""))
        with engine.begin() as connection:
            outbox.claim(connection, due, "bench", time.time() + 10, [sequence for sequence, _ in found])

    def status() -> None:
        with reading(engine) as connection:
            outbox.counts(connection)

    def dashboard() -> None:
        with reading(engine) as connection:
            outbox.hours_since(connection, hour_of(time.time()) - 7 * 24)
            outbox.words_of_trouble(connection, READ)
            outbox.list_unfinished(connection, outbox.Failures(), limit=PAGE_SIZE)

    works = {"enqueue": enqueue, "claim": claim, "status": status, "dashboard": dashboard}
    found = {name: time_one(work) for name, work in works.items()}
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM crm_outbox WHERE status = 'pending'"))
    return found


def time_one(work: Callable[[], None]) -> float:
    """Return the microseconds of one call."""
    started = perf_counter()
    for _ in range(REPEAT):
        work()
    return (perf_counter() - started) / REPEAT * 1e6
