"""A host's clock that jumps: no event is parked, lost, sent in a storm or out of order, and status stays true."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from sender import Relay
from sender.database import open_engine
from sender.doctor import examine
from sender.metrics import exposition
from sender.status import status_of
from tests.receiver import TEST_OK, Receiver, Reply, Request, problem, receipt
from tests.sender.site import Site, eventually, running

HOUR, YEAR = 3600.0, 365 * 86_400.0
JUMPS = {"seconds back": -15.0, "hours on": 3 * HOUR, "years back": -10 * YEAR, "years on": 10 * YEAR}
every_jump = pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS)


@dataclass
class HostClock:
    """What `time.time` tells in this process."""

    offset: float = 0.0

    @property
    def year(self) -> int:
        return datetime.fromtimestamp(time.time(), UTC).year


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> HostClock:
    clock, true = HostClock(), time.time
    monkeypatch.setattr(time, "time", lambda: true() + clock.offset)
    return clock


def relay_of(site: Site) -> Relay:
    """Return a relay that sees the host's clock jump."""
    return Relay(site.settings(), clock=time.time)


def assert_in_order(receiver: Receiver, booked: dict[str, list[str]]) -> None:
    """Check each customer's order of arrival, and that none was sent more than once again."""
    arrived: dict[str, list[str]] = defaultdict(list)
    for request in receiver.events:
        if request.id not in arrived[request.customer]:
            arrived[request.customer].append(request.id)
    assert arrived == booked
    assert max(Counter(request.id for request in receiver.events).values()) <= 2


def book(site: Site, customers: int, each: int) -> dict[str, list[str]]:
    """Book so many repairs for each of so many customers; return the events' ids by customer."""
    names = [f"customer-{number}" for number in range(customers)]
    return {name: site.book(each, customer__websiteUserId=name) for name in names}


@every_jump
def test_events_in_flight_and_waiting_are_delivered_in_order_across_a_jump(
    site: Site, receiver: Receiver, clock: HostClock, jump: float
) -> None:
    def slow(request: Request) -> Reply:
        time.sleep(0.1)
        return receipt(request)

    receiver.event = slow
    booked = book(site, 3, 4)
    with running(relay_of(site)):
        eventually(lambda: len(receiver.events) >= 4, "some are in flight, some wait")
        clock.offset = jump
        later = site.book(1, customer__websiteUserId="customer-0")
        eventually(lambda: set(site.statuses()) == {"delivered"}, "all are delivered")
    booked["customer-0"] += later
    assert_in_order(receiver, booked)


@every_jump
def test_held_events_go_on_in_order_after_a_jump(
    site: Site, receiver: Receiver, clock: HostClock, jump: float
) -> None:
    receiver.event = receiver.test = problem(401, "unauthorized")
    booked = book(site, 2, 2)
    with running(relay_of(site)):
        eventually(lambda: "held" in site.statuses(), "the key is refused")
        clock.offset = jump
        probes = len(receiver.tests)
        eventually(lambda: len(receiver.tests) > probes, "it still looks for the cure")
        assert "delivered" not in site.statuses()
        receiver.event, receiver.test = receipt, TEST_OK
        eventually(lambda: set(site.statuses()) == {"delivered"}, "all are delivered")
    assert_in_order(receiver, booked)


@every_jump
def test_status_is_true_after_a_jump(site: Site, receiver: Receiver, clock: HostClock, jump: float) -> None:
    engine, settings = open_engine(site.url), site.settings()
    with running(relay_of(site)):
        eventually(lambda: status_of(settings, engine)["relay"]["running"], "it runs")
        clock.offset = jump
        eventually(lambda: status_of(settings, engine)["relay"]["running"], "and does after the jump")
        assert status_of(settings, engine)["relay"]["relays"] == 1
    stopped = status_of(settings, engine)["relay"]
    assert (stopped["running"], stopped["seen_at"][:4]) == (False, str(clock.year))
    clock.offset = 0.0
    receiver.go_away()
    site.book()
    with running(relay_of(site)):
        eventually(lambda: status_of(settings, engine)["relay"]["running"], "the next one runs")
        status = status_of(settings, engine)
    engine.dispose()
    seen, oldest = status["relay"]["seen_at"], status["outbox"]["oldest_pending"]
    assert (status["pending"], status["relay"]["relays"]) == (1, 1)
    assert (seen[:4], oldest[:4]) == (str(clock.year), str(clock.year))


@pytest.mark.parametrize("ahead", [3 * HOUR, -3 * HOUR, 10 * YEAR, -10 * YEAR])
def test_a_site_whose_clock_is_not_the_relays_waits_for_nothing(
    site: Site, receiver: Receiver, clock: HostClock, ahead: float
) -> None:
    with running(Relay(site.settings(), clock=lambda: time.time() - clock.offset)):
        clock.offset = ahead
        events = site.book(3, customer__websiteUserId="ada")
        eventually(lambda: set(site.statuses()) == {"delivered"}, "all are delivered")
    assert [request.id for request in receiver.events] == events


@pytest.mark.engines("postgresql")
@pytest.mark.parametrize("ahead", [60.0, -60.0])
def test_on_a_host_whose_clock_is_not_postgresqls_a_relay_that_runs_is_said_to_run(
    site: Site, clock: HostClock, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    engine, settings = open_engine(site.url), site.settings()
    for name, value in site.environment().items():
        monkeypatch.setenv(name, value)
    with running(Relay(settings)):
        eventually(lambda: status_of(settings, engine)["relay"]["running"], "it runs")
        clock.offset = ahead
        found = [finding for finding in examine() if finding.subject == "relay"]
        page = exposition(engine, settings).decode()
    engine.dispose()
    assert [(finding.state, finding.found) for finding in found] == [("fine", "1 running")]
    samples = dict(line.split() for line in page.splitlines() if line.startswith("crm_sender_relay"))
    assert float(samples["crm_sender_relays"]) == 1
    assert float(samples["crm_sender_relay_seen_seconds"]) < 30
