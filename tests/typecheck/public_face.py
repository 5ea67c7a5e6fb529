"""Booking code as type checkers see it: `make lint` runs mypy on it, and an error that is expected must be one.

Each `type: ignore` names the error that a site is told of; mypy complains about one that is not needed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

import aiosqlite
import psycopg
from sqlalchemy import Connection, Insert, MetaData
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session, scoped_session

import sender
from sender import (
    CRM,
    AsyncCRM,
    BookingStatus,
    ConflictingEvent,
    CustomerProfile,
    CustomerRegistration,
    Fault,
    InvalidEvent,
    PaymentStatus,
    Relay,
    RepairRequest,
    SenderError,
    SenderSettings,
    Summary,
)
from sender.testing import Enqueued, ScriptedCRM, assert_enqueued, assert_nothing_enqueued, enqueued
from sender.transactions import DjangoConnection


def any_session_will_do(
    crm: CRM,
    event: RepairRequest,
    session: Session,
    scoped: scoped_session[Session],
    connection: Connection,
    sqlite: sqlite3.Connection,
    postgresql: psycopg.Connection[dict[str, Any]],
    django: DjangoConnection,
) -> None:
    assert_type(crm.repair_requested(event), str)
    assert_type(crm.repair_requested(event, session), str)
    assert_type(crm.repair_requested(event, scoped), str)
    assert_type(crm.repair_requested(event, connection, resend=True), str)
    assert_type(crm.repair_requested(event, sqlite), str)
    assert_type(crm.repair_requested(event, postgresql), str)
    assert_type(crm.repair_requested(event, session=django), str)
    crm.repair_requested(event, session, True)  # type: ignore[call-arg]  # resend is named
    crm.repair_requested(event, "sqlite:///bookings.sqlite3")  # type: ignore[arg-type]


def an_event_is_its_own_model_or_a_mapping(
    crm: CRM, registration: CustomerRegistration, repair: RepairRequest
) -> None:
    crm.customer_registered(registration)
    crm.customer_registered({"customer": {}})
    crm.customer_registered(repair)  # type: ignore[arg-type]
    crm.repair_requested(registration)  # type: ignore[arg-type]
    crm.repair_requested("{}")  # type: ignore[arg-type]


def what_becomes_of_a_repair_has_methods_of_its_own(
    crm: CRM, payment: PaymentStatus, booking: BookingStatus, profile: CustomerProfile, session: Session
) -> None:
    assert_type(crm.payment_changed(payment, session), str)
    assert_type(crm.booking_changed(booking, session, resend=True), str)
    assert_type(crm.profile_changed(profile), str)
    crm.payment_changed({"payment": {}})
    crm.payment_changed(booking)  # type: ignore[arg-type]
    crm.booking_changed(profile)  # type: ignore[arg-type]
    crm.profile_changed(payment)  # type: ignore[arg-type]


async def asyncio_has_the_same_names_awaited(
    crm: AsyncCRM,
    event: RepairRequest,
    session: AsyncSession,
    connection: AsyncConnection,
    postgresql: psycopg.AsyncConnection[Any],
    sqlite: aiosqlite.Connection,
) -> None:
    assert_type(await crm.repair_requested(event), str)
    assert_type(await crm.repair_requested(event, session), str)
    assert_type(await crm.repair_requested(event, connection), str)
    assert_type(await crm.repair_requested(event, postgresql, resend=True), str)
    assert_type(await crm.repair_requested(event, sqlite), str)
    assert_type(await crm.customer_registered({}, session), str)
    assert_type(await crm.payment_changed({}, session), str)
    assert_type(await crm.booking_changed({}, session), str)
    assert_type(await crm.profile_changed({}, session), str)
    crm.repair_requested(event, session)  # type: ignore[unused-coroutine]


async def the_twins_take_each_their_own(
    crm: CRM, async_crm: AsyncCRM, event: RepairRequest, session: Session, async_session: AsyncSession
) -> None:
    crm.repair_requested(event, async_session)  # type: ignore[arg-type]
    await async_crm.repair_requested(event, session)  # type: ignore[arg-type]


def the_rest_of_the_public_face(crm: CRM, error: InvalidEvent, conflict: ConflictingEvent) -> None:
    with crm.relay() as relay:
        assert_type(relay, Relay)
    assert_type(Relay().run(drain=True), Summary)
    assert_type(SenderSettings.read(), SenderSettings)
    assert_type(error.faults, tuple[Fault, ...])
    assert_type(error.faults[0].pointer, str)
    assert_type(conflict.existing_id, str)
    known: SenderError = error
    assert_type(sender.metadata, MetaData)
    assert_type(sender.outbox_identity(), Insert)
    CRM("sqlite:///bookings.sqlite3")  # type: ignore[arg-type]
    raise known


def a_sites_own_tests(crm: CRM, session: Session) -> Iterator[None]:
    assert_type(enqueued(session), list[Enqueued])
    assert_type(assert_enqueued(session, "repair-request", repair__ticketNumber="REV-1"), Enqueued)
    assert_nothing_enqueued(crm)
    with ScriptedCRM() as scripted:
        scripted.answers(503, {"status": 409, "type": "conflict"}, 202)
        assert_type(scripted.settings(), SenderSettings)
        scripted.answers("503")  # type: ignore[arg-type]
        yield


async def an_asyncio_sites_own_tests(session: AsyncSession) -> AsyncIterator[None]:
    assert_type(await session.run_sync(enqueued), list[Enqueued])
    yield
