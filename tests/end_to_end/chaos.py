"""A website, a relay and a CRM that are killed at random, and a check that the promise held.

Real: all processes, sockets and databases. The only thing that is made up is who books what.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rfc8785
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine
from sqlalchemy.engine import Engine

from sender import CRM, SenderSettings
from tests.factories import Payload, customer_registration, repair_request
from tests.servers import Crm, clean_environment

SECRET = "chaos-sentinel"
"""Stands in every payload, so that one can look for what is left of them."""

bookings = Table(
    "bookings", MetaData(), Column("id", Integer, primary_key=True), Column("repair", String, unique=True)
)


@dataclass
class Website:
    """A booking site: its own table, and the outbox in the same database."""

    directory: Path
    crm_url: str
    key: str
    told: dict[str, list[Payload]] = field(default_factory=lambda: defaultdict(list))
    """What was committed for each customer, in order."""

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.env = clean_environment(
            CRM_WEBHOOK_URL=self.crm_url,
            CRM_API_KEY=self.key,
            CRM_OUTBOX_URL=f"sqlite:///{self.database}",
            CRM_RETRY_SCHEDULE="0.2,0.4,0.6",
        )
        done = self.cli("migrate")
        assert done.returncode == 0, done.stderr
        self.engine: Engine = create_engine(f"sqlite:///{self.database}")
        bookings.metadata.create_all(self.engine)
        self.crm = CRM(SenderSettings(outbox_url=f"sqlite:///{self.database}"))

    @property
    def database(self) -> Path:
        """The site's database, with the outbox in it."""
        return self.directory / "site.sqlite3"

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `crm-sender`."""
        return subprocess.run(
            [sys.executable, "-m", "sender", *arguments],
            cwd=self.directory,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def register(self, customer: str) -> None:
        """Register a customer."""
        event = customer_registration(customer__websiteUserId=customer, customer__lastName=SECRET)
        with self.engine.begin() as connection:
            self.crm.customer_registered(event, connection)
        self.told[customer].append(event)

    def book(self, customer: str) -> None:
        """Book a repair, in one transaction with its event."""
        event = repair_request(customer__websiteUserId=customer, repair__notes=SECRET)
        with self.engine.begin() as connection:
            connection.execute(bookings.insert().values(repair=event["repair"]["websiteRepairId"]))
            self.crm.repair_requested(event, connection)
        self.told[customer].append(event)


@dataclass
class RelayProcess:
    """A `crm-sender relay`."""

    site: Website
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Start it; it may not run yet."""
        with (self.site.directory / "relay.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sender", "relay"],
                cwd=self.site.directory,
                env=self.site.env,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """End it as an operator does; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def running_relay(site: Website) -> Iterator[RelayProcess]:
    """Run a relay for the block."""
    relay = RelayProcess(site)
    relay.start()
    try:
        yield relay
    finally:
        if relay.process.poll() is None:
            relay.stop()


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Do `work` in a thread during the block; what it raises is raised at the end."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # raised again below
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if raised:
        raise raised[0]


def kill_at_random(crm: Crm, relay: RelayProcess, kills: int, luck: random.Random) -> None:
    """Kill server or relay so many times, and start them again."""
    for _ in range(kills):
        time.sleep(luck.uniform(0.05, 0.6))
        victim: Crm | RelayProcess = crm if luck.random() < 0.5 else relay
        victim.kill()
        time.sleep(luck.uniform(0, 0.3))
        victim.start()


def received(crm: Crm) -> dict[str, list[Payload]]:
    """Return what the CRM holds for each customer, in order of receipt."""
    listed = json.loads(crm.cli("approvals", "list", "--json").stdout)
    by_customer: dict[str, list[Payload]] = defaultdict(list)
    for request in listed:
        by_customer[request["payload"]["customer"]["websiteUserId"]].append(request["payload"])
    return by_customer


def canonical(told: dict[str, list[Payload]]) -> dict[str, list[bytes]]:
    """Return payloads as canonical JSON (RFC 8785), for comparison."""
    return {customer: [rfc8785.dumps(event) for event in events] for customer, events in told.items()}


def left_in_files(directory: Path, secret: str) -> list[str]:
    """Return the files in which a payload's bytes are left."""
    return [path.name for path in directory.glob("*.sqlite3*") if secret.encode() in path.read_bytes()]


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    """Wait for a condition, or fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
