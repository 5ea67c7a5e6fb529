"""Who has logged in: the session that a request's cookie opens, and what a request by session must show."""

import hmac
from collections.abc import Iterable
from contextlib import suppress

from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from crm_server import sessions
from crm_server.approval_queue import ApprovalQueue
from crm_server.errors import Unavailable
from crm_server.problems import Problem
from crm_server.sessions import Session

COOKIE = "crm_staff"
"""Cookies ignore ports: the name tells it from those of other programs on the same host."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
POLLED = b"x-polled"
"""The header of what a page asks by itself, which is no sign that somebody is there."""
NOTING_SECONDS = 0.5
"""So long a request waits until it is noted that its session was used."""


class Sessions:
    """Puts the session of a request into `scope["crm.session"]`, None without one."""

    def __init__(self, app: ASGIApp, *, queue: ApprovalQueue) -> None:
        """Wrap an app."""
        self.app, self._queue = app, queue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find the session, and pass the request on."""
        if scope["type"] == "http":
            token = session_token(scope["headers"])
            is_polled = any(name == POLLED for name, _ in scope["headers"])
            scope["crm.session"] = await self.find(token, is_polled=is_polled) if token else None
        await self.app(scope, receive, send)

    async def find(self, token: str, *, is_polled: bool) -> Session | None:
        """Return a session, and keep that it was used by somebody, where that can be written now."""
        session = await self._queue.read(lambda connection: sessions.find(connection, token))
        if session and not session.is_noted and not is_polled:
            # What cannot be noted only ends the session earlier: who may look need not be able to write.
            with suppress(Unavailable):
                await self._queue.write(lambda connection: sessions.touch(connection, token), NOTING_SECONDS)
        return session


def session_token(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the token in a request's cookies, which may hold anything of other programs on the host."""
    text = "; ".join(value.decode("latin-1") for name, value in headers if name == b"cookie")
    return cookie_parser(text).get(COOKIE)


def require_own_origin(scope: Scope) -> None:
    """Raise the 403 unless a request that changes something comes from a page of this very server.

    Browsers say where a request comes from (RFC 6454, section 7), and no page can have them say otherwise.
    """
    headers = dict(scope["headers"])
    own = f"{scope['scheme']}://{headers.get(b'host', b'').decode('latin-1')}"
    if headers.get(b"origin", b"").decode("latin-1").lower() != own.lower():
        detail = (
            "The request does not come from a page of this server. Behind a proxy, pass on Host and"
            " X-Forwarded-Proto, and name the proxy in CRM_TRUSTED_PROXIES."
        )
        raise Problem("forbidden", detail)


def require_csrf(session: Session, given: str) -> None:
    """Raise the 403 unless a request shows the CSRF token of its session."""
    if not hmac.compare_digest(session.csrf.encode(), given.encode("utf-8", "replace")):
        raise Problem("forbidden", "The page was of another session. Open it again, and try once more.")
