"""A website, a relay and a CRM that are killed at random, and a check that the promise held.

Real: all processes, sockets and databases. The only thing that is made up is who books what. The
site keeps, in each booking's own transaction, a digest of the event that it told the CRM: what is
committed there is what must arrive.

    python -m tests.end_to_end.chaos FOLDER COUNT SEED     book until so many bookings are there
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import rfc8785
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, func, select
from sqlalchemy.engine import Engine

from sender import CRM, SenderSettings
from tests import programs
from tests.factories import Payload, customer_registration, repair_request
from tests.servers import Crm, clean_environment

SECRET = "chaos-sentinel"
"""Stands in every payload, so that one can look for what is left of them."""

CUSTOMERS = [f"customer-{number}" for number in range(20)]

bookings = Table(
    "bookings",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("customer", String),
    Column("digest", String),
)


def digest(event: Payload) -> str:
    """Return the SHA-256 of an event's canonical JSON (RFC 8785)."""
    return hashlib.sha256(rfc8785.dumps(event)).hexdigest()


@dataclass
class Website:
    """A booking site: its own table, and the outbox in the same database."""

    directory: Path

    def __post_init__(self) -> None:
        self.engine: Engine = create_engine(self.url, connect_args={"timeout": 30})
        bookings.metadata.create_all(self.engine)
        self.crm = CRM(SenderSettings(outbox_url=self.url))

    @property
    def url(self) -> str:
        """The site's database, with the outbox in it."""
        return f"sqlite:///{self.directory}/site.sqlite3"

    def tell(self, customer: str) -> None:
        """Register a customer the first time, book a repair later; in one transaction with the event."""
        with self.engine.begin() as connection:
            known = connection.scalar(select(bookings.c.id).where(bookings.c.customer == customer).limit(1))
            over = {"customer__websiteUserId": customer, "customer__lastName": SECRET}
            event = repair_request(**over) if known else customer_registration(**over)
            connection.execute(bookings.insert().values(customer=customer, digest=digest(event)))
            (self.crm.repair_requested if known else self.crm.customer_registered)(event, connection)

    def count(self) -> int:
        """Return how many bookings are committed."""
        with self.engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(bookings)) or 0

    def told(self) -> dict[str, list[str]]:
        """Return the digests of what was committed for each customer, in order."""
        by_customer: dict[str, list[str]] = defaultdict(list)
        with self.engine.connect() as connection:
            for row in connection.execute(select(bookings).order_by(bookings.c.id)):
                by_customer[row.customer].append(row.digest)
        return by_customer


@dataclass
class Site:
    """A website with its programs' environment."""

    directory: Path
    crm: Crm

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.env = clean_environment(
            CRM_WEBHOOK_URL=self.crm.url,
            CRM_API_KEY=self.crm.key,
            CRM_OUTBOX_URL=f"sqlite:///{self.directory}/site.sqlite3",
            CRM_RETRY_SCHEDULE="0.2,0.4,0.6",
            CRM_TIMEOUT="1",
        )
        done = self.cli("migrate")
        assert done.returncode == 0, done.stderr
        self.website = Website(self.directory)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `crm-sender`."""
        return programs.run("sender", *arguments, cwd=self.directory, env=self.env, timeout=120)

    def status(self) -> dict[str, Any]:
        """Return what `crm-sender status` says."""
        found: dict[str, Any] = json.loads(self.cli("status", "--json").stdout)
        return found


class Victim(Protocol):
    """A program that can be killed and started again."""

    process: programs.Program | subprocess.Popen[bytes]

    def start(self) -> None:
        """Start it."""

    def kill(self) -> None:
        """End it as a power cut does."""


@dataclass
class Program:
    """One of the website's programs."""

    site: Site
    arguments: tuple[str, ...]
    process: programs.Program | subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Start it; it may not run yet."""
        module, *arguments = self.arguments
        directory, env, log = self.site.directory, self.site.env, self.site.directory / "programs.log"
        if module == "sender":
            self.process = programs.Program(module, arguments, cwd=directory, env=env, stdout=log, stderr=log)
            return
        command = [sys.executable, "-m", *self.arguments]  # what launches one has to come before its imports
        with log.open("ab") as output:
            self.process = subprocess.Popen(command, cwd=directory, env=env, stdout=output, stderr=output)

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """End it as an operator does; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def running(site: Site, *arguments: str) -> Iterator[Program]:
    """Run a program for the block."""
    program = Program(site, arguments)
    program.start()
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.stop()


def hurt_at_random(victims: list[Victim], kills: int, luck: random.Random) -> None:
    """So many times kill one of the programs and start it again; now and then stop one past its lease."""
    while kills:
        time.sleep(luck.uniform(0.05, 0.6))
        victim = luck.choice(victims)
        if luck.random() < STOPPED:
            victim.process.send_signal(signal.SIGSTOP)
            time.sleep(luck.uniform(0.5, 7.0))  # the lease of an attempt of 1 s is 6 s
            victim.process.send_signal(signal.SIGCONT)
            continue
        victim.kill()
        kills -= 1
        time.sleep(luck.uniform(0, 0.3))
        victim.start()


STOPPED = 0.05
"""How often a program is only stopped for a while."""


def received(crm: Crm) -> dict[str, list[str]]:
    """Return the digests of what the CRM holds for each customer, in order of receipt."""
    listed = json.loads(crm.cli("approvals", "list", "--json").stdout)
    return digests(request["payload"] for request in listed)


def digests(events: Iterable[Payload]) -> dict[str, list[str]]:
    """Return the digests of each customer's events, in the order of these."""
    by_customer: dict[str, list[str]] = defaultdict(list)
    for event in events:
        by_customer[event["customer"]["websiteUserId"]].append(digest(event))
    return by_customer


def left_in_files(directory: Path, secret: str) -> list[str]:
    """Return the database files in which a payload's bytes are left.

    Another program looks: to open and close a file of SQLite's here would drop every lock that this
    process has on it (POSIX), and the next program to leave the database would delete the log that
    our connections go on writing to.
    """
    files = sorted(map(str, directory.glob("*.sqlite3*")))
    found = subprocess.run(
        ["grep", "--files-with-matches", "--text", "--fixed-strings", "--no-messages", secret, *files],
        capture_output=True,
        text=True,
        check=False,
    )
    return [Path(line).name for line in found.stdout.splitlines()]


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    """Wait for a condition, or fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def book(folder: str, count: str, seed: str) -> None:
    """Book until so many bookings are there: the website's process, which may be killed at any time."""
    website = Website(Path(folder))
    luck = random.Random(f"{seed}-{os.getpid()}")
    while (booked := website.count()) < int(count):
        time.sleep(luck.uniform(0, 0.1))  # so that bookings and kills overlap
        website.tell(CUSTOMERS[booked] if booked < len(CUSTOMERS) else luck.choice(CUSTOMERS))


if __name__ == "__main__":
    book(*sys.argv[1:])
