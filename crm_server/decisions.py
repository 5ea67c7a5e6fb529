"""The states of requests and tickets as tables, and what an approval means for the CRM's records. Pure."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from generated.base import ContractModel
from generated.webhooks import CustomerProfile, CustomerRegistration, RepairRequest

Verb = Literal["approve", "reject", "reopen"]
Row = dict[str, Any]

TRANSITIONS: Mapping[tuple[str, Verb], str] = {
    ("pending_approval", "approve"): "approved",
    ("pending_approval", "reject"): "rejected",
    ("approved", "reopen"): "pending_approval",
    ("rejected", "reopen"): "pending_approval",
}
"""What a decision makes of a request; what is not here cannot happen."""

TICKET_TRANSITIONS: Mapping[str, str] = {"open": "in_repair", "in_repair": "ready", "ready": "closed"}
"""Where a ticket goes from each of its states."""

IN_JSON = {"preferences", "photos"}
"""Columns of records that hold JSON."""

COMPARED = ("first_name", "last_name", "email", "phone")
"""The fields of a customer that staff compare, and may choose."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What staff choose when they approve."""

    ticket_number: str | None = None
    """The ticket's, where another ticket has the one that was sent."""
    customer_id: str | None = None
    """The customer, where the `websiteUserId` is not known yet."""
    use_sent: Sequence[str] = ()
    """Those of COMPARED that become what was sent."""


NO_CHOICE = Choice()


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of which a customer's record and a request say something else."""

    field: str
    on_record: str
    sent: str


def differences(on_record: Mapping[str, Any], sent: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield where a customer's record and a request differ; what one of them does not say is no difference."""
    for name in COMPARED:
        if on_record[name] is not None and sent[name] is not None and on_record[name] != sent[name]:
            yield Difference(name, on_record[name], sent[name])


@dataclass(frozen=True, slots=True)
class Change:
    """A field of a customer that a changed profile says anew; preferences are JSON."""

    field: str
    on_record: str | None
    sent: str


def changes(
    on_record: Mapping[str, Any], event: CustomerProfile, outdated: Collection[str] = ()
) -> Iterator[Change]:
    """Yield what a changed profile would change of a customer's record, but for the fields that are outdated."""
    for name, sent in changed_customer(event).items():
        if name in outdated:
            continue
        known = on_record[name]
        same = known == sent
        if name in IN_JSON and known is not None:
            same = json.loads(known) == json.loads(sent)
        if not same:
            yield Change(name, known, sent)


@dataclass(frozen=True, slots=True)
class Records:
    """What an approval writes: columns of a customer and, for a repair, of a ticket."""

    customer: Row
    ticket: Row | None


def records_of(event: ContractModel) -> Records:
    """Return what approving this event writes, without ids and times that the CRM gives."""
    match event:
        case CustomerRegistration():
            return Records(registered_customer(event), ticket=None)
        case RepairRequest():
            return Records(repair_customer(event), ticket=repair_ticket(event))
    raise TypeError(f"{type(event).__name__} has no records")


def registered_customer(event: CustomerRegistration) -> Row:
    """Return the customer that a registration describes."""
    customer = event.customer
    return {
        "website_user_id": customer.website_user_id,
        "first_name": customer.first_name,
        "last_name": customer.last_name,
        "email": customer.email,
        "phone": customer.phone,
        "language": customer.language,
        "registered_at": _time(customer.registration_date),
        "registration_source": event.metadata.registration_source,
        "preferences": _json(customer.preferences),
    }


def changed_customer(event: CustomerProfile) -> dict[str, str]:
    """Return the fields of a customer that a changed profile says anew."""
    customer = event.customer
    fields = {
        "first_name": customer.first_name,
        "last_name": customer.last_name,
        "email": customer.email,
        "phone": customer.phone,
        "language": customer.language,
        "preferences": _json(customer.preferences),
    }
    return {name: value for name, value in fields.items() if value is not None}


def repair_customer(event: RepairRequest) -> Row:
    """Return as much of the customer as a repair request knows."""
    customer = event.customer
    return {
        "website_user_id": customer.website_user_id,
        "first_name": customer.first_name,
        "last_name": customer.last_name,
        "email": customer.email,
        "phone": customer.phone,
    }


def repair_ticket(event: RepairRequest) -> Row:
    """Return the ticket that a repair request opens."""
    repair = event.repair
    return {
        "website_repair_id": repair.website_repair_id,
        "ticket_number": repair.ticket_number,
        "status": "open",
        "customer_name": repair.customer_name,
        "customer_email": repair.customer_email,
        "device_type": repair.device_type,
        "device_model": repair.device_model,
        "issue_description": repair.issue_description,
        "service_type": repair.service_type,
        "priority": repair.priority,
        "language": repair.language,
        "address": repair.address,
        "notes": repair.notes,
        "estimated_cost": repair.estimated_cost,
        "currency": repair.currency,
        "photos": _json(repair.photos),
        "booked_at": _time(repair.created_at),
    }


def _time(time: datetime | None) -> str | None:
    return time.isoformat().replace("+00:00", "Z") if time else None


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
