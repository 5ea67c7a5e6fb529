"""Whose turn it is: no backlog holds up the rest, and to look costs the same however long it is."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text

from sender import Relay, outbox
from sender.database import begin_claim, begin_look, open_engine, reading
from tests.crm_server.conftest import ON_BOTH
from tests.factories import repair_request
from tests.receiver import Receiver
from tests.sender.site import Site, eventually, running

pytestmark = ON_BOTH

BACKLOG = int(os.environ.get("BACKLOG_EVENTS", "1200"))

MOST_WORK = 2_000
MOST_WORK_AMONG_FEW = 50_000
"""PostgreSQL takes a small table without statistics for tiny, and reads it whole for each event, but not for each pair."""


def book_backlog(site: Site, *customers: str) -> list[str]:
    """Book a repair for each of these customers in one transaction; return the events' ids."""
    crm, engine = site.crm(), open_engine(site.url)
    with engine.begin() as connection:
        ids = [
            crm.repair_requested(repair_request(customer__websiteUserId=name), connection)
            for name in customers
        ]
    engine.dispose()
    return ids


def test_one_customers_backlog_holds_up_nobody_wherever_it_stands(site: Site, receiver: Receiver) -> None:
    many = ["many"] * (BACKLOG // 2)
    book_backlog(site, *many)
    others = site.book(3, customer__websiteUserId="few") + site.book(5)
    book_backlog(site, *many)
    with running(Relay(site.settings())):
        eventually(lambda: {site.status(event) for event in others} == {"delivered"}, "the others go")
    before = [request.id for request in receiver.events]
    assert len(before) < BACKLOG / 4
    few = [request.id for request in receiver.events if request.customer == "few"]
    assert few == others[:3]


def test_a_backlog_of_many_customers_does_not_hold_up_what_is_booked_now(
    site: Site, receiver: Receiver
) -> None:
    backlog = book_backlog(site, *(f"customer-{number:05}" for number in range(BACKLOG)))
    with running(Relay(site.settings())):
        eventually(lambda: len(receiver.events) > BACKLOG / 10, "it has begun")
        [fresh] = site.book(customer__websiteUserId="zoe")
        behind = len(receiver.events)
        eventually(lambda: site.status(fresh) == "delivered", "it goes", 30)
    order = [request.id for request in receiver.events]
    assert order.index(fresh) - behind < BACKLOG / 4
    older = sum(event in backlog[: BACKLOG // 2] for event in order[: order.index(fresh)])
    assert older > order.index(fresh) / 2, "most go oldest first"


def count_work(connection: Connection) -> Callable[[], int]:
    """Return what tells a connection's work from now on: rows that PostgreSQL reads, or tens of steps of SQLite."""
    if connection.dialect.name == "postgresql":
        rows = text(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'crm_outbox'"
        )
        before = int(connection.scalar(rows))
        return lambda: int(connection.scalar(rows)) - before
    steps = itertools.count()
    driver: Any = connection.connection.driver_connection
    driver.set_progress_handler(lambda: next(steps) < 0, 10)
    return lambda: next(steps)


def test_a_look_at_a_long_backlog_costs_what_one_at_a_short_one_does(site: Site) -> None:
    engine = open_engine(site.url)
    cost = {}
    for name, customers in {
        "short": [*["many"] * 100, *(f"customer-{number}" for number in range(100))],
        "long": [*["many"] * BACKLOG, *(f"later-{number}" for number in range(BACKLOG)), *["many"] * BACKLOG],
    }.items():
        book_backlog(site, *customers)
        with reading(engine) as connection:
            looked = count_work(connection)
            now = begin_look(connection, time.time)
            found = outbox.look(connection, outbox.Due(now, 10, 3_600), outbox.Share(32, 8, 24, ""))
            work = looked()
        with engine.begin() as connection:
            claiming = count_work(connection)
            sequences = {sequence for sequence, _ in found}
            at = begin_claim(connection, time.time)
            assert at is not None
            claimed = outbox.claim(connection, outbox.Due(at, 10, 3_600), "me", at + 10, sequences)
            cost[name] = work + claiming()
            outbox.give_back(connection, claimed)
        assert len(claimed) >= 24
    engine.dispose()
    assert cost["long"] < MOST_WORK
    assert cost["short"] < MOST_WORK_AMONG_FEW


@pytest.mark.engines("postgresql")
def test_a_look_reads_no_more_of_a_backlog_for_want_of_statistics(site: Site) -> None:
    book_backlog(site, *(f"customer-{number}" for number in range(2 * BACKLOG)))
    engine = open_engine(site.url)
    with reading(engine) as connection:
        looked = count_work(connection)
        now = begin_look(connection, time.time)
        found = outbox.look(connection, outbox.Due(now, 10, 3_600), outbox.Share(32, 8, 24, ""))
        assert looked() < BACKLOG / 2
    engine.dispose()
    assert len(found) == 32
