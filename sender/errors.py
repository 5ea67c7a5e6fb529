"""The errors of the sender.

SenderError
├── SettingsError         a CRM_* setting is missing or wrong
├── InvalidEvent          the contract refuses the event; nothing was written
├── ConflictingEvent      the outbox has other content under this natural key
├── OutboxError           the event could not be written to the outbox that the relay reads
│   ├── NotMigrated         the outbox's tables are missing or old
│   ├── WrongDatabase       the session's database is not the one of CRM_OUTBOX_URL
│   └── NoTransaction       the connection commits each statement by itself
├── UnknownEvent          no event has this id or ticket number
├── WrongState            the event is not in a state from which this can be done
├── DamagedEvent          its payload is no longer the one that was committed
└── PreviewChanged        what would be acted on is no longer what was seen
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that the contract refuses in an event: where, what, and what would be right. Never a value."""

    pointer: str
    """JSON pointer (RFC 6901)."""
    detail: str
    expected: str

    def __str__(self) -> str:
        return f"{self.pointer or 'the event'} {self.detail}; expected: {self.expected}"


class SenderError(Exception):
    """The base of all errors of this package."""


class SettingsError(SenderError):
    """A setting is missing or wrong; the message names the variable."""


class InvalidEvent(SenderError):
    """The contract refuses this event. Nothing was written; correct it and call again.

    `faults` holds all that is wrong, with JSON pointers and without values.
    """

    def __init__(self, event: str, faults: Sequence[Fault], contract: str = "the contract") -> None:
        self.event = event
        self.faults = tuple(faults)
        super().__init__(f"{event} is not what {contract} says: " + "; ".join(map(str, self.faults)))


class ConflictingEvent(SenderError):
    """The outbox has an event of this natural key with other content.

    Two sendings of one event must agree. Use a new natural key for a new event.
    """

    def __init__(self, event: str, natural_key: str, existing_id: str) -> None:
        self.event = event
        self.natural_key = natural_key
        self.existing_id = existing_id
        super().__init__(
            f"{event} {natural_key} is in the outbox with other content, as {existing_id}. "
            f"See it with: crm-sender show {existing_id}"
        )


class OutboxError(SenderError):
    """The event could not be written to the outbox that the relay reads."""


class NotMigrated(OutboxError):
    """The outbox's tables are missing or of an older release; the message says the command."""


class WrongDatabase(OutboxError):
    """The session's database is not the one of `CRM_OUTBOX_URL`: no relay would see the event."""


class NoTransaction(OutboxError):
    """The connection commits each statement by itself, so event and booking could part; or is in pipeline mode."""


class UnknownEvent(SenderError):
    """No event has this id, natural key or ticket number."""


class WrongState(SenderError):
    """The event is not in a state from which this can be done; the message says in which it is."""


class DamagedEvent(SenderError):
    """The event's payload in the outbox is no longer the one that was committed, so it is not sent."""


class PreviewChanged(SenderError):
    """What would be acted on is no longer what was seen: look again. Nothing was changed."""
