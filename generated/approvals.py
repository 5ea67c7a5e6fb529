"""The contract as models. Generated from openapi/approvals.yaml by `make generate`. Do not edit."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictBool, StrictFloat, StrictStr

from generated.base import AwareDatetime, ContractModel, SomeFields, StrictInt


class Approving(ContractModel):
    """What is chosen."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    ticket_number: Annotated[StrictStr | None, Field(pattern="^[A-Za-z0-9._:-]{1,64}$")] = None
    """The ticket's number, where another ticket has the one that was sent."""
    customer_id: Annotated[StrictStr | None, Field(pattern="^[A-Za-z0-9-]{1,64}$")] = None
    """The customer who sent it, where their `websiteUserId` is not known yet."""
    use_sent: Annotated[
        list[Literal["/first_name", "/last_name", "/email", "/phone"]] | None,
        Field(max_length=4),
    ] = None
    """The fields of the customer that become what was sent; the others stay as they are."""


class Reopening(ContractModel):
    """Nothing to choose."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )


class MovingTicket(ContractModel):
    """Where a ticket goes."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    status: Literal["in_repair", "ready", "closed"]
    """Its next state."""


class Noting(ContractModel):
    """A note on a ticket."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    text: Annotated[
        StrictStr,
        Field(
            json_schema_extra={"personal-data": True},
            max_length=5000,
            pattern="^[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]*[^\\x00-\\x20\\x7f][^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]*$",
        ),
    ]
    """In staff's words. May have several lines, and is not blank."""


class Rejecting(ContractModel):
    """Why a request is rejected."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    reason: Annotated[
        StrictStr,
        Field(
            max_length=5000,
            pattern="^[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]*[^\\x00-\\x20\\x7f][^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]*$",
        ),
    ]
    """In staff's words. May have several lines, and is not blank."""


class Preview(ContractModel):
    """What a decision on everything would decide."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    count: Annotated[StrictInt, Field(ge=0, le=999999999999)]
    """How many requests, exactly."""
    as_of: Annotated[StrictInt, Field(ge=0, le=999999999999)]
    """The newest request when it was counted; none that is newer is among them."""
    digest: Annotated[StrictStr, Field(max_length=64, pattern="^[0-9a-f]{64}$")]
    """Stands for which requests they are."""


class SearchWords(ContractModel):
    """What is searched for."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    text: Annotated[
        StrictStr,
        Field(
            json_schema_extra={"personal-data": True},
            max_length=200,
            min_length=1,
            pattern="^[^\\x00-\\x1f\\x7f]*$",
        ),
    ]
    """Some words."""


class SavedSearch(ContractModel):
    """A search that is saved. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    id: StrictStr
    """What lists take as `search`."""


class Approval(ContractModel):
    """An approval request. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    id: StrictStr
    """The request's id."""
    event: StrictStr
    """The webhook that brought it."""
    status: StrictStr
    """`pending_approval`, `approved` or `rejected`."""
    received_at: AwareDatetime
    """When it was received."""
    webhook_id: Annotated[StrictStr | None, Field(...)]
    """The event's id."""
    natural_key: StrictStr
    """The event's natural key."""
    contract: StrictStr
    """The contract release that it was written for."""
    payload: Annotated[dict[str, Any] | None, Field(...)]
    """What was received, nothing once it is erased. For a viewer personal fields are masked."""
    decided_at: Annotated[AwareDatetime | None, Field(...)]
    """When it was decided."""
    decided_by: Annotated[StrictStr | None, Field(...)]
    """Who decided it; `website` for what needed no staff."""
    about: Annotated[StrictStr | None, Field(...)]
    """The natural key of the repair request that it tells more of, nothing once it is erased."""


class ApprovalPage(ContractModel):
    """A page of approval requests."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    items: list[Approval]
    """The requests."""
    next: Annotated[StrictStr | None, Field(...)]
    """`after` for the page that follows, if there is one."""
    total: StrictInt
    """How many there are on all pages, counted up to 10,000."""
    total_exact: StrictBool
    """Whether `total` is all."""


class RequestReference(ContractModel):
    """A request, without what it holds."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    id: StrictStr
    """The request's id."""
    status: StrictStr
    """`pending_approval`, `approved` or `rejected`."""
    received_at: AwareDatetime
    """When it was received."""


class WebsiteStatus(ContractModel):
    """A payment or a booking at one moment, as the website told. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    id: StrictStr
    """The id of the request that told it."""
    event: StrictStr
    """`payment-status` or `booking-status`."""
    approval_status: StrictStr
    """Of the request: `pending_approval`, `approved` or `rejected`."""
    received_at: AwareDatetime
    """When it was received."""
    status: StrictStr
    """What the payment or the booking is since."""
    occurred_at: AwareDatetime
    """When it happened."""
    amount: Annotated[StrictFloat | None, Field(...)]
    """Of a payment."""
    currency: Annotated[StrictStr | None, Field(...)]
    """Of the amount (ISO 4217)."""
    method: Annotated[StrictStr | None, Field(...)]
    """How it was paid."""
    scheduled_for: Annotated[AwareDatetime | None, Field(...)]
    """For when it is booked."""
    reason: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """Why, in the customer's words."""


class Change(ContractModel):
    """A field that a changed profile says anew. Preferences are JSON."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    field: Literal["/first_name", "/last_name", "/email", "/phone", "/language", "/preferences"]
    """JSON pointer to a field of the customer."""
    on_record: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """What the customer's record says, or said before."""
    sent: Annotated[StrictStr, Field(json_schema_extra={"personal-data": True})]
    """What the request says."""


class Difference(ContractModel):
    """A field of which record and request say something else."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    field: Literal["/first_name", "/last_name", "/email", "/phone"]
    """JSON pointer to a field of the customer."""
    on_record: Annotated[StrictStr, Field(json_schema_extra={"personal-data": True})]
    """What the customer's record says."""
    sent: Annotated[StrictStr, Field(json_schema_extra={"personal-data": True})]
    """What the request says."""


class Suggestion(ContractModel):
    """A customer who may have sent a request. Nobody has verified an e-mail address."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    customer_id: StrictStr
    """What `customer_id` of an approval takes."""
    first_name: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """Given name."""
    last_name: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """Family name."""
    email: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """E-mail address."""
    phone: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """Telephone number."""


class Correction(ContractModel):
    """A field that was corrected. The first `before` of a field is what was sent."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    at: AwareDatetime
    """When."""
    author: StrictStr
    """Who."""
    field: StrictStr
    """JSON pointer to the field."""
    before: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """What it said before, nothing once it is erased."""


class CorrectingCustomer(SomeFields):
    """The fields that are wrong, and what is right."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    first_name: Annotated[
        StrictStr | None,
        Field(
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
    """E-mail address."""
    phone: Annotated[
        StrictStr | None,
        Field(
            json_schema_extra={"personal-data": True},
            max_length=64,
            min_length=1,
            pattern="^[^\\x00-\\x1f\\x7f]*$",
        ),
    ] = None
    """Telephone number."""


class CorrectingTicket(SomeFields):
    """The fields that are wrong, and what is right."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    customer_name: Annotated[
        StrictStr | None,
        Field(
            json_schema_extra={"personal-data": True},
            max_length=400,
            min_length=1,
            pattern="^[^\\x00-\\x1f\\x7f]*$",
        ),
    ] = None
    """The customer's name."""
    customer_email: Annotated[
        StrictStr | None,
        Field(
            json_schema_extra={"personal-data": True},
            max_length=254,
            pattern="^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$",
        ),
    ] = None
    """The customer's e-mail address."""
    device_type: Annotated[
        StrictStr | None,
        Field(max_length=200, min_length=1, pattern="^[^\\x00-\\x1f\\x7f]*$"),
    ] = None
    """The device."""
    device_model: Annotated[
        StrictStr | None,
        Field(max_length=200, min_length=1, pattern="^[^\\x00-\\x1f\\x7f]*$"),
    ] = None
    """The exact model."""
    issue_description: Annotated[
        StrictStr | None,
        Field(
            json_schema_extra={"personal-data": True},
            max_length=5000,
            min_length=1,
            pattern="^[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]*$",
        ),
    ] = None
    """What is wrong."""
    address: Annotated[
        StrictStr | None,
        Field(
            json_schema_extra={"personal-data": True},
            max_length=1000,
            min_length=1,
            pattern="^[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]*$",
        ),
    ] = None
    """Postal address."""
    notes: Annotated[
        StrictStr | None,
        Field(
            json_schema_extra={"personal-data": True},
            max_length=5000,
            min_length=1,
            pattern="^[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]*$",
        ),
    ] = None
    """What staff should know."""


class Customer(ContractModel):
    """A customer. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    id: StrictStr
    """The customer's id."""
    website_user_id: StrictStr
    """The customer's id on the website."""
    first_name: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """Given name."""
    last_name: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """Family name."""
    email: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """E-mail address; nobody has verified it."""
    phone: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """Telephone number as the customer wrote it."""
    language: Annotated[StrictStr | None, Field(...)]
    """The customer's language (BCP 47)."""
    registered_at: Annotated[StrictStr | None, Field(...)]
    """When the customer registered, in the website's zone."""
    registration_source: Annotated[StrictStr | None, Field(...)]
    """Where the customer registered."""
    preferences: Annotated[dict[str, Any] | None, Field(json_schema_extra={"personal-data": True})]
    """What the customer prefers."""
    created_at: AwareDatetime
    """When it was recorded."""
    erased_at: Annotated[AwareDatetime | None, Field(...)]
    """When personal data was erased from it."""


class CustomerPage(ContractModel):
    """A page of customers."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    items: list[Customer]
    """The customers."""
    next: Annotated[StrictStr | None, Field(...)]
    """`after` for the page that follows, if there is one."""
    total: StrictInt
    """How many there are on all pages, counted up to 10,000."""
    total_exact: StrictBool
    """Whether `total` is all."""


class Ticket(ContractModel):
    """A repair ticket. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    id: StrictStr
    """The ticket's id."""
    website_repair_id: StrictStr
    """The booking's id on the website."""
    ticket_number: StrictStr
    """The number that customer and staff use for it."""
    customer_id: StrictStr
    """The customer's id."""
    status: StrictStr
    """`open`, `in_repair`, `ready` or `closed`."""
    customer_name: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """The name given with the booking."""
    customer_email: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """The e-mail address given with the booking."""
    device_type: StrictStr
    """The device."""
    device_model: Annotated[StrictStr | None, Field(...)]
    """The exact model."""
    issue_description: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """What is wrong, in the customer's words."""
    service_type: Annotated[StrictStr | None, Field(...)]
    """The kind of service."""
    priority: Annotated[StrictStr | None, Field(...)]
    """How urgent it is."""
    language: Annotated[StrictStr | None, Field(...)]
    """The customer's language (BCP 47)."""
    address: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """Postal address."""
    notes: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """What staff should know, in the customer's words."""
    estimated_cost: Annotated[StrictFloat | None, Field(...)]
    """The estimate shown to the customer."""
    currency: Annotated[StrictStr | None, Field(...)]
    """The estimate's (ISO 4217), or else the shop's own."""
    photos: Annotated[list[StrictStr] | None, Field(json_schema_extra={"personal-data": True})]
    """Addresses of the customer's photos."""
    booked_at: StrictStr
    """When it was booked, in the website's zone."""
    created_at: AwareDatetime
    """When it was recorded."""
    erased_at: Annotated[AwareDatetime | None, Field(...)]
    """When personal data was erased from it."""


class Note(ContractModel):
    """What a member of staff noted."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    at: AwareDatetime
    """When."""
    author: StrictStr
    """Who."""
    text: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """What, nothing once it is erased."""


class PersonAddress(ContractModel):
    """By what a person is found."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    email: Annotated[
        StrictStr,
        Field(
            json_schema_extra={"personal-data": True},
            max_length=254,
            min_length=3,
            pattern="^[!-?A-~]+@[!-?A-~]+$",
        ),
    ]
    """An e-mail address; its case does not matter."""


class ExportedCustomer(Customer):
    """A customer with what was corrected. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    corrections: list[Correction]
    """What was corrected, oldest first."""


class ExportedApproval(Approval):
    """A request with the reason why it was rejected. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    reason: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """Why it was rejected."""


class ExportedNote(ContractModel):
    """What somebody of the staff noted."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    at: AwareDatetime
    """When."""
    text: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """What."""


class PersonErasure(ContractModel):
    """What was erased, by the ids of the records. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    approvals: list[StrictStr]
    """Requests."""
    customers: list[StrictStr]
    """Customers."""
    tickets: list[StrictStr]
    """Repair tickets."""
    bytes_left: StrictBool
    """Whether erased bytes are left in a file for now, because somebody reads from it; the server goes on trying."""


class TicketPage(ContractModel):
    """A page of repair tickets."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    items: list[Ticket]
    """The tickets."""
    next: Annotated[StrictStr | None, Field(...)]
    """`after` for the page that follows, if there is one."""
    total: StrictInt
    """How many there are on all pages, counted up to 10,000."""
    total_exact: StrictBool
    """Whether `total` is all."""


class AuditEntry(ContractModel):
    """One thing that was done. Holds no value of a record."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    at: AwareDatetime
    """When."""
    actor: StrictStr
    """Who: `staff:`, `cli:` or `server:` and a name, `webhook:` and a key's fingerprint, `website` for what needed no staff."""
    origin: Annotated[StrictStr | None, Field(...)]
    """From which address; nothing for the command line."""
    verb: StrictStr
    """What."""
    record: StrictStr
    """What kind of record it was done to."""
    record_id: StrictStr
    """The record's id."""
    pointers: list[StrictStr]
    """JSON pointers to the fields that it was about."""


class AuditPage(ContractModel):
    """A page of the audit trail."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    items: list[AuditEntry]
    """The entries."""
    next: Annotated[StrictStr | None, Field(...)]
    """`after` for the page that follows, if there is one."""
    total: StrictInt
    """How many there are on all pages, counted up to 10,000."""
    total_exact: StrictBool
    """Whether `total` is all."""


class Fault(ContractModel):
    """One fault, without the value."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    pointer: StrictStr
    """JSON pointer (RFC 6901) to the place; a parameter's name is after `?`."""
    detail: StrictStr
    """What is wrong."""
    expected: StrictStr
    """What would be right."""


class Decided(ContractModel):
    """Who decided what, and when."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    status: StrictStr
    """What the request became."""
    by: StrictStr
    """Who decided it."""
    at: AwareDatetime
    """When."""


class DecidingAll(ContractModel):
    """What everything that matches becomes. A rejection has a reason."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    verb: Literal["approve", "reject"]
    """What is decided."""
    reason: Annotated[
        StrictStr | None,
        Field(
            max_length=5000,
            pattern="^[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]*[^\\x00-\\x20\\x7f][^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]*$",
        ),
    ] = None
    """Why, in staff's words, for a rejection. May have several lines, and is not blank."""
    event: (
        Literal[
            "customer-registration",
            "repair-request",
            "payment-status",
            "booking-status",
            "customer-profile",
        ]
        | None
    ) = None
    """Only requests that this webhook brought, as in the preview."""
    search: Annotated[StrictStr | None, Field(pattern="^[A-Za-z0-9-]{1,64}$")] = None
    """Only requests in which the words of this saved search are found, as in the preview."""
    preview: Preview


class RefusedDecision(ContractModel):
    """A request that could not be decided, and why."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    id: StrictStr
    """The request's id."""
    why: StrictStr
    """The type of the problem that deciding it alone would be answered with."""
    decided: Decided | None = None
    """The decision that stands, for `already-decided`."""


class ApprovalDetail(Approval):
    """An approval request with its history. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    payment_status: Annotated[WebsiteStatus | None, Field(...)]
    """Where the payment of the repair is now, as the website has told."""
    booking_status: Annotated[WebsiteStatus | None, Field(...)]
    """Where the booking of the repair is now, as the website has told."""
    website_events: list[WebsiteStatus]
    """What the website has told of the repair since it was booked, newest first, 100 at most; rejected ones too."""
    reason: Annotated[StrictStr | None, Field(json_schema_extra={"personal-data": True})]
    """Why it was rejected."""
    customer_id: Annotated[StrictStr | None, Field(...)]
    """The customer with its `websiteUserId`, if there is one, while it waits."""
    differences: list[Difference]
    """What it says of that customer, and the record says otherwise."""
    changes: list[Change]
    """
    Of a changed profile what it would change of that customer's record; once it is approved, what it
    has changed.

    """
    suggestions: list[Suggestion]
    """Customers with an equal e-mail address, newest first, ten at most, while its `websiteUserId` is not known."""
    history: list[AuditEntry]
    """What was done to it, oldest first."""
    repair_request: Annotated[RequestReference | None, Field(...)]
    """The repair request that it is `about`, nothing as long as that has not come."""
    ticket_id: Annotated[StrictStr | None, Field(...)]
    """The ticket of the repair that it is `about`, if there is one."""


class CustomerDetail(Customer):
    """A customer with what was corrected and done. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    website_user_ids: list[StrictStr]
    """Every id that the customer has on the website."""
    corrections: list[Correction]
    """What staff corrected, oldest first. Fields hold what is right."""
    history: list[AuditEntry]
    """What was done to it, oldest first."""


class TicketDetail(Ticket):
    """A repair ticket with its notes and its history. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    payment_status: Annotated[WebsiteStatus | None, Field(...)]
    """Where the payment of the repair is now, as the website has told."""
    booking_status: Annotated[WebsiteStatus | None, Field(...)]
    """Where the booking of the repair is now, as the website has told."""
    website_events: list[WebsiteStatus]
    """What the website has told of the repair since it was booked, newest first, 100 at most; rejected ones too."""
    corrections: list[Correction]
    """What staff corrected, oldest first. Fields hold what is right."""
    staff_notes: list[Note]
    """What staff noted, oldest first."""
    history: list[AuditEntry]
    """What was done to it, oldest first."""


class ExportedTicket(Ticket):
    """A repair ticket with what staff noted and corrected. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    corrections: list[Correction]
    """What was corrected, oldest first."""
    staff_notes: list[ExportedNote]
    """What staff noted, oldest first."""


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
    """Every fault of the body or the parameters."""
    ticket_status: StrictStr | None = None
    """Where the ticket is."""
    preview: Preview | None = None
    """What would be decided now."""
    decided: Decided | None = None
    """The decision that stands."""


class Decisions(ContractModel):
    """A decision on everything that matched. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    id: StrictStr
    """The decision's id."""
    verb: StrictStr
    """`approve` or `reject`."""
    state: StrictStr
    """`running` or `done`."""
    by: StrictStr
    """Who decides."""
    started_at: AwareDatetime
    """When it was sent."""
    finished_at: Annotated[AwareDatetime | None, Field(...)]
    """When it was done."""
    total: StrictInt
    """How many requests it is on."""
    decided: StrictInt
    """How many it has decided."""
    refused_total: StrictInt
    """How many it could not decide."""
    refused: list[RefusedDecision]
    """Those that it could not decide, oldest first, 200 at most."""


class PersonExport(ContractModel):
    """All that is held of a person. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    approvals: list[ExportedApproval]
    """Their requests."""
    customers: list[ExportedCustomer]
    """Their records as a customer."""
    tickets: list[ExportedTicket]
    """Their repairs."""
