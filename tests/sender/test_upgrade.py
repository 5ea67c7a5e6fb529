"""An outbox of an earlier release keeps what it holds, and that release still runs on the newest tables."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, select, text

from sender.database import begin_migration, open_engine
from tests.factories import repair_request
from tests.sender.engines import ENGINES, new_database, new_outbox, rows
from tests.sender.site import cli, eventually, sender_environment

CONFIG = Config()
CONFIG.set_main_option("script_location", "sender:migrations")
STEPS = [script.revision for script in reversed(list(ScriptDirectory.from_config(CONFIG).walk_revisions()))]

DIGEST = "0" * 64
ROWS: dict[str, list[str]] = {
    "0001": [
        f"""INSERT INTO crm_outbox (id, event, contract, natural_key, order_key, reference, payload, digest, status,
            due_at, enqueued_at) VALUES ('p', 'repair-request', '1.0.0', 'p', 'u', 'REV-1', '{{}}', '{DIGEST}',
            'pending', 1.5, 1.5)""",
        f"""INSERT INTO crm_outbox (id, event, contract, natural_key, order_key, reference, payload, digest, status,
            due_at, enqueued_at, finished_at, reason) VALUES ('f', 'repair-request', '1.0.0', 'f', 'u', 'REV-2',
            '{{}}', '{DIGEST}', 'failed', 1.5, 1.5, 2.5, '400 Bad Request')""",
        "UPDATE crm_outbox SET lease_token = 't', lease_until = 3.5 WHERE id = 'p'",
        """UPDATE crm_outbox SET status = 'delivered', payload = NULL, finished_at = 4.5, lease_token = NULL,
            lease_until = NULL WHERE id = 'p'""",
        """INSERT INTO crm_outbox_trail (event_id, at, actor, verb, detail)
            VALUES ('p', 4.5, 'relay', 'delivered', '202 Accepted')""",
        "UPDATE crm_outbox_state SET delivered = delivered + 1, erasures = erasures + 1, erasing_since = 4.5",
        """INSERT INTO crm_outbox_relays (relay_id, host, pid, running, seen_at)
            VALUES ('r', 'host', 1, true, 4.5)""",
        "DELETE FROM crm_outbox_relays WHERE NOT seen_at BETWEEN 4 AND 5",
    ],
    "0002": ["UPDATE crm_outbox SET traceparent = '00-a-b-01' WHERE id = 'f'"],
    "0005": ["INSERT INTO crm_outbox_hours (hour, verb, within_ms, count) VALUES (1, 'delivered', 10, 1)"],
    "0006": ["INSERT INTO crm_outbox_alerts (condition, since, told_at) VALUES ('failed', 4.5, 4.5)"],
    "0007": ["UPDATE crm_outbox SET receipt_id = 'r' WHERE id = 'p'"],
    "0008": ["INSERT INTO crm_outbox_releases (contract, delivered) VALUES ('0.9.0', 1)"],
    "0009": ["UPDATE crm_outbox_alerts SET seen_at = 4.5, seen_by = 'w'"],
}
"""What a release writes whose newest step this is, beside what those before it write."""

WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def upgrade(connection: Connection, step: str) -> None:
    CONFIG.attributes["connection"] = connection
    command.upgrade(CONFIG, step)


def write_as(connection: Connection, step: str) -> None:
    """Write all that a release writes whose newest step this is."""
    for earlier in STEPS[: STEPS.index(step) + 1]:
        for statement in ROWS.get(earlier, []):
            connection.execute(text(statement))


def columns_of(connection: Connection) -> dict[str, list[str]]:
    tables = MetaData()
    tables.reflect(connection)
    return {
        t.name: [c.name for c in t.columns] for t in tables.sorted_tables if t.name != "crm_outbox_version"
    }


def content(connection: Connection, columns: dict[str, list[str]]) -> dict[str, Any]:
    """Return the rows of some tables, as a release reads them that knows these columns."""
    tables = MetaData()
    tables.reflect(connection)
    return {
        name: sorted(
            tuple(row) for row in connection.execute(select(*(tables.tables[name].c[c] for c in some)))
        )
        for name, some in columns.items()
    }


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("step", STEPS)
def test_an_outbox_keeps_what_it_holds_and_its_release_runs_on(
    step: str, engine: str, tmp_path: Path
) -> None:
    opened = open_engine(new_database(engine, tmp_path))
    with opened.begin() as connection:
        upgrade(connection, step)
        columns = columns_of(connection)
        write_as(connection, step)
        before = content(connection, columns)
        assert all(before.values())
        upgrade(connection, "head")
        assert content(connection, columns) == before
    opened.dispose()
    (tmp_path / "other").mkdir()
    opened = open_engine(new_database(engine, tmp_path / "other"))
    with opened.begin() as connection:
        upgrade(connection, "head")
        write_as(connection, step)
        assert all(content(connection, columns).values())
    opened.dispose()


def test_a_migration_lets_bookings_pass_while_somebody_reads_for_long(tmp_path: Path) -> None:
    url = new_database("postgresql", tmp_path)
    env = sender_environment(CRM_OUTBOX_URL=url)
    opened = open_engine(url)
    with opened.begin() as connection:
        upgrade(connection, "0008")
    body = json.dumps(repair_request())
    with psycopg.connect(url) as reader, ThreadPoolExecutor(1) as pool:
        reader.execute("SELECT 1 FROM crm_outbox")  # as pg_dump does until it has written all
        migrating = pool.submit(cli, "migrate", directory=tmp_path, env=env)
        for _ in range(2):
            eventually(lambda: rows(url, WAITING) != [], "it waits")
            done = cli("enqueue", "repair-request", "-", directory=tmp_path, env=env, stdin=body)
            assert done.returncode == 0, done.stderr
        gave_up = migrating.result()
    assert (gave_up.returncode, gave_up.stdout) == (1, "")
    assert "in use by somebody who does not end" in gave_up.stderr
    assert len(rows(url, "SELECT 1 FROM crm_outbox")) == 1
    done = cli("migrate", directory=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    opened.dispose()


def test_hosts_that_migrate_at_the_same_moment_wait_for_each_other(tmp_path: Path) -> None:
    url = new_database("postgresql", tmp_path)
    env = sender_environment(CRM_OUTBOX_URL=url)
    opened = open_engine(url)
    with ThreadPoolExecutor(2) as pool:
        with opened.begin() as connection:
            begin_migration(connection)
            upgrade(connection, "head")
            others = [pool.submit(cli, "migrate", directory=tmp_path, env=env) for _ in range(2)]
            eventually(lambda: len(rows(url, WAITING)) == 2, "both wait")
        for other in others:
            assert other.result().returncode == 0, other.result().stderr
    opened.dispose()


def test_postgresql_counts_on_behind_rows_that_were_copied(tmp_path: Path) -> None:
    url = new_outbox("postgresql", tmp_path)
    env = sender_environment(CRM_OUTBOX_URL=url)

    def enqueue() -> subprocess.CompletedProcess[str]:
        body = json.dumps(repair_request())
        return cli("enqueue", "repair-request", "-", directory=tmp_path, env=env, stdin=body)

    def numbers() -> list[int]:
        return [row["sequence"] for row in rows(url, "SELECT sequence FROM crm_outbox ORDER BY sequence")]

    assert enqueue().returncode == 0
    trail = "INSERT INTO crm_outbox_trail (event_id, at, actor, verb, detail) VALUES ('e', 1, 'a', 'v', '')"
    rows(url, trail)
    for counted in ("'crm_outbox', 'sequence'", "'crm_outbox_trail', 'number'"):
        rows(url, f"SELECT setval(pg_get_serial_sequence({counted}), 1, false)")
    done = enqueue()
    assert (done.returncode, "crm-sender migrate" in done.stderr) == (1, True), done.stderr
    assert cli("migrate", directory=tmp_path, env=env).returncode == 0
    assert enqueue().returncode == 0
    assert numbers() == [1, 2]
    rows(url, trail)
    assert cli("migrate", directory=tmp_path, env=env).returncode == 0
    assert enqueue().returncode == 0
    assert numbers() == [1, 2, 3]
