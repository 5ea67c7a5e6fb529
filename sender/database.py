"""The outbox's engine, and the one place where SQLite and PostgreSQL differ."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any
from weakref import WeakSet

from sqlalchemy import (
    JSON,
    URL,
    Column,
    Connection,
    Dialect,
    Engine,
    FromClause,
    Insert,
    NullPool,
    String,
    Table,
    bindparam,
    cast,
    column,
    create_engine,
    event,
    func,
    select,
    text,
    type_coerce,
)
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import DatabaseError, DBAPIError, DisconnectionError, IntegrityError
from sqlalchemy.pool import ConnectionPoolEntry

from sender.errors import NotMigrated, SettingsError
from sender.settings import without_secrets

BUSY_WAIT = 4.0
"""Seconds to wait for SQLite's one writer, or for a lock of PostgreSQL's: less than an attempt may take."""

OUR_DRIVER = "postgresql+psycopg"
"""Which driver talks to PostgreSQL, unless a URL names another."""

DEAD_PEER = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 5000,
}
"""How soon a PostgreSQL that is gone without a word is given up (libpq, 32.1.2); a URL may say otherwise."""

LOCK_WAIT = 1.0
"""Seconds for which a migration waits for tables that are in use, and then rests."""

LOCK_NOT_AVAILABLE = "55P03"
"""As PostgreSQL says it (its appendix A)."""

CLAIMERS = 4351072946310297412
"""The number of the lock in PostgreSQL that whoever claims holds."""

MIGRATORS = 4351072946310297413
"""The number of the lock in PostgreSQL that whoever migrates holds."""

CHANNEL = "crm_outbox"
"""Where PostgreSQL tells of a commit that holds events."""

_NOW = "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"
_TIME = text(f"SELECT {_NOW}")
_BEGIN = f"""
SELECT set_config('lock_timeout', '{BUSY_WAIT}s', true),
    set_config('idle_in_transaction_session_timeout', '{BUSY_WAIT}s', true), {_NOW}
"""
# Without statistics, as after a night of bookings in one go, PostgreSQL would read and sort all that waits.
_LOOK = text(
    f"SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true), {_NOW}"
)
_WORK = text(_BEGIN)
_CLAIM = text(f"{_BEGIN}, pg_try_advisory_xact_lock({CLAIMERS})")
_MIGRATE = text(f"SELECT pg_advisory_xact_lock({MIGRATORS})")
_TELLS = text("""
SELECT 1 FROM pg_trigger
WHERE tgrelid = to_regclass('crm_outbox') AND tgname = 'crm_outbox_tells' AND tgenabled <> 'D'
""")

COVER_END = "\n"
LEAST_COVER = " " * 512
"""What every cover begins with: SQLite has no smaller pages."""

PAUSE = 0.001
"""Seconds between two write transactions: SQLite has one writer, and bookings must get their turn."""


def open_engine(url: str, *, create: bool = False, ping: bool = True) -> Engine:
    """Return an engine for the outbox: no parameters in errors, and on SQLite durable, private and erasing.

    With `ping` a connection that PostgreSQL has ended meanwhile is replaced before it is used, for one
    more way there and back; without, the first transaction after that fails.

    Raises NotMigrated when SQLite's file is not there, unless it is to be created, and SettingsError when
    PostgreSQL's driver is not, or the address says what the driver does not take. A connection to PostgreSQL raises SettingsError unless its database can
    hold every text.
    """
    parsed = _with_our_driver(url)
    if parsed.get_backend_name() != "sqlite":
        engine = _engine(parsed, pool_pre_ping=ping)
        if parsed.drivername == OUR_DRIVER:
            # First of all: SQLAlchemy's own questions to one in SQL_ASCII end in errors that say nothing.
            event.listen(engine, "connect", _require_utf8, insert=True)
        return engine
    engine = _engine(parsed, connect_args={"timeout": BUSY_WAIT})
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "handle_error", _distrust)
    if parsed.database and parsed.database != ":memory:":
        path = Path(parsed.database)
        if create:
            _make_private(path)
        _require_file(path)
        _stay_with_file(engine, path)
    return engine


@contextmanager
def glancing(url: str) -> Iterator[Connection]:
    """Read from the outbox over a connection that changes nothing and is closed again.

    Booking code may do so while its own connection writes there: SQLite could not be switched to its
    write-ahead log then. A connection that stayed would keep PostgreSQL from dropping a test's database.
    Raises what `open_engine` does.
    """
    parsed = _with_our_driver(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        _require_file(Path(parsed.database))
    with _engine(parsed, poolclass=NullPool).connect() as connection:
        yield connection


def _engine(url: URL, **options: Any) -> Engine:
    if url.drivername == OUR_DRIVER:
        ours = {**DEAD_PEER, "client_encoding": "UTF8"}
        options["connect_args"] = {name: value for name, value in ours.items() if name not in url.query}
    try:
        engine = create_engine(url, hide_parameters=True, **options)
    except ImportError:  # psycopg alone, without the system's libpq, is no driver either
        raise SettingsError("CRM_OUTBOX_URL: PostgreSQL needs a driver: install psycopg[binary]") from None
    except ValueError:
        words = "CRM_OUTBOX_URL: what stands behind its ? is nothing that the driver takes"
        raise SettingsError(words) from None
    _opened.add(engine)
    return engine


_opened: WeakSet[Engine] = WeakSet()


def _leave_to_parent() -> None:
    """Have a process that was forked open connections of its own: over one that it shares both would talk at once."""
    for engine in _opened:
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):  # where processes can be forked
    os.register_at_fork(after_in_child=_leave_to_parent)


def _require_utf8(connection: Any, _: object) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise SettingsError(
            f"CRM_OUTBOX_URL names a database whose encoding is {encoding}, which cannot hold every text;"
            " create another: createdb --encoding UTF8 --template template0 NAME"
        )


def _with_our_driver(url: str) -> URL:
    parsed = make_url(url)
    return parsed.set(drivername=OUR_DRIVER) if parsed.drivername == "postgresql" else parsed


def _require_file(path: Path) -> None:
    if not path.exists():
        raise NotMigrated(f"there is no outbox at {path}; create it with: crm-sender migrate")


def _stay_with_file(engine: Engine, path: Path) -> None:
    """Use no connection to files that are no longer at their paths, and make no new file in their place.

    SQLite goes on reading and writing deleted files: what is committed there is gone at the next start.
    """

    driver: Any = engine.dialect.loaded_dbapi

    def check(connection: Any, record: ConnectionPoolEntry, _: object) -> None:
        opened = record.info.get("files")
        if opened == _identify(path):
            return
        if opened and path.exists():
            # Of a log that was deleted this saves the content; one that is another's is left empty for it.
            with suppress(driver.Error):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        raise DisconnectionError("the outbox's files are not those that were opened")

    event.listen(engine, "do_connect", lambda *_: _require_file(path))
    event.listen(engine, "do_connect", lambda *_: _align_rights(path))
    event.listen(engine, "connect", lambda _, record: record.info.update(files=_identify(path)))
    event.listen(engine, "checkout", check)


def _align_rights(path: Path) -> None:
    """Give the log the rights that the database has.

    SQLite makes it with those of the file, and leaves it behind where it may only read. When the file is given its
    rights back, nobody could write, no booking either, until the log is given them too.
    """
    with suppress(FileNotFoundError, PermissionError):  # SQLite says it when it opens them
        file = path.resolve()  # beside which SQLite has its log
        rights = stat.S_IMODE(file.stat().st_mode)
        for log in (Path(f"{file}-wal"), Path(f"{file}-shm")):
            if log.exists() and stat.S_IMODE(log.stat().st_mode) != rights:
                log.chmod(rights)


def _identify(path: Path) -> list[tuple[int, int] | None]:
    """Return what tells a database and its log from any others at the same paths, None for what is missing."""
    found: list[tuple[int, int] | None] = []
    for suffix in ("", "-wal", "-shm"):
        try:
            status = os.stat(f"{path}{suffix}")
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino))
    return found


def _distrust(context: ExceptionContext) -> None:
    """Use no connection again that failed: it would see a file that is mended as it was before."""
    error = context.sqlalchemy_exception
    if context.connection and isinstance(error, DatabaseError) and not isinstance(error, IntegrityError):
        # Not as a disconnect, which leaves the transaction open: SQLite's lock would stay as well.
        context.connection.info.pop("files", None)


def words_of(error: DBAPIError) -> str:
    """Return what a database says of an error, without what it may say of a row's content."""
    original: Any = error.orig
    if type(original).__module__ == "sqlite3":
        # SQLite's own words name tables and columns; those of Python's module quote text that is not UTF-8.
        return str(original) if hasattr(original, "sqlite_errorname") else type(original).__name__
    return _primary_words(original) or str(original)


def _primary_words(original: Any) -> str | None:
    """Return what PostgreSQL says first of an error, by whichever driver; its details show the row."""
    if answered := _answered(original):
        return answered.get("M")
    if hasattr(original.__cause__, "detail"):  # asyncpg's own, from which SQLAlchemy raises the other
        return str(original.__cause__.args[0])
    found: str | None = getattr(getattr(original, "diag", None), "message_primary", None)
    return found


def _answered(error: Any) -> dict[str, str] | None:
    """Return the fields of the server's answer, where a driver has all of them as its error: pg8000."""
    first = next(iter(getattr(error, "args", ())), None)
    return first if isinstance(first, dict) else None


def leave_values_out(error: DBAPIError) -> None:
    """Leave in an error what is wrong, and not its details, in which PostgreSQL repeats the row."""
    original: Any = error.orig
    if words := _primary_words(original):
        error.args = original.args = (words,)
        # What asyncpg and pg8000 raised first, a traceback shows too.
        if hasattr(original.__cause__, "detail"):
            original.__cause__.detail = None
        if _answered(original.__context__):
            original.__context__.args = (words,)


def address_of(connection: Connection) -> str:
    """Return which database a connection is to, without a password."""
    url = connection.engine.url
    if url.database is None:  # it was not made by its engine's address
        is_sqlite = connection.dialect.name == "sqlite"
        ask = "SELECT file FROM pragma_database_list" if is_sqlite else "SELECT current_database()"
        url = url.set(database=connection.exec_driver_sql(ask).scalar())
    return without_secrets(url)


def _make_private(path: Path) -> None:
    """Create a database file, which holds personal data, for its owner alone, unless it is there.

    One that is there is never opened: closing it again would drop every lock that this process has
    on it (POSIX), those of the site's own connections too, and the next program to leave the
    database would delete the log that they go on writing to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        # The umask may leave the owner nothing, and SQLite then opens the log beside the file to all.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        path.chmod(0o600)
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            owner = path.parent.stat()  # of the site, whose relay is not root's
            os.chown(path, owner.st_uid, owner.st_gid)


def _set_pragmas(connection: Any, _: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's begin is ours, see _begin
    # One text that is damaged must not keep us from the rows beside it; its digest tells what it was.
    connection.text_factory = lambda raw: raw.decode("utf-8", "backslashreplace")
    # The last one reads, and so opens the log, in a new file too.
    for pragma in (
        "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON", "temp_store=MEMORY",
        "schema_version",
    ):  # fmt: skip
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    """Take SQLite's write lock at once: a transaction that reads first would fail when another wrote meanwhile."""
    begin = connection.get_execution_options().get("begin", "BEGIN IMMEDIATE")
    if begin:
        connection.exec_driver_sql(begin)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads, sees one state of all, and takes no lock that others would wait for."""
    options = (
        {"begin": "BEGIN"} if engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
    )
    with engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


def time_of(connection: Connection, clock: Callable[[], float]) -> float:
    """Return the time by which leases and due times run: PostgreSQL's own, or what the host's `clock` tells."""
    return float(connection.scalar(_TIME)) if connection.dialect.name == "postgresql" else clock()


def begin_look(connection: Connection, clock: Callable[[], float]) -> float:
    """Begin a transaction that looks for what is due, in the order of the indexes, and return `time_of` it."""
    return float(connection.execute(_LOOK).one()[2]) if connection.dialect.name == "postgresql" else clock()


def begin_work(connection: Connection, clock: Callable[[], float]) -> float:
    """Begin a transaction that writes beside bookings and relays, and return `time_of` it.

    PostgreSQL lets it wait for nobody for longer than SQLite does, and ends it when its process stands
    still, so that the others get what it has locked.
    """
    if connection.dialect.name == "postgresql":
        return float(connection.execute(_WORK).one()[2])
    return clock()


def begin_claim(connection: Connection, clock: Callable[[], float]) -> float | None:
    """Do as `begin_work` where no other relay claims, or return None: who may not looks again later.

    One transaction at a time may claim, so that each sees the leases of those before it. SQLite has one
    writer anyway.
    """
    if connection.dialect.name == "postgresql":
        _, _, now, is_first = connection.execute(_CLAIM).one()
        return float(now) if is_first else None
    return clock()


def begin_migration(connection: Connection) -> None:
    """Have one at a time migrate: who comes later waits, and finds it done. SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(_MIGRATE)
        # Whoever books waits behind who waits for a table.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_WAIT}s'")


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


def is_lock_timeout(error: DBAPIError) -> bool:
    """Say whether PostgreSQL gave up waiting for a lock."""
    return getattr(error.orig, "sqlstate", None) == LOCK_NOT_AVAILABLE


@cache
def insert_or_ignore(dialect: str, table: Table) -> Insert:
    """Return `INSERT … ON CONFLICT DO NOTHING` in a dialect."""
    # Imported when it is known which: every booking process would pay for both at its start.
    module: Any = import_module(f"sqlalchemy.dialects.{dialect}")
    statement: Insert = module.insert(table).on_conflict_do_nothing()
    return statement


@lru_cache(maxsize=16)  # a site has few engines, each with its dialect
def _written(statement: Insert, names: tuple[str, ...], dialect: Dialect) -> tuple[str, Sequence[str] | None]:
    compiled = statement.inline().compile(dialect=dialect, column_keys=names)
    return compiled.string, compiled.positiontup


def insert_one(connection: Connection, statement: Insert, row: Mapping[str, Any]) -> bool:
    """Run an INSERT of one row whose values the driver takes as they are; say whether there is a row more.

    As text that was written once: SQLAlchemy's preparations would else be an eighth of what a booking waits for.
    """
    if connection.get_execution_options().get("schema_translate_map"):
        # To a tenant's schema, which no text knows.
        statement = statement.execution_options(preserve_rowcount=True)
        return connection.execute(statement, row).rowcount == 1
    written, order = _written(statement, tuple(row), connection.dialect)
    values = row if order is None else tuple([row[name] for name in order])
    return connection.exec_driver_sql(written, values).rowcount == 1


@cache
def insert_or_add(dialect: str, table: Table, number: Column[Any]) -> Insert:
    """Return an INSERT that adds to the number of the row that is there already."""
    module: Any = import_module(f"sqlalchemy.dialects.{dialect}")
    statement = module.insert(table)
    summed = {number: number + statement.excluded[number.name]}
    added: Insert = statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=summed)
    return added


def given_rows(dialect: str, *columns: Column[Any]) -> FromClause:
    """Return a table with these columns: the objects in `rows`, a parameter that is a JSON array of them.

    So many rows are one statement.
    """
    rows = bindparam("rows", type_=String)
    if dialect == "postgresql":
        typed = [column(c.name, c.type) for c in columns]
        return func.json_to_recordset(cast(rows, JSON)).table_valued(*typed).render_derived(with_types=True)
    each = func.json_each(rows).table_valued("value").c.value
    return select(
        *[type_coerce(func.json_extract(each, f"$.{c.name}"), c.type).label(c.name) for c in columns]
    ).subquery()


def commits_by_itself(connection: Connection) -> bool:
    """Say whether a connection is in autocommit mode, where event and booking could part."""
    if connection.dialect.name == "sqlite":
        driver: Any = connection.connection.driver_connection
        # A site that says BEGIN by itself, as SQLAlchemy's recipe has it, sets no isolation level either.
        by_itself = driver.isolation_level is None or getattr(driver, "autocommit", None) is True
        return by_itself and not driver.in_transaction
    adapted: Any = connection.connection.dbapi_connection
    # psycopg's `with connection.transaction()` begins one in autocommit mode too; 0 is "idle".
    begun = hasattr(adapted, "info") and adapted.info.transaction_status != 0
    return bool(connection.dialect.detect_autocommit_setting(adapted)) and not begun


def commits_savepoints(connection: Connection) -> bool:
    """Say whether a savepoint is open that may be its own transaction.

    Python's sqlite3 sends BEGIN before an INSERT, not before a SAVEPOINT: when that came first, its
    RELEASE commits, and nothing tells whether it did. With `autocommit=False` (Python 3.12) it sends
    one at all times.
    """
    driver: Any = connection.connection.driver_connection
    guesses = connection.dialect.name == "sqlite" and driver.isolation_level is not None
    return guesses and getattr(driver, "autocommit", None) is not False and connection.in_nested_transaction()


def is_pipelined(connection: Connection) -> bool:
    """Say whether this is a connection of psycopg in pipeline mode, where what a statement did is not known yet."""
    driver: Any = connection.connection.driver_connection
    return bool(getattr(getattr(driver, "pgconn", None), "pipeline_status", 0))


def leave_no_copies(connection: Connection) -> None:
    """Let a site's own SQLite connection overwrite what it frees: moving rows leaves copies of payloads."""
    if connection.dialect.name == "sqlite" and "crm_outbox" not in connection.info:
        connection.exec_driver_sql("PRAGMA secure_delete=ON")
        connection.info["crm_outbox"] = True


def cover_of(connection: Connection) -> str:
    """Return what is written before a payload, so that SQLite keeps none of it in a page that it rearranges.

    Such a page keeps copies of what was moved, whatever `secure_delete` says. As much of a row as fits stands
    in it, a page less some bytes at most; the rest stands in pages of its own, which are never rearranged and
    are overwritten when they are freed. White space means nothing in JSON.
    """
    if connection.dialect.name != "sqlite":
        return ""
    if "crm_outbox_cover" not in connection.info:
        size = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
        connection.info["crm_outbox_cover"] = " " * int(size) + COVER_END
    return str(connection.info["crm_outbox_cover"])


def uncovered(payload: str | None) -> str | None:
    """Return a payload that SQLite stores as it was given; one of before there were covers has none."""
    cover, _, given = (payload or "").partition(COVER_END)
    return given if given and cover.startswith(LEAST_COVER) and not cover.strip(" ") else payload


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


class Commits:
    """What tells a relay of a booking's commit: PostgreSQL's NOTIFY. A hint; nothing is missed without it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._try_at = 0.0

    def wait(self, poll: float, slow_poll: float) -> None:
        """Wait for a commit; for `slow_poll` seconds at most, or for `poll` when nobody would tell."""
        self._look_for_teller()
        if self._connection is None:
            time.sleep(poll)
            return
        driver: Any = self._connection.connection.driver_connection
        try:
            for _ in driver.notifies(timeout=slow_poll, stop_after=1):
                pass
        except self._engine.dialect.loaded_dbapi.Error:
            self.close()

    def close(self) -> None:
        """Stop listening."""
        if self._connection is not None:
            self._connection.invalidate()  # so that nobody else is given one that listens
            self._connection.close()
            self._connection = None

    def _look_for_teller(self) -> None:
        """Listen where commits are told of, on a connection of its own; look for that every few seconds."""
        if self._engine.dialect.driver == "psycopg" and time.monotonic() >= self._try_at:
            self._try_at = time.monotonic() + BUSY_WAIT
            if self._connection is None:
                with suppress(DBAPIError):
                    self._listen()

    def _listen(self) -> None:
        with ExitStack() as stack:
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            stack.callback(connection.close)
            if connection.scalar(_TELLS):
                connection.exec_driver_sql(f"LISTEN {CHANNEL}")
                self._connection = connection
                stack.pop_all()
