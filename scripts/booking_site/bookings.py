"""What the site itself keeps, and the two transactions in which the CRM learns of it.

No name, address or telephone number is kept here: they travel in the event, and the CRM holds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import String
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from sender import CRM


class Base(DeclarativeBase):
    """The site's tables. The outbox's stand beside them in the same database."""


class Customer(Base):
    """A customer who registered here."""

    __tablename__ = "customers"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    registered_at: Mapped[str]


class Booking(Base):
    """A booked repair, as its confirmation shows it."""

    __tablename__ = "bookings"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    ticket_number: Mapped[str]
    device: Mapped[str]
    created_at: Mapped[str]


def register(sessions: sessionmaker[Session], crm: CRM, customer: Customer, event: Mapping[str, Any]) -> None:
    """Keep a customer and tell the CRM, together or not at all; the same customer again changes nothing.

    Raises InvalidEvent with what the contract refuses; nothing is kept then.
    """
    try:
        with sessions.begin() as session:
            session.add(customer)
            session.flush()  # a second click ends here
            crm.customer_registered(event, session)
    except IntegrityError:
        return


def book(sessions: sessionmaker[Session], crm: CRM, booking: Booking, event: Mapping[str, Any]) -> None:
    """Keep a booking and tell the CRM, together or not at all; the same booking again changes nothing.

    Raises InvalidEvent with what the contract refuses; nothing is kept then.
    """
    try:
        with sessions.begin() as session:
            session.add(booking)
            session.flush()  # a second click ends here
            crm.repair_requested(event, session)
    except IntegrityError:
        return
