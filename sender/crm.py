"""What booking code calls: an event goes into the outbox, in the booking's own transaction. Nothing is sent here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from threading import Thread
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine

from generated.webhooks import CustomerRegistration, RepairRequest
from sender import outbox
from sender.database import commits_by_itself, commits_savepoints, leave_no_copies, open_engine, reading
from sender.errors import NotMigrated, NoTransaction, WrongDatabase
from sender.events import Event, event_of
from sender.settings import SenderSettings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session

    from sender.relay import Relay


class CRM:
    """The CRM, as booking code sees it. Opens nothing until it is used; safe to share between threads.

    Each method checks an event against the contract and writes it to the outbox with one INSERT: in
    the transaction of `session` (a SQLAlchemy Session or Connection), so that event and booking
    are committed together or not at all, or in a transaction of its own. It returns the event's
    id; the same event again returns the same id. `resend` puts a delivered one back to pending, for
    a CRM that was restored from a backup.

    Raises InvalidEvent (the contract refuses it; nothing was written), ConflictingEvent (the
    natural key is there with other content), OutboxError (this is not the relay's outbox), or the
    database's own error, SQLAlchemy's DBAPIError (locked, full, damaged): then the transaction cannot be
    committed, and neither booking nor event is there.
    """

    def __init__(self, settings: SenderSettings | None = None) -> None:
        self._given = settings
        self._known: WeakKeyDictionary[Engine, str] = WeakKeyDictionary()

    def customer_registered(
        self,
        event: CustomerRegistration | Mapping[str, Any],
        session: Session | Connection | None = None,
        *,
        resend: bool = False,
    ) -> str:
        """Tell the CRM that a customer registered; return the event's id."""
        return self._enqueue(event_of("customer-registration", event), session, resend)

    def repair_requested(
        self,
        event: RepairRequest | Mapping[str, Any],
        session: Session | Connection | None = None,
        *,
        resend: bool = False,
    ) -> str:
        """Tell the CRM that a customer booked a repair; return the event's id."""
        return self._enqueue(event_of("repair-request", event), session, resend)

    @contextmanager
    def relay(self) -> Iterator[Relay]:
        """Run a relay in a thread of this process for as long as the block lasts."""
        from sender.relay import Relay  # noqa: PLC0415  # a site whose relay runs elsewhere is spared httpx

        self._outbox_id  # noqa: B018  # says what is missing here, not in the thread
        relay = Relay(self._settings)
        thread = Thread(target=relay.run, name="crm-relay")
        thread.start()
        try:
            yield relay
        finally:
            relay.stop()
            thread.join()

    @cached_property
    def _settings(self) -> SenderSettings:
        return self._given or SenderSettings.read()

    @cached_property
    def _engine(self) -> Engine:
        return open_engine(self._settings.outbox_url)

    def _enqueue(self, event: Event, session: Session | Connection | None, resend: bool) -> str:
        if session is None:
            self._outbox_id  # noqa: B018  # says what is missing, before anything is written
            with self._engine.begin() as connection:
                return outbox.enqueue(connection, event, time.time(), resend=resend)
        connection = session if isinstance(session, Connection) else session.connection()
        if commits_by_itself(connection):
            raise NoTransaction(
                "this connection is in autocommit mode: event and booking could part. Use a transaction"
            )
        if commits_savepoints(connection):
            raise NoTransaction(
                "this SQLite connection is in a savepoint, and its driver sends no BEGIN before one: releasing "
                "it would commit the event without the booking. Send BEGIN by SQLAlchemy's recipe for SQLite "
                "(an event on 'begin'), or call outside of begin_nested()"
            )
        self._require_own_outbox(connection)
        leave_no_copies(connection)
        return outbox.enqueue(connection, event, time.time(), resend=resend)

    @cached_property
    def _outbox_id(self) -> str:
        with reading(self._engine) as connection:
            return outbox.outbox_id(connection)

    def _require_own_outbox(self, connection: Connection) -> None:
        """Raise WrongDatabase when no relay would see what is written here."""
        engine = connection.engine
        if engine not in self._known:
            try:
                self._known[engine] = outbox.outbox_id(connection)
            except NotMigrated:
                raise self._wrong_database(engine, "has no outbox and is not") from None
        if self._known[engine] != self._outbox_id:
            raise self._wrong_database(engine, "has an outbox, but not")

    def _wrong_database(self, engine: Engine, what: str) -> WrongDatabase:
        return WrongDatabase(
            f"the session's database, {engine.url.render_as_string(hide_password=True)}, {what} the relay's, "
            f"which CRM_OUTBOX_URL says is {self._settings.shown_outbox}. Point CRM_OUTBOX_URL at the bookings' "
            "database and run: crm-sender migrate"
        )


class AsyncCRM:
    """`CRM` for asyncio: the same names, awaited, with an AsyncSession or AsyncConnection."""

    def __init__(self, settings: SenderSettings | None = None) -> None:
        self._crm = CRM(settings)

    async def customer_registered(
        self,
        event: CustomerRegistration | Mapping[str, Any],
        session: AsyncSession | AsyncConnection | None = None,
        *,
        resend: bool = False,
    ) -> str:
        """Tell the CRM that a customer registered; return the event's id."""
        if session is None:
            return await asyncio.to_thread(self._crm.customer_registered, event, resend=resend)
        return await session.run_sync(
            lambda inner: self._crm.customer_registered(event, inner, resend=resend)
        )

    async def repair_requested(
        self,
        event: RepairRequest | Mapping[str, Any],
        session: AsyncSession | AsyncConnection | None = None,
        *,
        resend: bool = False,
    ) -> str:
        """Tell the CRM that a customer booked a repair; return the event's id."""
        if session is None:
            return await asyncio.to_thread(self._crm.repair_requested, event, resend=resend)
        return await session.run_sync(lambda inner: self._crm.repair_requested(event, inner, resend=resend))
