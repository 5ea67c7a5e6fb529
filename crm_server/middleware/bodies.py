"""Bodies are read here, whole, before anything looks at them: bounded in size, in time and in kind."""

import asyncio

from connexion.middleware.abstract import ROUTING_CONTEXT
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crm_server.problems import Problem

BODY_SECONDS = 10.0
"""How long a body may take to arrive."""
HURRY_SECONDS = 1.0
"""How long it may still take once the server is told to stop."""


class Hurry:
    """Told once that the server is to end; those who wait for a client then wait a moment at most."""

    def __init__(self) -> None:
        """Nobody waits yet."""
        self.waits: set[asyncio.Timeout] = set()
        self.begun = False

    def begin(self) -> None:
        """Shorten every wait."""
        self.begun = True
        for wait in self.waits:
            if not wait.expired():
                wait.reschedule(asyncio.get_running_loop().time() + HURRY_SECONDS)


class Bodies:
    """Reads the bodies of operations that have one, into `scope["crm.body"]`."""

    def __init__(self, app: ASGIApp, *, largest: int, hurry: Hurry) -> None:
        """Wrap an app; `largest` is in bytes."""
        self.app, self.largest, self.hurry = app, largest, hurry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a body, check its kind, and pass the request on."""
        if scope["type"] != "http" or scope["method"] != "POST" or operation_id(scope) is None:
            await self.app(scope, receive, send)
            return
        headers = scope["headers"]
        length = next((value for name, value in headers if name == b"content-length"), b"0")
        if int(length) > self.largest:
            raise self.too_large()
        body = await self.read(receive)
        check_media_type(headers)
        scope["crm.body"] = body
        await self.app(scope, receive, send)

    async def read(self, receive: Receive) -> bytes:
        """Return the whole body; raise 413 and 408."""
        seconds = HURRY_SECONDS if self.hurry.begun else BODY_SECONDS
        try:
            async with asyncio.timeout(seconds) as wait:
                self.hurry.waits.add(wait)
                try:
                    return await self.gather(receive)
                finally:
                    self.hurry.waits.discard(wait)
        except TimeoutError:
            raise Problem("request-timeout", "The body did not arrive in time. Send it again.") from None

    async def gather(self, receive: Receive) -> bytes:
        """Return the whole body however many parts it comes in; raise 413 as soon as it is too large."""
        message: Message = await receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            body: bytes = message.get("body", b"")
            if len(body) > self.largest:
                raise self.too_large()
            return body
        parts = bytearray()
        while True:
            if message["type"] == "http.disconnect":
                raise Problem("request-timeout", "The body ended too early. Send it again.")
            parts += message.get("body", b"")
            if len(parts) > self.largest:
                raise self.too_large()
            if not message.get("more_body"):
                return bytes(parts)
            message = await receive()

    def too_large(self) -> Problem:
        """Return the 413."""
        return Problem("content-too-large", f"The body may have at most {self.largest} bytes.")


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


def is_json(media_type: bytes) -> bool:
    """Tell whether a Content-Type says JSON, in UTF-8 where it names a charset."""
    kind, *parameters = media_type.lower().split(b";")
    if kind.strip() != b"application/json":
        return False
    pairs = [parameter.strip().partition(b"=") for parameter in parameters]
    return all(value.strip(b'"') in (b"utf-8", b"utf8") for name, _, value in pairs if name == b"charset")
