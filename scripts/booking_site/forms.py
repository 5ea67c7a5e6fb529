"""The forms: their fields, the events that they become, and beside which field a fault is shown. Pure.

What a field may hold is written in the contract alone; here stands only where its value goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sender.errors import Fault

Values = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Field:
    """A form's field and the places of the event that it fills (JSON pointers)."""

    name: str
    label: str
    fills: tuple[str, ...]
    kind: str = "text"
    hint: str = ""
    required: bool = True
    autocomplete: str = "off"
    options: tuple[tuple[str, str], ...] = ()


PERSON = (
    Field("first_name", "First name", ("/customer/firstName",), autocomplete="given-name"),
    Field(
        "last_name",
        "Last name",
        ("/customer/lastName", "/repair/customerName"),
        autocomplete="family-name",
    ),
    Field(
        "email",
        "E-mail",
        ("/customer/email", "/repair/customerEmail"),
        kind="email",
        hint="such as ada@example.com",
        autocomplete="email",
    ),
    Field("phone", "Telephone", ("/customer/phone",), kind="tel", required=False, autocomplete="tel"),
)

REGISTRATION = PERSON

SERVICES = (
    ("DIAGNOSIS", "I am not sure"),
    ("SCREEN_REPAIR", "Screen"),
    ("BATTERY_REPLACEMENT", "Battery"),
    ("DATA_RECOVERY", "Lost data"),
)
PRIORITIES = (("normal", "Normal"), ("high", "Soon"), ("urgent", "Today, please"))

BOOKING = (
    Field("device", "Device", ("/repair/deviceType",), hint="such as Apple MacBook Pro"),
    Field("model", "Model", ("/repair/deviceModel",), required=False, hint="if you know it"),
    Field("issue", "What is wrong?", ("/repair/issueDescription",), kind="textarea"),
    Field("service", "Kind of repair", ("/repair/serviceType",), kind="select", options=SERVICES),
    Field("priority", "How urgent?", ("/repair/priority",), kind="select", options=PRIORITIES),
    *PERSON,
    Field(
        "address",
        "Address",
        ("/repair/address",),
        kind="textarea",
        required=False,
        autocomplete="street-address",
    ),
)


DEPOSIT = 49.0
"""In pounds."""

ANOTHER_DAY = (Field("day", "Day", ("/booking/scheduledFor",), kind="date"),)

PROFILE = (
    Field(
        "email",
        "New e-mail",
        ("/customer/email",),
        kind="email",
        hint="such as ada@example.com",
        required=False,
        autocomplete="email",
    ),
    Field("phone", "New telephone", ("/customer/phone",), kind="tel", required=False, autocomplete="tel"),
)


def registration_event(customer_id: str, values: Values, now: datetime) -> dict[str, Any]:
    """Return the event of a filled registration form, valid or not."""
    return {
        "customer": {
            **_person(values),
            "websiteUserId": customer_id,
            "registrationDate": in_rfc3339(now),
            "source": "revivatech",
            "language": "en",
            "status": "pending_approval",
        },
        "metadata": {"registrationSource": "website", "timestamp": in_rfc3339(now)},
    }


def repair_event(
    booking_id: str, ticket_number: str, customer_id: str, values: Values, now: datetime
) -> dict[str, Any]:
    """Return the event of a filled booking form, valid or not."""
    person = _person(values)
    repair = {
        "ticketNumber": ticket_number,
        "websiteRepairId": booking_id,
        "customerEmail": values.get("email"),
        "customerName": " ".join(filter(None, (values.get("first_name"), values.get("last_name")))),
        "deviceType": values.get("device"),
        "deviceModel": values.get("model"),
        "issueDescription": values.get("issue"),
        "serviceType": values.get("service"),
        "priority": values.get("priority"),
        "language": "en",
        "address": values.get("address"),
        "createdAt": in_rfc3339(now),
    }
    return {
        "repair": _without_empty(repair),
        "customer": {**person, "websiteUserId": customer_id},
        "metadata": {"source": "revivatech", "bookingChannel": "website", "timestamp": in_rfc3339(now)},
    }


def payment_event(
    change_id: str, booking_id: str, ticket_number: str, customer_id: str, now: datetime
) -> dict[str, Any]:
    """Return the event of a deposit that was paid."""
    return {
        "payment": {
            "websiteEventId": change_id,
            "websitePaymentId": f"{booking_id}-deposit",
            "websiteRepairId": booking_id,
            "ticketNumber": ticket_number,
            "status": "paid",
            "amount": DEPOSIT,
            "currency": "GBP",
            "method": "card",
            "occurredAt": in_rfc3339(now),
        },
        "customer": {"websiteUserId": customer_id},
        "metadata": {"source": "revivatech", "timestamp": in_rfc3339(now)},
    }


def rescheduling_event(
    change_id: str, booking_id: str, ticket_number: str, customer_id: str, values: Values, now: datetime
) -> dict[str, Any]:
    """Return the event of another day that was chosen, valid or not."""
    return {
        "booking": {
            "websiteEventId": change_id,
            "websiteRepairId": booking_id,
            "ticketNumber": ticket_number,
            "status": "rescheduled",
            "scheduledFor": f"{values.get('day', '')}T09:00:00Z",
            "occurredAt": in_rfc3339(now),
        },
        "customer": {"websiteUserId": customer_id},
        "metadata": {"source": "revivatech", "timestamp": in_rfc3339(now)},
    }


def profile_event(change_id: str, customer_id: str, values: Values, now: datetime) -> dict[str, Any]:
    """Return the event of a changed profile, valid or not: what was left empty stays as it is."""
    changed = _without_empty({"email": values.get("email"), "phone": values.get("phone")})
    moment = in_rfc3339(now)
    return {
        "customer": {"websiteUserId": customer_id, **changed},
        "metadata": {
            "websiteEventId": change_id,
            "source": "revivatech",
            "changedAt": moment,
            "timestamp": moment,
        },
    }


def _person(values: Values) -> dict[str, str]:
    return _without_empty(
        {
            "firstName": values.get("first_name"),
            "lastName": values.get("last_name"),
            "email": values.get("email"),
            "phone": values.get("phone"),
        }
    )


def _without_empty(block: Mapping[str, str | None]) -> dict[str, str]:
    """Leave out what was not filled in: in the contract, optional means absent."""
    return {name: value for name, value in block.items() if value}


def words_for_fields(faults: Iterable[Fault], fields: Iterable[Field]) -> dict[str, str]:
    """Return for each field at fault what to say beside it; under "" what belongs to none."""
    places = {pointer: field for field in fields for pointer in field.fills}
    said: dict[str, str] = {}
    for fault in faults:
        field = places.get(fault.pointer)
        if field is None:
            said.setdefault("", f"{fault.pointer or 'The form'} {fault.detail}.")
        else:
            hint = f" ({field.hint})" if field.hint else ""
            said.setdefault(field.name, f"{field.label} {fault.detail}{hint}.")
    return said


def in_rfc3339(moment: datetime) -> str:
    """Return a time as the contract writes it, in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
