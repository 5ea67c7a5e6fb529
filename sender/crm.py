"""What booking code calls: an event goes into the outbox, in the booking's own transaction. Nothing is sent here."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from generated.webhooks import (
    BookingStatus,
    CustomerProfile,
    CustomerRegistration,
    PaymentStatus,
    RepairRequest,
)
from sender import outbox
from sender.database import (
    address_of,
    commits_by_itself,
    commits_savepoints,
    glancing,
    is_pipelined,
    leave_no_copies,
    open_engine,
    words_of,
)
from sender.errors import NotMigrated, NoTransaction, SenderError, WrongDatabase
from sender.events import Event, event_of
from sender.settings import SenderSettings
from sender.transactions import AsyncTransaction, Transaction, in_thread, joined

if TYPE_CHECKING:
    from sender.relay import Relay

log = logging.getLogger("crm_sender")

METHOD_OF: Mapping[str, str] = {
    "customer-registration": "customer_registered",
    "repair-request": "repair_requested",
    "payment-status": "payment_changed",
    "booking-status": "booking_changed",
    "customer-profile": "profile_changed",
}
"""By which method the CRM is told of each webhook's events."""


class CRM:
    """The CRM, as booking code sees it. Opens nothing until it is used; safe to share between threads.

    Each method checks an event against the contract and writes it to the outbox with one INSERT: in
    the transaction of `session`, so that event and booking are committed together or not at all, or
    in a transaction of its own. A session is SQLAlchemy's Session or Connection, a connection of
    sqlite3 or psycopg, or `django.db.connection`; it is neither committed nor rolled back. Each
    method returns the event's id; the same event again returns the same id. `resend` puts a
    delivered one back to pending, for a CRM that was restored from a backup, and one that was
    closed, with what is given now in its place.

    Raises InvalidEvent (the contract refuses it; nothing was written), ConflictingEvent (the
    natural key is there with other content), WrongState (what `resend` asks for was erased),
    OutboxError (this is not the relay's outbox), or the database's own error as the session raises
    it: SQLAlchemy's DBAPIError, Django's or the driver's (locked, full, a serialization failure):
    then the transaction cannot be committed, and neither booking nor event is there.
    """

    _in_any_outbox: ClassVar[bool] = False
    """Whether sessions may be of databases that no relay reads; for tests (`sender.testing`)."""

    def __init__(self, settings: SenderSettings | None = None) -> None:
        self._given = settings
        self._known: WeakKeyDictionary[object, str] = WeakKeyDictionary()

    def customer_registered(
        self,
        event: CustomerRegistration | Mapping[str, Any],
        session: Transaction | None = None,
        *,
        resend: bool = False,
    ) -> str:
        """Tell the CRM that a customer registered; return the event's id."""
        return self._enqueue(event_of("customer-registration", event), session, resend)

    def repair_requested(
        self,
        event: RepairRequest | Mapping[str, Any],
        session: Transaction | None = None,
        *,
        resend: bool = False,
    ) -> str:
        """Tell the CRM that a customer booked a repair; return the event's id."""
        return self._enqueue(event_of("repair-request", event), session, resend)

    def payment_changed(
        self,
        event: PaymentStatus | Mapping[str, Any],
        session: Transaction | None = None,
        *,
        resend: bool = False,
    ) -> str:
        """Tell the CRM that a payment for a repair has moved on; return the event's id."""
        return self._enqueue(event_of("payment-status", event), session, resend)

    def booking_changed(
        self,
        event: BookingStatus | Mapping[str, Any],
        session: Transaction | None = None,
        *,
        resend: bool = False,
    ) -> str:
        """Tell the CRM that a booking has moved on; return the event's id."""
        return self._enqueue(event_of("booking-status", event), session, resend)

    def profile_changed(
        self,
        event: CustomerProfile | Mapping[str, Any],
        session: Transaction | None = None,
        *,
        resend: bool = False,
    ) -> str:
        """Tell the CRM that a customer changed their profile; return the event's id."""
        return self._enqueue(event_of("customer-profile", event), session, resend)

    @contextmanager
    def relay(self) -> Iterator[Relay]:
        """Run a relay in a thread of this process for as long as the block lasts.

        Raises SettingsError or NotMigrated before the block when there can be none. What ends the relay before
        the block ends is logged, and raised after it, unless the block itself raises. On SQLite fork no process
        within the block: one that is forked while this thread is within SQLite may hang when it uses SQLite itself.
        """
        # A site whose relay runs elsewhere is spared httpx.
        from sender.relay import Relay  # noqa: PLC0415
        from sender.transport import Transport  # noqa: PLC0415

        self._outbox_id  # noqa: B018  # says what is missing here, not in the thread
        relay = Relay(self._settings)
        Transport(self._settings).close()  # and what is wrong with the settings
        raised: list[BaseException] = []

        def run() -> None:
            try:
                relay.run()
            except BaseException as error:  # raised again below
                log.error("the relay has ended, and what is due waits for another: %s", _words_of(error))
                raised.append(error)

        # A daemon, or a process whose block is ended by atexit, or by nobody, would wait for it for ever.
        thread = Thread(target=run, name="crm-relay", daemon=True)
        thread.start()
        try:
            yield relay
        finally:
            relay.stop()
            thread.join()
        if raised:
            raise raised[0]

    @cached_property
    def _settings(self) -> SenderSettings:
        return self._given or SenderSettings.read()

    @cached_property
    def _engine(self) -> Engine:
        return open_engine(self._settings.outbox_url)

    def _enqueue(self, event: Event, session: Transaction | None, resend: bool) -> str:
        if session is None:
            return self._enqueue_alone(event, resend)
        with joined(session) as (connection, place):
            if commits_by_itself(connection):
                raise NoTransaction(
                    "this connection is in autocommit mode: event and booking could part. Begin a transaction, "
                    "such as Django's transaction.atomic() or psycopg's connection.transaction()"
                )
            if commits_savepoints(connection):
                raise NoTransaction(
                    "this SQLite connection is in a savepoint, and its driver sends no BEGIN before one: "
                    "releasing it would commit the event without the booking. Send BEGIN by SQLAlchemy's "
                    "recipe for SQLite (an event on 'begin'), or call outside of begin_nested()"
                )
            if is_pipelined(connection):
                raise NoTransaction(
                    "this connection is in pipeline mode, where nobody can tell whether the event is there "
                    "already: call outside of conn.pipeline()"
                )
            self._require_own_outbox(connection, place)
            leave_no_copies(connection)
            return outbox.enqueue(connection, event, time.time(), resend=resend)

    def _enqueue_alone(self, event: Event, resend: bool) -> str:
        if self._in_any_outbox:
            raise WrongDatabase(
                "in a test an event needs a session: without one it would go to the outbox of CRM_OUTBOX_URL"
            )
        self._outbox_id  # noqa: B018  # says what is missing, before anything is written
        with self._engine.begin() as connection:
            return outbox.enqueue(connection, event, time.time(), resend=resend)

    @cached_property
    def _outbox_id(self) -> str:
        with glancing(self._settings.outbox_url) as connection:
            return outbox.outbox_id(connection)

    def _require_own_outbox(self, connection: Connection, place: object) -> None:
        """Raise WrongDatabase when no relay would see what is written here."""
        can_be_kept = hasattr(place, "__weakref__")  # not by sqlite3's connections, which are asked each time
        found = self._known.get(place) if can_be_kept else None
        if found is not None and self._is_own(found):
            return
        try:
            found = outbox.outbox_id(connection)
        except NotMigrated:
            if self._in_any_outbox:
                raise
            self._outbox_id  # noqa: B018  # says so when the relay's is not there either
            raise self._wrong_database(connection, "has no outbox and is not") from None
        if can_be_kept:
            self._known[place] = found
        if not self._is_own(found):
            self.__dict__.pop("_outbox_id", None)  # the relay's may have been made anew since it was asked
            if not self._is_own(found):
                raise self._wrong_database(connection, "has an outbox, but not")

    def _is_own(self, found: str) -> bool:
        return self._in_any_outbox or found == self._outbox_id

    def _wrong_database(self, connection: Connection, what: str) -> WrongDatabase:
        return WrongDatabase(
            f"the session's database, {address_of(connection)}, {what} the relay's, "
            f"which CRM_OUTBOX_URL says is {self._settings.shown_outbox}. Point CRM_OUTBOX_URL at the bookings' "
            "database and run: crm-sender migrate"
        )


def _words_of(error: BaseException) -> str:
    """Return what may be logged of an error: what is not of ours may hold a value."""
    if isinstance(error, DBAPIError):
        return words_of(error)
    return str(error) if isinstance(error, SenderError) else type(error).__name__


class AsyncCRM:
    """`CRM` for asyncio: the same names, awaited.

    A session is SQLAlchemy's AsyncSession or AsyncConnection, or an asyncio connection of psycopg or
    aiosqlite.
    """

    def __init__(self, settings: SenderSettings | None = None) -> None:
        self._crm = CRM(settings)

    async def customer_registered(
        self,
        event: CustomerRegistration | Mapping[str, Any],
        session: AsyncTransaction | None = None,
        *,
        resend: bool = False,
    ) -> str:
        """Tell the CRM that a customer registered; return the event's id."""
        return await _run(partial(self._crm.customer_registered, event, resend=resend), session)

    async def repair_requested(
        self,
        event: RepairRequest | Mapping[str, Any],
        session: AsyncTransaction | None = None,
        *,
        resend: bool = False,
    ) -> str:
        """Tell the CRM that a customer booked a repair; return the event's id."""
        return await _run(partial(self._crm.repair_requested, event, resend=resend), session)

    async def payment_changed(
        self,
        event: PaymentStatus | Mapping[str, Any],
        session: AsyncTransaction | None = None,
        *,
        resend: bool = False,
    ) -> str:
        """Tell the CRM that a payment for a repair has moved on; return the event's id."""
        return await _run(partial(self._crm.payment_changed, event, resend=resend), session)

    async def booking_changed(
        self,
        event: BookingStatus | Mapping[str, Any],
        session: AsyncTransaction | None = None,
        *,
        resend: bool = False,
    ) -> str:
        """Tell the CRM that a booking has moved on; return the event's id."""
        return await _run(partial(self._crm.booking_changed, event, resend=resend), session)

    async def profile_changed(
        self,
        event: CustomerProfile | Mapping[str, Any],
        session: AsyncTransaction | None = None,
        *,
        resend: bool = False,
    ) -> str:
        """Tell the CRM that a customer changed their profile; return the event's id."""
        return await _run(partial(self._crm.profile_changed, event, resend=resend), session)


async def _run(write: Callable[..., str], session: Any) -> str:
    """Run a method of the twin: where SQLAlchemy runs what is synchronous, or in a thread."""
    if session is None:
        return await asyncio.to_thread(write)
    if hasattr(session, "run_sync"):
        found: str = await session.run_sync(lambda inner: write(session=inner))
        return found
    return await in_thread(session, lambda lent: write(session=lent))
