"""What the website tells of a repair after it was booked: payments, and changes of the booking.

Such a status is a request of the queue like any other, and stands nowhere else: what a ticket, or a repair
request that waits, shows of it is read from the queue, by the id of the repair that it is `about`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from crm_server.idempotency import disguise_natural_key, in_utc
from crm_server.tables import approvals, erasure_state, tickets
from crm_server.upcast import read_event
from generated.operations import RELEASES
from generated.webhooks import Booking, BookingStatus, Payment, PaymentStatus

REPAIR = "repair-request"
"""The webhook whose natural key a status is about."""
STATUSES = tuple(
    dict.fromkeys(
        name for webhooks in RELEASES.values() for name, webhook in webhooks.items() if webhook.about
    )
)
"""The webhooks that tell more of a repair."""
MOST_SHOWN = 100
"""So many statuses of a repair are shown."""


@dataclass(frozen=True, slots=True)
class WebsiteStatus:
    """One of them."""

    row: Row[Any]
    """The request."""
    told: Payment | Booking

    def as_json(self) -> dict[str, Any]:
        """Return it as the staff API shows it."""
        told = self.told
        payment, booking = (told, None) if isinstance(told, Payment) else (None, told)
        return {
            "id": self.row.id,
            "event": self.row.event,
            "approval_status": self.row.status,
            "received_at": self.row.received_at,
            "status": told.status,
            "occurred_at": _time(told.occurred_at),
            "amount": payment and payment.amount,
            "currency": payment and payment.currency,
            "method": payment and payment.method,
            "scheduled_for": booking and _time(booking.scheduled_for),
            "reason": booking and booking.reason,
        }

    @property
    def stands(self) -> bool:
        """Whether staff have not rejected it."""
        return bool(self.row.status != "rejected")


@dataclass(frozen=True, slots=True)
class Told:
    """What the website has told of a repair."""

    statuses: Sequence[WebsiteStatus] = ()
    """The newest first, by when it happened; some at most."""

    @property
    def payment(self) -> WebsiteStatus | None:
        """Where the payment is now."""
        return self._newest(Payment)

    @property
    def booking(self) -> WebsiteStatus | None:
        """Where the booking is now."""
        return self._newest(Booking)

    def _newest(self, kind: type[Payment] | type[Booking]) -> WebsiteStatus | None:
        return next((each for each in self.statuses if each.stands and isinstance(each.told, kind)), None)


def told_of(connection: Connection, website_repair_id: str) -> Told:
    """Read what the website has told of a repair."""
    c = approvals.c
    newest = select(approvals).where(c.about == website_repair_id).order_by(c.sequence.desc())
    found = [status_of(row) for row in connection.execute(newest.limit(MOST_SHOWN))]
    # What was held up on its way is received late; of the same moment the later receipt counts.
    found.sort(key=lambda each: (each.told.occurred_at, each.row.sequence), reverse=True)
    return Told(found)


def status_of(row: Row[Any]) -> WebsiteStatus:
    """Return what a request tells."""
    match read_event(row):
        case PaymentStatus(payment=payment):
            return WebsiteStatus(row, payment)
        case BookingStatus(booking=booking):
            return WebsiteStatus(row, booking)
    raise TypeError(f"{row.event} tells no status")


def _time(time: datetime | None) -> str | None:
    return None if time is None else in_utc(time.isoformat())


def find_repair(connection: Connection, website_repair_id: str) -> Row[Any] | None:
    """Read the repair request that has this natural key, also when it is erased."""
    key = connection.execute(select(erasure_state.c.key)).scalar_one()
    erased = disguise_natural_key(key, REPAIR, website_repair_id)
    these = approvals.c.natural_key.in_([website_repair_id, erased])
    return connection.execute(select(approvals).where(approvals.c.event == REPAIR, these)).first()


def find_ticket(connection: Connection, website_repair_id: str) -> Row[Any] | None:
    """Read the ticket of a repair."""
    this = tickets.c.website_repair_id == website_repair_id
    return connection.execute(select(tickets).where(this)).one_or_none()


@dataclass(frozen=True, slots=True)
class Look:
    """Which statuses need wait no longer, and where to look next."""

    ids: Sequence[str]
    after: int
    """The sequence after which the next look begins."""


LOOKED_AT = 1000
"""Statuses that wait, of which one look sees what has become of the repair: some milliseconds."""


def look(connection: Connection, after: int) -> Look:
    """Look through the next of those that wait for ones whose repair has a ticket, or is erased.

    After the last it is looked from the first again. However many wait for a repair that is not decided, a look
    costs no more.
    """
    c = approvals.c
    found: list[Any] = []
    for event in STATUSES:
        waiting = (
            select(c.sequence, c.id, c.about)
            .where(c.event == event, c.status == "pending_approval", c.sequence > after)
            .order_by(c.sequence)
            .limit(LOOKED_AT)
            .subquery()
        )
        has_ticket = waiting.outerjoin(tickets, tickets.c.website_repair_id == waiting.c.about)
        columns = (waiting.c.sequence, waiting.c.id, waiting.c.about, tickets.c.id.label("ticket_id"))
        found += connection.execute(select(*columns).select_from(has_ticket)).all()
    found = sorted(found, key=attrgetter("sequence"))[:LOOKED_AT]
    erased = erased_repairs(connection, {row.about for row in found if not row.ticket_id})
    is_last = len(found) < LOOKED_AT
    ids = [row.id for row in found if row.ticket_id or row.about in erased]
    return Look(ids, 0 if is_last else found[-1].sequence)


def erased_repairs(connection: Connection, website_repair_ids: Collection[str]) -> set[str]:
    """Return which of these natural keys are of repair requests that are erased."""
    state, c = erasure_state.c, approvals.c
    key = connection.execute(select(state.key).where(state.erasures > 0)).scalar()
    if key is None or not website_repair_ids:
        return set()
    disguised = {disguise_natural_key(key, REPAIR, each): each for each in website_repair_ids}
    # Written out, being hexadecimal: a thousand parameters cost more than what is found by them.
    these = c.natural_key.in_(bindparam("keys", expanding=True, literal_execute=True))
    found = connection.execute(select(c.natural_key).where(c.event == REPAIR, these), {"keys": [*disguised]})
    return {disguised[each] for each in found.scalars()}
