"""Tell the CRM of new customers and repairs, exactly once.

```python
from sender import CRM, RepairRequest

crm = CRM()
with Session.begin() as session:
    session.add(booking)
    crm.repair_requested(RepairRequest(...), session)
```
"""

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
    Fault,
    InvalidEvent,
    NotMigrated,
    NoTransaction,
    OutboxError,
    SenderError,
    SettingsError,
    UnknownEvent,
    WrongDatabase,
    WrongState,
)
from sender.relay import Relay, Summary
from sender.settings import SenderSettings
from sender.tables import metadata

__all__ = [
    "CRM",
    "AsyncCRM",
    "ConflictingEvent",
    "CustomerRegistration",
    "Fault",
    "InvalidEvent",
    "NoTransaction",
    "NotMigrated",
    "OutboxError",
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
