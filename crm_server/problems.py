"""Problems (RFC 9457): every error answer of the HTTP side, without values and without the inside."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from crm_server.errors import Fault

TITLES: Mapping[str, tuple[int, str]] = {
    "invalid-event": (400, "The event is not what the contract says"),
    "invalid-request": (400, "The request is not what the contract says"),
    "invalid-json": (400, "The body is not acceptable JSON"),
    "malformed-request": (400, "Malformed request"),
    "reserved-natural-key": (400, "Reserved natural key"),
    "unsupported-contract-version": (400, "Unknown contract release"),
    "unauthorized": (401, "Unauthorized"),
    "invalid-signature": (401, "Unauthorized"),
    "forbidden-network": (403, "Forbidden"),
    "forbidden": (403, "Forbidden"),
    "not-found": (404, "Not found"),
    "unknown-receipt": (404, "Unknown receipt"),
    "method-not-allowed": (405, "Method not allowed"),
    "request-timeout": (408, "Request timeout"),
    "already-decided": (409, "Already decided"),
    "cannot-reopen": (409, "The decision stands"),
    "customer-known": (409, "The customer is known"),
    "customer-unknown": (409, "The customer is not on record"),
    "no-ticket": (409, "The repair has no ticket"),
    "erased": (409, "Erased"),
    "no-such-customer": (409, "No such customer"),
    "preview-changed": (409, "The preview has changed"),
    "number-taken": (409, "The ticket number is taken"),
    "ticket-moved": (409, "The ticket is elsewhere"),
    "person-changed": (409, "More has come of this person"),
    "conflict": (409, "Conflict"),
    "webhook-id-conflict": (409, "Conflict"),
    "content-too-large": (413, "Content too large"),
    "unsupported-media-type": (415, "Unsupported media type"),
    "too-many-requests": (429, "Too many requests"),
    "internal-error": (500, "Internal server error"),
    "unavailable": (503, "Service unavailable"),
}
"""Every type of problem: its status and its title."""

SAFE_HEADERS: Mapping[str, str] = {
    "cache-control": "no-store",
    "server": "crm",
    "x-content-type-options": "nosniff",
}
"""On every answer: kept by nobody on the way, what its Content-Type says, and with no word of what serves it
(granian names itself where nobody else is named)."""


class Problem(Exception):
    """An error answer; raised anywhere on the HTTP side, written once, by the outermost middleware."""

    def __init__(
        self, type_: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        """Make a problem of a known type; `members` stand beside the standard ones."""
        super().__init__(type_)
        self.status, self.title = TITLES[type_]
        self.type, self.detail, self.members = type_, detail, members
        self.headers = {"content-type": "application/problem+json", **SAFE_HEADERS, **(headers or {})}

    def body(self) -> bytes:
        """Return the answer's body."""
        standard = {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail}
        return json.dumps({**standard, **self.members}).encode()


def faulty(type_: str, faults: tuple[Fault, ...], count: int | None = None) -> Problem:
    """Return the problem that lists the faults of a request."""
    count = count or len(faults)
    shown = f" The first {len(faults)} are listed." if count > len(faults) else ""
    detail = f"{count} fault{'s' if count > 1 else ''}.{shown} Nothing was stored."
    return Problem(type_, detail, errors=[asdict(fault) for fault in faults])


def unavailable(**members: Any) -> Problem:
    """Return the problem for a database that is away or a queue that is full."""
    headers = {"retry-after": "1"}
    return Problem(
        "unavailable", "The CRM cannot store requests now. Send it again.", headers=headers, **members
    )


def not_found() -> Problem:
    """Return the problem for a path that is not in the contract."""
    return Problem("not-found", "There is no such path. The contract says which there are.")
