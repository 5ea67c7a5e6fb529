"""Practise the loss of a database: back the CRM up, go on, destroy it, restore it, and see what is missing.

Real programs on databases of their own, in a folder that is removed afterwards unless it is named. It exits
with 0 when nothing was lost or doubled that must not be, with 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import secrets
import socket
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    insert,
    select,
    text,
)

from scripts.processes import HOST, Broken, Interrupted, Programs, environment, interruptible
from sender import CRM, SenderSettings

ARRIVE_SECONDS = 60.0
INTERRUPTED = 130
"""The exit code of a program that was stopped before it was done."""

bookings = Table(
    "bookings",
    MetaData(),
    Column("id", String(36), primary_key=True),
    Column("filled_in", Text, nullable=False),
)
"""The website's own: all that it needs to make a booking's event anew."""


@dataclass
class Drill:
    """A website, a CRM, and what was booked."""

    programs: Programs
    port: int
    count: int
    """How many bookings are made at a time."""
    booked: list[str] = field(default_factory=list)
    """The bookings' ids, which are the events' natural keys."""

    @property
    def crm_file(self) -> Path:
        """The CRM's database."""
        return self.programs.folder / "crm.sqlite3"

    @property
    def site_file(self) -> Path:
        """The website's database, with the outbox."""
        return self.programs.folder / "site.sqlite3"

    @property
    def backup(self) -> Path:
        """The backup of the CRM's database."""
        return self.programs.folder / "crm.backup"

    @cached_property
    def site(self) -> Engine:
        """The website's connections."""
        return create_engine(f"sqlite:///{self.site_file}")

    @cached_property
    def crm(self) -> CRM:
        """What booking code calls."""
        return CRM(SenderSettings(outbox_url=f"sqlite:///{self.site_file}"))

    def start_crm(self) -> None:
        """Start the CRM and wait until it is well."""
        self.programs.start("CRM", "crm_server", "serve", "--only", "webhooks", "--port", str(self.port))
        self.programs.wait_for(f"http://{HOST}:{self.port}/webhooks/health")

    def start_site(self) -> None:
        """Make the website's tables and start its relay."""
        self.programs.ask("sender", "migrate")
        bookings.metadata.create_all(self.site)
        self.programs.start("relay", "sender", "relay")

    def book(self) -> list[str]:
        """Make some bookings, each with its event in one transaction; return their ids."""
        made = [str(uuid.uuid4()) for _ in range(self.count)]
        for booking_id in made:
            with self.site.begin() as connection:
                filled_in = json.dumps(repair_request(booking_id))
                connection.execute(insert(bookings), {"id": booking_id, "filled_in": filled_in})
                self.crm.repair_requested(json.loads(filled_in), connection)
        self.booked += made
        return made

    def resend(self, booking_id: str) -> None:
        """Make a booking's event anew and put it back to pending."""
        with self.site.begin() as connection:
            self.crm.repair_requested(self.filled_in(connection, booking_id), connection, resend=True)

    def filled_in(self, connection: Connection, booking_id: str) -> Any:
        """Return what a customer filled in."""
        mine = select(bookings.c.filled_in).where(bookings.c.id == booking_id)
        return json.loads(connection.execute(mine).scalar_one())

    def deliver_all(self) -> None:
        """Wait until nothing is undelivered."""
        self.programs.wait_until(
            lambda: not self.waiting(), ARRIVE_SECONDS, "an outbox in which nothing waits"
        )

    def waiting(self) -> int:
        """Return how many events are not delivered."""
        statement = text("SELECT count(*) FROM crm_outbox WHERE status <> 'delivered'")
        with self.site.connect() as connection:
            return int(connection.execute(statement).scalar_one())

    def queue(self) -> list[dict[str, Any]]:
        """Return the CRM's approval queue."""
        found: list[dict[str, Any]] = json.loads(
            self.programs.ask("crm_server", "approvals", "list", "--json")
        )
        return found


def back_up(drill: Drill) -> str:
    """Book, decide once, and back the CRM up while it runs; return since when what is delivered is not in it."""
    drill.book()
    drill.deliver_all()
    drill.programs.ask("crm_server", "approvals", "approve", drill.queue()[0]["id"])
    since = datetime.now(UTC).isoformat()
    drill.programs.ask("crm_server", "backup", str(drill.backup))
    say(f"{drill.count} bookings are in the CRM, one is approved. The CRM is backed up, while it runs.")
    return since


def go_on_and_destroy(drill: Drill) -> tuple[list[str], list[str]]:
    """Go on; then lose the CRM's database. Return what was delivered after the backup, and what was not."""
    after = drill.book()
    drill.deliver_all()
    drill.programs.ask("crm_server", "approvals", "approve", drill.queue()[1]["id"])
    say(f"{len(after)} more bookings are delivered, and a second one is approved.")
    drill.programs.kill("CRM")
    for file in drill.crm_file.parent.glob(f"{drill.crm_file.name}*"):
        file.unlink() if file != drill.crm_file else file.write_bytes(secrets.token_bytes(65536))
    away = drill.book()
    say(f"The CRM is killed and its database overwritten. {len(away)} bookings are made all the same.")
    return after, away


def restore(drill: Drill, after: Sequence[str]) -> None:
    """Restore the backup; what the outbox still had arrives by itself."""
    drill.programs.ask("crm_server", "restore", str(drill.backup))
    drill.start_crm()
    drill.deliver_all()
    queue = drill.queue()
    require_each_once(set(drill.booked) - set(after), queue)
    say(
        "The CRM is restored. All that was in the backup is there, all that had not been delivered came: once each."
    )
    approved = sum(request["status"] == "approved" for request in queue)
    expect(approved == 1, f"{approved} requests are approved, not the one that was when the backup was made.")
    say("The second approval is lost: what staff decide after a backup is in no other place.")


def resend(drill: Drill, since: str, after: Sequence[str]) -> None:
    """Send again what was delivered after the backup, as the outbox names it."""
    named = json.loads(drill.programs.ask("sender", "delivered", "--since", since, "--json"))
    keys = [event["natural_key"] for event in named]
    expect(set(after) <= set(keys), "`crm-sender delivered` does not name all that the restored CRM has not.")
    say(f"`crm-sender delivered --since {since}` names {len(keys)} events.")
    for booking_id in keys:
        drill.resend(booking_id)
    drill.deliver_all()
    require_each_once(drill.booked, drill.queue())
    require_unchanged(drill)
    say(
        f"The website has sent them again, from its own bookings: all {len(drill.booked)} are there, once each."
    )


def require_each_once(booked: Iterable[str], queue: Sequence[dict[str, Any]]) -> None:
    """Raise Broken unless the queue holds each booking once, and nothing else."""
    found, wanted = Counter(request["natural_key"] for request in queue), set(booked)
    lost, doubled = len(wanted - set(found)), sum(count > 1 for count in found.values())
    strange = len(set(found) - wanted)
    expect(
        not (lost or doubled or strange),
        f"Of {len(wanted)} bookings {lost} are lost, {doubled} are there twice; {strange} are nobody's.",
    )


def require_unchanged(drill: Drill) -> None:
    """Raise Broken unless the queue holds what customers filled in."""
    with drill.site.connect() as connection:
        changed = [
            request["id"]
            for request in drill.queue()
            if request["payload"] != drill.filled_in(connection, request["natural_key"])
        ]
    expect(not changed, f"{len(changed)} requests are not what was booked.")


def destroy_the_outbox(drill: Drill) -> None:
    """Lose the website's database while events wait in it: say what that costs."""
    drill.programs.kill("CRM")
    lost, before = drill.book(), list(drill.booked)
    drill.programs.kill("relay")
    drill.site.dispose()
    for file in drill.site_file.parent.glob(f"{drill.site_file.name}*"):
        file.unlink()
    del drill.crm, drill.site
    drill.start_crm()
    drill.start_site()
    drill.booked = [booking_id for booking_id in before if booking_id not in lost]
    require_each_once(drill.booked, drill.queue())
    say(
        f"The website's database is destroyed while {len(lost)} events wait in it. They are lost, and so are their"
    )
    say("bookings: nobody else has either. What had been delivered is in the CRM, all of it.")
    drill.book()
    drill.deliver_all()
    require_each_once(drill.booked, drill.queue())
    say(f"With a new outbox the link works on: {drill.count} new bookings have arrived.")


def practise(drill: Drill) -> None:
    """Do all of it."""
    drill.programs.ask("crm_server", "migrate")
    drill.start_crm()
    drill.start_site()
    since = scene("A backup", lambda: back_up(drill))
    after, _ = scene("The CRM's database is lost", lambda: go_on_and_destroy(drill))
    scene("It is restored", lambda: restore(drill, after))
    scene("What was delivered after the backup", lambda: resend(drill, since, after))
    scene("The website's database is lost", lambda: destroy_the_outbox(drill))


def scene(title: str, play: Callable[[], Any]) -> Any:
    """Say what comes, and do it."""
    print(f"\n{title}", flush=True)
    return play()


def say(line: str) -> None:
    """Tell what has happened."""
    print(f"  {line}", flush=True)


def expect(holds: bool, otherwise: str) -> None:
    """Raise Broken unless something holds."""
    if not holds:
        raise Broken(otherwise)


def repair_request(booking_id: str) -> dict[str, Any]:
    """Return a booking's event, as the website makes it of what was filled in."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "repair": {
            "ticketNumber": f"REV-{booking_id[:8]}",
            "websiteRepairId": booking_id,
            "customerName": "Ada Lovelace",
            "customerEmail": "ada@example.com",
            "deviceType": "Apple MacBook Pro",
            "issueDescription": "The screen is cracked.",
            "createdAt": now,
        },
        "customer": {
            "firstName": "Ada",
            "lastName": "Lovelace",
            "email": "ada@example.com",
            "websiteUserId": f"user-{booking_id[:2]}",
        },
        "metadata": {"timestamp": now},
    }


def main(argv: list[str] | None = None) -> int:
    """Practise; return 0, or 1 when something was not as promised."""
    options = parser().parse_args(argv)
    try:
        with interruptible(), tempfile.TemporaryDirectory(prefix="drill-") as temporary:
            folder = (options.folder or Path(temporary)).absolute()
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise Broken(f"{folder} is not empty.")
            drill = prepare(folder, options.bookings)
            try:
                practise(drill)
            finally:
                drill.programs.stop()
    except Broken as error:
        print(f"\ndrill: {error}", file=sys.stderr)
        return 1
    except Interrupted:
        print("\nStopped.", flush=True)
        return INTERRUPTED
    print("\nAll was as promised.", flush=True)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    made = argparse.ArgumentParser(
        prog="drill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--bookings", type=int, default=20, help="how many at a time (default: %(default)s)")
    made.add_argument("--folder", type=Path, help="an empty one, for databases and logs, which stay there")
    return made


def prepare(folder: Path, count: int) -> Drill:
    """Make a key for this run, and find a port."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    key = secrets.token_urlsafe()
    settings = environment(
        WEBHOOK_API_KEY=key,
        CRM_DATABASE_URL=f"sqlite:///{folder / 'crm.sqlite3'}",
        CRM_API_KEY=key,
        CRM_WEBHOOK_URL=f"http://{HOST}:{port}/webhooks",
        CRM_OUTBOX_URL=f"sqlite:///{folder / 'site.sqlite3'}",
    )
    return Drill(Programs(folder, folder, settings), port, count)


if __name__ == "__main__":
    sys.exit(main())
