"""Bodies are read here, whole, before anything looks at them: bounded in size, in time and in kind."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from sender.integration.contract import operation_id
from sender.integration.problems import Problem, unavailable

LARGEST = 1 << 20
"""Bytes of a body: what the CRM takes by default."""
BODY_SECONDS = 10.0
"""How long a body may take to arrive."""
MOST_HELD = 64 << 20
"""How many bytes of bodies may be held at once: those that arrive, and those that wait for their commit."""

Headers = Iterable[tuple[bytes, bytes]]


class Bodies:
    """Reads the bodies of operations that have one, into `scope["link.body"]`."""

    def __init__(self, app: ASGIApp, *, of: Container[str], optional: Container[str]) -> None:
        """Wrap an app; `of` names the operations that have a body, `optional` those that need none."""
        self._app, self._of, self._optional = app, of, optional
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a body, check its kind, and pass the request on."""
        operation = operation_id(scope)
        if operation not in self._of:
            await self._app(scope, receive, send)
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if length and int(length) > LARGEST:
            raise too_large()
        body = bytearray()
        try:
            await self._read(receive, body)
            if body or operation not in self._optional:
                check_media_type(scope["headers"])
            check_transfer_coding(scope["headers"])
            scope["link.body"] = bytes(body)
            await self._app(scope, receive, send)
        finally:
            self._held -= len(body)

    async def _read(self, receive: Receive, body: bytearray) -> None:
        """Take the whole body; raise 408, 413 as soon as it is too large, and 503 when too much is held."""
        try:
            async with asyncio.timeout(BODY_SECONDS):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Problem("request-timeout", "The body ended too early. Send it again.")
                    part = message.get("body", b"")
                    if len(body) + len(part) > LARGEST:
                        raise too_large()
                    if self._held + len(part) > MOST_HELD:
                        raise unavailable()
                    body += part
                    self._held += len(part)
                    more = message.get("more_body", False)
        except TimeoutError:
            raise Problem("request-timeout", "The body did not arrive in time. Send it again.") from None


def too_large() -> Problem:
    """Return the 413."""
    return Problem("content-too-large", f"The body may have at most {LARGEST} bytes.")


def check_media_type(headers: Headers) -> None:
    """Raise 415 unless the body is plain, uncompressed JSON; names and values in any case (RFC 9110)."""
    types = [value for name, value in headers if name == b"content-type"]
    codings = [value.strip().lower() for name, value in headers if name == b"content-encoding"]
    if len(types) != 1 or not is_json(types[0]) or not set(codings) <= {b"identity", b""}:
        raise Problem("unsupported-media-type", "Send application/json in UTF-8, without Content-Encoding.")


def check_transfer_coding(headers: Headers) -> None:
    """Raise 415 when a body says that it is more than in chunks: granian undoes no other coding."""
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if codings not in ([], [b"chunked"]):
        raise Problem("unsupported-media-type", "Send no Transfer-Encoding but chunked.")


def is_json(media_type: bytes) -> bool:
    """Tell whether a Content-Type says JSON, in UTF-8 where it names a charset."""
    kind, *parameters = media_type.lower().split(b";")
    pairs = [parameter.strip().partition(b"=") for parameter in parameters]
    charsets = {value.strip(b'"') for name, _, value in pairs if name == b"charset"}
    return kind.strip() == b"application/json" and charsets <= {b"utf-8", b"utf8"}
