"""The outbox's engine, and the one place where SQLite and PostgreSQL differ."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Engine, Table, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.sql.dml import ReturningInsert

from sender.errors import NotMigrated

BUSY_WAIT = 4.0
"""Seconds to wait for SQLite's one writer: less than an attempt may take."""


def open_engine(url: str, *, create: bool = False) -> Engine:
    """Return an engine for the outbox: no parameters in errors, and on SQLite durable, private and erasing.

    Raises NotMigrated when SQLite's file is not there, unless it is to be created.
    """
    parsed = make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, hide_parameters=True, pool_pre_ping=True)
    if parsed.database and parsed.database != ":memory:":
        path = Path(parsed.database)
        if create:
            _make_private(path)
        elif not path.exists():
            raise NotMigrated(f"there is no outbox at {path}; create it with: crm-sender migrate")
    engine = create_engine(parsed, hide_parameters=True, connect_args={"timeout": BUSY_WAIT})
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return engine


def _make_private(path: Path) -> None:
    """Create a database file, which holds personal data, for its owner alone, unless it is there.

    One that is there is never opened: closing it again would drop every lock that this process has
    on it (POSIX), those of the site's own connections too, and the next program to leave the
    database would delete the log that they go on writing to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _set_pragmas(connection: Any, _: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's begin is ours, see _begin
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    """Take SQLite's write lock at once: a transaction that reads first would fail when another wrote meanwhile."""
    begin = connection.get_execution_options().get("begin", "BEGIN IMMEDIATE")
    if begin:
        connection.exec_driver_sql(begin)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads, and takes no lock that others would wait for."""
    with engine.connect().execution_options(begin="BEGIN") as connection, connection.begin():
        yield connection


@cache
def insert_or_ignore(dialect: str, table: Table, returning: Column[Any]) -> ReturningInsert[Any]:
    """Return `INSERT … ON CONFLICT DO NOTHING RETURNING …` in a dialect; to build it costs more than to run it."""
    # Imported when it is known which: every booking process would pay for both at its start.
    module: Any = import_module(f"sqlalchemy.dialects.{dialect}")
    statement: ReturningInsert[Any] = module.insert(table).on_conflict_do_nothing().returning(returning)
    return statement


def commits_by_itself(connection: Connection) -> bool:
    """Say whether a connection is in autocommit mode, where event and booking could part."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        # A site that says BEGIN by itself, as SQLAlchemy's recipe has it, sets no isolation level either.
        by_itself = driver.isolation_level is None or getattr(driver, "autocommit", None) is True
        return by_itself and not driver.in_transaction
    return bool(connection.dialect.detect_autocommit_setting(driver))


def commits_savepoints(connection: Connection) -> bool:
    """Say whether a savepoint is open that may be its own transaction.

    Python's sqlite3 sends BEGIN before an INSERT, not before a SAVEPOINT: when that came first, its
    RELEASE commits, and nothing tells whether it did.
    """
    driver: Any = connection.connection.driver_connection
    is_sqlite = connection.dialect.name == "sqlite"
    return is_sqlite and connection.in_nested_transaction() and driver.isolation_level is not None


def leave_no_copies(connection: Connection) -> None:
    """Let a site's own SQLite connection overwrite what it frees: moving rows leaves copies of payloads."""
    if connection.dialect.name == "sqlite" and "crm_outbox" not in connection.info:
        connection.exec_driver_sql("PRAGMA secure_delete=ON")
        connection.info["crm_outbox"] = True


def truncate_log(engine: Engine) -> bool:
    """Empty SQLite's write-ahead log, which still holds erased bytes. Return whether it is empty now.

    On a connection that waits for nobody: a truncating checkpoint that waits blocks every writer.
    """
    if engine.dialect.name != "sqlite":
        return True
    with engine.connect().execution_options(begin=None) as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=0")
        try:
            busy, *_ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
        finally:
            connection.exec_driver_sql(f"PRAGMA busy_timeout={int(BUSY_WAIT * 1000)}")
    return not busy
