"""Several relays on one PostgreSQL, on hosts whose clocks differ, told of commits or not."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import psycopg
import pytest

from generated.operations import CURRENT
from sender import Relay
from sender.database import begin_claim, open_engine
from tests.programs import Program
from tests.receiver import Receiver, Reply, Request, problem, receipt, receipt_when, speaks
from tests.sender.site import Site, eventually, running

pytestmark = pytest.mark.engines("postgresql")

RELAYS, CUSTOMERS, EACH = 3, 8, 18
REFUSED = "the CRM refuses this"
NOTIFIED_ONLY = 30.0
"""Seconds between looks, so that only a notification can be what wakes a relay in time."""


class OneAtATime:
    """Takes events as the CRM does, and looks whether two of one customer are in flight together."""

    def __init__(self) -> None:
        self.overlaps: list[str] = []
        self.refuses = True
        self._in_flight: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Reply:
        with self._lock:
            self._in_flight[request.customer] += 1
            if self._in_flight[request.customer] > 1:
                self.overlaps.append(request.id)
        time.sleep(0.004)  # as a CRM takes, so that there is something to overlap with
        with self._lock:
            self._in_flight[request.customer] -= 1
        refused = self.refuses and request.json["repair"].get("notes") == REFUSED
        return problem(400, "invalid-event")(request) if refused else receipt(request)


@contextmanager
def process(site: Site) -> Iterator[Program]:
    """Run a `crm-sender relay` for the block, and have it end as an operator does."""
    relay = site.start_relay(CRM_TIMEOUT="20")  # on a loaded machine two seconds end, and it is sent twice
    try:
        yield relay
    finally:
        relay.terminate()
        relay.communicate(timeout=20)


def book(site: Site, each: int) -> dict[str, list[str]]:
    """Book so many repairs for each customer, one after the other in turn; return their ids by customer."""
    booked: dict[str, list[str]] = defaultdict(list)
    for number in range(each * CUSTOMERS):
        customer = f"customer-{number % CUSTOMERS}"
        notes = REFUSED if number // CUSTOMERS % 3 == 0 else "none"
        booked[customer] += site.book(customer__websiteUserId=customer, repair__notes=notes)
    return booked


def arrived(requests: list[Request]) -> dict[str, list[str]]:
    """Return the ids of what arrived, by customer, in their order."""
    found: dict[str, list[str]] = defaultdict(list)
    for request in requests:
        found[request.customer].append(request.id)
    return found


def test_relays_in_processes_of_their_own_share_the_work_and_keep_each_customers_order(
    site: Site, receiver: Receiver
) -> None:
    receiver.event = crm = OneAtATime()
    with ExitStack() as stack:
        relays = [stack.enter_context(process(site)) for _ in range(RELAYS)]
        eventually(lambda: len(site.rows("SELECT 1 FROM crm_outbox_relays")) == RELAYS, "all look", 60)
        booked = book(site, EACH)
        pending = "SELECT 1 FROM crm_outbox WHERE status = 'pending'"
        eventually(lambda: not site.rows(pending), "all is tried", 60)
        assert arrived(receiver.events) == booked
        refused = {name: ids[::3] for name, ids in booked.items()}
        failed = site.rows("SELECT id FROM crm_outbox WHERE status = 'failed'")
        assert sorted(row["id"] for row in failed) == sorted(id for ids in refused.values() for id in ids)
        tried = len(receiver.events)
        crm.refuses = False
        with ThreadPoolExecutor(1) as pool:
            retry = pool.submit(site.cli, "retry", "--all")
            last = book(site, 3)  # while those that failed go again
            assert retry.result().returncode == 0
        eventually(lambda: set(site.statuses()) == {"delivered"}, "all is delivered", 60)
        again = arrived(receiver.events[tried:])
        assert {name: [id for id in ids if id in refused[name]] for name, ids in again.items()} == refused
        assert {name: [id for id in ids if id in last[name]] for name, ids in again.items()} == last
        assert sum(map(len, again.values())) == len(failed) + 3 * CUSTOMERS, "each once"
    assert crm.overlaps == []
    assert [relay.returncode for relay in relays] == [0] * RELAYS


def test_a_relay_claims_when_no_other_does(site: Site) -> None:
    engine = open_engine(site.url)
    with engine.begin() as one, engine.begin() as other:
        assert begin_claim(one, time.time) is not None
        assert begin_claim(other, time.time) is None
    with engine.begin() as other:
        assert begin_claim(other, time.time) is not None
    engine.dispose()


def test_an_outage_is_not_over_before_its_trial_though_another_relay_claims_just_then(
    site: Site, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    receiver.event = receiver.health = problem(503, "unavailable")
    [event] = site.book()
    engine = open_engine(site.url)
    with running(Relay(site.settings(), threads=1)):
        eventually(lambda: receiver.events, "the attempt that finds it")
        with engine.begin() as other:
            eventually(lambda: begin_claim(other, time.time) is not None, "the relay does not claim itself")
            receiver.health, seen = speaks(CURRENT), receiver.probes
            eventually(lambda: receiver.probes >= seen + 3, "it looks again and again")
            assert "the CRM is back" not in caplog.messages
        receiver.event = receipt
        eventually(lambda: site.status(event) == "delivered", "the trial")
        assert "the CRM is back" in caplog.messages
    engine.dispose()


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_relay_whose_host_has_another_time_steals_no_lease(
    site: Site, receiver: Receiver, hours: int
) -> None:
    arrived, go_on = threading.Event(), threading.Event()
    slow = receipt_when(go_on, arrived)
    [event] = site.book()
    receiver.event = lambda request: slow(request) if request.id == event else receipt(request)
    other = Relay(site.settings(), clock=lambda: time.time() + hours * 3600)
    with running(Relay(site.settings())):
        assert arrived.wait(10)
        with running(other):
            eventually(lambda: len(site.rows("SELECT 1 FROM crm_outbox_relays")) == 2, "both look")
            [marker] = site.book()
            eventually(lambda: site.status(marker) == "delivered", "what is free")
            assert site.json("status")["relay"]["relays"] == 2
        go_on.set()
        eventually(lambda: site.status(event) == "delivered", "the first one's answer is recorded")
    assert Counter(request.id for request in receiver.events) == {event: 1, marker: 1}
    assert site.verbs(event) == ["delivered"]


def test_a_site_whose_host_is_ahead_of_the_database_waits_for_nothing(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    with monkeypatch.context() as ahead:
        ahead.setattr("sender.crm.time.time", lambda: now() + 1_800)
        [event] = site.book()
    with running(Relay(site.settings(retry_schedule=(3_600.0,)))):
        eventually(lambda: site.status(event) == "delivered", "it is due at once")


def listening(site: Site) -> list[int]:
    """Return the processes of the database on which somebody listens."""
    rows = site.rows(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query = 'LISTEN crm_outbox'"
    )
    return [row["pid"] for row in rows]


def test_a_relay_is_woken_by_the_commit_of_whoever_books(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sender.relay.TOLD_POLL", NOTIFIED_ONLY)
    with running(Relay(site.settings())):
        try:
            eventually(lambda: listening(site), "it listens")
            for _ in range(3):
                [event] = site.book()
                eventually(lambda: site.status(event) == "delivered", "it is woken")  # noqa: B023
        finally:
            monkeypatch.setattr("sender.relay.TOLD_POLL", 0.1)
            site.rows("NOTIFY crm_outbox")


def test_a_relay_that_is_told_of_nothing_looks_by_itself(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sender.relay.TOLD_POLL", NOTIFIED_ONLY)
    site.rows("ALTER TABLE crm_outbox DISABLE TRIGGER crm_outbox_tells")
    with running(Relay(site.settings())):
        [event] = site.book()
        eventually(lambda: site.status(event) == "delivered", "it has looked")
        assert listening(site) == []
        [event] = site.book()
        eventually(lambda: site.status(event) == "delivered", "and again")


def test_a_relay_whose_listening_connection_ends_goes_on_and_listens_again(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sender.database.BUSY_WAIT", 0.1)
    with running(Relay(site.settings())):
        [first] = eventually(lambda: listening(site), "it listens")
        site.rows("SELECT pg_terminate_backend(?)", first)
        [event] = site.book()
        eventually(lambda: site.status(event) == "delivered", "it goes on")
        eventually(lambda: listening(site) not in ([], [first]), "it listens again")


def test_a_relay_waits_for_no_lock_of_others_and_records_when_it_is_gone(
    site: Site, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    arrived, go_on = threading.Event(), threading.Event()
    receiver.event = receipt_when(go_on, arrived)
    [event] = site.book()
    with running(Relay(site.settings())), closing(psycopg.connect(site.url)) as other:
        assert arrived.wait(10)
        other.execute("LOCK TABLE crm_outbox IN EXCLUSIVE MODE")
        go_on.set()
        words = "the outbox cannot be used: canceling statement due to lock timeout"
        eventually(lambda: words in caplog.text, "it is logged")
        other.rollback()
        eventually(lambda: site.status(event) == "delivered", "the answer was kept")
    assert len(receiver.events) == 1
