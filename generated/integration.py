"""The contract as models. Generated from openapi/integration.yaml by `make generate`. Do not edit."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StrictBool, StrictStr
from typing_extensions import TypeAliasType

from generated.base import AwareDatetime, ContractModel, StrictInt


class Testing(ContractModel):
    """Nothing needs to be said."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )


EventId = TypeAliasType(
    "EventId",
    Annotated[StrictStr, Field(max_length=128, pattern="^[A-Za-z0-9._-]{1,128}$")],
)
"""An event's id, its `webhook-id`."""


class Retried(ContractModel):
    """What became of it. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    retried: StrictInt
    """How many are pending again."""
    refused: StrictInt
    """How many were left as they are."""


class TestStep(ContractModel):
    """One step of a test."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    step: StrictStr
    """`health`, `handshake`, or the webhook that was tried."""
    ok: StrictBool
    """Whether it is well."""
    answer: StrictStr
    """The CRM's answer, in the integration guide's words."""


class ReleaseStatus(ContractModel):
    """How many events there are of a contract release. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    undelivered: StrictInt
    """Events that wait, or are held."""
    delivered: StrictInt
    """Events that the CRM has."""


class CrmStatus(ContractModel):
    """How the CRM is. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    reachable: StrictBool
    """Whether it would take an event now."""
    answer: StrictStr
    """Its answer, in the integration guide's words."""
    contract_versions: list[StrictStr]
    """The contract releases that it speaks, where it says so."""
    deprecated: dict[str, date | None] | None = None
    """Those of them that should no longer be sent, and the day from which on each may be refused, where it says so."""


class RelayStatus(ContractModel):
    """Whether a relay runs. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    running: StrictBool
    """Whether one does."""
    relays: StrictInt
    """How many do."""
    seen_at: Annotated[AwareDatetime | None, Field(...)]
    """When one last looked at the outbox."""


class OutboxStatus(ContractModel):
    """How the outbox is. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    oldest_pending: Annotated[AwareDatetime | None, Field(...)]
    """When the oldest event that is not delivered was enqueued."""
    held_for: list[StrictStr]
    """What held events wait for: paths of webhooks, and contract releases."""
    erasing_since: Annotated[AwareDatetime | None, Field(...)]
    """Since when erased bytes wait in SQLite's write-ahead log."""


class Hold(ContractModel):
    """Something that held events wait for. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    waits_for: StrictStr
    """What it is, in a word or two."""
    held_for: StrictStr
    """The webhook's path, or the contract release."""
    reason: StrictStr
    """Why."""
    cure: StrictStr
    """What to do."""
    since: AwareDatetime
    """Since when."""
    held: StrictInt
    """How many events."""


class Fault(ContractModel):
    """One fault, without the value."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    pointer: StrictStr
    """JSON pointer (RFC 6901) to the place."""
    detail: StrictStr
    """What is wrong."""
    expected: StrictStr
    """What would be right."""


class RetryingFailed(ContractModel):
    """Which failed deliveries are meant, by everything that is given."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
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
    """Of this webhook."""
    answer: Annotated[StrictInt | None, Field(ge=100, le=599)] = None
    """That got this HTTP status."""
    since: AwareDatetime | None = None
    """That failed at this time or later (RFC 3339, with an offset)."""
    reference: Annotated[StrictStr | None, Field(pattern="^[A-Za-z0-9._:-]{1,64}$")] = None
    """With this ticket number, or this natural key."""
    ids: Annotated[list[EventId] | None, Field(max_length=1000)] = None
    """These events; one that is not there is refused."""


class TestResult(ContractModel):
    """What a test of the way to the CRM found. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    ok: StrictBool
    """Whether every step is well."""
    steps: list[TestStep]
    """The steps, in their order."""


class Status(ContractModel):
    """How the link is. Open to later fields."""

    model_config = ConfigDict(
        validate_by_name=True,
        use_attribute_docstrings=True,
    )
    pending: StrictInt
    """Events that wait for their delivery."""
    delivered: StrictInt
    """Events that the CRM has."""
    failed: StrictInt
    """Events that somebody must look at."""
    held: StrictInt
    """Events that wait for something to be mended."""
    crm: CrmStatus
    relay: RelayStatus
    outbox: OutboxStatus
    holds: list[Hold] | None = None
    """What held events wait for, the longest first."""
    releases: dict[str, ReleaseStatus] | None = None
    """How many events there are of each contract release."""
    contract: StrictStr
    """The contract release that this side speaks."""


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
    """Every fault of the body."""
