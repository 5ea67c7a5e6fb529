"""By whom: each webhook signed (Standard Webhooks), by a secret that does not travel with it."""

from collections.abc import Iterable, Mapping

from standardwebhooks import Webhook, WebhookVerificationError
from starlette.types import ASGIApp, Receive, Scope, Send

from crm_server.problems import Problem

SIGNED = (b"webhook-id", b"webhook-timestamp", b"webhook-signature")
LONGEST = 2048
"""Characters of a signature header, as the contract says: who has the key and no secret must not have us look
through thousands of signatures."""


class Signatures:
    """Refuses a body that no signature of a known secret vouches for, or an old one."""

    def __init__(self, app: ASGIApp, *, secrets: Iterable[str]) -> None:
        """Wrap an app; `secrets` are base64, with `whsec_` before it or without."""
        self.app = app
        self._verifiers = [Webhook(secret) for secret in secrets]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or raise the 401."""
        body = scope.get("crm.body")
        if body is not None and not self.is_signed(body, signed_headers(scope)):
            detail = (
                "Sign the webhook as Standard Webhooks says: webhook-id, webhook-timestamp (within five minutes)"
                " and webhook-signature, by the secret that the CRM has."
            )
            raise Problem("invalid-signature", detail, headers={"www-authenticate": "Bearer"})
        await self.app(scope, receive, send)

    def is_signed(self, body: bytes, headers: Mapping[str, str]) -> bool:
        """Tell whether any secret made any of the signatures, not long ago."""
        for verifier in self._verifiers:
            if verifies(verifier, body, headers):
                # The first to be tried next time: of several secrets most senders have the same.
                self._verifiers.remove(verifier)
                self._verifiers.insert(0, verifier)
                return True
        return False


def signed_headers(scope: Scope) -> dict[str, str]:
    """Return the headers that a signature needs; none when one is there twice, or too long."""
    found = [(name, value) for name, value in scope["headers"] if name in SIGNED]
    if len(found) != len(SIGNED) or any(len(value) > LONGEST for _, value in found):
        return {}
    return {name.decode(): value.decode("latin-1") for name, value in found}


def verifies(verifier: Webhook, body: bytes, headers: Mapping[str, str]) -> bool:
    """Tell whether one secret made any of the signatures, not long ago."""
    try:
        verifier.verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError):
        # ValueError: a signature that is no base64, a body that is no UTF-8.
        return False
    return True
