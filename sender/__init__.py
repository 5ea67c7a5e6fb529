"""Tell the CRM of new customers and repairs, exactly once.

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
    CustomerRegistration,
    RegisteredCustomer,
    RegistrationMetadata,
    Repair,
    RepairCustomer,
    RepairMetadata,
    RepairRequest,
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
from sender.tables import metadata

if TYPE_CHECKING:
    from sender.relay import Relay, Summary

__all__ = [
    "CRM",
    "AsyncCRM",
    "ConflictingEvent",
    "CustomerRegistration",
    "DamagedEvent",
    "Fault",
    "InvalidEvent",
    "NoTransaction",
    "NotMigrated",
    "OutboxError",
    "PreviewChanged",
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
    "Summary",
    "UnknownEvent",
    "WrongDatabase",
    "WrongState",
    "metadata",
]


def __getattr__(name: str) -> Any:
    """Load the relay when it is asked for (PEP 562): booking code never sends, and is spared httpx."""
    if name not in {"Relay", "Summary"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sender import relay  # noqa: PLC0415

    return getattr(relay, name)
