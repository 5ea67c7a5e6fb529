"""Who may send webhooks: Connexion's handling of bearer tokens, with our comparison of keys."""

import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Any

from connexion.security import AbstractSecurityHandler
from starlette.types import Scope

from crm_server.middleware.contract import Asker
from crm_server.middleware.networks import address_bytes
from crm_server.middleware.rate_limit import Limit, too_many
from crm_server.problems import Problem
from crm_server.webhook_keys import KeyUse, fingerprint

SCHEME = b"bearer "
GROUPS = 4096
"""Failures are counted by groups of addresses: bounded, however many addresses there are, and no address
can be read from a group's number. A right key is never refused for its neighbours."""


class WebhookKeys(AbstractSecurityHandler):
    """Checks the webhook key; Connexion calls it for every operation that the contract says needs one."""

    def __init__(self, keys: Iterable[str], failures: Limit, use: KeyUse) -> None:
        """Remember the keys' digests: equal lengths make the comparison's time say nothing."""
        self._keys = {hashlib.sha256(key.encode()).digest(): fingerprint(key) for key in keys}
        # Of the keys, so that servers that share their counters group alike, and no one else can.
        self._failures = Failures(failures, b"".join(sorted(self._keys)))
        self._use = use

    def __call__(self) -> "WebhookKeys":
        """Serve as Connexion's handler class too, which is called for an instance per operation."""
        return self

    def get_fn(self, security_scheme: Any, required_scopes: Any) -> Callable[[Asker], Any]:
        """Return what Connexion calls with each request."""
        return self.verify

    def verify(self, request: Asker) -> Any:
        """Return who it is when the key is right, `scope["crm.key"]` too; Connexion awaits the refusal."""
        scope = request.scope
        token = bearer(scope["headers"])
        if token is not None:
            digest = hashlib.sha256(token).digest()
            # All keys are compared, so that the time does not tell which one it was.
            if sum(hmac.compare_digest(digest, known) for known in self._keys):
                scope["crm.key"] = self._keys[digest]
                self._use.note(scope["crm.key"])
                return {"sub": "webhook"}
        return self.refuse(scope)

    async def refuse(self, scope: Scope) -> None:
        """Raise the 401, or the 429 for an address that has failed too often."""
        await self._failures.count(scope["crm.address"])
        detail = "Send the webhook key as 'Authorization: Bearer KEY'."
        raise Problem("unauthorized", detail, headers={"www-authenticate": "Bearer"})


class Failures:
    """Counts what was wrong, by address."""

    def __init__(self, limit: Limit, secret: bytes) -> None:
        """Prepare; servers that share their counters must share the secret."""
        self._limit, self._secret = limit, hashlib.sha256(secret).digest()

    async def count(self, address: str) -> None:
        """Count a failure; raise the 429 for an address that has failed too often."""
        if seconds := await self._limit.hit(group(address_bytes(address), self._secret)):
            raise too_many("Too many wrong keys came from this address.", seconds)


def group(who: bytes, secret: bytes = b"") -> str:
    """Return the group that somebody's failures are counted in."""
    digest = hashlib.blake2b(who, key=secret, digest_size=4).digest()
    return str(int.from_bytes(digest) % GROUPS)


def bearer(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the bearer token of a request (RFC 6750, section 2.1), if it has exactly one."""
    given = [value for name, value in headers if name == b"authorization"]
    if len(given) == 1 and given[0][: len(SCHEME)].lower() == SCHEME:
        return given[0][len(SCHEME) :].strip(b" ")
    return None
