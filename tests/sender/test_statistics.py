"""Deliveries by hour: counted when they are recorded, whatever becomes of the rows."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from sender.database import open_engine, reading
from sender.outbox import hours_since
from sender.statistics import HOUR, RUNGS_MS, Period, periods, rung_of
from tests.receiver import Receiver, first, problem
from tests.sender.site import Site


@pytest.mark.parametrize(
    ("seconds", "rung"),
    [(-3600.0, 10), (0.0, 10), (0.01, 10), (0.011, 20), (1.0, 1000), (1.001, 2000), (1e9, RUNGS_MS[-1])],
)
def test_a_delay_stands_on_the_first_rung_that_it_does_not_pass(seconds: float, rung: int) -> None:
    assert rung_of(seconds) == rung


def test_periods_end_with_the_hour_that_runs_and_know_how_long_receipts_took() -> None:
    now = 1000 * HOUR + 60.0
    counted = [
        (1000, "delivered", 100, 94),
        (1000, "delivered", 5000, 6),
        (1000, "failed", 0, 2),
        (999, "attempted", 0, 7),
        (998, "delivered", 10, 1),  # before the first
        (1001, "delivered", 10, 1),  # a clock that is ahead
    ]
    assert periods(counted, now, 2, 1) == [
        Period(999 * HOUR, 0, 0, None, None),
        Period(1000 * HOUR, 100, 2, 100, 5000),
    ]


def test_a_period_may_be_of_several_hours() -> None:
    counted = [(hour, "delivered", 10, 1) for hour in range(995, 1001)]
    found = periods(counted, 1000 * HOUR + 60.0, 2, 3)
    assert [(period.begins // HOUR, period.delivered) for period in found] == [(995, 3), (998, 3)]


def test_what_a_relay_records_is_counted_in_the_same_transaction(site: Site, receiver: Receiver) -> None:
    receiver.event = first(*[problem(400, "invalid-event")] * 2)
    site.book(5)
    summary = site.drain()
    assert (summary.delivered, summary.failed) == (3, 2)
    with reading(open_engine(site.url)) as connection:
        rows = hours_since(connection, 0)
    assert {verb: sum(row.count for row in rows if row.verb == verb) for verb in ("delivered", "failed")} == {
        "delivered": 3,
        "failed": 2,
    }
    assert all(row.within_ms in RUNGS_MS if row.verb == "delivered" else row.within_ms == 0 for row in rows)


def test_no_count_goes_without_its_delivery(site: Site) -> None:
    site.book()
    with closing(sqlite3.connect(site.database)) as connection, connection:
        connection.execute("DROP TABLE crm_outbox_hours")
    with pytest.raises(Exception, match="no such table: crm_outbox_hours"):
        site.drain()
    assert site.statuses() == ["pending"]
