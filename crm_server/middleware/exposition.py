"""`GET /metrics`: what was counted, and how the queue is, as Prometheus reads it."""

import asyncio
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from connexion.middleware.abstract import ROUTING_CONTEXT
from prometheus_client import PROCESS_COLLECTOR, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Receive, Scope, Send

from crm_server.approval_queue import ApprovalQueue, Depth, depths
from crm_server.errors import Unavailable
from crm_server.metrics import Counter, Histogram, Metrics
from crm_server.problems import SAFE_HEADERS, Problem
from crm_server.webhook_keys import KeyInUse, list_keys

METRICS = "metrics"
PATH = "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FRESH_SECONDS = 1.0
"""How long what the database said is believed: who asks more often costs it nothing."""
HEADERS = [
    (name.encode(), value.encode()) for name, value in {**SAFE_HEADERS, "content-type": CONTENT_TYPE}.items()
]


@dataclass(frozen=True, slots=True)
class Stored:
    """What the database said."""

    depths: list[Depth]
    keys: list[KeyInUse]


@dataclass(frozen=True, slots=True)
class Now:
    """How the server is at this moment; `stored` is None when the database did not answer."""

    time: float
    healthy: bool
    alive: bool
    waiting: int
    releases: Sequence[str]
    """Those that are accepted."""
    stored: Stored | None


class Exposition:
    """Answers `GET /metrics`, which is in no contract, to those from whom webhooks may come; no key is asked for."""

    def __init__(
        self, app: ASGIApp, *, queue: ApprovalQueue, metrics: Metrics, keys: Collection[str]
    ) -> None:
        """Wrap an app; `keys` are the webhook keys."""
        self.app, self._queue, self._metrics, self._keys = app, queue, metrics, keys
        self._stored: Stored | None = None
        self._until = float("-inf")
        self._reading = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass a request on."""
        if scope["type"] != "http" or scope["path"] != PATH:
            await self.app(scope, receive, send)
            return
        if scope["method"] != "GET":
            raise Problem("method-not-allowed", "Use GET.", headers={"allow": "GET"})
        scope["crm.seen"].extensions = {ROUTING_CONTEXT: {"operation_id": METRICS}}
        body = write(self._metrics, await self.look())
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": body})

    async def look(self) -> Now:
        """See how the server is."""
        async with self._reading:
            healthy = await self._queue.is_healthy()
            if time.monotonic() >= self._until:
                self._stored = await self._read()
                self._until = time.monotonic() + FRESH_SECONDS
        queue = self._queue
        return Now(time.time(), healthy, queue.alive, queue.waiting, queue.releases.accepted, self._stored)

    async def _read(self) -> Stored | None:
        try:
            return await self._queue.read(
                lambda connection: Stored(depths(connection), list_keys(connection, self._keys))
            )
        except Unavailable:
            return None


@dataclass(frozen=True, slots=True)
class Written(Collector):
    """Metrics that are at hand."""

    metrics: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self.metrics


def write(metrics: Metrics, now: Now) -> bytes:
    """Write all as Prometheus' text format says."""
    of_process = PROCESS_COLLECTOR.collect()
    return generate_latest(Written([*counted(metrics), *state(now), *stored(now), *of_process]))


def counted(metrics: Metrics) -> Iterator[Metric]:
    """Yield what was counted since the start."""
    words = "Events that the contract allows, by what became of them."
    yield counter("crm_events", words, ["event", "outcome"], metrics.events)
    words = "Answers, by the operation that was asked for and the class of the status."
    responses = CounterMetricFamily("crm_http_responses", words, labels=["operation", "code"])
    for (operation, digit), count in metrics.responses.totals():
        responses.add_metric([operation, f"{digit}xx"], count)
    yield responses
    yield counter("crm_refused", "Refusals, by the type of the problem.", ["type"], metrics.refused)
    words = "Requests that came too often, by the limit: of a key, of wrong keys or tokens, of log-ins."
    yield counter("crm_rate_limited", words, ["limit"], metrics.rate_limited)
    yield counter("crm_key_uses", "Uses of each webhook key, by fingerprint.", ["key"], metrics.key_uses)
    words = "Webhooks that came with a right key, by the release of the contract that they named."
    yield counter("crm_webhooks", words, ["release"], metrics.webhooks)
    yield counter("crm_commit_failures", "Transactions that failed.", [], metrics.commit_failures)
    seconds = HistogramMetricFamily(
        "crm_http_request_seconds", "Seconds from a request to the start of its answer.", labels=["operation"]
    )
    for operation, histogram in metrics.request_seconds.items():
        add(seconds, [operation], histogram)
    yield seconds
    commits = HistogramMetricFamily("crm_commit_seconds", "Seconds of each transaction that stores events.")
    add(commits, [], metrics.commit_seconds)
    yield commits
    sizes = HistogramMetricFamily("crm_batch_size", "Events that one transaction stored.")
    add(sizes, [], metrics.batch_sizes)
    yield sizes


def counter(name: str, words: str, labels: list[str], numbers: Counter[Any]) -> Metric:
    """Return a counter with a number for each label or tuple of labels."""
    family = CounterMetricFamily(name, words, labels=labels)
    for label, count in numbers.totals():
        family.add_metric([label] if isinstance(label, str) else label, count)
    return family


def add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    """Add a histogram to its family."""
    buckets, total = histogram.totals()
    family.add_metric(labels, buckets, total)


def state(now: Now) -> Iterator[Metric]:
    """Yield what the server is and how it is."""
    build = GaugeMetricFamily("crm_build_info", "The release that runs.", labels=["version"])
    build.add_metric([release()], 1)
    yield build
    contract = GaugeMetricFamily(
        "crm_contract_info", "The contract's releases that it speaks.", labels=["release"]
    )
    for spoken in now.releases:
        contract.add_metric([spoken], 1)
    yield contract
    yield GaugeMetricFamily("crm_healthy", "Whether an event could be stored now.", now.healthy)
    yield GaugeMetricFamily("crm_committer_alive", "Whether the thread that writes runs.", now.alive)
    yield GaugeMetricFamily("crm_waiting", "Requests that wait for their commit.", now.waiting)


def release() -> str:
    """Return the release of the package that runs, if it was installed as one."""
    try:
        return version("revivatech-crm-link")
    except PackageNotFoundError:
        return "not installed"


def stored(now: Now) -> Iterator[Metric]:
    """Yield what is in the database; nothing when it does not answer."""
    if now.stored is None:
        return
    words = "Requests by event and state; 10001 says more than 10000."
    queue = GaugeMetricFamily("crm_approvals", words, labels=["event", "status"])
    words = "Seconds since the oldest request came that waits for approval; 0 when none waits."
    oldest = GaugeMetricFamily("crm_oldest_pending_seconds", words, labels=["event"])
    for depth in now.stored.depths:
        queue.add_metric([depth.event, depth.status], depth.count)
        if depth.status == "pending_approval":
            oldest.add_metric([depth.event], seconds_since(depth.oldest, now.time))
    yield queue
    yield oldest
    words = "Seconds since the first use of each webhook key that is set, by fingerprint."
    ages = GaugeMetricFamily("crm_key_age_seconds", words, labels=["key"])
    for key in now.stored.keys:
        if key.is_set:
            ages.add_metric([key.fingerprint], seconds_since(key.first_used_at, now.time))
    yield ages


def seconds_since(time_: str | None, now: float) -> float:
    """Return the age of a time of ours; 0 for none, or one that is to come."""
    return max(0.0, now - datetime.fromisoformat(time_).timestamp()) if time_ else 0.0
