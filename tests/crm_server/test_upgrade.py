"""A database of an earlier step keeps what it holds."""

import sqlite3
from pathlib import Path

from crm_server.migrations import migrate
from tests.crm_server.conftest import migrate_to

FIRST = """
INSERT INTO customers (id, website_user_id, created_at) VALUES ('c', 'user', 'now');
INSERT INTO tickets (id, website_repair_id, ticket_number, customer_id, status, device_type, notes, booked_at,
    created_at) VALUES ('t', 'repair', 'REV-1', 'c', 'open', 'Phone', 'Mind the dog', 'then', 'now');
INSERT INTO audit_trail (at, actor, verb, record, record_id, pointers)
    VALUES ('now', 'cli:me', 'open', 'ticket', 't', '[]');
"""


def test_what_an_earlier_release_recorded_is_there_after_the_newest_step(tmp_path: Path) -> None:
    path = tmp_path / "crm.sqlite3"
    database = migrate_to("0001", path)
    file = sqlite3.connect(path)
    file.executescript(FIRST)
    migrate(database)
    database.close()
    (ticket,) = file.execute("SELECT ticket_number, status, notes FROM tickets").fetchall()
    assert ticket == ("REV-1", "open", "Mind the dog")
    assert file.execute("SELECT actor, origin FROM audit_trail").fetchall() == [("cli:me", None)]
    file.execute("UPDATE tickets SET status = 'in_repair'")
    assert file.execute("PRAGMA foreign_key_check").fetchall() == []
    assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    file.close()
