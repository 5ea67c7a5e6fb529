"""Payloads as the website sends them: valid, made up, and every one another event unless told otherwise."""

import copy
import itertools
import os
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
