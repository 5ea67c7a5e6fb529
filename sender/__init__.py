"""Tell the CRM of customers and repairs, and of what becomes of them, exactly once.

```python
from sender import CRM, RepairRequest

crm = CRM()
with Session.begin() as session:
    session.add(booking)
    crm.repair_requested(RepairRequest(...), session)
```
"""

from typing import TYPE_CHECKING, Any

from generated.webhooks import (
    Booking,
    BookingStatus,
    ChangedCustomer,
    CustomerProfile,
    CustomerRegistration,
    KnownCustomer,
    Payment,
    PaymentStatus,
    ProfileMetadata,
    RegisteredCustomer,
    RegistrationMetadata,
    Repair,
    RepairCustomer,
    RepairMetadata,
    RepairRequest,
    StatusMetadata,
)
from sender.crm import CRM, AsyncCRM
from sender.errors import (
    ConflictingEvent,
    DamagedEvent,
    Fault,
    InvalidEvent,
    NotMigrated,
    NoTransaction,
    OutboxError,
    PreviewChanged,
    SenderError,
    SettingsError,
    UnknownEvent,
    WrongDatabase,
    WrongState,
)
from sender.settings import SenderSettings
from sender.tables import metadata, outbox_identity

if TYPE_CHECKING:
    from sender.relay import Relay, Summary

__all__ = [
    "CRM",
    "AsyncCRM",
    "Booking",
    "BookingStatus",
    "ChangedCustomer",
    "ConflictingEvent",
    "CustomerProfile",
    "CustomerRegistration",
    "DamagedEvent",
    "Fault",
    "InvalidEvent",
    "KnownCustomer",
    "NoTransaction",
    "NotMigrated",
    "OutboxError",
    "Payment",
    "PaymentStatus",
    "PreviewChanged",
    "ProfileMetadata",
    "RegisteredCustomer",
    "RegistrationMetadata",
    "Relay",
    "Repair",
    "RepairCustomer",
    "RepairMetadata",
    "RepairRequest",
    "SenderError",
    "SenderSettings",
    "SettingsError",
    "StatusMetadata",
    "Summary",
    "UnknownEvent",
    "WrongDatabase",
    "WrongState",
    "metadata",
    "outbox_identity",
]


def __getattr__(name: str) -> Any:
    """Load the relay when it is asked for (PEP 562): booking code never sends, and is spared httpx."""
    if name not in {"Relay", "Summary"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sender import relay  # noqa: PLC0415

    return getattr(relay, name)
