"""The pages: register, book a repair, see the confirmation, pay, choose another day, change the profile."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl

from sqlalchemy import create_engine, select
from sqlalchemy.orm import sessionmaker
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from scripts.booking_site.bookings import (
    Base,
    BookedBy,
    Booking,
    Change,
    Customer,
    book,
    change,
    register,
)
from scripts.booking_site.forms import (
    ANOTHER_DAY,
    BOOKING,
    DEPOSIT,
    PROFILE,
    REGISTRATION,
    Field,
    Values,
    in_rfc3339,
    payment_event,
    profile_event,
    registration_event,
    repair_event,
    rescheduling_event,
    words_for_fields,
)
from sender import CRM, InvalidEvent, SenderSettings

HERE = Path(__file__).parent
LARGEST_FORM = 65_536
"""Bytes of a posted form that are read."""
COOKIE = "revivatech_customer"
SAFE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


def create_app(settings: SenderSettings) -> Starlette:
    """Return the site on the database of `CRM_OUTBOX_URL`, in which the outbox must be."""
    site = Site(settings)
    return Starlette(
        routes=[
            Route("/", site.home),
            Route("/register", site.show_registration),
            Route("/register", site.register, methods=["POST"]),
            Route("/book", site.show_booking),
            Route("/book", site.book, methods=["POST"]),
            Route("/bookings/{id}", site.show_confirmation),
            Route("/bookings/{id}/pay", site.pay, methods=["POST"]),
            Route("/bookings/{id}/day", site.reschedule, methods=["POST"]),
            Route("/profile", site.show_profile),
            Route("/profile", site.change_profile, methods=["POST"]),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
    )


class Site:
    """The handlers. The forms carry the id of what they make, so that a second click makes nothing."""

    def __init__(self, settings: SenderSettings) -> None:
        engine = create_engine(settings.outbox_url, hide_parameters=True)
        Base.metadata.create_all(engine)
        self._sessions = sessionmaker(engine)
        self._crm = CRM(settings)
        self._templates = Jinja2Templates(HERE / "templates")

    async def home(self, request: Request) -> Response:
        """Say what can be done here."""
        return self._page(request, "home.html")

    async def show_registration(self, request: Request) -> Response:
        """Show the empty form."""
        return self._form(request, "register.html", REGISTRATION, str(uuid.uuid4()))

    async def register(self, request: Request) -> Response:
        """Register a customer, or show what is wrong beside the field."""
        values = await read_form(request)
        customer = Customer(id=read_id(values), registered_at=in_rfc3339(datetime.now(UTC)))
        event = registration_event(customer.id, values, datetime.now(UTC))
        answer = RedirectResponse("/book", 303)
        answer.set_cookie(COOKIE, customer.id, httponly=True, samesite="lax")
        try:
            await run_in_threadpool(register, self._sessions, self._crm, customer, event)
        except InvalidEvent as error:
            return self._form(request, "register.html", REGISTRATION, read_id(values), values, error)
        return answer

    async def show_booking(self, request: Request) -> Response:
        """Show the empty form."""
        return self._form(request, "book.html", BOOKING, str(uuid.uuid4()))

    async def book(self, request: Request) -> Response:
        """Book a repair, or show what is wrong beside the field."""
        values, now = await read_form(request), datetime.now(UTC)
        booking = Booking(
            id=read_id(values),
            ticket_number=f"REV-{uuid.UUID(read_id(values)).hex[:12].upper()}",
            device=values.get("device", ""),
            created_at=in_rfc3339(now),
        )
        customer_id = await run_in_threadpool(self._customer_id, request)
        event = repair_event(booking.id, booking.ticket_number, customer_id, values, now)
        answer = RedirectResponse(f"/bookings/{booking.id}", 303)
        try:
            await run_in_threadpool(book, self._sessions, self._crm, booking, customer_id, event)
        except InvalidEvent as error:
            return self._form(request, "book.html", BOOKING, read_id(values), values, error)
        return answer

    async def show_confirmation(self, request: Request) -> Response:
        """Show a booking, what became of it, and what can be done with it."""
        return await self._confirmation(request)

    async def pay(self, request: Request) -> Response:
        """Take the deposit, as if by a card."""
        booking, customer_id, now = *await self._booked(request), datetime.now(UTC)
        paid = Change(id=deposit_of(booking), of=booking.id, words="Deposit paid", at=in_rfc3339(now))
        event = payment_event(paid.id, booking.id, booking.ticket_number, customer_id, now)
        await run_in_threadpool(change, self._sessions, self._crm.payment_changed, paid, event)
        return RedirectResponse(f"/bookings/{booking.id}", 303)

    async def reschedule(self, request: Request) -> Response:
        """Choose another day, or show what is wrong beside it."""
        booking, customer_id, now = *await self._booked(request), datetime.now(UTC)
        values = await read_form(request)
        words = f"Moved to {values.get('day', '')}"
        moved = Change(id=read_id(values), of=booking.id, words=words, at=in_rfc3339(now))
        event = rescheduling_event(moved.id, booking.id, booking.ticket_number, customer_id, values, now)
        try:
            await run_in_threadpool(change, self._sessions, self._crm.booking_changed, moved, event)
        except InvalidEvent as error:
            return await self._confirmation(request, values, error)
        return RedirectResponse(f"/bookings/{booking.id}", 303)

    async def show_profile(self, request: Request) -> Response:
        """Show the empty form."""
        await self._require_customer(request)
        return self._form(request, "profile.html", PROFILE, str(uuid.uuid4()))

    async def change_profile(self, request: Request) -> Response:
        """Change what is filled in, or show what is wrong beside the field."""
        customer_id, now = await self._require_customer(request), datetime.now(UTC)
        values = await read_form(request)
        changed = Change(id=read_id(values), of=customer_id, words="Profile changed", at=in_rfc3339(now))
        event = profile_event(changed.id, customer_id, values, now)
        try:
            await run_in_threadpool(change, self._sessions, self._crm.profile_changed, changed, event)
        except InvalidEvent as error:
            return self._form(request, "profile.html", PROFILE, read_id(values), values, error)
        return RedirectResponse("/", 303)

    async def _confirmation(
        self, request: Request, values: Values | None = None, error: InvalidEvent | None = None
    ) -> Response:
        booking, changes = await run_in_threadpool(self._booking, request.path_params["id"])
        if booking is None:
            raise HTTPException(404)
        return self._page(
            request,
            "confirmation.html",
            422 if error else 200,
            booking=booking,
            changes=changes,
            deposit=None if any(each.id == deposit_of(booking) for each in changes) else f"{DEPOSIT:.2f}",
            fields=ANOTHER_DAY,
            id=read_id(values) if values else str(uuid.uuid4()),
            values=values or {},
            words=words_for_fields(error.faults, ANOTHER_DAY) if error else {},
        )

    def _booking(self, booking_id: str) -> tuple[Booking | None, Sequence[Change]]:
        with self._sessions() as session:
            changes = select(Change).where(Change.of == booking_id).order_by(Change.at)
            return session.get(Booking, booking_id), session.scalars(changes).all()

    async def _booked(self, request: Request) -> tuple[Booking, str]:
        """Return a booking and whose it is. Who knows its address may change it: this site has no log-in."""

        def find() -> tuple[Booking | None, BookedBy | None]:
            with self._sessions() as session:
                booking_id = request.path_params["id"]
                return session.get(Booking, booking_id), session.get(BookedBy, booking_id)

        booking, by = await run_in_threadpool(find)
        if booking is None or by is None:
            raise HTTPException(404)
        return booking, by.customer_id

    async def _require_customer(self, request: Request) -> str:
        """Return the id of who registered in this browser."""

        def find() -> Customer | None:
            with self._sessions() as session:
                return session.get(Customer, request.cookies.get(COOKIE, ""))

        customer = await run_in_threadpool(find)
        if customer is None:
            raise HTTPException(404)
        return customer.id

    def _customer_id(self, request: Request) -> str:
        """Return the id of who registered in this browser; a guest gets a new one."""
        with self._sessions() as session:
            customer = session.get(Customer, request.cookies.get(COOKIE, ""))
        return customer.id if customer else str(uuid.uuid4())

    def _form(
        self,
        request: Request,
        template: str,
        fields: tuple[Field, ...],
        form_id: str,
        values: Values | None = None,
        error: InvalidEvent | None = None,
    ) -> Response:
        words = words_for_fields(error.faults, fields) if error else {}
        status = 422 if error else 200
        return self._page(
            request, template, status, fields=fields, id=form_id, values=values or {}, words=words
        )

    def _page(self, request: Request, template: str, status: int = 200, **context: object) -> Response:
        context["registered"] = COOKIE in request.cookies
        return self._templates.TemplateResponse(
            request, template, context, status_code=status, headers=SAFE_HEADERS
        )


def deposit_of(booking: Booking) -> str:
    """Return the id of a booking's one deposit."""
    return str(uuid.uuid5(uuid.UUID(booking.id), "deposit"))


async def read_form(request: Request) -> dict[str, str]:
    """Return what was filled in, without spaces around it."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_FORM:
            raise HTTPException(413)
    pairs = parse_qsl(body.decode("ascii", "replace"))
    return {name: value.replace("\r\n", "\n").strip() for name, value in pairs}


def read_id(values: Values) -> str:
    """Return the id that the form was given; anything else is no form of ours."""
    try:
        return str(uuid.UUID(values.get("id", "")))
    except ValueError:
        raise HTTPException(400, "This form is not ours: open the page anew.") from None
