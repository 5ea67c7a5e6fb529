"""Problems (RFC 9457): every error answer of this server, without values and without the inside."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sender.errors import Fault, NotMigrated

TITLES: Mapping[str, tuple[int, str]] = {
    "invalid-event": (400, "The event is not what the contract says"),
    "invalid-request": (400, "The request is not what the contract says"),
    "invalid-json": (400, "The body is not acceptable JSON"),
    "malformed-request": (400, "Malformed request"),
    "reserved-natural-key": (400, "Reserved natural key"),
    "unsupported-contract-version": (400, "Unknown contract release"),
    "unauthorized": (401, "Unauthorized"),
    "forbidden": (403, "Forbidden"),
    "not-found": (404, "Not found"),
    "unknown-receipt": (404, "Unknown receipt"),
    "method-not-allowed": (405, "Method not allowed"),
    "request-timeout": (408, "Request timeout"),
    "conflict": (409, "Conflict"),
    "webhook-id-conflict": (409, "Conflict"),
    "erased": (409, "Erased"),
    "delivery-loop": (409, "Delivery loop"),
    "content-too-large": (413, "Content too large"),
    "unsupported-media-type": (415, "Unsupported media type"),
    "too-many-requests": (429, "Too many requests"),
    "internal-error": (500, "Internal server error"),
    "admin-token-not-set": (503, "CRM_ADMIN_TOKEN is not set"),
    "unavailable": (503, "Service unavailable"),
}
"""Every type of problem: its status and its title."""

SAFE_HEADERS: Mapping[str, str] = {
    "cache-control": "no-store",
    "server": "revivatech",
    "x-content-type-options": "nosniff",
}
"""On every answer: kept by nobody on the way, what its Content-Type says, and with no word of what serves it."""

MOST_FAULTS = 100
"""How many faults an answer lists; it says how many there are."""
DRAIN_BYTES = 4 << 20
DRAIN_SECONDS = 1.0
"""How much of an unread body is taken after an error, and for how long, so that the answer can be read."""

log = logging.getLogger("crm_sender.integration")


class Problem(Exception):
    """An error answer; raised anywhere on the HTTP side, written once, by `ProblemAnswers`."""

    def __init__(
        self, type_: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        """Make a problem of a known type; `members` stand beside the standard ones."""
        super().__init__(type_)
        self.status, self.title = TITLES[type_]
        self.type, self.detail, self.members = type_, detail, members
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """Return the answer's body."""
        standard = {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail}
        return json.dumps({**standard, **self.members}).encode()


def faulty(type_: str, faults: Sequence[Fault]) -> Problem:
    """Return the problem that lists the faults of a request."""
    count = len(faults)
    shown = f" The first {MOST_FAULTS} are listed." if count > MOST_FAULTS else ""
    detail = f"{count} fault{'s' if count > 1 else ''}.{shown} Nothing was stored."
    return Problem(type_, detail, errors=[asdict(fault) for fault in faults[:MOST_FAULTS]])


def unavailable(**members: Any) -> Problem:
    """Return the problem for an outbox that cannot be written now."""
    detail = "The outbox cannot be used now. Send it again."
    return Problem("unavailable", detail, headers={"retry-after": "1"}, **members)


def not_found() -> Problem:
    """Return the problem for a path that is not served."""
    return Problem("not-found", "There is no such path here. The contracts say which there are.")


def unauthorized(detail: str) -> Problem:
    """Return the 401."""
    return Problem("unauthorized", detail, headers={"www-authenticate": "Bearer"})


SendProblem = Callable[[Problem, Scope, Send], Awaitable[None]]
"""What writes a problem as an answer to a request."""


class ProblemAnswers:
    """Turns whatever is raised further in into an answer, of which nothing leaks."""

    def __init__(self, app: ASGIApp, *, send_problem: SendProblem) -> None:
        """Wrap an app."""
        self._app, self._send_problem = app, send_problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, in any case."""
        body_ended, started = not has_body(scope["headers"]), False

        async def watched_receive() -> Message:
            nonlocal body_ended
            message = await receive()
            body_ended = not message.get("more_body", False)
            return message

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, watched_receive, watched_send)
        except Exception as error:
            problem = problem_of(error)
            # A traceback may hold itself in a cycle, and with it `receive` and the client's connection.
            error.__traceback__ = None
            if not started:
                scope["link.seen"].problem = problem.type
                await self._send_problem(problem, scope, send)
            if not body_ended:
                await drain(receive)


def problem_of(error: Exception) -> Problem:
    """Return the problem that an exception is to the outside."""
    match error:
        case Problem():
            return error
        case DBAPIError() | PoolTimeout() | NotMigrated():
            log.error("The outbox cannot be used: %s", name_of(error))
            return unavailable()
        case HTTPException(status_code=404):
            return not_found()
        case HTTPException(status_code=405):
            allow = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
            return Problem("method-not-allowed", f"Use {allow}.", headers={"allow": allow})
        case HTTPException(status_code=401):
            return unauthorized("Send the key or the token as 'Authorization: Bearer …'.")
    log.error("A bug: %s", name_of(error))
    return Problem("internal-error", "This server failed. Nothing was stored; send it again.")


def name_of(error: Exception) -> str:
    """Return an error's name and place, and nothing that it says: that may be a value."""
    name = type(getattr(error, "orig", None) or error).__name__
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return f"{name} at {place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else name


async def send_json(problem: Problem, scope: Scope, send: Send) -> None:
    """Send a problem as JSON."""
    kinds = {"content-type": "application/problem+json"}
    await answer(send, problem.status, problem.body(), {**kinds, **problem.headers})


async def answer(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Send a whole answer, with what every one of ours bears."""
    all_ = {**SAFE_HEADERS, "content-length": str(len(body)), **headers}
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in all_.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a request has a body (RFC 9112, section 6.3)."""
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in headers)


async def drain(receive: Receive) -> None:
    """Take a bounded rest of the body: a client that is still sending would not read the answer."""
    taken = 0
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while taken < DRAIN_BYTES:
                message = await receive()
                taken += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        log.debug("A client sent its body too slowly to be drained.")
