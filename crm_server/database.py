"""The engine: pragmas, transactions, and the one function in which SQLite and PostgreSQL differ."""

import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    ExceptionContext,
    Insert,
    Table,
    create_engine,
    event,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError, DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from crm_server.errors import ConfigurationError, Unavailable

BUSY_SECONDS = 4.0
"""How long a writer waits for another; less than the sender's time-out."""

WRITERS = 4351072946310297411
"""The number of the lock in PostgreSQL that whoever writes holds."""

TURN = f"""
SELECT set_config('lock_timeout', '{BUSY_SECONDS}s', true),
    set_config('idle_in_transaction_session_timeout', '{BUSY_SECONDS}s', true),
    set_config('synchronous_commit', 'on', true),
    pg_advisory_xact_lock({WRITERS})
"""
"""Begins a transaction that writes to PostgreSQL: one at a time, as SQLite has it, and on the disk when it
is committed. One whose process hangs is ended, so that the others get their turn."""

DEAD_PEER = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 5000,
}
"""How soon a PostgreSQL that is gone without a word is given up (libpq, 32.1.2); a URL may say otherwise."""

PRAGMAS = (
    f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    # 40 MB: a commit that moves the log into the database takes long, and pages that change often move once.
    "PRAGMA wal_autocheckpoint = 10000",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",
    "PRAGMA temp_store = MEMORY",
    # Without it INSERT OR REPLACE deletes rows behind the back of the triggers that forbid it.
    "PRAGMA recursive_triggers = ON",
    # Reads, and so opens the log, in a new file too.
    "PRAGMA schema_version",
)


class Database:
    """One database and the ways to use it: `reading` and `writing`, a transaction each."""

    def __init__(self, url: URL) -> None:
        """Prepare an engine; nothing is opened until the first transaction."""
        self.url = url
        self.file = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
        self.engine = open_engine(url)
        level = {} if self.file else {"isolation_level": "READ COMMITTED"}
        self._writer = self.engine.execution_options(writes=True, **level)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection in a transaction that only reads."""
        with self.engine.connect() as connection, self._transaction(connection):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection in a transaction that is committed at the end, rolled back on any error."""
        with self.connect_writer() as connection, self.writing_on(connection):
            yield connection

    def connect_writer(self) -> Connection:
        """Return a connection for `writing_on`, to be closed."""
        return self._writer.connect()

    @contextmanager
    def writing_on(self, connection: Connection) -> Iterator[None]:
        """Do as `writing` on a connection that is kept: to fetch one costs as much as to store two webhooks."""
        with self._transaction(connection):
            yield

    @contextmanager
    def _transaction(self, connection: Connection) -> Iterator[None]:
        try:
            with connection.begin():
                self._check_files(connection)
                yield
            # Once more: only a commit into files that are still there is a durable one.
            self._check_files(connection)
        except (DatabaseError, Unavailable) as error:
            if not isinstance(error, IntegrityError):
                self._start_afresh(connection)
            raise

    def _check_files(self, connection: Connection) -> None:
        """Refuse a connection to files that are no longer at their paths.

        SQLite goes on writing into deleted files; what it then calls durable is gone at the next start.
        """
        if not self.file:
            return
        try:
            same = connection.info["files"] == identify_files(str(self.file))
        except OSError:
            same = False
        if not same:
            raise Unavailable("The database's file is gone.")

    def _start_afresh(self, connection: Connection) -> None:
        """Close every connection: an old one goes on seeing a file that was mended as it was before.

        To close the last one also saves what only a deleted log holds: SQLite copies it into the database.
        Of PostgreSQL an old one may lead to a server that is no longer the one that is written to.
        """
        if self.file and self._is_replaced(connection):
            self._empty_log(connection)
        connection.invalidate()
        self.engine.dispose()

    def _is_replaced(self, connection: Connection) -> bool:
        try:
            return bool(connection.info["files"][0] != identify(str(self.file)))
        except OSError:
            return False

    def _empty_log(self, connection: Connection) -> None:
        """Have the old file take its log with it: it is still at its path, and would be read as the new one's."""
        driver: Any = connection.connection.driver_connection
        try:
            busy, *_ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error:
            busy = True
        if busy:
            raise Unavailable("The log of the database's old file is in the way of the new one.")

    def empty_log(self) -> bool:
        """Empty SQLite's write-ahead log, which still holds erased bytes; return whether it is empty now.

        It waits for nobody: a truncating checkpoint that waits blocks every writer meanwhile. Whoever reads
        from a snapshot keeps it from being emptied.
        """
        if not self.file:
            return True
        with self.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute("PRAGMA busy_timeout = 0")
            try:
                busy, *_ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.OperationalError as error:
                raise OperationalError("PRAGMA wal_checkpoint", None, error) from None
            finally:
                driver.execute(PRAGMAS[0])
        return not busy

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def open_engine(url: URL) -> Engine:
    """Return an engine whose errors hold no parameters, and which begins transactions as we need them.

    One that reads sees one state of the database from its beginning to its end. One that writes is alone.
    """
    return open_sqlite(url) if url.get_backend_name() == "sqlite" else open_postgresql(url)


def open_postgresql(url: URL) -> Engine:
    """Return an engine on PostgreSQL."""
    given = {n: value for n, value in {**DEAD_PEER, "client_encoding": "UTF8"}.items() if n not in url.query}
    try:
        engine = create_engine(
            url, hide_parameters=True, isolation_level="REPEATABLE READ", connect_args=given
        )
    except ModuleNotFoundError:
        raise ConfigurationError("PostgreSQL needs a driver: install psycopg[binary].") from None
    # First of all: SQLAlchemy's own questions to one in SQL_ASCII end in errors that say nothing.
    event.listen(engine, "connect", require_utf8, insert=True)
    event.listen(engine, "begin", begin_postgresql)
    event.listen(engine, "handle_error", leave_values_out)
    return engine


def require_utf8(connection: Any, _: object) -> None:
    """Raise ConfigurationError unless a database can hold every name that there is."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"The database's encoding is {encoding}, which cannot hold every text."
            " Create another: createdb --encoding UTF8 --template template0 NAME."
        )


def begin_postgresql(connection: Connection) -> None:
    """Wait for our turn, if the transaction that has begun will write."""
    if connection.get_execution_options().get("writes", False):
        connection.exec_driver_sql(TURN)


def leave_values_out(context: ExceptionContext) -> None:
    """Leave values out of what SQLAlchemy makes of an error too."""
    words = without_values(context.original_exception)
    if words and context.sqlalchemy_exception:
        context.sqlalchemy_exception.args = (words,)


def without_values(error: Any) -> str | None:
    """Leave in an error of PostgreSQL what is wrong, which is returned, and not its details, in which it repeats the row."""
    words: str | None = error.diag.message_primary if hasattr(error, "diag") else None
    if words:
        error.args = (words,)
    return words


def open_sqlite(url: URL) -> Engine:
    """Return an engine on SQLite, whose connections have our pragmas."""
    path = str(url.database)

    def connect() -> sqlite3.Connection:
        align_rights(path)
        # mode=rw: a missing file is an error, never a new, empty database.
        connection = sqlite3.connect(
            f"{Path(path).as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in PRAGMAS:
                connection.execute(pragma)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    engine = create_engine("sqlite://", creator=connect, hide_parameters=True, poolclass=QueuePool)
    event.listen(engine, "connect", lambda _, record: record.info.update(files=identify_files(path)))
    event.listen(engine, "begin", begin_sqlite)
    return engine


def begin_sqlite(connection: Connection) -> None:
    """Begin a transaction; a writer takes the lock at once.

    A deferred transaction that reads first and writes later fails at once, whatever `busy_timeout` says,
    when another process wrote in between.
    """
    writes = connection.get_execution_options().get("writes", False)
    execute_as_is(connection, "BEGIN IMMEDIATE" if writes else "BEGIN")


def identify_files(path: str) -> list[tuple[int, int]]:
    """Return what tells a database and its log from any others at the same paths."""
    return [identify(path + suffix) for suffix in ("", "-wal", "-shm")]


def identify(path: str) -> tuple[int, int]:
    """Return what tells one file from another at the same path."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def align_rights(path: str) -> None:
    """Give a database's log the rights that its file has.

    SQLite makes the log with those of the file, and leaves it behind where it may only read. When the file is given
    its rights back, nobody could write until the log is given them too.
    """
    with suppress(FileNotFoundError, PermissionError):  # SQLite says it when it opens them
        rights = stat.S_IMODE(os.stat(path).st_mode)
        for log in (f"{path}-wal", f"{path}-shm"):
            if os.path.exists(log) and stat.S_IMODE(os.stat(log).st_mode) != rights:
                os.chmod(log, rights)


def create_file(path: Path) -> None:
    """Create an empty database file that only its owner can read, unless there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # One that is there is not opened: closing it would drop this process's locks on it (POSIX).
    with suppress(FileExistsError):
        create_private(path)
        give_to_owner(path, path.parent)


def create_private(path: Path) -> None:
    """Create an empty file that its owner can read, and nobody else; raise FileExistsError when there is one."""
    # The umask may leave the owner nothing, and SQLite then opens the log beside the file to all.
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    path.chmod(0o600)


def give_to_owner(file: Path, of: Path) -> None:
    """Give what root has made to the owner of another file, for whom the server runs; SQLite does so with its logs."""
    if os.geteuid() == 0:
        owner = of.stat()
        os.chown(file, owner.st_uid, owner.st_gid)


def insert_or_ignore(dialect: str, table: Table) -> Insert:
    """Return `INSERT … ON CONFLICT DO NOTHING`, the one statement that the two databases spell apart."""
    insert: Any = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[dialect]
    statement: Insert = insert(table).on_conflict_do_nothing()
    # Whether anything was inserted is what one asks; of PostgreSQL SQLAlchemy tells it only to who says so.
    return statement.execution_options(preserve_rowcount=True)


def count_on(connection: Connection, table: Table) -> None:
    """Have PostgreSQL number on behind the last row: it does not know of rows that were copied. SQLite looks itself."""
    number = table.autoincrement_column
    if connection.dialect.name == "postgresql" and number is not None:
        connection.exec_driver_sql(f"""
            SELECT setval(counter, last) FROM (
                SELECT pg_get_serial_sequence('{table.name}', '{number.name}')::regclass AS counter,
                    max({number.name}) AS last
                FROM {table.name}
            ) AS found
            WHERE last > coalesce(pg_sequence_last_value(counter), 0)
        """)  # noqa: S608  # our names


def insert_new(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> int:
    """Insert those of some rows that nothing is in the way of; return how many.

    All have the same names, in the same order. They are one statement, for after each the thread waits for its
    turn with the interpreter; and SQLAlchemy would take longer to prepare them than SQLite to store them.
    """
    mark = {"qmark": "?", "pyformat": "%s"}[connection.dialect.paramstyle]
    places = f"({', '.join([mark] * len(rows[0]))})"
    names, all_places = ", ".join(rows[0]), ", ".join([places] * len(rows))
    statement = f"INSERT INTO {table.name} ({names}) VALUES {all_places} ON CONFLICT DO NOTHING"  # noqa: S608  # our names
    values = tuple(value for row in rows for value in row.values())
    count: int = execute_as_is(connection, statement, values).rowcount
    return count


def execute_as_is(connection: Connection, statement: str, values: Sequence[Any] = ()) -> Any:
    """Have the driver run a statement of its own dialect; return its cursor.

    For those of every batch: SQLAlchemy takes longer about each than SQLite. Raises what SQLAlchemy would.
    """
    cursor = connection.connection.cursor()
    dbapi: Any = connection.dialect.loaded_dbapi
    try:
        cursor.execute(statement, values)
    except dbapi.Error as error:
        without_values(error)
        raise DBAPIError.instance(
            statement, None, error, dbapi.Error, hide_parameters=True, dialect=connection.dialect
        ) from None
    return cursor


def is_database_error(error: BaseException) -> bool:
    """Tell whether the database, not our code, is at fault."""
    return isinstance(error, SQLAlchemyError | OSError | Unavailable)


def new_id() -> str:
    """Return a UUIDv7 (RFC 9562, section 5.7): ids sort by the time that they were made."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"  # uuid.UUID would take three times as long, for every webhook
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def utc_now(ago: timedelta = timedelta(0)) -> str:
    """Return the time, or that of a while ago, in UTC with microseconds, in a form that sorts as text."""
    return (datetime.now(UTC) - ago).isoformat(timespec="microseconds").replace("+00:00", "Z")
