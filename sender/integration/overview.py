"""The front page: connection, features, statistics, the guide's common issues; and the test of the way to the CRM."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from starlette.responses import Response

from generated.operations import CURRENT, WEBHOOKS
from sender import outbox
from sender.delivery import cause_of
from sender.integration.charts import plot_counts, plot_delays
from sender.integration.rendering import page
from sender.integration.visits import Visit
from sender.statistics import hour_of, periods
from sender.troubles import TROUBLES, seen_in, trouble_of

SPANS: Mapping[str, tuple[str, int, int, str]] = {
    "24h": ("24 hours", 24, 1, "%H:%M"),
    "7d": ("7 days", 28, 6, "%a %d"),
}
"""What is plotted: its name, how many bars, hours of each, and how the time below one is written."""

READ = 200
"""Events of a state that are looked at for the common issues."""


@dataclass(frozen=True, slots=True)
class Feature:
    """A webhook of the contract, and whether its events go."""

    name: str
    state: Literal["available", "held", "away"]
    words: str


async def show(visit: Visit) -> Response:
    """Show how all is."""
    span = visit.asked("span", SPANS)
    _, number, hours_each, label = SPANS[span]
    now = time.time()
    status = await visit.site.status.get()
    first = hour_of(now) + 1 - number * hours_each
    rows, said = await visit.read(
        lambda connection: (
            outbox.hours_since(connection, first),
            outbox.words_of_trouble(connection, READ),
        )
    )
    counted = periods(rows, now, number, hours_each)
    crm, memory = status["crm"], visit.memory
    if not crm["reachable"]:
        said.add(crm["answer"])
    if crm["answer"] != memory.answer:
        memory.answer, memory.since = crm["answer"], now
    return page(
        visit,
        "overview.html",
        state=status,
        since=memory.since,
        features=features(status),
        spans=SPANS,
        span=span,
        periods=counted,
        counts=plot_counts(counted, label),
        delays=plot_delays(counted, label),
        troubles=TROUBLES,
        seen=seen_in(said),
    )


def features(status: Mapping[str, Any]) -> list[Feature]:
    """Return each webhook of today's contract as the status says that it is (pure)."""
    crm, holds = status["crm"], {hold["held_for"]: hold for hold in status["holds"]}
    versions: Sequence[str] = crm["contract_versions"]

    def of(name: str, path: str) -> Feature:
        if hold := holds.get(path) or holds.get(CURRENT):
            return Feature(name, "held", f"waits for {hold['waits_for']}: {hold['reason']}")
        if not crm["reachable"]:
            return Feature(name, "away", f"the CRM is away: {crm['answer']}; events wait")
        if CURRENT not in versions:
            cause = cause_of(CURRENT)
            return Feature(name, "held", f"held: {cause.what}; {cause.cure}")
        return Feature(name, "available", f"spoken by the CRM, contract {CURRENT}")

    return [of(name.replace("-", " ").capitalize(), webhook.path) for name, webhook in WEBHOOKS.items()]


async def test(visit: Visit) -> Response:
    """Try the way to the CRM, and show each step."""
    result = await visit.site.test.get()
    cures = {step["step"]: trouble_of(step["answer"]) for step in result["steps"] if not step["ok"]}
    return page(visit, "test.html", result=result, cures=cures)
