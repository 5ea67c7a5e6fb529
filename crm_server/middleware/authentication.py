"""Who may send webhooks: Connexion's handling of bearer tokens, with our comparison of keys."""

import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Any

from connexion.lifecycle import ConnexionRequest
from connexion.security import AbstractSecurityHandler

from crm_server.problems import Problem

SCHEME = b"bearer "


class WebhookKeys(AbstractSecurityHandler):
    """Checks the webhook key; Connexion calls it for every operation that the contract says needs one."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Remember the keys' digests: equal lengths make the comparison's time say nothing."""
        self._digests = tuple(hashlib.sha256(key.encode()).digest() for key in keys)

    def __call__(self) -> "WebhookKeys":
        """Serve as Connexion's handler class too, which is called for an instance per operation."""
        return self

    def get_fn(self, security_scheme: Any, required_scopes: Any) -> Callable[[ConnexionRequest], Any]:
        """Return what Connexion calls with each request."""
        return self.verify

    def verify(self, request: ConnexionRequest) -> dict[str, str]:
        """Return who it is when the key is right; raise the 401 otherwise."""
        token = bearer(request.scope["headers"])
        if token is not None:
            digest = hashlib.sha256(token).digest()
            # All keys are compared, so that the time does not tell which one it was.
            if sum(hmac.compare_digest(digest, known) for known in self._digests):
                return {"sub": "webhook"}
        detail = "Send the webhook key as 'Authorization: Bearer KEY'."
        raise Problem("unauthorized", detail, headers={"www-authenticate": "Bearer"})


def bearer(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the bearer token of a request (RFC 6750, section 2.1), if it has exactly one."""
    given = [value for name, value in headers if name == b"authorization"]
    if len(given) == 1 and given[0][: len(SCHEME)].lower() == SCHEME:
        return given[0][len(SCHEME) :].strip(b" ")
    return None
