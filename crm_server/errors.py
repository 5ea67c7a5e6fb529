"""Everything that the CRM's own code raises.

CrmError
├── ConfigurationError     the settings or the database's state: mend it and start again
├── Unavailable            the database is away or too busy: the same request may succeed later
├── InvalidBody            the sender must mend the body
│   ├── InvalidJson        it is not the JSON that we take
│   │   └── AmbiguousJson  it can be read, but another reader would read something else
│   └── InvalidEvent       it is JSON, but not what its contract says
└── Refused                as things are this cannot be done; nothing was changed
    ├── UnknownApproval    no approval request has this id
    ├── AlreadyDecided     somebody has decided this request before
    ├── CannotReopen       the decision stands: what came of it is in use, or gone
    ├── Erased             what was received, or the record that it is to change, is erased
    ├── CustomerKnown      the request's websiteUserId is another customer's
    ├── CustomerUnknown    the customer of a changed profile is not on record
    ├── NoTicket           the repair of a status of the website has no ticket
    ├── UnknownCustomer    no customer has this id
    ├── NumberTaken        another ticket has this number
    ├── PreviewChanged     what a decision on everything would decide is no longer what was seen
    ├── UnknownDecisions   no decision on everything has this id
    ├── UnknownTicket      no ticket has this id
    ├── TicketMoved        from where the ticket is now it does not go there
    ├── PersonChanged      more has come of the person since they were looked for
    ├── ReleaseNotRetired  somebody sends the release, or it is no earlier one
    ├── UnknownStaff       nobody of the staff has this name
    └── StaffNotAdded      the name is taken, or no name
"""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a request, without the value that is at fault."""

    pointer: str
    """JSON pointer (RFC 6901) into the body, or `#` and a header's name."""
    detail: str
    """What is wrong."""
    expected: str
    """What would be right."""


class CrmError(Exception):
    """Anything that the CRM raises on purpose."""


class ConfigurationError(CrmError):
    """The server cannot start as configured; the message says what to do."""


class Unavailable(CrmError):
    """Nothing can be stored now; whether this one was is not known."""


class InvalidBody(CrmError):
    """The sender must mend the body."""

    def __init__(self, faults: tuple[Fault, ...], count: int) -> None:
        """Name the faults to be shown, and how many there are."""
        super().__init__("; ".join(f"{fault.pointer} {fault.detail}" for fault in faults))
        self.faults = faults
        self.count = count


class InvalidJson(InvalidBody):
    """The body is not the JSON that we take."""


class AmbiguousJson(InvalidJson):
    """The body can be read, but another reader would read something else."""


class InvalidEvent(InvalidBody):
    """The body is JSON, but not what its contract says."""


class Refused(CrmError):
    """As things are this cannot be done; nothing was changed. The message says why."""

    kind = "refused"
    """The word that stands for why, to the staff and in reports."""


class UnknownApproval(Refused):
    """No approval request has this id."""


class AlreadyDecided(Refused):
    """Somebody has decided this request before."""

    kind = "already-decided"

    def __init__(self, approval_id: str, status: str, by: str, at: str) -> None:
        """Say who made what of which request, and when."""
        super().__init__(f"{approval_id} was {status} by {by} at {at}.")
        self.status, self.by, self.at = status, by, at


class CannotReopen(Refused):
    """The decision stands: what came of it is in use, or gone."""

    kind = "cannot-reopen"


class Erased(Refused):
    """What was received, or the record that it is to change, is erased: nothing can be made of it."""

    kind = "erased"


class CustomerKnown(Refused):
    """The request's `websiteUserId` is another customer's."""

    kind = "customer-known"


class CustomerUnknown(Refused):
    """The customer of a changed profile is not on record; decide their registration or repair first."""

    kind = "customer-unknown"


class NoTicket(Refused):
    """The repair of a status of the website has no ticket; decide the repair request first."""

    kind = "no-ticket"


class UnknownCustomer(Refused):
    """No customer has this id."""

    kind = "no-such-customer"


class NumberTaken(Refused):
    """Another ticket has this number; approve with a number of its own."""

    kind = "number-taken"


class PreviewChanged(Refused):
    """What a decision on everything would decide is no longer what was seen."""

    def __init__(self, preview: Mapping[str, object]) -> None:
        """Show what it would decide now."""
        super().__init__(
            "Some of these requests have been decided since, or are being decided in bulk: look again."
        )
        self.preview = preview


class UnknownDecisions(Refused):
    """No decision on everything has this id."""


class UnknownTicket(Refused):
    """No ticket has this id."""


class TicketMoved(Refused):
    """From where the ticket is now it does not go there."""

    def __init__(self, ticket_id: str, status: str) -> None:
        """Say where which ticket is."""
        super().__init__(f"{ticket_id} is {status}.")
        self.status = status


class PersonChanged(Refused):
    """More has come of the person since they were looked for; look again."""


class ReleaseNotRetired(Refused):
    """Somebody sends the release, or it is no earlier one."""


class UnknownStaff(Refused):
    """Nobody of the staff has this name, or who has it is disabled."""


class LastAdmin(Refused):
    """Nobody else could change who may do what."""


class StaffNotAdded(Refused):
    """The name is taken, or it is no name."""


def describe(error: BaseException) -> str:
    """Write an error for the log: its kind and where it came from.

    Our own say what is wrong, and name places, never values; of others the message and the causes are
    left out, for they may hold values of a request.
    """
    frames = traceback.extract_tb(error.__traceback__)
    trace = " > ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames)
    words = f" ({error})" if isinstance(error, CrmError) else ""
    return f"{name_of(error)}{words} in {trace}"


CURES = {
    "SQLITE_BUSY": "Another program holds it locked: end that one first.",
    "SQLITE_CORRUPT": "It is damaged: restore it from a backup.",
    "SQLITE_FULL": "Its disk is full: make room.",
    "SQLITE_IOERR": "Its disk is full or failing: make room, or look for what is wrong with it.",
    "SQLITE_NOTADB": "The file is no database: restore it from a backup, or correct CRM_DATABASE_URL.",
    "SQLITE_READONLY": "We may not write there: mend the permissions of the file, its -wal and -shm, its folder.",
    "25006": "It is one that may only be read: name the one that is written to in CRM_DATABASE_URL.",
    "42501": "Its user may not do that: grant it, or name another user in CRM_DATABASE_URL.",
    "53": "It has no room, memory or connections left: make room, or allow more.",
    "55P03": "Another program holds it locked: end that one first.",
}
"""What an operator can do about an error of SQLite or of PostgreSQL (its SQLSTATE); each also stands for the
codes that begin with it."""


def cure_of(error: BaseException) -> str:
    """Return what an operator can do about an error of the database."""
    code = code_of(error)
    other = "See CRM_DATABASE_URL." if code else "See that it runs and lets us in, and CRM_DATABASE_URL."
    return next((cure for beginning, cure in CURES.items() if code.startswith(beginning)), other)


def name_of(error: BaseException) -> str:
    """Return an error's kind, with the database's own name for it where it has one."""
    return f"{type(error).__name__} {code_of(error)}".strip()


def code_of(error: BaseException) -> str:
    """Return SQLite's name or PostgreSQL's number for an error, or nothing."""
    cause = getattr(error, "orig", None)
    return getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None) or ""
