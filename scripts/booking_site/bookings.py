"""What the site itself keeps, and the transactions in which the CRM learns of it.

No name, address or telephone number is kept here: they travel in the event, and the CRM holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import String
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from sender import CRM

Tell = Callable[[Mapping[str, Any], Session], str]
"""A method of the CRM's."""


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


class BookedBy(Base):
    """Whose a booking is: by this id the CRM knows them."""

    __tablename__ = "booked_by"

    booking_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    customer_id: Mapped[str] = mapped_column(String(36))


class Change(Base):
    """What became of a booking, or that a customer changed their profile."""

    __tablename__ = "changes"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    of: Mapped[str] = mapped_column(String(36), index=True)
    words: Mapped[str]
    at: Mapped[str]


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


def book(
    sessions: sessionmaker[Session], crm: CRM, booking: Booking, customer_id: str, event: Mapping[str, Any]
) -> None:
    """Keep a booking and tell the CRM, together or not at all; the same booking again changes nothing.

    Raises InvalidEvent with what the contract refuses; nothing is kept then.
    """
    try:
        with sessions.begin() as session:
            session.add_all([booking, BookedBy(booking_id=booking.id, customer_id=customer_id)])
            session.flush()  # a second click ends here
            crm.repair_requested(event, session)
    except IntegrityError:
        return


def change(sessions: sessionmaker[Session], tell: Tell, changed: Change, event: Mapping[str, Any]) -> None:
    """Keep what has changed and tell the CRM, together or not at all; the same change again changes nothing.

    Raises InvalidEvent with what the contract refuses; nothing is kept then.
    """
    try:
        with sessions.begin() as session:
            session.add(changed)
            session.flush()  # a second click ends here
            tell(event, session)
    except IntegrityError:
        return
