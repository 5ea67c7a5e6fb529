"""Who may use the staff API: a token's owner or who has logged in, in the role that the contract wants."""

from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from crm_server import staff
from crm_server.approval_queue import ApprovalQueue
from crm_server.middleware.authentication import Failures, bearer
from crm_server.middleware.bodies import operation_id
from crm_server.middleware.contract import operations
from crm_server.middleware.sessions import SAFE_METHODS, require_csrf, require_own_origin
from crm_server.problems import Problem
from crm_server.sessions import Session
from crm_server.staff import RANKS, Role, Staff


class StaffAccess:
    """Puts who asks into `scope["crm.staff"]`, before a byte of the body is read; raises 401 and 403."""

    def __init__(
        self, app: ASGIApp, *, queue: ApprovalQueue, roles: Mapping[str, Role], failures: Failures
    ) -> None:
        """Wrap an app; `roles` is the least role for each operation."""
        self.app, self.queue, self.roles, self.failures = app, queue, roles, failures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass when it may."""
        operation = operation_id(scope) if scope["type"] == "http" else None
        if operation is not None:
            who = await self.identify(scope)
            if not who.may(self.roles[operation]):
                raise Problem("forbidden", f"This needs the role {self.roles[operation]}.")
            scope["crm.staff"] = who
        await self.app(scope, receive, send)

    async def identify(self, scope: Scope) -> Staff:
        """Return who asks.

        Raise the 401, the 429 for an address that has failed too often, and the 403 for what another site has a
        browser ask by session.
        """
        token = bearer(scope["headers"])
        session: Session | None = scope["crm.session"]
        if token is not None:
            who = await self.queue.read(lambda connection: staff.of_token(connection, token))
            if who is not None:
                return who
        elif session is not None:
            if scope["method"] not in SAFE_METHODS:
                require_own_origin(scope)
                require_csrf(session, dict(scope["headers"]).get(b"x-csrf-token", b"").decode("latin-1"))
            return session.staff
        if token is not None:
            await self.failures.count(scope["crm.address"])
        detail = "Send a staff token as 'Authorization: Bearer TOKEN'."
        raise Problem("unauthorized", detail, headers={"www-authenticate": "Bearer"})


def required_roles(contract: Mapping[str, Any]) -> dict[str, Role]:
    """Return the least role for each operation; fail at the start when one has none that we know."""
    roles: dict[str, Any] = {op["operationId"]: op.get("x-role") for op in operations(contract)}
    unknown = {name for name, role in roles.items() if role not in RANKS}
    if unknown:
        raise RuntimeError(f"Operations without a known x-role: {sorted(unknown)}")
    return roles
