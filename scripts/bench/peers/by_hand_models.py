"""The body as one would write it by hand: pydantic, with EmailStr."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, ConfigDict, EmailStr, Field


class Closed(BaseModel):
    """A part of the body."""

    model_config = ConfigDict(extra="forbid")


class Repair(Closed):
    """The repair."""

    ticketNumber: str = Field(max_length=64)
    websiteRepairId: str = Field(max_length=64)
    customerEmail: EmailStr
    customerName: str = Field(min_length=1, max_length=400)
    deviceType: str = Field(min_length=1, max_length=200)
    deviceModel: str | None = Field(None, max_length=200)
    issueDescription: str = Field(min_length=1, max_length=5000)
    serviceType: str | None = None
    priority: str | None = None
    language: str | None = None
    address: str | None = Field(None, max_length=1000)
    notes: str | None = Field(None, max_length=5000)
    createdAt: AwareDatetime
    estimatedCost: float | None = Field(None, ge=0)
    photos: list[str] | None = None


class Customer(Closed):
    """The customer."""

    firstName: str = Field(min_length=1, max_length=200)
    lastName: str = Field(min_length=1, max_length=200)
    email: EmailStr
    phone: str | None = None
    websiteUserId: str = Field(max_length=64)


class Metadata(Closed):
    """Where it was sent from."""

    source: str | None = None
    bookingChannel: str | None = None
    timestamp: AwareDatetime


class RepairRequest(Closed):
    """The body."""

    repair: Repair
    customer: Customer
    metadata: Metadata
