"""Every answer gets an id, a line in the log, and its place among the numbers."""

import logging
import os
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from connexion.middleware.abstract import ROUTING_CONTEXT
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crm_server.logs import request_id
from crm_server.metrics import UNKNOWN, Metrics
from crm_server.middleware.networks import is_in, remember
from crm_server.settings import Network
from crm_server.tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span

ID_HEADER = b"x-request-id"
ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
PAGE = "page"
"""The operation of every page for staff."""
NOT_LOGGED = frozenset({"health", "metrics"})
"""Asked every few seconds by those who watch: logged only when the answer is none of success."""
FAILED = 400
"""The least status of an answer that is logged at `info`."""

log = logging.getLogger("crm_server.access")


@dataclass(slots=True)
class Seen:
    """What those further in find out of a request: `scope["crm.seen"]`."""

    id: str
    unrouted: str
    extensions: Mapping[str, Any] = field(default_factory=dict)
    """Where Connexion's routing notes what it finds."""
    problem: str | None = None
    """The type of the problem that is the answer."""

    @property
    def operation(self) -> str:
        """The contract's operationId, once it is found."""
        found: Mapping[str, str | None] = self.extensions.get(ROUTING_CONTEXT, {})
        return found.get("operation_id") or self.unrouted


class Observation:
    """Counts, times and logs each answer when it begins, and puts the request's id into its header.

    An id that a request brings is kept where a trusted proxy gave it. Method, path and query may hold anything: the
    operation is logged in their place.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, proxies: Collection[Network], unrouted: str = UNKNOWN
    ) -> None:
        """Wrap an app; `unrouted` stands for the operation where no contract names one."""
        self.app, self._metrics, self._unrouted = app, metrics, unrouted
        self._is_proxy = remember(lambda address: is_in(address, proxies)) if proxies else None
        self._tracing = Tracing()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif self._tracing.on:
            with self._tracing.request(scope["headers"]) as span:
                await self.answer(scope, receive, send, span)
        else:
            await self.answer(scope, receive, send)

    async def answer(self, scope: Scope, receive: Receive, send: Send, span: "Span | None" = None) -> None:
        """Pass a request on, and watch its answer."""
        began = time.perf_counter()
        seen = scope["crm.seen"] = Seen(self.id_of(scope), self._unrouted)
        request_id.set(seen.id)

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.observe(seen, message["status"], time.perf_counter() - began)
                if span:
                    describe(span, seen, message["status"])
                message["headers"] = [*message["headers"], (ID_HEADER, seen.id.encode())]
            await send(message)

        await self.app(scope, receive, observed)

    def id_of(self, scope: Scope) -> str:
        """Return the id that a trusted proxy gave a request, or a new one."""
        if self._is_proxy and scope.get("client") and self._is_proxy(scope["client"][0]):
            given = [value for name, value in scope["headers"] if name == ID_HEADER]
            if len(given) == 1 and ID.fullmatch(given[0]):
                return str(given[0], "ascii")
        return os.urandom(8).hex()

    def observe(self, seen: Seen, status: int, seconds: float) -> None:
        """Count and log an answer."""
        metrics, operation = self._metrics, seen.operation
        metrics.responses.add((operation, str(status)[0]))
        metrics.request_seconds[operation].observe(seconds)
        if seen.problem:
            metrics.refused.add(seen.problem)
        level = logging.INFO if status >= FAILED else logging.DEBUG
        if not log.isEnabledFor(level) or (status < FAILED and operation in NOT_LOGGED):
            return
        members = {
            "operation": operation,
            "status": status,
            "seconds": round(seconds, 6),
            **({"problem": seen.problem} if seen.problem else {}),
        }
        words = (operation, status, f" {seen.problem}" if seen.problem else "", seconds * 1000)
        log.log(level, "%s %d%s in %.1f ms", *words, extra={"members": members})


def describe(span: "Span", seen: Seen, status: int) -> None:
    """Say in a span what its request was: the operation and the answer, and no more (OpenTelemetry's names)."""
    span.update_name(seen.operation)
    span.set_attributes({"http.response.status_code": status, "http.request.header.x-request-id": seen.id})
    if seen.problem:
        span.set_attribute("error.type", seen.problem)
