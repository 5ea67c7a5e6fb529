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
    ├── NumberTaken        another ticket has this number
    ├── UnknownTicket      no ticket has this id
    ├── TicketMoved        from where the ticket is now it does not go there
    ├── PersonChanged      more has come of the person since they were looked for
    ├── UnknownStaff       nobody of the staff has this name
    └── StaffNotAdded      the name is taken, or no name
"""

import traceback
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


class UnknownApproval(Refused):
    """No approval request has this id."""


class AlreadyDecided(Refused):
    """Somebody has decided this request before."""

    def __init__(self, approval_id: str, status: str, by: str, at: str) -> None:
        """Say who made what of which request, and when."""
        super().__init__(f"{approval_id} was {status} by {by} at {at}.")
        self.status, self.by, self.at = status, by, at


class CannotReopen(Refused):
    """The decision stands: what came of it is in use, or gone."""


class NumberTaken(Refused):
    """Another ticket has this number; approve with a number of its own."""


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


class UnknownStaff(Refused):
    """Nobody of the staff has this name, or who has it is disabled."""


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
}
"""What an operator can do about an error of SQLite; each also stands for its extended codes."""


def cure_of(error: BaseException) -> str:
    """Return what an operator can do about an error of the database."""
    name = getattr(getattr(error, "orig", None), "sqlite_errorname", "")
    return next((cure for code, cure in CURES.items() if name.startswith(code)), "See CRM_DATABASE_URL.")


def name_of(error: BaseException) -> str:
    """Return an error's kind, with SQLite's own name for it where it has one."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorname", "")
    return f"{type(error).__name__} {code}".strip()
