"""The caller's transaction, whatever it was begun with, as a SQLAlchemy connection that cannot end it.

SQLAlchemy's own sessions have one. A driver's connection, and Django's, is lent to SQLAlchemy for as
long as a statement takes: there is one place for SQL, and one way to write an event.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, cast
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect, Engine, NullPool
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from sender.database import leave_values_out

if TYPE_CHECKING:
    import sqlite3

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session, scoped_session

T = TypeVar("T")


class DjangoConnection(Protocol):
    """`django.db.connection`, or one of `django.db.connections`."""

    connection: Any
    in_atomic_block: bool

    def ensure_connection(self) -> None:
        """Connect, unless it is connected."""


class AiosqliteConnection(Protocol):
    """A connection of aiosqlite."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""

    @property
    def total_changes(self) -> int:
        """The rows that were changed over it."""

    def cursor(self) -> Any:
        """Return a cursor, when awaited."""


Transaction: TypeAlias = (
    "Session | scoped_session[Any] | Connection | sqlite3.Connection | psycopg.Connection[Any]"
    " | DjangoConnection"
)
"""What booking code may hand on as its transaction."""

AsyncTransaction: TypeAlias = (
    "AsyncSession | AsyncConnection | psycopg.AsyncConnection[Any] | AiosqliteConnection"
)
"""What booking code on asyncio may hand on as its transaction."""

_SQLALCHEMY = {"sqlalchemy.Session", "sqlalchemy.scoped_session"}
_DJANGO = {"django.BaseDatabaseWrapper", "django.ConnectionProxy"}
_DRIVERS = {"sqlite3.Connection": "sqlite://", "psycopg.Connection": "postgresql+psycopg://"}
_ASYNC_DRIVERS = {"aiosqlite.Connection": "sqlite://", "psycopg.AsyncConnection": "postgresql+psycopg://"}


@contextmanager
def joined(session: Transaction | Awaited) -> Iterator[tuple[Connection, object]]:
    """Yield a connection in the caller's transaction, and what leads to the same database always.

    The latter is an engine, or the driver's connection. A database's error is raised as the caller's
    own code knows it: SQLAlchemy's, Django's or the driver's; without the row, which PostgreSQL
    repeats in its details. Raises TypeError for what is no such session.
    """
    if isinstance(session, Connection):
        with _without_values():
            yield session, session.engine
        return
    given: Any = session
    is_awaited = isinstance(session, Awaited)
    theirs = given.theirs if is_awaited else given
    kind = _kind_of(theirs.__class__)
    if is_awaited and kind not in _ASYNC_DRIVERS:
        # A scoped_session and Django's connection are others in the thread that we would use them in.
        raise TypeError(
            "AsyncCRM writes an event in a transaction of asyncio, of SQLAlchemy (AsyncSession, AsyncConnection), "
            f"psycopg or aiosqlite, not {_named(theirs)}; CRM takes those that are not asyncio's, and "
            "Django's within sync_to_async"
        )
    if kind in _SQLALCHEMY:
        connection = given.connection()
        with _without_values():
            yield connection, connection.engine
    elif kind in _DJANGO:
        given.ensure_connection()
        given.validate_no_broken_transaction()  # as Django's own statements do: it would be rolled back without a word
        with given.wrap_database_errors, joined(given.connection) as found:
            yield found
    elif kind in _DRIVERS or is_awaited:
        with _driver_errors(), _lent(given, kind) as connection:
            yield connection, theirs
    else:
        asks_to_wait = kind in _ASYNC_DRIVERS or hasattr(session, "run_sync")
        hint = "AsyncCRM takes those of asyncio, not this " if asks_to_wait else "not "
        raise TypeError(
            "an event is written in a transaction of SQLAlchemy (Session, Connection), sqlite3, psycopg or "
            f"Django (django.db.connection), {hint}{_named(session)}"
        )


def _named(given: object) -> str:
    """Return what something is, with its package: psycopg2's connection is a `connection` too."""
    cls = type(given)
    return cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"


@cache
def _kind_of(cls: Hashable) -> str:
    """Return the name of a class, or of what it is made from, that we know by its package: none is imported for it."""
    names = (f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in cast(type, cls).__mro__)
    known = _SQLALCHEMY | _DJANGO | _DRIVERS.keys() | _ASYNC_DRIVERS.keys()
    return next((name for name in names if name in known), "")


@contextmanager
def _without_values() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        leave_values_out(error)
        raise


@contextmanager
def _driver_errors() -> Iterator[None]:
    """Raise the driver's own error, which is what the caller's code looks for, to try again for one."""
    try:
        yield
    except DBAPIError as error:
        leave_values_out(error)
        error.__cause__ = None  # else each would be the other's: a circle
        raise cast(BaseException, error.orig) from None


@contextmanager
def _lent(theirs: Any, kind: str) -> Iterator[Connection]:
    url = (_DRIVERS | _ASYNC_DRIVERS)[kind]
    dialect, compiled = _dialect(url)
    lent = _Lent(theirs, _new_cursor(theirs, dialect))
    pool = NullPool(lambda: lent, reset_on_return=None, dialect=dialect)
    options = {"compiled_cache": compiled}
    engine = Engine(pool, dialect, make_url(url), query_cache_size=0, execution_options=options)
    with _text_as_text(theirs, dialect), engine.connect() as connection:
        yield connection


@cache
def _dialect(url: str) -> tuple[Dialect, dict[Any, Any]]:
    """Return what writes a database's SQL, and a place for what it has written."""
    made: Any = make_url(url).get_dialect()
    return made(dbapi=made.import_dbapi()), {}


class _Lent:
    """A driver's connection that is another's: we neither commit, nor roll back, nor close."""

    def __init__(self, theirs: Any, cursor: Callable[[], Any]) -> None:
        self._theirs = theirs
        self.cursor = cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._theirs, name)

    def leave_to_its_owner(self) -> None:
        """End nothing."""

    commit = rollback = close = leave_to_its_owner


def _new_cursor(theirs: Any, dialect: Dialect) -> Callable[[], Any]:
    """Return what makes cursors whose rows are tuples, whatever the caller's are."""
    if dialect.name == "postgresql":
        from psycopg import AsyncCursor, Cursor, rows  # noqa: PLC0415  # who has such a connection has loaded it

        if isinstance(theirs, Awaited):
            return lambda: theirs.wrap(AsyncCursor(theirs.theirs, row_factory=rows.tuple_row))
        return lambda: Cursor(theirs, row_factory=rows.tuple_row)

    def cursor() -> Any:
        made = theirs.cursor()
        made.row_factory = None
        return made

    return cursor


@contextmanager
def _text_as_text(theirs: Any, dialect: Dialect) -> Iterator[None]:
    """Read text as text from a SQLite connection that may have its own way, which it gets back."""
    if dialect.name != "sqlite":
        yield
        return
    connection = theirs.theirs if isinstance(theirs, Awaited) else theirs
    own_way, connection.text_factory = connection.text_factory, str
    try:
        yield
    finally:
        connection.text_factory = own_way


class Awaited:
    """A connection or cursor of asyncio's drivers, used from a thread while its loop goes on."""

    def __init__(self, theirs: Any, loop: asyncio.AbstractEventLoop) -> None:
        vars(self).update(theirs=theirs, _loop=loop)

    theirs: Any
    _loop: asyncio.AbstractEventLoop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.theirs, name)
        return (lambda *given: self._wait(found(*given))) if callable(found) else found

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.theirs, name, value)

    def cursor(self) -> Awaited:
        """Return a cursor that is used in the same way."""
        return self.wrap(self._wait(self.theirs.cursor()))

    def wrap(self, cursor: Any) -> Awaited:
        """Have a cursor used in the same way."""
        return Awaited(cursor, self._loop)

    def _wait(self, result: Any) -> Any:
        if not inspect.isawaitable(result):
            return result

        async def finish() -> Any:
            return await result

        return asyncio.run_coroutine_threadsafe(finish(), self._loop).result()


MOST_THREADS = 1000
"""How many events may be written at once: more than a database has connections, of which each needs one."""

_threads: WeakKeyDictionary[asyncio.AbstractEventLoop, ThreadPoolExecutor] = WeakKeyDictionary()


def _threads_of(loop: asyncio.AbstractEventLoop) -> ThreadPoolExecutor:
    """Return threads beside a loop's own few, which may all wait for a transaction that needs one to go on.

    So it is after a second click, whose booking of the same event waits for the first.
    """
    if loop not in _threads:
        _threads[loop] = ThreadPoolExecutor(MOST_THREADS, "crm-event")
    return _threads[loop]


async def in_thread(theirs: Any, write: Callable[[Any], T]) -> T:
    """Run what writes to a driver's asyncio connection in a thread, and end only when it has ended.

    Who is cancelled meanwhile, however often, would otherwise roll back, and have the event written after that.
    """
    loop = asyncio.get_running_loop()
    writing = loop.run_in_executor(_threads_of(loop), copy_context().run, write, Awaited(theirs, loop))
    try:
        return await asyncio.shield(writing)
    except asyncio.CancelledError:
        while not writing.done():
            with suppress(asyncio.CancelledError):  # anyio cancels at each turn of the loop
                await asyncio.wait([writing])
        raise
