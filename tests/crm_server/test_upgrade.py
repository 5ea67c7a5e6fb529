"""A database of an earlier step keeps what it holds, and what an earlier release runs still works on the newest."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, MetaData, select, text

from crm_server.database import Database, create_file
from crm_server.migrations import STEPS, migrate
from crm_server.settings import Settings
from tests.crm_server.conftest import ON_BOTH_IN_TIME, upgrade_to
from tests.postgresql import shared_postgresql

pytestmark = ON_BOTH_IN_TIME

DIGEST = "0" * 64
ROWS: dict[str, list[str]] = {
    "0001": [
        f"""INSERT INTO approvals (id, event, natural_key, webhook_id, contract, payload, digest, status, received_at)
            VALUES ('a', 'repair-request', 'key', 'w', '1.0.0', '{{}}', '{DIGEST}', 'pending_approval', 'now')""",
        "INSERT INTO customers (id, website_user_id, created_at) VALUES ('c', 'user', 'now')",
        """INSERT INTO tickets (id, website_repair_id, ticket_number, customer_id, status, device_type, notes,
            booked_at, created_at) VALUES ('t', 'repair', 'REV-1', 'c', 'open', 'Phone', 'Mind the dog', 'then', 'now')""",
        """INSERT INTO audit_trail (at, actor, verb, record, record_id, pointers)
            VALUES ('now', 'cli:me', 'open', 'ticket', 't', '[]')""",
        "INSERT INTO rejection_reasons (approval_id, reason) VALUES ('a', 'Spam')",
        "INSERT INTO heartbeat (id, at) VALUES (1, 'now')",
    ],
    "0002": [
        "INSERT INTO webhook_keys (fingerprint, first_used_at, last_used_at) VALUES ('f', 'now', 'now')"
    ],
    "0003": [
        "INSERT INTO staff (id, name, role, created_at) VALUES ('s', 'Grace', 'admin', 'now')",
        "INSERT INTO staff_tokens (digest, staff_id, created_at) VALUES ('d', 's', 'now')",
    ],
    "0004": [
        "INSERT INTO search_documents (sequence, public_words, personal_words) VALUES (1, ' phone', ' ada')",
        f"INSERT INTO search_terms (term, sequence, personal) VALUES ('ada', 1, {True})",
        "INSERT INTO searches (id, staff_id, text, created_at) VALUES ('q', 's', 'ada', 'now')",
    ],
    "0005": [
        """INSERT INTO decision_records (approval_id, record, record_id, created, fields)
            VALUES ('a', 'ticket', 't', true, '[]')""",
        "INSERT INTO ticket_notes (id, ticket_id, at, author, text) VALUES ('n', 't', 'now', 'me', 'Hello')",
    ],
    "0007": [
        "INSERT INTO staff_sessions (digest, staff_id, started_at, seen_at) VALUES ('d', 's', 'now', 'now')",
    ],
    "0008": [
        """INSERT INTO bulk_jobs (id, verb, state, reason, total, decided, refused, actor, started_at)
            VALUES ('j', 'reject', 'running', 'Spam', 2, 0, 1, 'staff:Grace', 'now')""",
        "INSERT INTO bulk_parts (job_id, number, sequences) VALUES ('j', 1, '[1]')",
        "INSERT INTO bulk_refusals (job_id, approval_id, why) VALUES ('j', 'a', 'number-taken')",
        """INSERT INTO customer_website_users (website_user_id, customer_id, approval_id)
            VALUES ('other', 'c', 'a')""",
        """INSERT INTO corrections (record, record_id, field, before, at, author)
            VALUES ('ticket', 't', 'notes', 'Mind the cat', 'now', 'staff:Grace')""",
    ],
    "0011": [
        """INSERT INTO release_uses (release, key, day, count, last_at)
            VALUES ('0.9.0', 'f', '2026-11-25', 1, 'now')""",
        "INSERT INTO retired_releases (release, retired_at) VALUES ('0.9.0', 'now')",
    ],
    "0012": [f"UPDATE bulk_jobs SET digest = '{DIGEST}'"],
    "0009": ["UPDATE erasure_state SET erasures = 3", "UPDATE customers SET erased_at = 'now'"],
    "0010": [
        f"""INSERT INTO approvals (id, event, natural_key, contract, payload, digest, status, received_at, about)
            VALUES ('p', 'payment-status', 'paid', '1.1.0', '{{}}', '{DIGEST}', 'pending_approval', 'now', 'key')""",
        "UPDATE tickets SET currency = 'GBP'",
    ],
}
"""What a release writes whose newest step this is, beside what those before it write."""


@pytest.fixture
def empty(tmp_path: Path, engine: str) -> Iterator[Database]:
    """A database in which there is nothing."""
    url = f"sqlite:///{tmp_path}/crm.sqlite3"
    if engine == "postgresql":
        url = shared_postgresql().url(shared_postgresql().create())
    database = Database(Settings.model_validate({"CRM_DATABASE_URL": url}).url)
    if database.file:
        create_file(database.file)
    yield database
    database.close()


def write_as(connection: Connection, step: str) -> None:
    """Write all that a release writes whose newest step this is."""
    for earlier in STEPS[: STEPS.index(step) + 1]:
        for statement in ROWS.get(earlier, []):
            connection.execute(text(statement))


def content(connection: Connection, columns: dict[str, list[str]] | None = None) -> dict[str, Any]:
    """Return the rows of all tables, or of some columns, as an earlier release reads them."""
    tables = MetaData()
    tables.reflect(connection)
    return {
        name: [tuple(row) for row in connection.execute(select(*(tables.tables[name].c[c] for c in some)))]
        for name, some in (columns or columns_of(connection)).items()
        if name != "alembic_version"
    }


def columns_of(connection: Connection) -> dict[str, list[str]]:
    tables = MetaData()
    tables.reflect(connection)
    return {t.name: [c.name for c in t.columns] for t in tables.sorted_tables}


@pytest.mark.parametrize("step", STEPS)
def test_what_an_earlier_release_recorded_is_there_after_the_newest_step(empty: Database, step: str) -> None:
    upgrade_to(empty, step)
    with empty.writing() as connection:
        write_as(connection, step)
    with empty.reading() as connection:
        columns, before = columns_of(connection), content(connection)
    migrate(empty)
    with empty.reading() as connection:
        assert content(connection, columns) == before
    with empty.writing() as connection:
        connection.execute(text("UPDATE tickets SET status = 'in_repair'"))
        if empty.file:
            assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
            assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"


@pytest.mark.parametrize("step", STEPS)
def test_an_earlier_release_still_writes_and_reads_on_the_newest_step(empty: Database, step: str) -> None:
    upgrade_to(empty, step)
    with empty.reading() as connection:
        columns = columns_of(connection)
    migrate(empty)
    with empty.writing() as connection:
        write_as(connection, step)
    with empty.reading() as connection:
        assert all(rows for rows in content(connection, columns).values())
