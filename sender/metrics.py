"""What Prometheus is told of the website's side: read from the outbox, so that booking code counts nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from generated.operations import CURRENT
from sender import outbox
from sender.alerts import CONDITIONS
from sender.database import reading, time_of
from sender.deliveries import holds
from sender.errors import NotMigrated
from sender.settings import SenderSettings
from sender.statistics import RUNGS_MS
from sender.transport import Health, Transport

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

OUTCOMES = {"delivered": "delivered", "attempted": "retry", "held": "held", "failed": "failed"}
"""What became of an attempt, by the trail's word."""


@dataclass(frozen=True, slots=True)
class _Written(Collector):
    metrics: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def exposition(engine: Engine, settings: SenderSettings, health: Health | None = None) -> bytes:
    """Return how outbox, relay and CRM are as Prometheus' text format has it; no personal data.

    `health` is what the CRM said a moment ago; without it it is asked, for two seconds at most. Of an
    outbox that cannot be read only that is said.
    """
    if health is None:
        with Transport(settings) as transport:
            health = transport.health()
    try:
        with reading(engine) as connection:
            stored = list(_stored(connection, time.time(), settings))
    except (DBAPIError, NotMigrated):
        stored = []
    return generate_latest(_Written([*_around(health, is_readable=bool(stored)), *stored]))


def _around(health: Health, *, is_readable: bool) -> Iterator[Metric]:
    """Yield what is known without the outbox."""
    build = GaugeMetricFamily(
        "crm_sender_build_info", "The release that runs.", labels=["version", "contract"]
    )
    build.add_metric([_release(), CURRENT], 1)
    yield build
    yield GaugeMetricFamily(
        "crm_sender_outbox_readable", "Whether the outbox could be read now.", is_readable
    )
    yield GaugeMetricFamily("crm_sender_crm_reachable", "Whether the CRM says that it is well.", health.ok)


def _release() -> str:
    """Return the release of the package that runs, if it was installed as one."""
    try:
        return version("revivatech-crm-link")
    except PackageNotFoundError:
        return "not installed"


def _stored(connection: Connection, now: float, settings: SenderSettings) -> Iterator[Metric]:
    """Yield what is in the outbox."""
    counts = outbox.counts(connection)
    events = GaugeMetricFamily("crm_sender_events", "Events that are not delivered.", labels=["status"])
    for status in ("pending", "held", "failed"):
        events.add_metric([status], getattr(counts, status))
    yield events
    waiting = Counter[str]()
    for hold in holds(connection):
        waiting[hold["waits_for"]] += hold["held"]
    held = GaugeMetricFamily("crm_sender_held", "Held events, by what they wait for.", labels=["waits_for"])
    for waits_for, count in waiting.items():
        held.add_metric([waits_for], count)
    yield held
    words = "Seconds since the oldest event was enqueued that is not delivered; 0 when there is none."
    yield GaugeMetricFamily("crm_sender_oldest_seconds", words, _age(outbox.oldest_pending(connection), now))
    at = time_of(connection, time.time)  # by which relays write, unlike booking code
    relays, seen_at = outbox.running_relays(connection, at, settings.lease)
    yield GaugeMetricFamily("crm_sender_relays", "Relays that run.", relays)
    words = "Seconds since a relay last looked at the outbox; 0 when none ever did."
    yield GaugeMetricFamily("crm_sender_relay_seen_seconds", words, _age(seen_at, at))
    words = "Seconds for which erased bytes have waited in SQLite's log; 0 when none do."
    erasing_since, _ = outbox.erasing_since(connection)
    yield GaugeMetricFamily("crm_sender_erasing_seconds", words, _age(erasing_since, at))
    yield from _attempts(connection)
    told = outbox.told(connection)
    words = "Conditions of which people were told and that are not over."
    alerts = GaugeMetricFamily("crm_sender_alerts", words, labels=["condition"])
    for condition in CONDITIONS:
        alerts.add_metric([condition], condition in told and told[condition].told_at is not None)
    yield alerts


def _attempts(connection: Connection) -> Iterator[Metric]:
    """Yield what became of attempts, and how long deliveries took."""
    by_outcome, by_rung = Counter[str](), Counter[int]()
    for verb, rung, count in outbox.counted(connection):
        by_outcome[verb] += int(count)
        if verb == "delivered":
            by_rung[rung] += int(count)
    attempts = CounterMetricFamily(
        "crm_sender_attempts", "Attempts, by what became of them.", labels=["outcome"]
    )
    for verb, outcome in OUTCOMES.items():
        attempts.add_metric([outcome], by_outcome[verb])
    yield attempts
    # The last rung stands for longer, too. No sum is kept, so none is told.
    bounds = [*(str(rung / 1000) for rung in RUNGS_MS[:-1]), "+Inf"]
    buckets = list(zip(bounds, accumulate(by_rung[rung] for rung in RUNGS_MS), strict=True))
    delays = HistogramMetricFamily("crm_sender_delivery_seconds", "Seconds from the commit to the receipt.")
    delays.add_metric([], buckets, sum_value=None)
    yield delays


def _age(since: float | None, now: float) -> float:
    return max(0.0, now - since) if since is not None else 0.0
