"""Every answer gets an id, and a line in the log: never a path or a query, which may hold anything."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from connexion.middleware.abstract import ROUTING_CONTEXT
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ID_HEADER = b"x-request-id"
ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
FAILED = 400
"""The least status of an answer that is logged at `info`."""

log = logging.getLogger("crm_sender.access")


@dataclass(slots=True)
class Seen:
    """What those further in find out of a request: `scope["link.seen"]`."""

    id: str
    part: str = "unknown"
    """Which part of the server it is for."""
    extensions: Mapping[str, Any] = field(default_factory=dict)
    """Where Connexion's routing notes what it finds."""
    problem: str | None = None
    """The type of the problem that is the answer."""

    @property
    def operation(self) -> str:
        """The contract's operationId, once it is found."""
        found: Mapping[str, str | None] = self.extensions.get(ROUTING_CONTEXT, {})
        return found.get("operation_id") or self.part


class Observation:
    """Times and logs each answer when it begins, and puts the request's id into its header."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an app."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and watch its answer."""
        began = time.perf_counter()
        seen = scope["link.seen"] = Seen(os.urandom(8).hex())

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                note(seen, message["status"], time.perf_counter() - began)
                message["headers"] = [*message["headers"], (ID_HEADER, seen.id.encode())]
            await send(message)

        await self._app(scope, receive, observed)


def note(seen: Seen, status: int, seconds: float) -> None:
    """Log an answer."""
    problem = f" {seen.problem}" if seen.problem else ""
    level = logging.INFO if status >= FAILED else logging.DEBUG
    log.log(level, "%s %d%s in %.1f ms [%s]", seen.operation, status, problem, seconds * 1000, seen.id)
