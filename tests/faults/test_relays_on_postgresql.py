"""An outbox on PostgreSQL through the death of relays, relays that stand still, and of PostgreSQL itself.

Real: PostgreSQL, relays, sockets, and the CRM, whose queue is held against what was committed.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import DBAPIError

from sender import CRM, Relay
from tests.factories import repair_request
from tests.faults.proxy import Proxy, book_backlog
from tests.postgresql import PostgreSQL, start_postgresql
from tests.programs import Program
from tests.sender.site import SENTINEL, Site, cli, eventually, running
from tests.servers import ROOT, Crm

pytestmark = pytest.mark.engines("postgresql")

CUSTOMERS = 6


def queued(crm: Crm, ids: set[str]) -> dict[str, list[str]]:
    """Return what the CRM's queue has of these events, by customer, in the order of receipt."""
    customer = "json_extract(payload, '$.customer.websiteUserId') AS customer"
    found: dict[str, list[str]] = defaultdict(list)
    for row in crm.rows(f"SELECT webhook_id, {customer} FROM approvals ORDER BY sequence"):
        if row["webhook_id"] in ids:
            found[row["customer"]].append(row["webhook_id"])
    return found


def assert_the_promise(site: Site, crm: Crm) -> None:
    """All that was committed is in the queue once and in order, and erased here; status and trail say so."""
    booked: dict[str, list[str]] = defaultdict(list)
    for row in site.rows():
        booked[row["order_key"]].append(row["id"])
    ids = {event for events in booked.values() for event in events}
    assert queued(crm, ids) == booked
    assert site.left_of(SENTINEL) == []
    status = site.json("status")
    assert (status["delivered"], status["pending"], status["failed"], status["held"]) == (len(ids), 0, 0, 0)
    ends = site.rows("SELECT event_id FROM crm_outbox_trail WHERE verb = 'delivered'")
    assert sorted(row["event_id"] for row in ends) == sorted(ids)


@contextmanager
def relay(site: Site, *launcher: str, **over: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a `crm-sender relay` for the block, through another module where one is named."""
    with (site.directory / "relays.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *launcher, "sender", "relay"],
            cwd=site.directory,
            env=site.environment(**over),
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(30)


def logged(site: Site) -> str:
    """Return what the relays of this site have printed."""
    return (site.directory / "relays.log").read_text()


def is_delivered(site: Site) -> bool:
    """Say whether all is."""
    return not site.rows("SELECT 1 FROM crm_outbox WHERE status <> 'delivered' LIMIT 1")


def stands_still(process: subprocess.Popen[bytes]) -> bool:
    """Say whether a process was stopped."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] == "T"


STOPS = {
    "while it claims": "after sender.outbox:claim",
    "while it records": "after sender.outbox:record",
    "between claim and send": "before sender.transport:Transport.send",
    "between answer and record": "after sender.transport:Transport.send",
}


@pytest.mark.long
@pytest.mark.parametrize("point", STOPS.values(), ids=STOPS)
def test_a_relay_that_stands_still_past_its_lease_holds_nobody_up_and_records_nothing(
    crm: Crm, site: Site, point: str
) -> None:
    book_backlog(site, 40, CUSTOMERS, repair__notes=SENTINEL)
    stop = ("tests.faults.dying", "--signal", "STOP", point, "1")
    with relay(site, *stop, CRM_TIMEOUT="0.5") as stopped:
        eventually(lambda: stands_still(stopped), "it stands still", 60)
        with running(Relay(site.settings(timeout=0.5))):
            eventually(lambda: is_delivered(site), "another relay does it all", 60)
        before = len(site.rows("SELECT 1 FROM crm_outbox_trail"))
        stopped.send_signal(signal.SIGCONT)
        [later] = site.book(repair__notes=SENTINEL)
        eventually(lambda: site.status(later) == "delivered", "it goes on by itself", 60)
    assert len(site.rows("SELECT 1 FROM crm_outbox_trail")) == before + 1
    assert_the_promise(site, crm)


def test_relays_that_are_killed_are_replaced(crm: Crm, site: Site) -> None:
    book_backlog(site, 300, CUSTOMERS, repair__notes=SENTINEL)

    def delivered() -> int:
        return len(site.rows("SELECT 1 FROM crm_outbox WHERE status = 'delivered'"))

    with ExitStack() as stack:
        stack.enter_context(relay(site, CRM_TIMEOUT="0.5"))
        for _ in range(3):
            seen = delivered()
            victim = stack.enter_context(relay(site, CRM_TIMEOUT="0.5"))
            relays = len(site.rows("SELECT 1 FROM crm_outbox_relays"))
            eventually(lambda: len(site.rows("SELECT 1 FROM crm_outbox_relays")) > relays, "it runs", 60)  # noqa: B023
            eventually(lambda: delivered() > seen or is_delivered(site), "some are delivered", 60)  # noqa: B023
            victim.kill()
        eventually(lambda: is_delivered(site), "all is delivered", 60)
    assert_the_promise(site, crm)


class Bookings:
    """Books for one customer after the other until it is stopped, and knows what was acknowledged."""

    def __init__(self, site: Site) -> None:
        self.acknowledged: list[str] = []
        self.refused = 0
        self._stop = threading.Event()
        self._crm: CRM = site.crm()
        self._threads = [threading.Thread(target=self._book, args=(n,)) for n in range(CUSTOMERS)]

    def __enter__(self) -> Bookings:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _book(self, number: int) -> None:
        while not self._stop.wait(0.01):
            event = repair_request(customer__websiteUserId=f"loaded-{number}", repair__notes=SENTINEL)
            try:
                self.acknowledged.append(self._crm.repair_requested(event))
            except DBAPIError:
                self.refused += 1


@pytest.fixture
def cluster() -> PostgreSQL:
    """A PostgreSQL that a test may end."""
    return start_postgresql()


@pytest.mark.long
def test_postgresql_that_dies_and_comes_back_under_load_loses_and_doubles_nothing(
    tmp_path: Path, crm: Crm, proxy: Proxy, cluster: PostgreSQL
) -> None:
    site = Site(tmp_path, proxy.url, cluster.url(cluster.create()))
    done = cli("migrate", directory=tmp_path, env=site.environment())
    assert done.returncode == 0, done.stderr
    with running(Relay(site.settings())), running(Relay(site.settings())), Bookings(site) as bookings:
        for _ in range(2):
            before = len(bookings.acknowledged)
            eventually(lambda: len(bookings.acknowledged) > before + 30, "bookings are made", 60)  # noqa: B023
            refused = bookings.refused
            cluster.crash()
            eventually(lambda: bookings.refused > refused, "bookings are refused", 60)  # noqa: B023
            cluster.start()
        before = len(bookings.acknowledged)
        eventually(lambda: len(bookings.acknowledged) > before + 30, "and made again", 60)
        bookings._stop.set()
        eventually(lambda: is_delivered(site), "the relays go on by themselves", 60)
    assert set(bookings.acknowledged) <= {row["id"] for row in site.rows()}
    assert_the_promise(site, crm)
    site.close()


@pytest.mark.long
@pytest.mark.parametrize("unit", ["crm-relay.service", "crm-dashboard.service"])
def test_sigterm_ends_a_program_in_time_although_postgresql_hangs(
    tmp_path: Path, crm: Crm, cluster: PostgreSQL, unit: str
) -> None:
    text = (ROOT / "docs" / "operating" / unit).read_text()
    [command] = re.findall(r"^ExecStart=\S+ (\w+)$", text, re.MULTILINE)
    [limit] = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    site = Site(tmp_path, crm.url, cluster.url(cluster.create()))
    done = cli("migrate", directory=tmp_path, env=site.environment())
    assert done.returncode == 0, done.stderr
    arguments = ["dashboard", "--port", "0"] if command == "dashboard" else [command]
    log = tmp_path / "program.log"
    log.touch()
    program = Program("sender", arguments, cwd=tmp_path, env=site.environment(), stdout=log, stderr=log)
    try:
        eventually(
            lambda: "serving on" in log.read_text() or "relay started" in log.read_text(), "it runs", 60
        )
        with cluster.frozen():
            if command == "dashboard":
                address = log.read_text().split()[-1].removesuffix("/admin")
                with suppress(httpx.ReadTimeout):
                    httpx.get(f"{address}/api/crm/integration", timeout=2)
            else:
                time.sleep(2)  # it looks each second
            program.terminate()
            assert program.wait(float(limit) - 1) == 1
    finally:
        program.kill()
    assert log.read_text().endswith("does the database answer?\n")
    site.close()
