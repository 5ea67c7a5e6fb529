"""The website's side in numbers, as Prometheus reads them."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Engine

from sender import outbox
from sender.database import reading
from sender.settings import SenderSettings


def exposition(engine: Engine, settings: SenderSettings) -> bytes:
    """Return how the outbox is, in Prometheus' text format."""
    with reading(engine) as connection:
        counts = asdict(outbox.counts(connection))
    lines = [f'crm_outbox_events{{status="{status}"}} {count}' for status, count in counts.items()]
    return "\n".join(["# TYPE crm_outbox_events gauge", *lines, ""]).encode()
