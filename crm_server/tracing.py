"""Traces, where OpenTelemetry's SDK is set up in this process (`opentelemetry-instrument` does); nothing where not.

A span for each request, which continues the trace that the website began, and one for each transaction,
linked to the requests whose rows it holds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span, Tracer

Headers = Sequence[tuple[bytes, bytes]]


class Tracing:
    """Makes spans; while there is no SDK, nothing is imported and nothing is made."""

    def __init__(self) -> None:
        """Look whether the SDK is set up: whoever does that has imported it before the server starts."""
        self._tracer: Tracer | None = None
        if "opentelemetry.sdk.trace" in sys.modules:
            from opentelemetry import trace  # noqa: PLC0415  # an extra

            self._tracer = trace.get_tracer("crm_server")

    @property
    def on(self) -> bool:
        """Whether anybody traces."""
        return self._tracer is not None

    @contextmanager
    def request(self, headers: Headers) -> Iterator[Span | None]:
        """Give the span of a request, which goes on with the trace that its `traceparent` names (W3C)."""
        if self._tracer is None:
            yield None
            return
        from opentelemetry.trace import SpanKind  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        before = TraceContextTextMapPropagator().extract(carrier)
        # What an exception says may be a value of the request's: only the answer is recorded.
        with self._tracer.start_as_current_span(
            "request", before, SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ) as span:
            yield span

    def link(self) -> Link | None:
        """Return a link to the request that is at work."""
        if self._tracer is None:
            return None
        from opentelemetry import trace  # noqa: PLC0415

        return trace.Link(trace.get_current_span().get_span_context())

    @contextmanager
    def transaction(self, name: str, links: Sequence[Link | None]) -> Iterator[None]:
        """Be the span of a transaction that is done for the requests of some links."""
        if self._tracer is None:
            yield
            return
        found: list[Any] = [link for link in links if link is not None]
        with self._tracer.start_as_current_span(
            name, links=found, record_exception=False, set_status_on_exception=False
        ):
            yield
