"""Who may ask: Connexion's handling of security schemes, with our comparison of keys and tokens."""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import limits
from connexion.lifecycle import ConnexionRequest
from connexion.security import NO_VALUE, AbstractSecurityHandler
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from pydantic import SecretStr
from starlette.types import Scope

from sender.integration.arrivals import counted_as
from sender.integration.problems import Problem, unauthorized

SCHEME = b"bearer "
MOST_FAILURES = "20/minute"
"""How many wrong keys, tokens or log-ins of one address are answered; then 429. A right one is never refused for it."""


class Failures:
    """Counts what was wrong, by address."""

    def __init__(self, notation: str = MOST_FAILURES) -> None:
        """Begin at none; `notation` is as `limits` writes it."""
        self._limit = limits.parse(notation)
        self._windows = FixedWindowRateLimiter(MemoryStorage())

    def count(self, address: str) -> None:
        """Count a failure; raise the 429 for an address that has failed too often."""
        who = counted_as(address)
        if not self._windows.hit(self._limit, who):
            ends = self._windows.get_window_stats(self._limit, who).reset_time
            seconds = max(1, math.ceil(ends - time.time()))
            detail = "Too many wrong keys came from this address. Wait as long as Retry-After says."
            raise Problem("too-many-requests", detail, headers={"retry-after": str(seconds)})


class SecurityScheme(AbstractSecurityHandler):
    """A security scheme that is checked by a function of the request's scope."""

    def __init__(self, check: Callable[[Scope], Awaitable[bool]]) -> None:
        """Take the function; it returns whether the scheme was used, and raises when it was used wrongly."""
        self._check = check

    def __call__(self) -> SecurityScheme:
        """Serve as Connexion's handler class too, which is called for an instance per operation."""
        return self

    def get_fn(self, security_scheme: Any, required_scopes: Any) -> Callable[[ConnexionRequest], Any]:
        """Return what Connexion calls with each request."""
        return self._verify

    async def _verify(self, request: ConnexionRequest) -> Any:
        return {"sub": "program"} if await self._check(request.scope) else NO_VALUE


class Bearer:
    """Compares the bearer token of a request with ours, in constant time."""

    def __init__(self, setting: str, key: SecretStr | None, failures: Failures) -> None:
        """Remember the key's digest: equal lengths make the comparison's time say nothing."""
        self._setting = setting
        self._digest = digest(key.get_secret_value().encode()) if key else None
        self._failures = failures

    async def __call__(self, scope: Scope) -> bool:
        """Say whether there is one and it is right; raise 401, or 429 for an address that failed too often."""
        if self._digest is None:
            raise Problem("unavailable", f"{self._setting} is not set, so nothing is taken here.")
        token = bearer(scope["headers"])
        if token is None:
            return False
        if not hmac.compare_digest(digest(token), self._digest):
            self._failures.count(scope["link.address"])
            raise unauthorized(f"Send what is set as {self._setting} as 'Authorization: Bearer …'.")
        return True


def digest(token: bytes) -> bytes:
    """Return what tokens are compared by."""
    return hashlib.sha256(token).digest()


def bearer(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the bearer token of a request (RFC 6750, section 2.1), if it has exactly one."""
    given = [value for name, value in headers if name == b"authorization"]
    if len(given) == 1 and given[0][: len(SCHEME)].lower() == SCHEME:
        return given[0][len(SCHEME) :].strip(b" ")
    return None
