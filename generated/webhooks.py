"""The contract as models. Generated from openapi/webhooks/v1.yaml by `make generate`. Do not edit."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import (
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictStr,
    StringConstraints,
)
from typing_extensions import TypeAliasType

from generated.base import AwareDatetime, ContractModel, SomeFields, StrictInt

SettingNumber = TypeAliasType(
    "SettingNumber",
    Annotated[StrictFloat, Field(ge=-9007199254740991.0, le=9007199254740991.0)],
)
"""A number that every JSON reader holds exactly."""


SettingText = TypeAliasType(
    "SettingText", Annotated[StrictStr, Field(max_length=1000, pattern="^[^\\x00]*$")]
)
"""A text."""


class RegistrationMetadata(ContractModel):
    """Where a registration was made and when it was sent."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    registration_source: Annotated[
        StrictStr | None,
        Field(
            alias="registrationSource",
            max_length=64,
            min_length=1,
            pattern="^[^\\x00-\\x1f\\x7f]*$",
        ),
    ] = None
    """Where the customer registered."""
    timestamp: AwareDatetime
    """When the website sent it (RFC 3339, with an offset). A second sending may differ in it."""


PhotoAddress = TypeAliasType(
    "PhotoAddress",
    Annotated[
        StrictStr,
        Field(max_length=2048, min_length=1, pattern="^[^\\x00-\\x1f\\x7f]*$"),
    ],
)
"""Address of a photo."""


class RepairCustomer(ContractModel):
    """The customer who asks for a repair."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    first_name: Annotated[
        StrictStr,
        Field(
            alias="firstName",
            json_schema_extra={"personal-data": True},
            max_length=200,
            min_length=1,
            pattern="^[^\\x00-\\x1f\\x7f]*$",
        ),
    ]
    """Given name."""
    last_name: Annotated[
        StrictStr,
        Field(
            alias="lastName",
            json_schema_extra={"personal-data": True},
            max_length=200,
            min_length=1,
            pattern="^[^\\x00-\\x1f\\x7f]*$",
        ),
    ]
    """Family name."""
    email: Annotated[
        StrictStr,
        Field(
            json_schema_extra={"personal-data": True},
            max_length=254,
            pattern="^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$",
        ),
    ]
    """E-mail address, by the rule of an HTML e-mail field. Nobody has verified it."""
    phone: Annotated[
        StrictStr | None,
        Field(
            json_schema_extra={"personal-data": True},
            max_length=64,
            min_length=1,
            pattern="^[^\\x00-\\x1f\\x7f]*$",
        ),
    ] = None
    """Telephone number as the customer wrote it."""
    website_user_id: Annotated[StrictStr, Field(alias="websiteUserId", pattern="^[A-Za-z0-9._:-]{1,64}$")]
    """The customer's id on the website; a guest gets one too."""


class RepairMetadata(ContractModel):
    """Where a repair was booked and when it was sent."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    source: Literal["revivatech"] | None = None
    """The system that sends it."""
    booking_channel: Annotated[
        StrictStr | None,
        Field(
            alias="bookingChannel",
            max_length=64,
            min_length=1,
            pattern="^[^\\x00-\\x1f\\x7f]*$",
        ),
    ] = None
    """Where the repair was booked."""
    timestamp: AwareDatetime
    """When the website sent it (RFC 3339, with an offset). A second sending may differ in it."""


class Payment(ContractModel):
    """A payment at one moment. Never a card's number."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    website_event_id: Annotated[StrictStr, Field(alias="websiteEventId", pattern="^[A-Za-z0-9._:-]{1,64}$")]
    """The id of this change on the website, another one for every change."""
    website_payment_id: Annotated[
        StrictStr, Field(alias="websitePaymentId", pattern="^[A-Za-z0-9._:-]{1,64}$")
    ]
    """The payment's id on the website, the same for all its changes."""
    website_repair_id: Annotated[StrictStr, Field(alias="websiteRepairId", pattern="^[A-Za-z0-9._:-]{1,64}$")]
    """The booking that it is for, by the id of its repair request."""
    ticket_number: Annotated[StrictStr, Field(alias="ticketNumber", pattern="^[A-Za-z0-9._:-]{1,64}$")]
    """The number that customer and staff use for the repair."""
    status: Literal[
        "pending",
        "authorized",
        "paid",
        "failed",
        "cancelled",
        "partially_refunded",
        "refunded",
    ]
    """How far the payment is."""
    amount: Annotated[StrictFloat, Field(ge=0.0, le=1000000.0)]
    """What the payment is about; for a refund, what was given back in all."""
    currency: Annotated[StrictStr, Field(pattern="^[A-Z]{3}$")]
    """The amount's currency (ISO 4217)."""
    method: Annotated[StrictStr | None, Field(pattern="^[a-z][a-z0-9_]{0,63}$")] = None
    """How it was paid, an open list of lower-case words such as `card`."""
    occurred_at: Annotated[AwareDatetime, Field(alias="occurredAt")]
    """When it happened (RFC 3339, with an offset)."""


class KnownCustomer(ContractModel):
    """A customer of whom an earlier webhook has told."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    website_user_id: Annotated[StrictStr, Field(alias="websiteUserId", pattern="^[A-Za-z0-9._:-]{1,64}$")]
    """The customer's id on the website."""


class StatusMetadata(ContractModel):
    """When a change was sent."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    source: Literal["revivatech"] | None = None
    """The system that sends it."""
    timestamp: AwareDatetime
    """When the website sent it (RFC 3339, with an offset). A second sending may differ in it."""


class Booking(ContractModel):
    """A booking at one moment."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    website_event_id: Annotated[StrictStr, Field(alias="websiteEventId", pattern="^[A-Za-z0-9._:-]{1,64}$")]
    """The id of this change on the website, another one for every change."""
    website_repair_id: Annotated[StrictStr, Field(alias="websiteRepairId", pattern="^[A-Za-z0-9._:-]{1,64}$")]
    """The booking's id on the website, that of its repair request."""
    ticket_number: Annotated[StrictStr, Field(alias="ticketNumber", pattern="^[A-Za-z0-9._:-]{1,64}$")]
    """The number that customer and staff use for the repair."""
    status: Literal["confirmed", "rescheduled", "arrived", "cancelled", "no_show"]
    """What happened to the booking."""
    scheduled_for: Annotated[AwareDatetime | None, Field(alias="scheduledFor")] = None
    """For when it is booked now (RFC 3339, with an offset)."""
    reason: Annotated[
        StrictStr | None,
        Field(
            json_schema_extra={"personal-data": True},
            max_length=1000,
            min_length=1,
            pattern="^[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]*$",
        ),
    ] = None
    """Why, in the customer's words. May have several lines."""
    occurred_at: Annotated[AwareDatetime, Field(alias="occurredAt")]
    """When it happened (RFC 3339, with an offset)."""


class ChangedCustomer(SomeFields):
    """The fields of a profile that changed; at least one."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    website_user_id: Annotated[StrictStr, Field(alias="websiteUserId", pattern="^[A-Za-z0-9._:-]{1,64}$")]
    """The customer's id on the website, which never changes."""
    first_name: Annotated[
        StrictStr | None,
        Field(
            alias="firstName",
            json_schema_extra={"personal-data": True},
            max_length=200,
            min_length=1,
            pattern="^[^\\x00-\\x1f\\x7f]*$",
        ),
    ] = None
    """Given name."""
    last_name: Annotated[
        StrictStr | None,
        Field(
            alias="lastName",
            json_schema_extra={"personal-data": True},
            max_length=200,
            min_length=1,
            pattern="^[^\\x00-\\x1f\\x7f]*$",
        ),
    ] = None
    """Family name."""
    email: Annotated[
        StrictStr | None,
        Field(
            json_schema_extra={"personal-data": True},
            max_length=254,
            pattern="^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$",
        ),
    ] = None
    """E-mail address, by the rule of an HTML e-mail field. Nobody has verified it."""
    phone: Annotated[
        StrictStr | None,
        Field(
            json_schema_extra={"personal-data": True},
            max_length=64,
            min_length=1,
            pattern="^[^\\x00-\\x1f\\x7f]*$",
        ),
    ] = None
    """Telephone number as the customer wrote it."""
    language: Annotated[
        StrictStr | None,
        Field(max_length=35, pattern="^[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*$"),
    ] = None
    """Preferred language (BCP 47)."""
    preferences: Annotated[
        dict[
            Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,64}$", strict=True)],
            StrictBool | SettingNumber | SettingText,
        ]
        | None,
        Field(json_schema_extra={"personal-data": True}, max_length=100),
    ] = None
    """The customer's settings on the website, by name; all of them."""


class ProfileMetadata(ContractModel):
    """Which change of a profile it is, and when it was sent."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    website_event_id: Annotated[StrictStr, Field(alias="websiteEventId", pattern="^[A-Za-z0-9._:-]{1,64}$")]
    """The id of this change on the website, another one for every change."""
    source: Literal["revivatech"] | None = None
    """The system that sends it."""
    changed_at: Annotated[AwareDatetime, Field(alias="changedAt")]
    """When the customer changed it (RFC 3339, with an offset)."""
    timestamp: AwareDatetime
    """When the website sent it (RFC 3339, with an offset). A second sending may differ in it."""


class Receipt(ContractModel):
    """The CRM's word that an event is stored. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    id: StrictStr
    """The approval request's id in the CRM."""
    status: StrictStr
    """Always `pending_approval` from the CRM; the sender's own door answers `queued`."""
    duplicate: StrictBool
    """Whether an earlier sending had stored it."""
    natural_key: StrictStr
    """The event's natural key."""
    digest: Annotated[StrictStr, Field(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of the stored event's canonical content, in hexadecimal."""


class Outcome(ContractModel):
    """What became of an event. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    id: StrictStr
    """The receipt's id."""
    event: StrictStr
    """The webhook that brought it."""
    status: StrictStr
    """
    `pending_approval`, `approved` or `rejected`. The sender's own door answers with the CRM's word
    once it has it; before, `queued` while the event waits there, `delivered` when the CRM has it
    and cannot be asked now, `failed` when it was given up.

    """
    received_at: AwareDatetime
    """When it was stored, in UTC."""
    decided_at: AwareDatetime | None = None
    """When it was decided, in UTC; absent while it is not."""


class TestReceipt(ContractModel):
    """A test webhook passed. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    status: Literal["test_ok"]
    """Always `test_ok`."""


class Deprecated(ContractModel):
    """When a release is given up."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    since: date
    """The day from which on it should no longer be sent."""
    sunset: date | None = None
    """The day from which on the CRM may refuse it, where that is known."""


class Fault(ContractModel):
    """One fault, without the value."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    pointer: StrictStr
    """JSON pointer (RFC 6901) to the place; a header's name is after `#`."""
    detail: StrictStr
    """What is wrong."""
    expected: StrictStr
    """What would be right."""


class Existing(ContractModel):
    """A pointer to an approval request that is already there."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    id: StrictStr
    """The approval request's id in the CRM."""
    event: StrictStr
    """The webhook that brought it."""


class RegisteredCustomer(ContractModel):
    """A customer's profile as registered."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    first_name: Annotated[
        StrictStr,
        Field(
            alias="firstName",
            json_schema_extra={"personal-data": True},
            max_length=200,
            min_length=1,
            pattern="^[^\\x00-\\x1f\\x7f]*$",
        ),
    ]
    """Given name."""
    last_name: Annotated[
        StrictStr,
        Field(
            alias="lastName",
            json_schema_extra={"personal-data": True},
            max_length=200,
            min_length=1,
            pattern="^[^\\x00-\\x1f\\x7f]*$",
        ),
    ]
    """Family name."""
    email: Annotated[
        StrictStr,
        Field(
            json_schema_extra={"personal-data": True},
            max_length=254,
            pattern="^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$",
        ),
    ]
    """E-mail address, by the rule of an HTML e-mail field. Nobody has verified it."""
    phone: Annotated[
        StrictStr | None,
        Field(
            json_schema_extra={"personal-data": True},
            max_length=64,
            min_length=1,
            pattern="^[^\\x00-\\x1f\\x7f]*$",
        ),
    ] = None
    """Telephone number as the customer wrote it."""
    website_user_id: Annotated[StrictStr, Field(alias="websiteUserId", pattern="^[A-Za-z0-9._:-]{1,64}$")]
    """The customer's id on the website; a guest gets one too."""
    registration_date: Annotated[AwareDatetime | None, Field(alias="registrationDate")] = None
    """When the customer registered (RFC 3339, with an offset)."""
    source: Literal["revivatech"] | None = None
    """The system that sends it."""
    language: Annotated[
        StrictStr | None,
        Field(max_length=35, pattern="^[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*$"),
    ] = None
    """Preferred language (BCP 47)."""
    status: Literal["pending_approval"] | None = None
    """A new customer always waits for approval."""
    preferences: Annotated[
        dict[
            Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,64}$", strict=True)],
            StrictBool | SettingNumber | SettingText,
        ]
        | None,
        Field(json_schema_extra={"personal-data": True}, max_length=100),
    ] = None
    """The customer's settings on the website, by name."""


class Repair(ContractModel):
    """A repair as booked."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    ticket_number: Annotated[StrictStr, Field(alias="ticketNumber", pattern="^[A-Za-z0-9._:-]{1,64}$")]
    """The number that customer and staff use for it."""
    website_repair_id: Annotated[StrictStr, Field(alias="websiteRepairId", pattern="^[A-Za-z0-9._:-]{1,64}$")]
    """The booking's id on the website."""
    customer_email: Annotated[
        StrictStr,
        Field(
            alias="customerEmail",
            json_schema_extra={"personal-data": True},
            max_length=254,
            pattern="^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$",
        ),
    ]
    """The e-mail address given with the booking."""
    customer_name: Annotated[
        StrictStr,
        Field(
            alias="customerName",
            json_schema_extra={"personal-data": True},
            max_length=400,
            min_length=1,
            pattern="^[^\\x00-\\x1f\\x7f]*$",
        ),
    ]
    """The name given with the booking."""
    device_type: Annotated[
        StrictStr,
        Field(
            alias="deviceType",
            max_length=200,
            min_length=1,
            pattern="^[^\\x00-\\x1f\\x7f]*$",
        ),
    ]
    """The device, such as `Apple MacBook Pro`."""
    device_model: Annotated[
        StrictStr | None,
        Field(
            alias="deviceModel",
            max_length=200,
            min_length=1,
            pattern="^[^\\x00-\\x1f\\x7f]*$",
        ),
    ] = None
    """The exact model, where the customer knows it."""
    issue_description: Annotated[
        StrictStr,
        Field(
            alias="issueDescription",
            json_schema_extra={"personal-data": True},
            max_length=5000,
            min_length=1,
            pattern="^[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]*$",
        ),
    ]
    """What is wrong, in the customer's words. May have several lines."""
    service_type: Annotated[
        StrictStr | None, Field(alias="serviceType", pattern="^[A-Z][A-Z0-9_]{0,63}$")
    ] = None
    """The kind of service, an open list of upper-case words such as `SCREEN_REPAIR`."""
    priority: Literal["low", "normal", "high", "urgent"] | None = None
    """How urgent it is."""
    language: Annotated[
        StrictStr | None,
        Field(max_length=35, pattern="^[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*$"),
    ] = None
    """The customer's language (BCP 47)."""
    address: Annotated[
        StrictStr | None,
        Field(
            json_schema_extra={"personal-data": True},
            max_length=1000,
            min_length=1,
            pattern="^[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]*$",
        ),
    ] = None
    """Postal address. May have several lines."""
    notes: Annotated[
        StrictStr | None,
        Field(
            json_schema_extra={"personal-data": True},
            max_length=5000,
            pattern="^[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]*$",
        ),
    ] = None
    """What staff should know, in the customer's words. May have several lines."""
    created_at: Annotated[AwareDatetime, Field(alias="createdAt")]
    """When the repair was booked (RFC 3339, with an offset)."""
    estimated_cost: Annotated[StrictFloat | None, Field(alias="estimatedCost", ge=0.0, le=1000000.0)] = None
    """The estimate shown to the customer, in `currency`, or else the shop's own."""
    currency: Annotated[StrictStr | None, Field(pattern="^[A-Z]{3}$")] = None
    """The currency of `estimatedCost` (ISO 4217)."""
    photos: Annotated[
        list[PhotoAddress] | None,
        Field(json_schema_extra={"personal-data": True}, max_length=50),
    ] = None
    """Addresses of the customer's photos. The CRM shows them, it never fetches them."""


class PaymentStatus(ContractModel):
    """A payment for a repair has moved on."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    payment: Payment
    """The payment as it is now."""
    customer: KnownCustomer
    """Whose repair it is."""
    metadata: StatusMetadata
    """When it was sent."""


class BookingStatus(ContractModel):
    """A booking has moved on."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    booking: Booking
    """The booking as it is now."""
    customer: KnownCustomer
    """Whose booking it is."""
    metadata: StatusMetadata
    """When it was sent."""


class CustomerProfile(ContractModel):
    """A customer changed their profile on the website."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    customer: ChangedCustomer
    """Whose profile it is, and what it says now, where that changed."""
    metadata: ProfileMetadata
    """Which change it is, and when it was sent."""


class SpokenContract(ContractModel):
    """The contract releases that the CRM speaks."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    versions: list[StrictStr]
    """Release numbers, oldest first."""
    deprecated: dict[str, Deprecated] | None = None
    """Those of them that should no longer be sent, by number. Not there when there are none."""


class Problem(ContractModel):
    """A problem (RFC 9457). Never holds a value of the request. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    type: StrictStr
    """What kind of problem it is, a stable word."""
    title: StrictStr
    """The kind in words."""
    status: StrictInt
    """The HTTP status."""
    detail: StrictStr
    """What is wrong here and what to do."""
    errors: list[Fault] | None = None
    """Every fault of the body or the headers."""
    existing: Existing | None = None
    """What the CRM already has."""
    versions: list[StrictStr] | None = None
    """The contract releases that the CRM speaks."""


class UnhealthyProblem(ContractModel):
    """A problem (RFC 9457) with what health knows beside it."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    type: StrictStr
    """What kind of problem it is, a stable word."""
    title: StrictStr
    """The kind in words."""
    status: StrictInt
    """The HTTP status."""
    detail: StrictStr
    """What is wrong and what to do."""
    time: AwareDatetime
    """The CRM's clock, in UTC."""
    database: StrictStr
    """`ok`, or `unavailable`."""
    contract: SpokenContract


class CustomerRegistration(ContractModel):
    """A customer registered on the website."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    customer: RegisteredCustomer
    """The customer's profile."""
    metadata: RegistrationMetadata
    """Where and when it was sent."""


class RepairRequest(ContractModel):
    """A customer booked a repair on the website."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    repair: Repair
    """What is to be repaired."""
    customer: RepairCustomer
    """Who asks for it."""
    metadata: RepairMetadata
    """Where and when it was sent."""


class Health(ContractModel):
    """Whether the CRM takes events, and which releases it speaks. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    status: StrictStr
    """`ok`."""
    time: AwareDatetime
    """The CRM's clock, in UTC."""
    database: StrictStr
    """`ok`, or `unavailable`."""
    contract: SpokenContract
