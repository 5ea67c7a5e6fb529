"""The outbox lies in the bookings' database: nothing of ours may loosen the locks that a site holds on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from sender import CRM, SenderSettings
from sender import cli as crm_sender
from tests.factories import repair_request

LOOK = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchone()[0])"


def look(database: Path, statement: str) -> str:
    """Open the database in another program, read, and leave."""
    command = [sys.executable, "-c", LOOK, str(database), statement]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_bookings_outlive_a_program_that_looks_at_the_database_and_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "site.sqlite3"
    url = f"sqlite:///{database}"
    monkeypatch.setenv("CRM_OUTBOX_URL", url)
    assert crm_sender.main(["migrate"]) == 0
    site = create_engine(url)
    with site.begin() as connection:  # the site's connection stays open, in its pool
        connection.execute(text("CREATE TABLE bookings (number INTEGER)"))
    crm = CRM(SenderSettings(outbox_url=url))
    for number in range(5):
        with site.begin() as connection:
            connection.execute(text("INSERT INTO bookings VALUES (:number)"), {"number": number})
            crm.repair_requested(repair_request(), connection)
        assert look(database, "SELECT count(*) FROM bookings") == str(number + 1)
        assert look(database, "SELECT count(*) FROM crm_outbox") == str(number + 1)
    site.dispose()
