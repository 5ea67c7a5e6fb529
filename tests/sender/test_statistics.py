"""Deliveries by hour: counted when they are recorded, whatever becomes of the rows."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing

import pytest
from sqlalchemy.exc import OperationalError

from sender import Relay
from sender.database import open_engine, reading
from sender.outbox import hours_since, words_of_trouble
from sender.statistics import HOUR, RUNGS_MS, Period, periods, rung_of
from tests.factories import repair_request
from tests.receiver import Receiver, first, problem
from tests.sender.site import Site, eventually, running


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


def book(site: Site, url: str, count: int) -> None:
    """Enqueue so many repairs in an outbox."""
    for _ in range(count):
        done = site.cli(
            "enqueue", "repair-request", "-", stdin=json.dumps(repair_request()), CRM_OUTBOX_URL=url
        )
        assert done.returncode == 0, done.stderr


def test_what_a_relay_records_is_counted(outbox_url: str, site: Site, receiver: Receiver) -> None:
    receiver.event = first(problem(400, "invalid-event"), problem(400, "invalid-event"))
    engine = open_engine(outbox_url)
    for count in (5, 1):  # the second drain adds to what the first has counted
        book(site, outbox_url, count)
        site.drain(outbox_url=outbox_url)
    with reading(engine) as connection:
        rows = hours_since(connection, 0)
    engine.dispose()
    counted = Counter[str]()
    for row in rows:
        counted[row.verb] += row.count
        assert row.within_ms in RUNGS_MS if row.verb == "delivered" else row.within_ms == 0
    assert counted == {"delivered": 4, "failed": 2}


def test_no_count_goes_without_its_delivery(site: Site) -> None:
    site.book()
    with closing(sqlite3.connect(site.database)) as connection, connection:
        connection.execute("DROP TABLE crm_outbox_hours")
    with pytest.raises(OperationalError, match="no such table: crm_outbox_hours"):
        site.drain()
    assert site.statuses() == ["pending"]


def test_what_the_crm_said_is_read_of_what_still_waits(
    outbox_url: str, site: Site, receiver: Receiver
) -> None:
    receiver.event = first(problem(400, "invalid-event"), *[problem(503, "unavailable")] * 3)
    engine = open_engine(outbox_url)
    book(site, outbox_url, 2)
    relay = Relay(site.settings(outbox_url=outbox_url, retry_schedule=(3600.0,)))

    def said() -> set[str]:
        with reading(engine) as connection:
            return words_of_trouble(connection, 10)

    with running(relay):
        eventually(lambda: said() == {"400 Bad Request", "503 Service Unavailable"}, "both answers")
    engine.dispose()
