"""The relay over many events: the CRM away, holds, releases, several relays, clocks that jump, the end."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import threading
import time
from collections import defaultdict
from contextlib import closing
from itertools import pairwise

import psycopg
import pytest

from generated.operations import CURRENT
from sender import Relay, Summary, relay
from sender.database import open_engine
from sender.relay import THREADS
from tests.crm_server.conftest import ON_BOTH_IN_TIME
from tests.factories import customer_registration, payment_status, repair_request
from tests.receiver import (
    TEST_OK,
    Answer,
    Receiver,
    Reply,
    Request,
    always,
    first,
    html,
    problem,
    receipt,
    receipt_when,
    reply,
    speaks,
)
from tests.sender.site import SCHEDULE, Site, eventually, running

pytestmark = ON_BOTH_IN_TIME
ON_SQLITE = pytest.mark.engines("sqlite")

HOLDING: dict[str, Answer] = {
    "401": problem(401, "unauthorized"),
    "401 of a proxy": html(401),
    "403": problem(403, "forbidden-network"),
    "301": always(reply(301, location="http://127.0.0.1:9/webhooks")),
    "302": always(reply(302, location="/login")),
    "307": always(reply(307, location="http://127.0.0.1:9/webhooks")),
    "308": always(reply(308)),
    "404": html(404),
    "405": problem(405, "method-not-allowed"),
    "415": problem(415, "unsupported-media-type"),
    "431": always(reply(431)),
    "an unknown 4xx": problem(418, "teapot"),
    "400 of a proxy": html(400),
    "400 of something else": always(reply(400, {"type": ["error"]})),
    "409 of something else": always(reply(409, {"error": "conflict"})),
    "413 of a proxy": html(413),
    "the outbox's own door": problem(409, "delivery-loop"),
}


@pytest.mark.parametrize("answer", HOLDING.values(), ids=HOLDING)
def test_what_is_not_the_events_fault_holds_it_until_a_probe_of_that_path_passes(
    site: Site, receiver: Receiver, answer: Answer
) -> None:
    receiver.event = receiver.test = answer
    [event] = site.book()
    with running(Relay(site.settings())):
        eventually(lambda: len(receiver.tests) >= 2, "a probe and another")
        row = site.row(event)
        assert (row["status"], row["held_for"], row["attempts"]) == ("held", "/repair-request", 0)
        assert row["payload"] is not None
        assert len(receiver.events) == 1
        receiver.event, receiver.test = receipt, TEST_OK
        eventually(lambda: site.status(event) == "delivered", "it goes on by itself")
    assert site.verbs(event) == ["held", "released", "delivered"]
    assert {request.path for request in receiver.tests} == {"/webhooks/repair-request"}


def test_a_backlog_with_a_wrong_key_waits_whole_and_goes_when_the_key_is_right(
    site: Site, receiver: Receiver
) -> None:
    receiver.event = receiver.test = problem(401, "unauthorized")
    crm, ids = site.crm(), []
    engine = open_engine(site.url)
    with engine.begin() as connection:
        for number in range(1_000):
            event = repair_request(customer__websiteUserId=f"customer-{number % 200}")
            ids.append(crm.repair_requested(event, connection))
    engine.dispose()
    with running(Relay(site.settings())):
        eventually(lambda: len(receiver.tests) >= 3, "three probes")
        assert set(site.statuses()) == {"held", "pending"}
        assert len(receiver.events) <= THREADS
        receiver.event, receiver.test = receipt, TEST_OK
        eventually(lambda: set(site.statuses()) == {"delivered"}, "all goes", 40)
    order: dict[str, list[str]] = defaultdict(list)
    for request in receiver.events[-1_000:]:
        order[request.customer].append(request.id)
    assert all(order[f"customer-{number}"] == ids[number::200] for number in range(200))


def test_the_same_answer_right_after_a_passed_probe_fails_that_event_alone(
    site: Site, receiver: Receiver
) -> None:
    [odd] = site.book(customer__websiteUserId="odd")
    [later] = site.book(customer__websiteUserId="odd")
    others = site.book(3)
    receiver.event = lambda request: html(403)(request) if request.id == odd else receipt(request)
    summary = site.drain(retry_schedule=(1.0,))
    assert (summary.failed, summary.held, summary.pending) == (1, 0, 0)
    assert site.status(odd) == "failed"
    assert "test of /repair-request passes" in site.row(odd)["reason"]
    assert {site.status(event) for event in (later, *others)} == {"delivered"}


def test_a_key_that_is_refused_again_right_after_it_was_mended_fails_nothing(
    site: Site, receiver: Receiver
) -> None:
    receiver.event, receiver.test = html(401), first(TEST_OK, then=html(401))
    [event] = site.book()
    with running(Relay(site.settings())):
        eventually(lambda: len(receiver.events) == 2, "it is tried again after the passed probe")
        eventually(lambda: site.status(event) == "held", "the second probe fails, so the key is at fault")
        receiver.event, receiver.test = receipt, TEST_OK
        eventually(lambda: site.status(event) == "delivered", "it goes when the key is right")


def test_later_events_of_a_held_one_wait_behind_it(site: Site, receiver: Receiver) -> None:
    receiver.event = receiver.test = html(404)
    held, later = site.book(2, customer__websiteUserId="ada")
    summary = site.drain()
    assert (summary.held, summary.pending, summary.failed) == (1, 1, 0)
    assert [site.status(event) for event in (held, later)] == ["held", "pending"]


def test_a_release_that_the_crm_does_not_list_is_held_before_it_is_sent(
    site: Site, receiver: Receiver
) -> None:
    receiver.health = speaks("0.9.0")
    [event] = site.book()
    with running(Relay(site.settings())):
        eventually(lambda: site.status(event) == "held", "it is held")
        assert site.row(event)["held_for"] == CURRENT
        assert receiver.events == []
        receiver.health = speaks("0.9.0", CURRENT)
        eventually(lambda: site.status(event) == "delivered", "it goes when the CRM is updated")


def test_what_waited_for_a_release_is_let_go_in_parts_for_bookings_wait_meanwhile(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "RELEASED", 10)
    receiver.health = speaks("0.9.0")
    events = site.book(25, customer__websiteUserId="one")
    site.drain()
    one_by_one = "UPDATE crm_outbox SET status = 'held', held_for = ?, reason = 'release not spoken'"
    site.rows(one_by_one, CURRENT)
    receiver.health = speaks("0.9.0", CURRENT)
    site.drain()
    assert [request.id for request in receiver.events] == events
    released = site.rows("SELECT at FROM crm_outbox_trail WHERE verb = 'released'")
    assert len(released) == 25
    assert len({row["at"] for row in released}) == 3


def test_what_waited_for_a_release_goes_on_while_others_events_flow(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "FIRST_PROBE", 0.05)
    monkeypatch.setattr(relay, "LAST_PROBE", 0.05)
    receiver.health = speaks("1.0.0", CURRENT)
    [waits] = site.book()
    site.rows("UPDATE crm_outbox SET contract = '9.9.0' WHERE id = ?", waits)
    with running(Relay(site.settings())):
        eventually(lambda: site.status(waits) == "held", "its release is not spoken")
        site.rows("UPDATE crm_outbox SET contract = ?, held_for = ? WHERE id = ?", CURRENT, CURRENT, waits)
        receiver.event = slow = SlowReceipts()
        site.book(20 * THREADS)
        eventually(lambda: site.status(waits) == "delivered", "it is let go")
        assert set(site.statuses()) == {"delivered", "pending"}, "before the others have gone"
        slow.done.set()


class SlowReceipts:
    """Answers late until it is `done`, so that there is always something in flight."""

    def __init__(self) -> None:
        self.done = threading.Event()

    def __call__(self, request: Request) -> Reply:
        self.done.wait(0.5)
        return receipt(request)


@ON_SQLITE
def test_a_look_that_takes_long_and_finds_nothing_is_not_made_again_at_once(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = list[float]()

    def look(*_: object) -> list[tuple[int, str]]:
        looks.append(time.monotonic())
        time.sleep(0.2)  # as with tens of thousands of customers held
        return []

    monkeypatch.setattr("sender.outbox.look", look)
    with running(Relay(site.settings())):
        eventually(lambda: len(looks) == 3, "three looks")
    # A slow machine only adds to it.
    assert looks[2] - looks[1] > 5 * 0.2


def test_a_release_that_the_crm_refuses_holds_only_its_own_events(site: Site, receiver: Receiver) -> None:
    old = site.book(3)
    site.rows("UPDATE crm_outbox SET contract = '1.9.0' WHERE id = ?", old[0])
    receiver.health = always(reply(200))
    unknown = problem(400, "unsupported-contract-version", versions=["0.9.0"])
    receiver.event = lambda r: unknown(r) if r.headers["webhook-contract"] == "1.9.0" else receipt(r)
    summary = site.drain()
    assert (summary.delivered, summary.held, summary.failed) == (2, 1, 0)
    assert site.row(old[0])["held_for"] == "1.9.0"


def test_a_webhook_that_only_a_newer_sender_knows_waits_for_it_and_stops_nobody(
    site: Site, receiver: Receiver
) -> None:
    """As after a step back of the sender: such an event ended every relay that came to it."""
    receiver.health = speaks(CURRENT, "9.9.0")
    newer, *others = site.book(4)
    site.rows("UPDATE crm_outbox SET event = 'warranty-claim', contract = '9.9.0' WHERE id = ?", newer)
    summary = site.drain()
    assert (summary.delivered, summary.held, summary.failed) == (3, 1, 0)
    assert sorted(request.id for request in receiver.events) == sorted(others)
    words = "this sender does not know the webhook warranty-claim: update the sender"
    assert site.row(newer)["reason"] == words
    assert words in site.cli("held").stdout
    with running(Relay(site.settings())):
        known = "event = 'repair-request', held_for = 'repair-request', contract = ?"
        site.rows(f"UPDATE crm_outbox SET {known} WHERE id = ?", CURRENT, newer)
        eventually(lambda: site.status(newer) == "delivered", "it goes when the sender knows it")


def test_a_path_that_only_a_newer_sender_knows_stops_nobody(site: Site, receiver: Receiver) -> None:
    """As after a step back of the sender: such a hold ended every relay at its first look."""
    newer, *others = site.book(4)
    held = "event = 'warranty-claim', contract = '9.9.0', status = 'held', held_for = '/warranty-claim', held_by = 401"
    site.rows(f"UPDATE crm_outbox SET {held}, reason = 'the key' WHERE id = ?", newer)
    summary = site.drain()
    assert (summary.delivered, summary.failed) == (3, 0)
    assert sorted(request.id for request in receiver.events) == sorted(others)
    assert site.status(newer) == "held"


def test_a_hold_of_a_path_ends_also_where_the_crm_does_not_speak_todays_release(
    site: Site, receiver: Receiver
) -> None:
    receiver.health = speaks("1.0.0")
    receiver.event = receiver.test = problem(401, "unauthorized")
    [event] = site.book()
    site.rows("UPDATE crm_outbox SET contract = '1.0.0' WHERE id = ?", event)
    with running(Relay(site.settings())):
        eventually(lambda: site.status(event) == "held", "the key is wrong")
        receiver.test = problem(400, "unsupported-contract-version", versions=["1.0.0"])
        receiver.event = receipt
        eventually(lambda: site.status(event) == "delivered", "the key is right")


def test_a_path_that_an_older_crm_has_not_waits_for_its_release_and_stops_nobody(
    site: Site, receiver: Receiver
) -> None:
    receiver.event = receiver.test = problem(404, "not-found")
    receiver.health = always(reply(503))
    payment = site.crm().payment_changed(payment_status())
    with running(Relay(site.settings())):
        eventually(lambda: site.row(payment)["held_for"] == "/payment-status", "health cannot be asked")
        receiver.health, receiver.event = speaks("1.0.0"), receipt
        eventually(lambda: site.row(payment)["held_for"] == CURRENT, "it is the release that is waited for")
        [booking] = site.book()
        eventually(lambda: site.status(booking) == "held", "it is not sent, for its release is not spoken")
        of_before = "contract = '1.0.0', status = 'pending', held_for = NULL"
        site.rows(f"UPDATE crm_outbox SET {of_before} WHERE id = ?", booking)
        eventually(lambda: site.status(booking) == "delivered", "what the CRM speaks goes on")


def test_a_webhook_that_a_crm_set_back_no_longer_has_holds_only_its_release(
    site: Site, receiver: Receiver
) -> None:
    receiver.health = speaks("1.0.0", CURRENT)
    [old] = site.book()
    site.rows("UPDATE crm_outbox SET contract = '1.0.0' WHERE id = ?", old)
    with running(Relay(site.settings())):
        eventually(lambda: site.status(old) == "delivered", "it has learned which releases there are")
        receiver.health = speaks("1.0.0")
        receiver.event = receiver.test = problem(404, "not-found")
        payment = site.crm().payment_changed(payment_status())
        eventually(lambda: site.status(payment) == "held", "it is held")
        assert site.row(payment)["held_for"] == CURRENT
        receiver.event = receipt
        [later] = site.book()
        eventually(lambda: site.status(later) == "held", "it is not sent, for its release is not spoken")
        site.rows(
            "UPDATE crm_outbox SET contract = '1.0.0', status = 'pending', held_for = NULL WHERE id = ?",
            later,
        )
        eventually(lambda: site.status(later) == "delivered", "what the CRM speaks goes on")
        assert site.status(payment) == "held"
        receiver.health, receiver.test = speaks("1.0.0", CURRENT), TEST_OK
        eventually(lambda: site.status(payment) == "delivered", "the CRM is updated again")


def test_a_crm_that_lists_a_release_and_refuses_it_is_asked_ever_less_often(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sender.relay.LAST_PROBE", 60.0)
    monkeypatch.setattr("sender.relay.HEARTBEAT", 0.3)
    receiver.event = problem(400, "unsupported-contract-version", versions=["0.9.0"])
    [event] = site.book()
    with running(Relay(site.settings())):
        eventually(lambda: len(receiver.events) >= 5, "five tries")
    times = [
        row["at"] for row in site.rows("SELECT at FROM crm_outbox_trail WHERE verb = 'held' ORDER BY number")
    ]
    # 1, 2, 4 and 8 times the first wait lie between five tries, and a slow machine only adds to them.
    assert times[4] - times[0] > 10 * relay.FIRST_PROBE
    assert site.status(event) == "held"


def test_patience_that_is_longer_than_the_schedule_is_had(site: Site, receiver: Receiver) -> None:
    """A time further ahead than any delay of the schedule was taken for a clock's jump, and due."""
    receiver.event = receiver.health = always(reply(503, retry_after="60"))
    [event] = site.book()
    with running(Relay(site.settings(when_away="fail"))):
        eventually(lambda: site.row(event)["attempts"] == 1, "it was tried")
        time.sleep(10 * sum(SCHEDULE))
    assert len(receiver.events) == 1
    assert site.status(event) == "pending"


# the CRM is away


def test_nothing_fails_while_the_crm_refuses_connections(site: Site, receiver: Receiver) -> None:
    receiver.go_away()
    ids = site.book(5)
    with running(Relay(site.settings())):
        eventually(lambda: site.rows("SELECT * FROM crm_outbox_relays"), "it runs")
        receiver.come()
        eventually(lambda: set(site.statuses()) == {"delivered"}, "all is delivered when it is back")
    assert all(site.row(event)["attempts"] == 1 for event in ids)


def test_an_outage_in_the_middle_counts_no_attempt_and_sends_nothing(site: Site, receiver: Receiver) -> None:
    with running(Relay(site.settings())):
        [before] = site.book()
        eventually(lambda: site.status(before) == "delivered", "the first")
        receiver.go_away()
        ids = site.book(10)
        eventually(
            lambda: site.rows("SELECT 1 FROM crm_outbox_trail WHERE verb = 'attempted'"), "it is noticed"
        )
        assert set(site.statuses()[1:]) == {"pending"}
        receiver.come()
        eventually(lambda: set(site.statuses()) == {"delivered"}, "all the others")
    assert {site.row(event)["attempts"] for event in ids} == {1}


def test_a_5xx_with_a_failing_health_opens_an_outage_in_which_only_health_is_probed(
    site: Site, receiver: Receiver
) -> None:
    receiver.event = receiver.health = problem(503, "unavailable")
    ids = site.book(8)
    with running(Relay(site.settings(), threads=1)):
        eventually(lambda: receiver.events, "the attempt that finds it")
        seen = receiver.probes
        eventually(lambda: receiver.probes >= seen + 4, "health is probed on")
        assert len(receiver.events) == 1
        assert set(site.statuses()) == {"pending"}
        receiver.event, receiver.health = receipt, speaks(CURRENT)
        eventually(lambda: set(site.statuses()) == {"delivered"}, "all")
    assert {site.row(event)["attempts"] for event in ids} == {1}


def test_after_an_outage_one_event_tries_first_each_time_of_another_customer(
    site: Site, receiver: Receiver
) -> None:
    healthy = speaks(CURRENT)
    receiver.health = problem(503, "unavailable")
    receiver.event = always(reply(500))
    site.book(6)
    with running(Relay(site.settings(retry_schedule=(0.01,) * 9), threads=1)):
        eventually(lambda: receiver.events, "the attempt that finds it")
        # Health is good when it is probed before a trial, and bad right after the trial's 500.
        receiver.health = lambda r: healthy(r) if receiver.requests[-2].method == "GET" else reply(503)
        eventually(lambda: len(receiver.events) >= 5, "trials")
        receiver.event, receiver.health = receipt, healthy
        eventually(lambda: set(site.statuses()) == {"delivered"}, "all")
    trials = [request.customer for request in receiver.events[1:5]]
    assert all(one != other for one, other in pairwise(trials))


def test_a_trial_that_fails_on_its_own_closes_the_outage(site: Site, receiver: Receiver) -> None:
    receiver.go_away()
    poison, *_ = site.book(3)
    with running(Relay(site.settings())):
        eventually(lambda: site.rows("SELECT * FROM crm_outbox_relays"), "it runs")
        receiver.event = lambda r: problem(400, "invalid-event")(r) if r.id == poison else receipt(r)
        receiver.come()
        eventually(lambda: site.statuses() == ["failed", "delivered", "delivered"], "all is decided")


def test_the_guide_to_the_letter_counts_attempts_also_while_the_crm_is_away(
    site: Site, receiver: Receiver
) -> None:
    receiver.go_away()
    [event] = site.book()
    assert site.drain(when_away="fail").failed == 1
    row = site.row(event)
    assert (row["attempts"], row["reason"]) == (len(SCHEDULE) + 1, "Connection refused")


def test_health_that_fails_alone_stops_nothing(site: Site, receiver: Receiver) -> None:
    receiver.health = problem(503, "unavailable")
    site.book(3)
    assert site.drain().delivered == 3


# several relays


def test_two_relays_deliver_each_event_once_and_in_order(site: Site, receiver: Receiver) -> None:
    with running(Relay(site.settings())), running(Relay(site.settings())):
        ids = [site.book(customer__websiteUserId=f"customer-{number % 7}")[0] for number in range(140)]
        eventually(lambda: set(site.statuses()) == {"delivered"}, "all is delivered", 30)
    assert sorted(request.id for request in receiver.events) == sorted(ids)
    for number in range(7):
        of_one = [r.id for r in receiver.events if r.customer == f"customer-{number}"]
        assert of_one == ids[number::7]
    assert site.rows("SELECT delivered FROM crm_outbox_state")[0]["delivered"] == 140


def test_a_relay_that_stood_still_is_replaced_and_records_nothing_afterwards(
    site: Site, receiver: Receiver
) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def stuck(request: Request) -> Reply:
        arrived.set()
        go_on.wait(20)
        return reply(400, {"type": "invalid-event", "status": 400}, "application/problem+json")

    receiver.event = first(stuck)
    first_event, second = site.book(2, customer__websiteUserId="ada")
    frozen = site.start_relay(CRM_TIMEOUT="30")
    try:
        assert arrived.wait(20)
        os.kill(frozen.pid, signal.SIGSTOP)
        site.rows("UPDATE crm_outbox SET lease_until = 0 WHERE lease_until IS NOT NULL")  # as if later
        with running(Relay(site.settings())):
            eventually(lambda: site.statuses() == ["delivered", "delivered"], "the other takes over")
        go_on.set()
        os.kill(frozen.pid, signal.SIGCONT)
        os.kill(frozen.pid, signal.SIGTERM)
        _, log = frozen.communicate(timeout=20)
    finally:
        go_on.set()
        frozen.kill()
        frozen.wait()
    assert "the lease ran out" in log
    assert site.verbs(first_event) == ["delivered"]
    assert site.statuses() == ["delivered", "delivered"]
    assert site.rows("SELECT delivered FROM crm_outbox_state")[0]["delivered"] == 2
    assert [r.id for r in receiver.events] == [first_event, first_event, second]


def test_a_lease_that_another_relay_just_took_is_not_taken_from_it(site: Site, receiver: Receiver) -> None:
    settings = site.settings()
    [event] = site.book()
    ahead = time.time() + settings.lease + 2
    site.rows("UPDATE crm_outbox SET lease_token = 'other', lease_until = ?", ahead)
    with running(Relay(settings)):
        [marker] = site.book()
        eventually(lambda: site.status(marker) == "delivered", "what is free")
    assert site.status(event) == "pending"
    assert event not in [request.id for request in receiver.events]


@ON_SQLITE
@pytest.mark.parametrize("hours", [-3, -0.1, 3], ids=["back", "back by minutes", "forward"])
def test_a_clock_that_jumps_parks_nothing(site: Site, receiver: Receiver, hours: float) -> None:
    offset = 0.0
    receiver.event = first(always(reply(500)))
    [event] = site.book()
    relay = Relay(site.settings(retry_schedule=(30.0,)), clock=lambda: time.time() + offset)
    with running(relay):
        eventually(lambda: site.verbs(event) == ["attempted"], "an attempt before the jump")
        offset = hours * 3600
        eventually(lambda: site.status(event) == "delivered", "it is due after the jump")
        assert site.status(site.book()[0]) == "pending"
        eventually(lambda: set(site.statuses()) == {"delivered"}, "and so is a new one")


def test_a_lease_of_a_clock_that_jumped_back_is_over(site: Site, receiver: Receiver) -> None:
    [event] = site.book()
    site.rows("UPDATE crm_outbox SET lease_token = 'other', lease_until = ?", time.time() + 7_200)
    assert site.drain().all_delivered
    assert site.status(event) == "delivered"


def test_an_event_that_is_retried_waits_for_the_later_one_of_its_customer_in_flight(
    site: Site, receiver: Receiver
) -> None:
    arrived, go_on = threading.Event(), threading.Event()
    receiver.event = first(problem(400, "invalid-event"), receipt_when(go_on, arrived))
    failed, later = site.book(2, customer__websiteUserId="ada")
    with running(Relay(site.settings())):
        assert arrived.wait(10)
        assert site.cli("retry", failed).returncode == 0
        [marker] = site.book()
        eventually(lambda: site.status(marker) == "delivered", "the relay has looked for what is due")
        assert failed not in [request.id for request in receiver.events[1:]]
        go_on.set()
        eventually(lambda: set(site.statuses()) == {"delivered"}, "all is delivered")
    assert [r.id for r in receiver.events if r.id != marker] == [failed, later, failed]


# drains, stops, the outbox's own troubles


def test_a_drain_of_nothing_is_done(site: Site) -> None:
    assert site.drain().all_delivered


@ON_SQLITE
def test_a_relay_that_drains_again_and_again_begins_anew_each_time(site: Site, receiver: Receiver) -> None:
    relay = Relay(site.settings())
    receiver.go_away()
    site.book()
    assert relay.run(drain=True).pending == 1
    receiver.come()
    assert relay.run(drain=True) == Summary(delivered=1)
    site.book(2)
    assert relay.run(drain=True) == Summary(delivered=2)
    relay.stop()
    site.book()
    assert relay.run(drain=True) == Summary(pending=1)


def test_a_drain_waits_for_retries_also_when_something_is_held(site: Site, receiver: Receiver) -> None:
    [held] = site.book()
    site.rows("UPDATE crm_outbox SET contract = '9.0.0'")
    [retried] = site.book()
    failing = iter(range(9))
    receiver.event = lambda request: reply(500) if next(failing) < 5 else receipt(request)
    summary = site.drain(retry_schedule=(0.01, 0.02, 0.05, 0.1, 0.4))
    assert (site.status(held), site.status(retried)) == ("held", "delivered")
    assert (summary.held, summary.pending) == (1, 0)


def test_a_drain_gives_up_after_one_schedule_when_the_crm_is_away(site: Site, receiver: Receiver) -> None:
    receiver.go_away()
    site.book(3)
    summary = site.drain()
    assert (summary.pending, summary.failed) == (3, 0)


def test_a_stop_records_what_is_in_flight_and_gives_back_the_rest(site: Site, receiver: Receiver) -> None:
    arrived, go_on = threading.Event(), threading.Event()
    receiver.event = receipt_when(go_on, arrived)
    site.book(20)
    relay = Relay(site.settings())
    with running(relay):
        assert arrived.wait(10)
        eventually(lambda: len(receiver.events) == THREADS, "all threads send")
        relay.stop()
        go_on.set()
    assert site.statuses().count("delivered") == THREADS == len(receiver.events)
    assert site.rows("SELECT * FROM crm_outbox WHERE lease_token IS NOT NULL") == []


def test_a_slow_down_resumes_with_one_in_flight_whatever_ended_meanwhile(
    site: Site, receiver: Receiver
) -> None:
    asked, resumed, first_answered = threading.Event(), threading.Event(), threading.Event()
    too_early: list[str] = []
    [patient, *_] = site.book(2 * THREADS)

    def answer(request: Request) -> Reply:
        if not asked.is_set():
            if request.id == patient:
                eventually(lambda: len(receiver.events) == THREADS, "all threads send")
                asked.set()
                return reply(429, retry_after="1")
            asked.wait(10)
            time.sleep(0.2)  # so that this one ends while the relay is patient already
        elif not resumed.is_set():
            resumed.set()
            time.sleep(0.2)
            first_answered.set()
        elif not first_answered.is_set():
            too_early.append(request.id)
        return receipt(request)

    receiver.event = answer
    assert site.drain().delivered == 2 * THREADS
    assert too_early == []


def test_a_relay_leaves_no_thread_and_no_open_file_behind(site: Site, receiver: Receiver) -> None:
    site.book(10)
    site.drain()
    before = set(os.listdir("/proc/self/fd")), threading.active_count()
    site.book(10)
    site.drain()
    receiver.close()
    assert len(os.listdir("/proc/self/fd")) <= len(before[0])
    assert threading.active_count() <= before[1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("crm-relay")]


def test_a_relay_in_the_booking_process_runs_for_the_block(site: Site, receiver: Receiver) -> None:
    crm = site.crm()
    with crm.relay():
        [event] = site.book()
        eventually(lambda: site.status(event) == "delivered", "it is delivered")
    assert "crm-relay" not in [thread.name for thread in threading.enumerate()]


@ON_SQLITE
def test_a_locked_outbox_is_logged_and_waited_out_and_results_are_kept(
    site: Site, receiver: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sender.database.BUSY_WAIT", 0.1)
    caplog.set_level(logging.INFO)
    arrived, go_on = threading.Event(), threading.Event()
    receiver.event = receipt_when(go_on, arrived)
    [event] = site.book()
    with running(Relay(site.settings())), closing(sqlite3.connect(site.database)) as other:
        assert arrived.wait(10)
        other.execute("BEGIN IMMEDIATE")
        go_on.set()
        eventually(lambda: "the outbox cannot be used: database is locked" in caplog.text, "it is logged")
        assert site.status(event) == "pending"
        other.rollback()
        eventually(lambda: site.status(event) == "delivered", "the answer is recorded when the lock is gone")
    assert len(receiver.events) == 1


@pytest.mark.engines("postgresql")
def test_a_booking_that_locks_the_counts_for_long_is_waited_out_with_signs_of_life(
    site: Site, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    site.rows("UPDATE crm_outbox_state SET erasing_since = 1")
    with psycopg.connect(site.url) as booking:
        booking.execute("UPDATE crm_outbox_state SET one = one")  # as a booking does that is sent again
        with running(Relay(site.settings())):
            eventually(lambda: "the outbox cannot be used: canceling" in caplog.text, "it is logged", 15)
            booking.rollback()
            erasing = "SELECT 1 FROM crm_outbox_state WHERE erasing_since IS NULL"
            eventually(lambda: site.rows(erasing), "what waited is done when the lock is gone")


def test_a_registration_and_a_repair_of_one_customer_keep_their_order(site: Site, receiver: Receiver) -> None:
    registration = site.crm().customer_registered(customer_registration(customer__websiteUserId="ada"))
    repairs = site.book(2, customer__websiteUserId="ada")
    receiver.event = first(always(reply(500)))
    assert site.drain().all_delivered
    assert [r.id for r in receiver.events] == [registration, registration, *repairs]


LINES = {
    "401 Unauthorized": problem(401, "unauthorized"),
    "400 Bad Request": problem(400, "invalid-event"),
    "500 Internal Server Error": always(reply(500)),
}


@pytest.mark.parametrize("words", LINES)
def test_each_attempt_that_did_not_deliver_is_one_line_in_the_guides_words(
    site: Site, receiver: Receiver, caplog: pytest.LogCaptureFixture, words: str
) -> None:
    caplog.set_level(logging.INFO, "crm_sender.relay")
    receiver.event = receiver.test = LINES[words]
    [event] = site.book(
        repair__notes="sentinel-of-a-customer", customer__email="sentinel-of-a-customer@a.example"
    )
    site.drain()
    row = site.row(event)
    lines = [r.getMessage() for r in caplog.records if event in r.getMessage()]
    start = f"{words}: repair-request {event} {row['natural_key']}, "
    assert len(lines) == len(receiver.events)
    assert all(line.startswith(start) for line in lines)
    then = {
        "401 Unauthorized": ["attempt not counted, held: "],
        "400 Bad Request": ["attempt 1 of 4, FAILED"],
        "500 Internal Server Error": [
            *(f"attempt {number} of 4, next at 20" for number in (1, 2, 3)), "attempt 4 of 4, FAILED",
        ],
    }[words]  # fmt: skip
    assert all(line.removeprefix(start).startswith(end) for line, end in zip(lines, then, strict=True))
    assert "sentinel-of-a-customer" not in caplog.text


def test_refused_and_timeout_are_the_guides_words_too(
    site: Site, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()

    def silent(request: Request) -> Reply:
        go_on.wait(10)
        return receipt(request)

    receiver.event = silent
    site.book()
    site.drain(timeout=0.2, retry_schedule=())
    go_on.set()
    receiver.go_away()
    site.book()
    site.drain(when_away="fail", retry_schedule=())
    assert "timeout: repair-request" in caplog.text
    assert "Connection refused: repair-request" in caplog.text
