"""Figures of the queue: what came and what was decided, by day (UTC), and what waits."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Column, Connection, func, select

from crm_server.pages import MOST_COUNTED, count
from crm_server.tables import approvals

DATE_CHARACTERS = 10
"""Of a time, those of its day."""


@dataclass(frozen=True, slots=True)
class Day:
    """What happened on a day."""

    day: date
    arrived: int = 0
    approved: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """The queue at a glance."""

    days: Sequence[Day]
    """Oldest first; the last is today."""
    waiting: int
    """Counted up to 10,000."""
    waiting_exact: bool
    oldest_waiting: str | None
    """When what has waited longest was received."""


def read_figures(connection: Connection, events: Sequence[str], today: date, days: int) -> Figures:
    """Read the figures of so many days, and of what waits now."""
    first = today - timedelta(days=days - 1)
    arrived = by_day(connection, approvals.c.received_at, first)
    decided = by_day(connection, approvals.c.decided_at, first, approvals.c.status)
    shown = [first + timedelta(days=number) for number in range(days)]
    waiting = [
        select(approvals).where(approvals.c.event == event, approvals.c.status == "pending_approval")
        for event in events
    ]
    total = connection.execute(count(waiting)).scalar_one()
    firsts = [
        connection.execute(
            each.with_only_columns(approvals.c.received_at).order_by(approvals.c.sequence).limit(1)
        ).scalar()
        for each in waiting
    ]
    return Figures(
        days=[
            Day(
                day,
                arrived.get((day.isoformat(),), 0),
                decided.get((day.isoformat(), "approved"), 0),
                decided.get((day.isoformat(), "rejected"), 0),
            )
            for day in shown
        ],
        waiting=min(total, MOST_COUNTED),
        waiting_exact=total <= MOST_COUNTED,
        oldest_waiting=min((at for at in firsts if at is not None), default=None),
    )


def by_day(
    connection: Connection, time: Column[Any], first: date, *others: Column[Any]
) -> dict[tuple[str, ...], int]:
    """Count the requests of each day since the first, from an index alone."""
    day = func.substr(time, 1, DATE_CHARACTERS).label("day")
    keys = (day, *others)
    statement = select(*keys, func.count()).where(time >= first.isoformat()).group_by(*keys)
    return {tuple(row[:-1]): row[-1] for row in connection.execute(statement)}


def newest(connection: Connection) -> int:
    """Return the sequence of the newest request, 0 when there is none."""
    number: int = connection.execute(select(func.coalesce(func.max(approvals.c.sequence), 0))).scalar_one()
    return number
