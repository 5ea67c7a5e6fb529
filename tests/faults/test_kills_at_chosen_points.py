"""Server, relay and booking process die, or stand still, at every point at which it could matter.

Real: all processes, sockets and databases. One CRM and one website live through all of it, so that
after each test all that was ever booked is compared with all that the CRM holds.
"""

from __future__ import annotations

import itertools
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from sender import Relay, SenderSettings, relay
from tests.end_to_end.chaos import SECRET, Program, Site, digests, left_in_files, running, wait_until
from tests.sender.site import running as running_relay
from tests.servers import KEY, Crm, start_crm

SCHEDULE = (0.2, 0.4, 0.6)
LATER = 60.0
"""Seconds after which every lease of a dead relay is over."""


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "FIRST_PROBE", 0.05)
    monkeypatch.setattr(relay, "LAST_PROBE", 0.4)


@pytest.fixture(scope="module")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    with start_crm(tmp_path_factory.mktemp("crm")) as crm:
        yield crm
    assert SECRET not in crm.log


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, crm: Crm) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"), crm)
    yield site
    assert SECRET not in (site.directory / "programs.log").read_text()


def dying(point: str, number: int, *options: str) -> tuple[str, ...]:
    return ("tests.faults.dying", *options, point, str(number))


def book(site: Site, count: int, customers: int = 8) -> None:
    for customer in itertools.islice(itertools.cycle(range(customers)), count):
        site.website.tell(f"customer-{customer}")


def ask(site: Site, statement: str) -> list[Any]:
    with site.website.engine.connect() as connection:
        return list(connection.execute(text(statement)).scalars())


def delivered(site: Site) -> int:
    return len(ask(site, "SELECT id FROM crm_outbox WHERE status = 'delivered'"))


def queued(crm: Crm) -> int:
    return len(crm.rows("SELECT 1 FROM approvals"))


def later_relay(site: Site) -> Relay:
    """Return a relay for which the leases of any other are over."""
    settings = SenderSettings(
        webhook_url=site.crm.url,
        api_key=KEY,
        outbox_url=site.website.url,
        retry_schedule=SCHEDULE,
        timeout=2.0,
    )
    return Relay(settings, clock=lambda: time.time() + LATER)


def dies(program: Program | Crm) -> None:
    assert program.process.wait(30) == -signal.SIGKILL


def assert_the_promise(site: Site, crm: Crm) -> None:
    """Deliver what is left; then all that was booked is in the queue once, unchanged, in order, and erased here."""
    assert later_relay(site).run(drain=True).all_delivered
    stored = crm.rows("SELECT payload FROM approvals ORDER BY sequence")
    assert digests(json.loads(row["payload"]) for row in stored) == site.website.told()
    assert left_in_files(site.directory, SECRET) == []
    ended = Counter(ask(site, "SELECT event_id FROM crm_outbox_trail WHERE verb = 'delivered'"))
    assert set(ended.values()) == {1}
    assert ask(site, "SELECT delivered FROM crm_outbox_state") == [len(ended)] == [delivered(site)]


ANSWERED, UNANSWERED = range(1), range(1, relay.THREADS + 1)
# The first answers are those to health and to the note of the key's first use: the fifth is a batch's.
SERVER = {
    "between a batch's beginning and its rows": ("statement INSERT INTO approvals", 2, ANSWERED),
    "between a batch's rows and its commit": ("after crm_server.approval_queue:receive", 2, ANSWERED),
    "between a commit and its first answer": ("before crm_server.group_commit:_answer", 5, UNANSWERED),
    "between two answers of a batch": ("after crm_server.app:Dispatch.__call__", 5, UNANSWERED),
}


@pytest.mark.parametrize(("point", "number", "unanswered"), SERVER.values(), ids=SERVER)
def test_a_server_that_dies(site: Site, crm: Crm, point: str, number: int, unanswered: range) -> None:
    crm.stop()
    lingers = "0.3" if "Dispatch" in point else "0"  # so that what it has answered leaves the machine
    crm.start(*dying(point, number, "--gathers", "0.1", "--lingers", lingers))
    book(site, 24)
    with running_relay(later_relay(site)):
        dies(crm)
        wait_until(lambda: queued(crm) - delivered(site) in unanswered, 10, "stored, and not answered")
        crm.start()
        wait_until(lambda: delivered(site) == site.website.count(), 30, "all is delivered")
    assert_the_promise(site, crm)


LEASED = "SELECT 1 FROM crm_outbox WHERE lease_token IS NOT NULL"
WAITS_FOR_ERASURE = "SELECT 1 FROM crm_outbox_state WHERE erasing_since IS NOT NULL"
RELAY = {
    "between claim and send": ("before sender.transport:Transport.send", 6, LEASED),
    "between answer and record": ("after sender.transport:Transport.send", 6, LEASED),
    "between record and its commit": ("after sender.outbox:record", 3, LEASED),
    "between record and the log's emptying": ("before sender.erasure:truncate_log", 1, WAITS_FOR_ERASURE),
    "between the log's emptying and its note": ("before sender.outbox:erased", 1, WAITS_FOR_ERASURE),
}


@pytest.mark.parametrize(("point", "number", "left"), RELAY.values(), ids=RELAY)
def test_a_relay_that_dies(site: Site, crm: Crm, point: str, number: int, left: str) -> None:
    book(site, 24)
    with running(site, *dying(point, number), "sender", "relay") as relay:
        dies(relay)
    assert ask(site, left)
    assert_the_promise(site, crm)


BOOKING = {
    "between the booking and its event": ("before sender.outbox:enqueue", 3),
    "between the event and the commit": ("after sender.outbox:enqueue", 3),
    "between the commit and the answer": ("after sqlalchemy.engine.default:DefaultDialect.do_commit", 3),
}


@pytest.mark.parametrize(("point", "number"), BOOKING.values(), ids=BOOKING)
def test_a_booking_process_that_dies_leaves_booking_and_event_or_neither(
    site: Site, crm: Crm, point: str, number: int
) -> None:
    booked = site.website.count()
    program = ("tests.end_to_end.chaos", str(site.directory), str(booked + 9), "seed")
    with running(site, *dying(point, number), *program) as website:
        dies(website)
    assert ask(site, "SELECT count(*) FROM crm_outbox") == [site.website.count()]
    assert site.website.count() - booked == 2
    assert_the_promise(site, crm)


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_relay_that_stands_still_past_its_lease_is_replaced_and_records_nothing(
    site: Site, crm: Crm, point: str
) -> None:
    book(site, 6, customers=2)
    stopped = dying(f"{point} sender.transport:Transport.send", 1, "--signal", "STOP")
    log = site.directory / "programs.log"
    with running(site, *stopped, "sender", "relay") as relay:
        wait_until(lambda: state(relay) == "T", 20, "it stands still")
        before = log.stat().st_size
        assert later_relay(site).run(drain=True).all_delivered
        relay.process.send_signal(signal.SIGCONT)
        wait_until(lambda: "the lease ran out" in log.read_text()[before:], 20, "it lost its lease")
    assert_the_promise(site, crm)


def state(program: Program) -> str:
    """Return a process's state as the kernel names it."""
    return Path(f"/proc/{program.process.pid}/stat").read_text().rpartition(") ")[2][0]
