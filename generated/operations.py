"""What the sender and the CRM must know of each webhook, from the contract's `x-` extensions.

Generated from openapi/webhooks/ by `make generate`. Do not edit.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from generated.base import ContractModel
from generated.webhooks import (
    BookingStatus,
    CustomerProfile,
    CustomerRegistration,
    PaymentStatus,
    RepairRequest,
)

Delivery = Literal["delivered", "retry", "hold", "fail"]
"""What an answer means for the sender (`x-delivery`)."""

Path = tuple[str, ...]
"""Where a field stands in a body: its names from the outside in."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a documented answer means for the sender: by problem type, or else `default`."""

    default: Delivery
    by_type: Mapping[str, Delivery]


@dataclass(frozen=True, slots=True)
class Webhook:
    """One webhook of one contract release."""

    name: str
    path: str
    """Below `CRM_WEBHOOK_URL`."""
    natural_key: Path
    """The identity that two sendings of one event share."""
    order_key: Path
    """The customer in whose order events are delivered."""
    reference: Path
    """The number that people use for it."""
    about: Path
    """The natural key of the repair request that it tells more of; empty where it tells of nothing earlier."""
    not_identity: tuple[Path, ...]
    """Fields that two sendings of one event may differ in."""
    times: tuple[Path, ...]
    """Fields that hold a date-time."""
    personal: tuple[Path, ...]
    """Fields that hold personal data."""
    open_maps: tuple[Path, ...]
    """Objects whose keys are the customer's words."""
    answers: Mapping[int, Answer]
    """By HTTP status."""


@dataclass(frozen=True, slots=True)
class Deprecated:
    """When a release is given up."""

    since: datetime.date
    """From when on it should no longer be sent."""
    sunset: datetime.date | None
    """From when on the CRM may refuse it, where that is known."""


CURRENT = "1.1.0"
"""The contract release that the models are made from."""

HEALTH_PATH = "/health"
"""Below `CRM_WEBHOOK_URL`."""

RECEIPT_PATH = "/receipts/{id}"
"""Below `CRM_WEBHOOK_URL`, to be formatted with a receipt's `id`."""

MODELS: Mapping[str, type[ContractModel]] = {
    "customer-registration": CustomerRegistration,
    "repair-request": RepairRequest,
    "payment-status": PaymentStatus,
    "booking-status": BookingStatus,
    "customer-profile": CustomerProfile,
}
"""The model of each webhook's body, by name."""

RELEASES: Mapping[str, Mapping[str, Webhook]] = {
    "1.0.0": {
        "customer-registration": Webhook(
            name="customer-registration",
            path="/customer-registration",
            natural_key=("customer", "websiteUserId"),
            order_key=("customer", "websiteUserId"),
            reference=("customer", "websiteUserId"),
            about=(),
            not_identity=(("metadata", "timestamp"),),
            times=(("customer", "registrationDate"), ("metadata", "timestamp")),
            personal=(
                ("customer", "firstName"),
                ("customer", "lastName"),
                ("customer", "email"),
                ("customer", "phone"),
                ("customer", "preferences"),
            ),
            open_maps=(("customer", "preferences"),),
            answers={
                200: Answer("retry", {}),
                202: Answer("delivered", {}),
                400: Answer("fail", {"unsupported-contract-version": "hold"}),
                401: Answer("hold", {}),
                403: Answer("hold", {}),
                404: Answer("hold", {}),
                405: Answer("hold", {}),
                408: Answer("retry", {}),
                409: Answer("fail", {"delivery-loop": "hold"}),
                413: Answer("fail", {}),
                415: Answer("hold", {}),
                429: Answer("retry", {}),
                431: Answer("hold", {}),
                500: Answer("retry", {}),
                503: Answer("retry", {}),
            },
        ),
        "repair-request": Webhook(
            name="repair-request",
            path="/repair-request",
            natural_key=("repair", "websiteRepairId"),
            order_key=("customer", "websiteUserId"),
            reference=("repair", "ticketNumber"),
            about=(),
            not_identity=(("metadata", "timestamp"),),
            times=(("repair", "createdAt"), ("metadata", "timestamp")),
            personal=(
                ("repair", "customerEmail"),
                ("repair", "customerName"),
                ("repair", "issueDescription"),
                ("repair", "address"),
                ("repair", "notes"),
                ("repair", "photos"),
                ("customer", "firstName"),
                ("customer", "lastName"),
                ("customer", "email"),
                ("customer", "phone"),
            ),
            open_maps=(),
            answers={
                200: Answer("retry", {}),
                202: Answer("delivered", {}),
                400: Answer("fail", {"unsupported-contract-version": "hold"}),
                401: Answer("hold", {}),
                403: Answer("hold", {}),
                404: Answer("hold", {}),
                405: Answer("hold", {}),
                408: Answer("retry", {}),
                409: Answer("fail", {"delivery-loop": "hold"}),
                413: Answer("fail", {}),
                415: Answer("hold", {}),
                429: Answer("retry", {}),
                431: Answer("hold", {}),
                500: Answer("retry", {}),
                503: Answer("retry", {}),
            },
        ),
    },
    "1.1.0": {
        "customer-registration": Webhook(
            name="customer-registration",
            path="/customer-registration",
            natural_key=("customer", "websiteUserId"),
            order_key=("customer", "websiteUserId"),
            reference=("customer", "websiteUserId"),
            about=(),
            not_identity=(("metadata", "timestamp"),),
            times=(("customer", "registrationDate"), ("metadata", "timestamp")),
            personal=(
                ("customer", "firstName"),
                ("customer", "lastName"),
                ("customer", "email"),
                ("customer", "phone"),
                ("customer", "preferences"),
            ),
            open_maps=(("customer", "preferences"),),
            answers={
                200: Answer("retry", {}),
                202: Answer("delivered", {}),
                400: Answer("fail", {"unsupported-contract-version": "hold"}),
                401: Answer("hold", {}),
                403: Answer("hold", {}),
                404: Answer("hold", {}),
                405: Answer("hold", {}),
                408: Answer("retry", {}),
                409: Answer("fail", {"delivery-loop": "hold"}),
                413: Answer("fail", {}),
                415: Answer("hold", {}),
                429: Answer("retry", {}),
                431: Answer("hold", {}),
                500: Answer("retry", {}),
                503: Answer("retry", {}),
            },
        ),
        "repair-request": Webhook(
            name="repair-request",
            path="/repair-request",
            natural_key=("repair", "websiteRepairId"),
            order_key=("customer", "websiteUserId"),
            reference=("repair", "ticketNumber"),
            about=(),
            not_identity=(("metadata", "timestamp"),),
            times=(("repair", "createdAt"), ("metadata", "timestamp")),
            personal=(
                ("repair", "customerEmail"),
                ("repair", "customerName"),
                ("repair", "issueDescription"),
                ("repair", "address"),
                ("repair", "notes"),
                ("repair", "photos"),
                ("customer", "firstName"),
                ("customer", "lastName"),
                ("customer", "email"),
                ("customer", "phone"),
            ),
            open_maps=(),
            answers={
                200: Answer("retry", {}),
                202: Answer("delivered", {}),
                400: Answer("fail", {"unsupported-contract-version": "hold"}),
                401: Answer("hold", {}),
                403: Answer("hold", {}),
                404: Answer("hold", {}),
                405: Answer("hold", {}),
                408: Answer("retry", {}),
                409: Answer("fail", {"delivery-loop": "hold"}),
                413: Answer("fail", {}),
                415: Answer("hold", {}),
                429: Answer("retry", {}),
                431: Answer("hold", {}),
                500: Answer("retry", {}),
                503: Answer("retry", {}),
            },
        ),
        "payment-status": Webhook(
            name="payment-status",
            path="/payment-status",
            natural_key=("payment", "websiteEventId"),
            order_key=("customer", "websiteUserId"),
            reference=("payment", "ticketNumber"),
            about=("payment", "websiteRepairId"),
            not_identity=(("metadata", "timestamp"),),
            times=(("payment", "occurredAt"), ("metadata", "timestamp")),
            personal=(),
            open_maps=(),
            answers={
                200: Answer("retry", {}),
                202: Answer("delivered", {}),
                400: Answer("fail", {"unsupported-contract-version": "hold"}),
                401: Answer("hold", {}),
                403: Answer("hold", {}),
                404: Answer("hold", {}),
                405: Answer("hold", {}),
                408: Answer("retry", {}),
                409: Answer("fail", {"delivery-loop": "hold"}),
                413: Answer("fail", {}),
                415: Answer("hold", {}),
                429: Answer("retry", {}),
                431: Answer("hold", {}),
                500: Answer("retry", {}),
                503: Answer("retry", {}),
            },
        ),
        "booking-status": Webhook(
            name="booking-status",
            path="/booking-status",
            natural_key=("booking", "websiteEventId"),
            order_key=("customer", "websiteUserId"),
            reference=("booking", "ticketNumber"),
            about=("booking", "websiteRepairId"),
            not_identity=(("metadata", "timestamp"),),
            times=(("booking", "scheduledFor"), ("booking", "occurredAt"), ("metadata", "timestamp")),
            personal=(("booking", "reason"),),
            open_maps=(),
            answers={
                200: Answer("retry", {}),
                202: Answer("delivered", {}),
                400: Answer("fail", {"unsupported-contract-version": "hold"}),
                401: Answer("hold", {}),
                403: Answer("hold", {}),
                404: Answer("hold", {}),
                405: Answer("hold", {}),
                408: Answer("retry", {}),
                409: Answer("fail", {"delivery-loop": "hold"}),
                413: Answer("fail", {}),
                415: Answer("hold", {}),
                429: Answer("retry", {}),
                431: Answer("hold", {}),
                500: Answer("retry", {}),
                503: Answer("retry", {}),
            },
        ),
        "customer-profile": Webhook(
            name="customer-profile",
            path="/customer-profile",
            natural_key=("metadata", "websiteEventId"),
            order_key=("customer", "websiteUserId"),
            reference=("customer", "websiteUserId"),
            about=(),
            not_identity=(("metadata", "timestamp"),),
            times=(("metadata", "changedAt"), ("metadata", "timestamp")),
            personal=(
                ("customer", "firstName"),
                ("customer", "lastName"),
                ("customer", "email"),
                ("customer", "phone"),
                ("customer", "preferences"),
            ),
            open_maps=(("customer", "preferences"),),
            answers={
                200: Answer("retry", {}),
                202: Answer("delivered", {}),
                400: Answer("fail", {"unsupported-contract-version": "hold"}),
                401: Answer("hold", {}),
                403: Answer("hold", {}),
                404: Answer("hold", {}),
                405: Answer("hold", {}),
                408: Answer("retry", {}),
                409: Answer("fail", {"delivery-loop": "hold"}),
                413: Answer("fail", {}),
                415: Answer("hold", {}),
                429: Answer("retry", {}),
                431: Answer("hold", {}),
                500: Answer("retry", {}),
                503: Answer("retry", {}),
            },
        ),
    },
}
"""Every release that is accepted, oldest first, and its webhooks by name."""

WEBHOOKS: Mapping[str, Webhook] = RELEASES[CURRENT]
"""Today's webhooks, by name."""

DEPRECATED: Mapping[str, Deprecated] = {}
"""The releases that should no longer be sent."""
