"""Bodies are read here, whole, before anything looks at them: bounded in size, in time and in kind."""

import asyncio
import functools
from collections.abc import Awaitable
from typing import Any

from connexion.middleware.abstract import ROUTING_CONTEXT
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crm_server.problems import Problem, unavailable

BODY_SECONDS = 10.0
"""How long a body may take to arrive."""
MOST_HELD = 64 << 20
"""How many bytes of bodies may be held at once: those that arrive, and those that wait for their commit."""
HURRY_SECONDS = 1.0
"""How long it may still take once the server is told to stop."""
LOOK_SECONDS = 0.25
"""How often it is looked whose time is over."""


class Hurry:
    """Watches those who wait for a client; told once that the server is to end, it lets them wait a moment.

    One timer for all: asyncio.timeout, one a request, would cost as much as reading the JSON.
    """

    def __init__(self) -> None:
        """Nobody waits yet."""
        self._until: dict[asyncio.Task[Any], float] = {}
        self._seconds = BODY_SECONDS
        self._looking = False

    def begin(self) -> None:
        """Shorten every wait."""
        self._seconds = HURRY_SECONDS
        latest = asyncio.get_running_loop().time() + HURRY_SECONDS
        self._until = {task: min(until, latest) for task, until in self._until.items()}

    async def wait(self, what: Awaitable[bytes]) -> bytes:
        """Await something for as long as a body may take; raise TimeoutError."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is None:
            raise RuntimeError("Only a task can be watched.")
        self._until[task] = loop.time() + self._seconds
        if not self._looking:
            self._looking = True
            loop.call_later(LOOK_SECONDS, self._look, loop)
        try:
            return await what
        except asyncio.CancelledError:
            if task in self._until or task.uncancel():
                raise
            raise TimeoutError from None
        finally:
            self._until.pop(task, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task in [task for task, until in self._until.items() if until <= now]:
            del self._until[task]
            task.cancel()
        self._looking = bool(self._until)
        if self._looking:
            loop.call_later(LOOK_SECONDS, self._look, loop)


class Bodies:
    """Reads the bodies of operations that have one, into `scope["crm.body"]`."""

    def __init__(
        self, app: ASGIApp, *, largest: int, hurry: Hurry, optional: frozenset[str] = frozenset()
    ) -> None:
        """Wrap an app; `largest` is in bytes, `optional` names operations that need no body."""
        self.app, self.largest, self.hurry, self.optional = app, largest, hurry, optional
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a body, check its kind, and pass the request on."""
        operation = operation_id(scope) if scope["type"] == "http" else None
        if operation is None or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        headers = scope["headers"]
        length = content_length(headers)
        if length is not None and length > self.largest:
            raise self.too_large()
        body = await self.read(receive, length)
        try:
            if body or operation not in self.optional:
                check_media_type(headers)
            if length is None:
                check_transfer_coding(headers)
            scope["crm.body"] = body
            await self.app(scope, receive, send)
        finally:
            self.held -= len(body)

    async def read(self, receive: Receive, length: int | None) -> bytes:
        """Return the whole body, of `length` bytes where that was said; raise 413 and 408."""
        try:
            return await self.hurry.wait(self.gather(receive, length))
        except TimeoutError:
            raise Problem("request-timeout", "The body did not arrive in time. Send it again.") from None

    async def gather(self, receive: Receive, length: int | None) -> bytes:
        """Return the whole body, held, however many parts it comes in.

        Raises 413 as soon as it is too large, 503 when too much is held.
        """
        message: Message = await receive()
        body: bytes = message.get("body", b"")
        # granian says only in a further message that there is no more: three threads would be woken for it.
        if message["type"] == "http.request" and (len(body) == length or not message.get("more_body")):
            self.hold(body, len(body))
            return body
        parts = bytearray()
        try:
            while True:
                if message["type"] == "http.disconnect":
                    raise Problem("request-timeout", "The body ended too early. Send it again.")
                part = message.get("body", b"")
                self.hold(part, len(parts) + len(part))
                parts += part
                if not message.get("more_body"):
                    return bytes(parts)
                message = await receive()
        except BaseException:
            self.held -= len(parts)
            raise

    def hold(self, part: bytes, size: int) -> None:
        """Count a part of a body that has now `size` bytes, unless that is too much."""
        if size > self.largest:
            raise self.too_large()
        if self.held + len(part) > MOST_HELD:
            raise unavailable()
        self.held += len(part)

    def too_large(self) -> Problem:
        """Return the 413."""
        return Problem("content-too-large", f"The body may have at most {self.largest} bytes.")


def content_length(headers: list[tuple[bytes, bytes]]) -> int | None:
    """Return how many bytes a body has, unless it comes in chunks, of which each says it (RFC 9112, 6.3)."""
    names = dict(headers)
    if b"transfer-encoding" in names or b"content-length" not in names:
        return None
    return int(names[b"content-length"])


def operation_id(scope: Scope) -> str | None:
    """Return the contract's operation that Connexion's routing found, if any."""
    found: str | None = scope["extensions"][ROUTING_CONTEXT]["operation_id"]
    return found


def check_media_type(headers: list[tuple[bytes, bytes]]) -> None:
    """Raise 415 unless the body is plain, uncompressed JSON; names and values in any case (RFC 9110)."""
    types = [value for name, value in headers if name == b"content-type"]
    codings = [value for name, value in headers if name == b"content-encoding"]
    if (
        len(types) == 1
        and is_json(types[0])
        and all(c.strip().lower() in (b"identity", b"") for c in codings)
    ):
        return
    raise Problem("unsupported-media-type", "Send application/json in UTF-8, without Content-Encoding.")


def check_transfer_coding(headers: list[tuple[bytes, bytes]]) -> None:
    """Raise 415 when a body says that it is more than in chunks: granian undoes no other coding."""
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if codings not in ([], [b"chunked"]):
        raise Problem("unsupported-media-type", "Send no Transfer-Encoding but chunked.")


@functools.lru_cache(64)  # every sender has one of its own
def is_json(media_type: bytes) -> bool:
    """Tell whether a Content-Type says JSON, in UTF-8 where it names a charset."""
    kind, *parameters = media_type.lower().split(b";")
    if kind.strip() != b"application/json":
        return False
    pairs = [parameter.strip().partition(b"=") for parameter in parameters]
    return all(value.strip(b'"') in (b"utf-8", b"utf8") for name, _, value in pairs if name == b"charset")
