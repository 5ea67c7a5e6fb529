"""Every way in which a booking site may write, opened on a real database and used alike.

Each is what its own documentation says: sessions of SQLAlchemy, connections of the drivers, Django's.
On SQLite all begin with BEGIN IMMEDIATE, the recipe for writers beside a relay.
"""

from __future__ import annotations

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import Any, ClassVar

import aiosqlite
import django
import psycopg
from django.conf import settings as django_settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.db import Error as DjangoError
from django.db import transaction as django_transaction
from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from sender import CRM, AsyncCRM, SenderSettings
from sender.crm import METHOD_OF


class Door(ABC):
    """One way to write to one database. `error` is what it raises for an error of the database."""

    engines: ClassVar[tuple[str, ...]] = ("sqlite", "postgresql")
    error: type[Exception] = DBAPIError

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")

    @property
    @abstractmethod
    def session(self) -> Any:
        """What is handed to the CRM."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Any]:
        """Begin a transaction, which is committed at the end of the block, or rolled back when that raises."""

    @abstractmethod
    def savepoint(self) -> AbstractContextManager[Any]:
        """Begin a savepoint within it."""

    @abstractmethod
    def execute(self, statement: str) -> None:
        """Run a statement of the site's own."""

    @abstractmethod
    def close(self) -> None:
        """Close what was opened."""

    def autocommit(self) -> None:  # noqa: B027  # some are so
        """Have each statement committed by itself from now on, outside of `transaction`."""

    def write(
        self,
        settings: SenderSettings,
        body: Mapping[str, Any],
        event: str = "repair-request",
        **options: bool,
    ) -> str:
        """Tell the CRM of a repair, or of another event."""
        return str(getattr(CRM(settings), METHOD_OF[event])(body, self.session, **options))


def begin_immediate(engine: Engine) -> None:
    """Follow the recipe for SQLite: the site says BEGIN, and takes its turn to write at once."""

    @event.listens_for(engine, "connect")
    def _quiet(connection: Any, _: object) -> None:
        connection.isolation_level = None

    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))


class OfSQLAlchemy(Door):
    """A Session."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        if self.is_sqlite:
            begin_immediate(self.engine)
        self._session: Any = self.open()

    def open(self) -> Any:
        return Session(self.engine)

    @property
    def session(self) -> Any:
        return self._session

    def transaction(self) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any] = self._session.begin()
        return found

    def savepoint(self) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any] = self._session.begin_nested()
        return found

    def execute(self, statement: str) -> None:
        self._session.execute(text(statement))

    def close(self) -> None:
        self._session.close()
        self.engine.dispose()

    def autocommit(self) -> None:
        self.close()
        self.engine = create_engine(self.engine.url, isolation_level="AUTOCOMMIT")
        self._session = self.open()


class OfScopedSession(OfSQLAlchemy):
    """A scoped_session."""

    def open(self) -> Any:
        return scoped_session(sessionmaker(self.engine))


class OfConnection(OfSQLAlchemy):
    """A Connection."""

    def open(self) -> Any:
        return self.engine.connect()


class OfSqlite3(Door):
    """A connection of the standard library."""

    engines = ("sqlite",)
    error = sqlite3.Error

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._session = sqlite3.connect(str(make_url(url).database), isolation_level=None)

    @property
    def session(self) -> Any:
        return self._session

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        self._session.execute("BEGIN IMMEDIATE")
        with self._session:
            yield

    @contextmanager
    def savepoint(self) -> Iterator[Any]:
        self._session.execute("SAVEPOINT mine")
        try:
            yield
        except BaseException:
            self._session.execute("ROLLBACK TO mine")
            raise
        finally:
            self._session.execute("RELEASE mine")

    def execute(self, statement: str) -> None:
        self._session.execute(statement)

    def close(self) -> None:
        self._session.close()


class OfPsycopg(Door):
    """A connection of psycopg."""

    engines = ("postgresql",)
    error = psycopg.Error

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._session = psycopg.connect(url)

    @property
    def session(self) -> Any:
        return self._session

    def transaction(self) -> AbstractContextManager[Any]:
        return self._session.transaction()

    savepoint = transaction

    def execute(self, statement: str) -> None:
        self._session.execute(statement.encode())

    def close(self) -> None:
        self._session.close()

    def autocommit(self) -> None:
        self._session.autocommit = True


class OfPsycopgAutocommit(OfPsycopg):
    """A connection of psycopg in autocommit mode, as its documentation recommends with `transaction()`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.autocommit()


class OfDjango(Door):
    """`django.db.connections[…]` within `transaction.atomic()`."""

    error = DjangoError

    def __init__(self, url: str) -> None:
        super().__init__(url)
        if not django_settings.configured:
            django_settings.configure(DATABASES={})
            django.setup()
        self.alias = url
        connections.databases[self.alias] = connections.databases[DEFAULT_DB_ALIAS] | django_database(url)

    @property
    def session(self) -> Any:
        return connections[self.alias]

    def transaction(self) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any] = django_transaction.atomic(using=self.alias)
        return found

    savepoint = transaction

    def execute(self, statement: str) -> None:
        with connections[self.alias].cursor() as cursor:
            cursor.execute(statement)

    def close(self) -> None:
        connections[self.alias].close()
        del connections[self.alias]


def django_database(url: str) -> dict[str, Any]:
    """Return what stands in `DATABASES` for a database."""
    address = make_url(url)
    if url.startswith("sqlite"):
        options = {"transaction_mode": "IMMEDIATE"}
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": address.database, "OPTIONS": options}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": address.database,
        "USER": address.username,
        "HOST": address.query["host"],
    }


class OfAsyncio(Door):
    """A way on asyncio, whose loop runs whenever it is used."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._runner = asyncio.Runner()
        self._session: Any = self.run(self.open)

    def run(self, work: Callable[..., Awaitable[Any]], *given: object, **named: object) -> Any:
        """Wait for what a coroutine function returns."""

        async def wait() -> Any:
            return await work(*given, **named)

        return self._runner.run(wait())

    @abstractmethod
    async def open(self) -> Any:
        """Return the session."""

    @property
    def session(self) -> Any:
        return self._session

    @contextmanager
    def entered(self, begun: AbstractAsyncContextManager[Any]) -> Iterator[Any]:
        """Enter what is entered with `async with`."""
        self.run(begun.__aenter__)
        try:
            yield
        except BaseException as error:
            self.run(begun.__aexit__, type(error), error, error.__traceback__)
            raise
        self.run(begun.__aexit__, None, None, None)

    def write(
        self,
        settings: SenderSettings,
        body: Mapping[str, Any],
        event: str = "repair-request",
        **options: bool,
    ) -> str:
        return str(self.run(getattr(AsyncCRM(settings), METHOD_OF[event]), body, self._session, **options))

    def close(self) -> None:
        self.run(self._session.close)
        self._runner.close()


class OfAsyncSession(OfAsyncio):
    """An AsyncSession."""

    async def open(self) -> Any:
        drivers = {"postgresql:": "postgresql+psycopg_async:", "sqlite:": "sqlite+aiosqlite:"}
        scheme = next(scheme for scheme in drivers if self.url.startswith(scheme))
        self.engine = create_async_engine(self.url.replace(scheme, drivers[scheme]))
        if self.is_sqlite:
            begin_immediate(self.engine.sync_engine)
        return await self.new(self.engine)

    async def new(self, engine: Any) -> Any:
        return AsyncSession(engine)

    def transaction(self) -> AbstractContextManager[Any]:
        return self.entered(self._session.begin())

    def savepoint(self) -> AbstractContextManager[Any]:
        return self.entered(self._session.begin_nested())

    def execute(self, statement: str) -> None:
        self.run(self._session.execute, text(statement))

    def close(self) -> None:
        self.run(self._session.close)
        self.run(self.engine.dispose)
        self._runner.close()

    def autocommit(self) -> None:
        self.run(self._session.close)
        self.run(self.engine.dispose)
        self.engine = create_async_engine(self.engine.url, isolation_level="AUTOCOMMIT")
        self._session = self.run(self.new, self.engine)


class OfAsyncConnection(OfAsyncSession):
    """An AsyncConnection."""

    async def new(self, engine: Any) -> Any:
        return await engine.connect()


class OfAsyncPsycopg(OfAsyncio):
    """An asyncio connection of psycopg."""

    engines = ("postgresql",)
    error = psycopg.Error

    async def open(self) -> Any:
        return await psycopg.AsyncConnection.connect(self.url)

    def transaction(self) -> AbstractContextManager[Any]:
        return self.entered(self._session.transaction())

    savepoint = transaction

    def execute(self, statement: str) -> None:
        self.run(self._session.execute, statement)

    def autocommit(self) -> None:
        self.run(self._session.set_autocommit, True)


class OfAiosqlite(OfAsyncio):
    """A connection of aiosqlite."""

    engines = ("sqlite",)
    error = sqlite3.Error

    async def open(self) -> Any:
        return await aiosqlite.connect(str(make_url(self.url).database), isolation_level=None)

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        with self._ended("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"):
            yield

    @contextmanager
    def savepoint(self) -> Iterator[Any]:
        with self._ended("SAVEPOINT mine", "RELEASE mine", "ROLLBACK TO mine"):
            yield

    @contextmanager
    def _ended(self, begin: str, commit: str, rollback: str) -> Iterator[Any]:
        self.execute(begin)
        try:
            yield
        except BaseException:
            self.execute(rollback)
            raise
        self.execute(commit)

    def execute(self, statement: str) -> None:
        self.run(self._session.execute, statement)


DOORS: list[type[Door]] = [
    OfSQLAlchemy, OfScopedSession, OfConnection, OfSqlite3, OfPsycopg, OfPsycopgAutocommit, OfDjango,
    OfAsyncSession, OfAsyncConnection, OfAsyncPsycopg, OfAiosqlite,
]  # fmt: skip
