"""Deliveries by hour: how many, and how long from commit to receipt (pure).

The outbox keeps counters by hour and rung of a ladder of delays, never a row for each delivery: they
are read as fast beside a million delivered rows as beside none.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

HOUR = 3600

RUNGS_MS = (
    10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000,
    21_600_000, 86_400_000, 604_800_000,
)  # fmt: skip
"""Milliseconds within which a receipt came; the last also stands for longer."""


@dataclass(frozen=True, slots=True)
class Period:
    """What happened in some hours."""

    begins: int
    """Seconds since 1970."""
    delivered: int
    failed: int
    median_ms: int | None
    """The rung within which half of the receipts came, None when there was none."""
    p95_ms: int | None
    """The same for 95 of 100."""


def hour_of(at: float) -> int:
    """Return the hour since 1970 in which a time lies."""
    return int(at // HOUR)


def rung_of(seconds: float) -> int:
    """Return the rung, in milliseconds, for a delay; a clock that went back makes it the lowest."""
    return RUNGS_MS[min(bisect_left(RUNGS_MS, seconds * 1000), len(RUNGS_MS) - 1)]


def periods(
    counted: Iterable[tuple[int, str, int, int]], now: float, number: int, hours_each: int
) -> list[Period]:
    """Return so many periods up to now, oldest first, from rows of hour, verb, rung and count."""
    first = hour_of(now) + 1 - number * hours_each
    verbs = [Counter[str]() for _ in range(number)]
    rungs = [Counter[int]() for _ in range(number)]
    for hour, verb, rung, count in counted:
        place = (hour - first) // hours_each
        if 0 <= place < number:
            verbs[place][verb] += count
            if verb == "delivered":
                rungs[place][rung] += count
    return [
        Period(
            (first + place * hours_each) * HOUR,
            verbs[place]["delivered"],
            verbs[place]["failed"],
            quantile(rungs[place], 0.5),
            quantile(rungs[place], 0.95),
        )
        for place in range(number)
    ]


def quantile(rungs: Mapping[int, int], part: float) -> int | None:
    """Return the rung within which this part of the receipts came, None when there was none."""
    needed, seen = part * sum(rungs.values()), 0
    for rung in sorted(rungs):
        seen += rungs[rung]
        if seen >= needed:
            return rung
    return None
