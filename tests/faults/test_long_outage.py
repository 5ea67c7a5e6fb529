"""A CRM that is away for a day, and one that does something else wrong each time: nothing is lost, doubled or failed."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

from sender import Relay
from tests.crm_server.conftest import ON_BOTH
from tests.faults.proxy import Proxy, assert_arrived, book_backlog, stored, swallowed
from tests.receiver import Answer, Reply, Request, html, problem, reply
from tests.sender.site import Site, eventually, running
from tests.servers import Crm

pytestmark = ON_BOTH

HOURS = 24


class Watch:
    """The relay's two clocks, which a test moves; they go on by themselves, too."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def time(self) -> float:
        return time.time() + self.ahead


def test_a_crm_that_is_away_for_a_day_gets_all_of_it_when_it_is_back(
    crm: Crm, proxy: Proxy, site: Site
) -> None:
    watch = Watch()
    proxy.go_away()
    relay = Relay(site.settings(), clock=watch.time, monotonic=watch.monotonic)
    with running(relay):
        sent = book_backlog(site, 5, 5)
        for hour in range(HOURS):
            eventually(lambda: relay._outage and relay._outage.backoff.at > watch.monotonic(), "it waits")
            watch.ahead += 3_600
            sent = book_backlog(site, 5, 5)
            assert set(site.statuses()) == {"pending"}, hour
        shown = site.json("status")
        assert (shown["pending"], shown["failed"], shown["held"]) == (len(sent), 0, 0)
        assert shown["crm"]["answer"] == "Connection refused"
        proxy.come()
        watch.ahead += 3_600
        eventually(lambda: set(site.statuses()) == {"delivered"}, "all goes", 60)
    assert {row["attempts"] for row in site.rows()} == {1}
    shown = site.json("status")
    assert (shown["pending"], shown["delivered"]) == (0, len(sent))
    assert_arrived(crm, sent)


def alternating(proxy: Proxy, goes_on: threading.Event) -> Answer:
    """Do something else wrong with each request, as long as it goes on; between them some go well."""
    wrong: list[Callable[[Request], Reply]] = [
        lambda request: Reply([], "close"),
        lambda request: Reply([], "reset"),
        lambda request: reply(500),
        lambda request: swallowed(proxy, request),
        proxy.forward,
        lambda request: reply(429, retry_after="0"),
        problem(401, "unauthorized"),
        lambda request: reply(503, retry_after="0"),
        html(404),
        lambda request: reply(202, {"status": "accepted"}),
        lambda request: (proxy.forward(request), reply(504))[1],
        proxy.forward,
        lambda request: reply(301, location="/login"),
    ]
    turns, lock = itertools.cycle(wrong), threading.Lock()

    def answer(request: Request) -> Reply:
        with lock:
            now = next(turns)
        return (now if goes_on.is_set() else proxy.forward)(request)

    return answer


def test_a_crm_that_does_something_else_wrong_each_time_gets_each_event_once(
    crm: Crm, proxy: Proxy, site: Site
) -> None:
    sent = book_backlog(site, 60, 12)
    goes_on = threading.Event()
    goes_on.set()
    proxy.event = alternating(proxy, goes_on)
    with running(Relay(site.settings(timeout=0.3, retry_schedule=(0.02,) * 30))):
        for turn in range(3):
            eventually(lambda: len(proxy.requests) > 40 * (turn + 1), "much goes wrong", 60)  # noqa: B023
            proxy.go_away()
            shown = site.json("status")
            assert sum(shown[name] for name in ("pending", "held", "delivered", "failed")) == len(sent)
            assert shown["crm"]["reachable"] is False
            proxy.come()
        goes_on.clear()
        eventually(lambda: not {"pending", "held"} & set(site.statuses()), "all is decided", 60)
    failed = {row["order_key"] for row in site.rows() if row["status"] == "failed"}
    if failed:  # 401 right after a passed probe is an event's own fault
        assert site.cli("retry", "--all").returncode == 0
        assert site.drain().all_delivered
    shown = site.json("status")
    assert (shown["delivered"], shown["failed"], shown["pending"]) == (len(sent), 0, 0)
    assert_arrived(crm, [row for row in sent if row["order_key"] not in failed])
    assert {stored(crm, row["id"]) for row in sent} == {1}
