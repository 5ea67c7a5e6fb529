"""The dashboard's plots: where their bars stand (pure). Templates draw them, with a table beside each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sender.statistics import RUNGS_MS, Period

WIDTH, HEIGHT = 700, 150
"""Of a plot, in its own units."""
GUTTER = 48
"""What is left of a plot for the words of its heights, in the same units."""
LABELS = 7
"""How many of the times below a plot are written, at most."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar, in the plot's units; `kind` is its class in the stylesheet."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Mark:
    """Words beside a plot's axis."""

    at: float
    words: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot: bars, the times below them, and what heights mean."""

    bars: Sequence[Bar]
    times: Sequence[Mark]
    heights: Sequence[Mark]
    width: int = WIDTH
    height: int = HEIGHT
    gutter: int = GUTTER


def plot_counts(periods: Sequence[Period], label: str) -> Plot:
    """Return the plot of what was delivered and what failed, side by side."""
    most = max([1, *(max(period.delivered, period.failed) for period in periods)])
    bars = _bars(
        periods,
        delivered=lambda period: period.delivered / most,
        failed=lambda period: period.failed / most,
    )
    return Plot(bars, _times(periods, label), [Mark(0, f"{most:,}")])


def plot_delays(periods: Sequence[Period], label: str) -> Plot:
    """Return the plot of the delays from commit to receipt, each rung of their ladder as high as the next."""
    bars = _bars(
        periods,
        median=lambda period: _rung(period.median_ms),
        p95=lambda period: _rung(period.p95_ms),
    )
    heights = [
        Mark(round(HEIGHT * (1 - _rung(rung)), 1), duration(rung)) for rung in (100, 1000, 60_000, 3_600_000)
    ]
    return Plot(bars, _times(periods, label), heights)


def _rung(milliseconds: int | None) -> float:
    """Return how high a rung is, of 1; 0 for none."""
    return 0.0 if milliseconds is None else (RUNGS_MS.index(milliseconds) + 1) / len(RUNGS_MS)


def _bars(periods: Sequence[Period], **kinds: Callable[[Period], float]) -> list[Bar]:
    """Return for each period a bar of each kind, side by side; a height of 1 is the whole plot's."""
    slot = WIDTH / len(periods)
    width = slot * 0.8 / len(kinds)
    bars = []
    for place, period in enumerate(periods):
        for number, (kind, part) in enumerate(kinds.items()):
            height = round(HEIGHT * part(period), 1)
            x = round(place * slot + slot * 0.1 + number * width, 1)
            if height:
                bars.append(Bar(kind, x, round(HEIGHT - height, 1), round(width, 1), height))
    return bars


def _times(periods: Sequence[Period], label: str) -> list[Mark]:
    """Return some of the periods' beginnings; `label` is how to write them, for strftime."""
    step = -(-len(periods) // LABELS)
    slot = WIDTH / len(periods)
    return [
        Mark(round((place + 0.5) * slot, 1), datetime.fromtimestamp(period.begins, UTC).strftime(label))
        for place, period in enumerate(periods)
        if place % step == step // 2
    ]


def duration(milliseconds: int | None) -> str:
    """Return a rung as people say it."""
    if milliseconds is None:
        return "none"
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if milliseconds >= size:
            return f"{milliseconds // size} {unit}"
    return f"{milliseconds} ms"
