"""The front page: the day's figures, and what came and was decided by day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.responses import Response

from crm_server.approval_queue import EVENTS
from crm_server.figures import Day, read_figures
from crm_server.frontend.rendering import page
from crm_server.frontend.visits import Visit

DAYS = 14
WIDTH, HEIGHT = 700, 160
"""Of the chart, in its own units."""
KINDS = ("arrived", "approved", "rejected")


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of the chart, in its units."""

    kind: str
    x: float
    y: float
    width: float
    height: float


async def show(visit: Visit) -> Response:
    """Show the figures."""
    today = datetime.now(UTC).date()
    figures = await visit.queue.read(lambda connection: read_figures(connection, EVENTS, today, DAYS))
    chart = {"bars": bars(figures.days), "width": WIDTH, "height": HEIGHT, "most": most(figures.days)}
    return page(visit, "front.html", figures=figures, today=figures.days[-1], chart=chart, kinds=KINDS)


def bars(days: Sequence[Day]) -> list[Bar]:
    """Return the chart's bars: for each day one of each kind, side by side."""
    slot = WIDTH / len(days)
    width = slot * 0.8 / len(KINDS)
    shown = []
    for place, day in enumerate(days):
        for number, kind in enumerate(KINDS):
            height = round(HEIGHT * getattr(day, kind) / max(1, most(days)), 1)
            x = round(place * slot + slot * 0.1 + number * width, 1)
            shown.append(Bar(kind, x, round(HEIGHT - height, 1), round(width, 1), height))
    return shown


def most(days: Sequence[Day]) -> int:
    """Return the highest number of all days."""
    return max(max(day.arrived, day.approved, day.rejected) for day in days)
