"""The trail holds all that happened to an event; nobody can change it, and it can be taken out as a whole."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from tests.programs import Program
from tests.receiver import Receiver, always, first, problem, receipt, reply
from tests.sender.engines import ENGINES, new_outbox, rows
from tests.sender.site import SENTINEL, Site

FORGED = "INTO crm_outbox_trail (number, event_id, at, actor, verb, detail) VALUES (1, 'e', 1.0, 'me', 'closed', '')"
CHANGES = [
    *((engine, "UPDATE crm_outbox_trail SET verb = 'delivered'") for engine in ENGINES),
    *((engine, "DELETE FROM crm_outbox_trail") for engine in ENGINES),
    *((engine, f"INSERT {FORGED} ON CONFLICT (number) DO UPDATE SET verb = 'closed'") for engine in ENGINES),
    ("sqlite", f"INSERT OR REPLACE {FORGED}"),
    ("sqlite", "UPDATE OR REPLACE crm_outbox_trail SET number = 2 WHERE number = 1"),
    ("postgresql", "TRUNCATE crm_outbox_trail"),
]


@pytest.mark.parametrize(("engine", "change"), CHANGES)
def test_the_database_refuses_to_change_the_trail(engine: str, change: str, tmp_path: Path) -> None:
    url = new_outbox(engine, tmp_path)
    for number in (1, 2):
        by_hand(url, f"INSERT {FORGED.replace('(1,', f'({number},')}")
    before = [tuple(row) for row in rows(url, "SELECT * FROM crm_outbox_trail ORDER BY number")]
    assert len(before) == 2
    # As somebody would who opens the database by hand: no connection of ours, no pragma.
    with pytest.raises((sqlite3.IntegrityError, psycopg.errors.RaiseException), match="append-only"):
        by_hand(url, change)
    assert [tuple(row) for row in rows(url, "SELECT * FROM crm_outbox_trail ORDER BY number")] == before


def by_hand(url: str, statement: str) -> None:
    """Run a statement on a connection that is set up in no way."""
    if url.startswith("postgresql"):
        with psycopg.connect(url) as session:
            session.execute(statement.encode())
        return
    with closing(sqlite3.connect(make_url(url).database or "")) as connection, connection:
        connection.execute(statement)


def whole_life(site: Site, receiver: Receiver) -> str:
    """Return an event to which everything happened that can."""
    receiver.event = first(
        always(reply(500)), problem(401, "unauthorized"), then=problem(400, "invalid-event")
    )
    [event] = site.book(repair__notes=SENTINEL)
    site.drain()
    assert site.cli("retry", event).returncode == 0
    receiver.event = receipt
    site.drain()
    return event


LIFE = ["enqueued", "attempted", "held", "released", "failed", "retried", "delivered"]


def test_every_step_is_on_the_trail(site: Site, receiver: Receiver) -> None:
    event = whole_life(site, receiver)
    site.book()
    trail: list[dict[str, Any]] = site.json("trail")
    mine = [step for step in trail if step["event_id"] == event]
    assert [step["verb"] for step in mine] == LIFE
    assert [step["at"] for step in trail] == sorted(step["at"] for step in trail)
    assert len(trail) == len(LIFE) + 1
    assert mine[4]["detail"] == "400 Bad Request"
    assert SENTINEL not in json.dumps(trail)


def test_it_is_exported_as_csv_and_since_a_time(site: Site, receiver: Receiver) -> None:
    whole_life(site, receiver)
    done = site.cli("trail", "--csv")
    exported = list(csv.DictReader(io.StringIO(done.stdout)))
    assert exported == site.json("trail")
    assert [step["verb"] for step in site.json("trail", "--since", exported[4]["at"])] == LIFE[4:]
    assert [line.split()[3] for line in site.cli("trail").stdout.splitlines()] == LIFE
    assert site.cli("trail", "--csv", "--json").returncode == 2


def test_the_export_of_an_empty_outbox_is_empty(site: Site) -> None:
    assert site.json("trail") == []


def test_a_long_trail_is_not_held_in_memory(site: Site) -> None:
    [event] = site.book()
    site.rows(
        "WITH RECURSIVE step (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM step WHERE number < 50000)"
        " INSERT INTO crm_outbox_trail (event_id, at, actor, verb, detail)"
        " SELECT ?, 1.0, 'relay', 'attempted', '500 Internal Server Error' FROM step",
        event,
    )
    assert peak(site, "trail", "--json") < 5 * MEGABYTE


@pytest.mark.parametrize("command", [["trail"], ["delivered", "--since", "1970-01-01T00:00Z"]])
def test_who_reads_it_slowly_keeps_no_erased_bytes_in_the_log(site: Site, command: list[str]) -> None:
    site.rows(
        f"{NUMBERS} INSERT INTO crm_outbox (id, event, contract, natural_key, order_key, reference, digest, status,"
        " due_at, enqueued_at, finished_at) SELECT number, 'repair-request', '1.0.0', number, 'u', 'REV-1', ?,"
        " 'delivered', 0, 1.0, 2.0 FROM step",
        "0" * 64,
    )
    printing = Program("sender", [*command, "--json"], cwd=site.directory, env=site.environment())
    assert printing.stdout is not None
    try:
        text = printing.stdout.read(1)  # it prints now, and the pipe does not hold all of it
        with closing(sqlite3.connect(site.database)) as connection:
            connection.execute("UPDATE crm_outbox SET attempts = 1")
            connection.commit()
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy
        text += printing.stdout.read()
    finally:
        printing.kill()
        printing.communicate(timeout=20)
    assert len(json.loads(text)) == 20_000


@pytest.mark.parametrize("how", [[], ["--json"]], ids=["text", "json"])
def test_a_long_list_of_what_was_delivered_is_not_held_in_memory(site: Site, how: list[str]) -> None:
    digest = "0" * 64
    site.rows(
        f"{NUMBERS} INSERT INTO crm_outbox (id, event, contract, natural_key, order_key, reference, digest, status, due_at,"
        " enqueued_at, finished_at) SELECT number, 'repair-request', '1.0.0', number, 'u', 'REV-1', ?,"
        " 'delivered', 0, 1.0, 2.0 FROM step",
        digest,
    )
    assert peak(site, "delivered", "--since", "1970-01-01T00:00Z", *how) < 5 * MEGABYTE


NUMBERS = (
    "WITH RECURSIVE step (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM step WHERE number < 20000)"
)
MEGABYTE = 1_000_000


def peak(site: Site, *arguments: str) -> int:
    """Return the bytes that a command of `crm-sender` had at most, beside its code."""
    script = (
        "import sys, tracemalloc; from sender.cli import main; tracemalloc.start(); code = main(sys.argv[1:]);"
        " print(tracemalloc.get_traced_memory()[1], file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=site.directory,
        env=site.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    return int(done.stderr)
