"""Traces of attempts, where OpenTelemetry's SDK is set up in this process; nothing is imported where not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from sender.delivery import Answer, Delivery, Outcome

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


class Tracing:
    """Makes a span of each attempt, below its booking's: the trace of a booking has all attempts of its event."""

    def __init__(self) -> None:
        """Look whether the SDK is set up: whoever does that has imported it before the relay starts."""
        self._tracer: Tracer | None = None
        if "opentelemetry.sdk.trace" in sys.modules:
            from opentelemetry import trace  # noqa: PLC0415  # an extra

            self._tracer = trace.get_tracer("crm_sender")

    def attempt(self, delivery: Delivery, send: Callable[[str | None], Outcome]) -> Outcome:
        """Make an attempt within its span; `send` is given the `traceparent` (W3C) that goes with it."""
        if self._tracer is None:
            return send(delivery.traceparent)
        from opentelemetry.trace import SpanKind  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        propagator = TraceContextTextMapPropagator()
        booking = propagator.extract({"traceparent": delivery.traceparent or ""})
        known: dict[str, str | int] = {"webhook.id": delivery.id, "webhook.attempt": delivery.attempts + 1}
        with self._tracer.start_as_current_span(delivery.event, booking, SpanKind.CLIENT, known) as span:
            sent: dict[str, str] = {}
            propagator.inject(sent)
            outcome = send(sent.get("traceparent"))
            if isinstance(outcome, Answer):
                span.set_attribute("http.response.status_code", outcome.status)
            else:
                span.set_attribute("error.type", outcome.kind)
        return outcome
