"""Who has logged in with the admin token: sessions, and what a request by session must show.

A session is 256 random bits in a cookie, and here their SHA-256, in this process alone: a dashboard that
is started again asks for the token again, and so does one that has got another token.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from starlette.requests import cookie_parser
from starlette.types import Scope

COOKIE = "crm_link_admin"
"""Cookies ignore ports: the name tells it from the CRM's, and from the site's own."""
IDLE, LONGEST = 30 * 60, 12 * 60 * 60
"""Seconds after the last page, and after the log-in, at which a session ends."""
MOST = 100
"""Sessions that are kept; the one that was unused longest goes first."""
MOST_SEARCHES = 20
"""Searches that a session keeps."""


@dataclass(slots=True)
class Session:
    """Somebody who has logged in."""

    csrf: str
    """What a page of this session sends along to change something; no other site can know it."""
    started: float
    seen: float
    searches: dict[str, str] = field(default_factory=dict, repr=False)
    """What was searched for, by the id that stands for it in URLs."""

    def keep(self, words: str) -> str:
        """Keep a search; return its id."""
        while len(self.searches) >= MOST_SEARCHES:
            del self.searches[next(iter(self.searches))]
        search = secrets.token_hex(8)
        self.searches[search] = words
        return search


class Sessions:
    """The sessions of one dashboard. `clock` is in seconds and never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with none."""
        self._clock = clock
        self._by_digest: dict[bytes, Session] = {}

    def start(self) -> str:
        """Log somebody in; return the token for their cookie."""
        now, token = self._clock(), secrets.token_urlsafe(32)
        self._forget(now)
        if len(self._by_digest) >= MOST:
            del self._by_digest[min(self._by_digest, key=lambda digest: self._by_digest[digest].seen)]
        self._by_digest[_digest(token)] = Session(secrets.token_hex(16), now, now)
        return token

    def find(self, scope: Scope, *, is_somebody: bool = True) -> Session | None:
        """Return the session of a request, unless it is over, and forget all that are.

        `is_somebody`: not a page that asks by itself, which is no sign that somebody is there.
        """
        now, token = self._clock(), session_token(scope["headers"])
        self._forget(now)
        session = self._by_digest.get(_digest(token)) if token else None
        if session and is_somebody:
            session.seen = now
        return session

    def end(self, scope: Scope) -> None:
        """Log somebody out."""
        self._by_digest.pop(_digest(session_token(scope["headers"]) or ""), None)

    def _forget(self, now: float) -> None:
        """Forget the sessions that are over, and what was searched for in them."""
        self._by_digest = {digest: one for digest, one in self._by_digest.items() if not is_over(one, now)}


def is_over(session: Session, now: float) -> bool:
    """Say whether a session has ended."""
    return now >= session.seen + IDLE or now >= session.started + LONGEST


def session_token(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the token in a request's cookies, which may hold anything of other programs on the host."""
    text = "; ".join(value.decode("latin-1") for name, value in headers if name == b"cookie")
    return cookie_parser(text).get(COOKIE)


def is_own_origin(scope: Scope) -> bool:
    """Say whether a request comes from a page of this very server.

    Browsers say where a request comes from (RFC 6454, section 7), and no page can have them say otherwise.
    """
    headers = dict(scope["headers"])
    own: bytes = f"{scope['scheme']}://".encode() + headers.get(b"host", b"")
    origin: bytes = headers.get(b"origin", b"")
    return origin.lower() == own.lower()


def is_csrf(session: Session, given: str) -> bool:
    """Say whether a request shows the CSRF token of its session."""
    return hmac.compare_digest(session.csrf.encode(), given.encode("utf-8", "replace"))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
