"""Whatever is raised further in becomes an answer, and nothing of it leaks."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crm_server.errors import Unavailable, describe
from crm_server.problems import Problem, not_found, unavailable

DRAIN_BYTES = 4 << 20
DRAIN_SECONDS = 1.0
"""How much of an unread body is taken after an error, and for how long, so that the answer can be read."""

SendProblem = Callable[[Problem, Scope, Send], Awaitable[None]]
"""What writes a problem as an answer to a request."""

log = logging.getLogger(__name__)


class ProblemAnswers:
    """Turns exceptions into problems (RFC 9457)."""

    def __init__(self, app: ASGIApp, *, send_problem: SendProblem | None = None) -> None:
        """Wrap an app; `send_problem` writes problems otherwise than as JSON."""
        self.app, self._send_problem = app, send_problem or send_json

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, in any case."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
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
            await self.app(scope, watched_receive, watched_send)
        except Exception as error:
            problem = problem_of(error)
            # Connexion keeps the error in a frame that its traceback holds; such a cycle would keep `receive`,
            # and with that the client's connection, until the garbage is collected.
            error.__traceback__ = None
            if not started:
                if "crm.seen" in scope:
                    scope["crm.seen"].problem = problem.type
                await self._send_problem(problem, scope, send)
            if not body_ended:
                await drain(receive)


def problem_of(error: Exception) -> Problem:
    """Return the problem that an exception is to the outside."""
    match error:
        case Problem():
            return error
        case Unavailable():
            return unavailable()
        case HTTPException(status_code=404):
            return not_found()
        case HTTPException(status_code=405):
            methods = (error.headers or {}).get("Allow", "").split(", ")
            allow = ", ".join(sorted(methods))  # Starlette's come out of a set
            return Problem("method-not-allowed", f"Use {allow}.", headers={"allow": allow})
    log.error("A bug: %s", describe(error))
    return Problem("internal-error", "The CRM failed. Nothing was stored; send it again.")


async def send_json(problem: Problem, scope: Scope, send: Send) -> None:
    """Send a problem as JSON."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in problem.headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": problem.body()})


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
