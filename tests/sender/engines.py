"""A migrated outbox of a test's own, on SQLite and on PostgreSQL: the databases that a booking site may have.

A test that takes `outbox_url` runs on both, on PostgreSQL in `make faults`: what is particular to that is tried each
time by those that name their engine.
"""

from __future__ import annotations

import atexit
import shutil
import sqlite3
import tempfile
import uuid
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from tests import postgresql
from tests.postgresql import shared_postgresql
from tests.sender.site import cli, migrated_outbox, sender_environment

ENGINES = ("sqlite", "postgresql")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def outbox_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an outbox that `crm-sender migrate` made, and that nobody else uses."""
    return new_outbox(str(request.param), tmp_path)


def new_outbox(engine: str, directory: Path) -> str:
    """Return the address of a new outbox; SQLite's is a file in the directory."""
    if engine == "postgresql":
        url = shared_postgresql().url(shared_postgresql().create(_migrated_template()))
    else:
        shutil.copy(_migrated_file(), directory / "outbox.sqlite3")
        url = f"sqlite:///{directory / 'outbox.sqlite3'}"
    rows(url, "UPDATE crm_outbox_state SET outbox_id = ?", str(uuid.uuid4()))  # a copy's was the original's
    return url


def new_database(engine: str, directory: Path) -> str:
    """Return the address of a new database that holds nothing."""
    if engine == "postgresql":
        return shared_postgresql().url(shared_postgresql().create())
    (directory / "empty.sqlite3").touch()
    return f"sqlite:///{directory / 'empty.sqlite3'}"


def rows(url: str, statement: str, *parameters: object) -> list[Any]:
    """Read from a database, or write to it, beside who uses it; rows are read by position and by name."""
    if url.startswith("postgresql"):
        return list(postgresql.run(url, statement, *parameters))
    path = make_url(url).database
    assert path
    with closing(sqlite3.connect(path, timeout=10)) as connection, connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(statement, parameters).fetchall()


@cache
def _migrated_file() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="migrated-"))
    atexit.register(shutil.rmtree, directory)
    return migrated_outbox(directory)


@cache
def _migrated_template() -> str:
    name = shared_postgresql().create()
    environment = sender_environment(CRM_OUTBOX_URL=shared_postgresql().url(name))
    with tempfile.TemporaryDirectory() as directory:
        done = cli("migrate", directory=Path(directory), env=environment)
    assert done.returncode == 0, done.stderr
    return name
