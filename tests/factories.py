"""Payloads as the website sends them: valid, made up, and every one another event unless told otherwise."""

import copy
import itertools
import os
from collections.abc import Callable
from typing import Any

Payload = dict[str, Any]

_numbers = itertools.count(1)
_run = os.urandom(4).hex()


def repair_request(**over: Any) -> Payload:
    """Return a repair request; a field is named by block and name, `repair__notes="…"`, and `...` leaves it out.

    `repair__websiteRepairId` is new each time.
    """
    number = f"{_run}-{next(_numbers)}"
    payload = {
        "repair": {
            "ticketNumber": f"REV-{number}",
            "websiteRepairId": f"booking-{number}",
            "customerEmail": "ada@example.com",
            "customerName": "Ada Lovelace",
            "deviceType": "Apple MacBook Pro",
            "deviceModel": 'MacBook Pro 16"',
            "issueDescription": "The screen is cracked.\nIt still turns on.",
            "serviceType": "SCREEN_REPAIR",
            "priority": "normal",
            "language": "en",
            "address": "12 St James's Square, London",
            "notes": "Handle with care",
            "createdAt": "2024-12-13T10:00:00Z",
            "estimatedCost": 299.99,
            "photos": ["https://example.com/1.jpg"],
        },
        "customer": {
            "firstName": "Ada",
            "lastName": "Lovelace",
            "email": "ada@example.com",
            "phone": "+44 20 7946 0000",
            "websiteUserId": f"user-{number}",
        },
        "metadata": {
            "source": "revivatech",
            "bookingChannel": "website",
            "timestamp": "2024-12-13T10:00:00Z",
        },
    }
    return _changed(payload, over)


def customer_registration(**over: Any) -> Payload:
    """Return a registration; fields as for `repair_request`. `customer__websiteUserId` is new each time."""
    payload = {
        "customer": {
            "firstName": "Ada",
            "lastName": "Lovelace",
            "email": "ada@example.com",
            "phone": "+44 20 7946 0000",
            "websiteUserId": f"user-{_run}-{next(_numbers)}",
            "registrationDate": "2024-12-13T10:00:00Z",
            "source": "revivatech",
            "language": "en",
            "status": "pending_approval",
            "preferences": {"newsletter": True, "contact hours": "after 6"},
        },
        "metadata": {"registrationSource": "website", "timestamp": "2024-12-13T10:00:00Z"},
    }
    return _changed(payload, over)


def payment_status(repair: Payload | None = None, **over: Any) -> Payload:
    """Return a payment for a repair request, or for one that has not come; fields as for `repair_request`.

    `payment__websiteEventId` is new each time.
    """
    number = f"{_run}-{next(_numbers)}"
    payload = {
        "payment": {
            "websiteEventId": f"paid-{number}",
            "websitePaymentId": f"payment-{number}",
            **_about(repair, number),
            "status": "paid",
            "amount": 299.99,
            "currency": "GBP",
            "method": "card",
            "occurredAt": "2024-12-14T09:30:00Z",
        },
        "customer": {"websiteUserId": _user(repair, number)},
        "metadata": {"source": "revivatech", "timestamp": "2024-12-14T09:30:01Z"},
    }
    return _changed(payload, over)


def booking_status(repair: Payload | None = None, **over: Any) -> Payload:
    """Return a change of a booking, as `payment_status` does. `booking__websiteEventId` is new each time."""
    number = f"{_run}-{next(_numbers)}"
    payload = {
        "booking": {
            "websiteEventId": f"rescheduled-{number}",
            **_about(repair, number),
            "status": "rescheduled",
            "scheduledFor": "2024-12-20T14:00:00Z",
            "reason": "Lovelace is away that week",
            "occurredAt": "2024-12-14T10:00:00Z",
        },
        "customer": {"websiteUserId": _user(repair, number)},
        "metadata": {"source": "revivatech", "timestamp": "2024-12-14T10:00:01Z"},
    }
    return _changed(payload, over)


def customer_profile(of: Payload | None = None, **over: Any) -> Payload:
    """Return a changed profile of a registration's customer, or of one who is not known.

    Fields as for `repair_request`; `metadata__websiteEventId` is new each time.
    """
    number = f"{_run}-{next(_numbers)}"
    payload = {
        "customer": {"websiteUserId": _user(of, number), "phone": "+44 20 7946 0001", "language": "en-GB"},
        "metadata": {
            "websiteEventId": f"profile-{number}",
            "source": "revivatech",
            "changedAt": "2024-12-15T08:00:00Z",
            "timestamp": "2024-12-15T08:00:01Z",
        },
    }
    return _changed(payload, over)


def _about(repair: Payload | None, number: str) -> Payload:
    block = repair["repair"] if repair else {}
    names = {"websiteRepairId": f"booking-{number}", "ticketNumber": f"REV-{number}"}
    return {name: block.get(name, value) for name, value in names.items()}


def _user(of: Payload | None, number: str) -> str:
    return str(of["customer"]["websiteUserId"] if of else f"user-{number}")


FACTORIES: dict[str, Callable[..., Payload]] = {
    "customer-registration": customer_registration,
    "repair-request": repair_request,
    "payment-status": payment_status,
    "booking-status": booking_status,
    "customer-profile": customer_profile,
}
"""What makes the payload of each webhook."""


def _changed(payload: Payload, over: Payload) -> Payload:
    changed = copy.deepcopy(payload)
    for path, value in over.items():
        *parents, name = path.split("__")
        block = changed
        for parent in parents:
            block = block[parent]
        if value is ...:
            del block[name]
        else:
            block[name] = value
    return changed
