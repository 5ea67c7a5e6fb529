"""Tell the CRM of customers and repairs, and of what becomes of them, exactly once.

```python
from sender import CRM, RepairRequest

crm = CRM()
with Session.begin() as session:
    session.add(booking)
    crm.repair_requested(RepairRequest(...), session)
```
"""

from importlib import import_module
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
from sender.tables import outbox_identity

if TYPE_CHECKING:
    from sender.indexes import metadata
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


_LATER = {"Relay": "sender.relay", "Summary": "sender.relay", "metadata": "sender.indexes"}


def __getattr__(name: str) -> Any:
    """Load what booking code does not use when it is asked for (PEP 562): it is spared httpx and all drivers."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
