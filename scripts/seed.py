"""Fill the CRM's database with people who do not exist, their requests, and what staff did with them.

python -m scripts.seed 1000                                  requests of the last 30 days
python -m scripts.seed 1000000 --days 365 --decided 0.05     a busy year, in a quarter of an hour

Days pass as they would: requests arrive, most are decided within hours, tickets move on. All of it goes
through the queue's and the records' own verbs, whose clock is set back, into CRM_DATABASE_URL: which must
hold no requests, so that nobody real ever stands among those who are not.
"""

from __future__ import annotations

import argparse
import heapq
import json
import secrets
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from random import Random
from typing import Any, TypeVar
from unittest import mock

from sqlalchemy import Connection, select

from crm_server import approval_queue, database, records, search, staff
from crm_server.approval_queue import ReceivedEvent
from crm_server.audit_trail import Actor
from crm_server.database import Database
from crm_server.decisions import TICKET_TRANSITIONS
from crm_server.errors import ConfigurationError, CustomerUnknown
from crm_server.idempotency import Identity, digest
from crm_server.migrations import migrate
from crm_server.search_index import read_documents
from crm_server.settings import load_settings
from crm_server.tables import approvals, decision_records
from crm_server.validation import field as value_at
from crm_server.website_approvals import settle_some
from crm_server.website_statuses import REPAIR, STATUSES, told_of
from generated.operations import CURRENT, WEBHOOKS
from scripts.people import (
    NOTES,
    REASONS,
    Person,
    booking_status,
    customer_profile,
    make_person,
    payment_status,
    registration,
    repair_request,
)

STAFF = ("Grace", "Katherine", "Tom")
"""Who decides. They have no passwords, so nobody can log in as one of them."""
IN_ONE_TRANSACTION = 500
REGISTERS, RETURNS, TELLS, CHANGES = 0.3, 0.35, 0.15, 0.03
"""The shares of requests that are registrations, repairs of somebody known, statuses of a repair, and profiles."""
REJECTED, MOVES, NOTED, PAYS = 0.12, 0.9, 0.2, 0.6
REMEMBERED = 5_000
"""Customers who may come back, and repairs of which more may be told."""
OPENS, CLOSES = 8, 20
"""The hours of the day in which most happens."""

Payload = dict[str, Any]
Kept = TypeVar("Kept")
Action = Callable[["Seeding", Connection], None]


@dataclass
class Clock:
    """Stands in for `datetime` and `time` where the CRM asks what time it is."""

    at: datetime

    def now(self, zone: tzinfo) -> datetime:
        """Return the time that it is now."""
        return self.at.astimezone(zone)

    def time_ns(self) -> int:
        """Return the same in nanoseconds."""
        return int(self.at.timestamp() * 1_000_000) * 1_000

    def set(self) -> AbstractContextManager[Any]:
        """Let the CRM go by this clock."""
        return mock.patch.multiple(database, datetime=self, time=self)


@dataclass
class Seeding:
    """What is still to happen, the earliest first, and what time it is."""

    chance: Random
    run: str
    until: datetime
    clock: Clock
    decided: float
    """The share of requests that staff decide."""
    due: list[tuple[datetime, int, Action]] = field(default_factory=list)
    known: list[Person] = field(default_factory=list)
    booked: list[Payload] = field(default_factory=list)
    made: int = 0

    def plan(self, at: datetime, action: Action) -> None:
        """Let something happen, unless it were in the future."""
        if at <= self.until:
            self.made += 1
            heapq.heappush(self.due, (at, self.made, action))

    def later(self, hours: float, action: Action) -> None:
        """Let something happen some hours from now, more or less."""
        self.plan(self.clock.at + timedelta(hours=self.chance.expovariate(1 / hours)), action)

    def go_on(self, connection: Connection) -> bool:
        """Let the next things happen; return whether there were any."""
        went_on = bool(self.due)
        for _ in range(min(IN_ONE_TRANSACTION, len(self.due))):
            self.clock.at, _, action = heapq.heappop(self.due)
            action(self, connection)
        while documents := read_documents(connection):
            search.add(connection, documents)
        return went_on

    def actor(self) -> Actor:
        """Return who does the next thing."""
        return Actor(f"staff:{self.chance.choice(STAFF)}", "127.0.0.1")

    def key(self) -> str:
        """Return what tells a record of this run from all others."""
        self.made += 1
        return f"seed-{self.run}-{self.made:x}"


def arrive(seeding: Seeding, connection: Connection) -> None:
    """Receive one request, of somebody new or known."""
    event, payload = next_event(seeding, seeding.chance.random())
    [receipt] = approval_queue.receive(connection, [received(event, payload)])
    if not isinstance(receipt, approval_queue.Receipt):
        return
    if event in STATUSES:
        settle_some(connection, [receipt.id])
    elif seeding.chance.random() < seeding.decided:
        seeding.later(9, lambda seeding, connection: decide(seeding, connection, receipt.id))


def next_event(seeding: Seeding, kind: float) -> tuple[str, Payload]:
    """Return the name of an event and its payload; `kind`, from 0 to 1, says what it is."""
    chance, at = seeding.chance, seeding.clock.at
    if kind < REGISTERS:
        person = make_person(chance, seeding.key())
        keep(seeding.known, person, chance)
        return "customer-registration", registration(chance, person, at)
    if kind > 1 - CHANGES and seeding.known:
        return "customer-profile", customer_profile(chance, chance.choice(seeding.known), seeding.key(), at)
    if kind > 1 - CHANGES - TELLS and seeding.booked:
        booked = chance.choice(seeding.booked)
        if chance.random() < PAYS:
            return "payment-status", payment_status(chance, booked, seeding.key(), at)
        return "booking-status", booking_status(chance, booked, seeding.key(), at)
    returns = kind < REGISTERS + RETURNS and seeding.known
    person = chance.choice(seeding.known) if returns else make_person(chance, seeding.key())
    payload = repair_request(chance, person, seeding.key(), at)
    keep(seeding.booked, payload, chance)
    return "repair-request", payload


def keep(some: list[Kept], one: Kept, chance: Random) -> None:
    """Remember something, in the place of something else where there is too much."""
    if len(some) < REMEMBERED:
        some.append(one)
    else:
        some[chance.randrange(REMEMBERED)] = one


def received(event: str, payload: Payload) -> ReceivedEvent:
    """Return an event as the webhooks' door hands it to the queue."""
    webhook = WEBHOOKS[event]
    key = value_at(payload, webhook.natural_key)
    identity = Identity(event, key, database.new_id(), digest(webhook, payload))
    about = value_at(payload, webhook.about) if webhook.about else None
    return ReceivedEvent(identity, CURRENT, json.dumps(payload, ensure_ascii=False), about=about)


def decide(seeding: Seeding, connection: Connection, approval_id: str) -> None:
    """Approve a request or reject it."""
    chance, actor = seeding.chance, seeding.actor()
    if chance.random() < REJECTED:
        approval_queue.reject(connection, approval_id, actor, chance.choice(REASONS))
        return
    try:
        with connection.begin_nested():
            row = approval_queue.approve(connection, approval_id, actor)
    except CustomerUnknown:
        return  # it waits for the registration
    if row.event == REPAIR:
        told = told_of(connection, row.natural_key)
        settle_some(connection, [each.row.id for each in told.statuses])
    c = decision_records.c
    ticket = select(c.record_id).where(c.approval_id == approval_id, c.record == "ticket")
    if ticket_id := connection.execute(ticket).scalar():
        seeding.later(20, lambda seeding, connection: move(seeding, connection, ticket_id, "open"))


def move(seeding: Seeding, connection: Connection, ticket_id: str, status: str) -> None:
    """Move a ticket on from a state, perhaps with a note."""
    if seeding.chance.random() < NOTED:
        records.add_note(connection, ticket_id, seeding.chance.choice(NOTES), seeding.actor())
    following = TICKET_TRANSITIONS[status]
    records.move_ticket(connection, ticket_id, following, seeding.actor())
    if following in TICKET_TRANSITIONS and seeding.chance.random() < MOVES:
        seeding.later(40, lambda seeding, connection: move(seeding, connection, ticket_id, following))


def moment(chance: Random, until: datetime, days: int) -> datetime:
    """Return a time within the last days, by day rather than by night."""
    day = until - timedelta(days=chance.random() * days)
    hour = chance.triangular(OPENS, CLOSES) if chance.random() < 0.85 else chance.random() * 24
    at = day.replace(hour=0, minute=0, second=0) + timedelta(hours=hour)
    return at if at < until else day


def seed(into: Database, count: int, *, days: int, decided: float, run: str) -> None:
    """Let so many requests arrive over so many days, and what follows from them.

    Raises ConfigurationError when there are requests already.
    """
    until, chance = datetime.now(UTC), Random(run)  # noqa: S311  # nothing here is secret
    seeding = Seeding(chance, run, until, Clock(until - timedelta(days=days)), decided)
    with into.writing() as connection:
        require_empty(connection)
        add_staff(connection)
    for _ in range(count):
        seeding.plan(moment(chance, until, days), arrive)
    with seeding.clock.set():
        went_on = True
        while went_on:
            with into.writing() as connection:
                went_on = seeding.go_on(connection)


def require_empty(connection: Connection) -> None:
    """Raise ConfigurationError when there are requests."""
    if connection.execute(select(approvals.c.id).limit(1)).first():
        raise ConfigurationError("The database holds requests: name a new one in CRM_DATABASE_URL.")


def add_staff(connection: Connection) -> None:
    """Add those who decide, unless they are there."""
    there = {row.name for row in staff.everybody(connection)}
    for name in STAFF:
        if name not in there:
            staff.add(connection, name, "approver", None, Actor("cli:seed"))


def main(argv: list[str] | None = None) -> int:
    """Migrate the database and fill it."""
    parser = argparse.ArgumentParser(
        prog="seed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("count", metavar="N", type=int, help="how many requests")
    parser.add_argument("--days", type=int, default=30, help="over how many days (default: %(default)s)")
    parser.add_argument(
        "--decided", type=float, default=0.97, help="the share that staff decide (default: %(default)s)"
    )
    parser.add_argument("--seed", help="any word: the same gives the same people")
    options = parser.parse_args(argv)
    run = options.seed or secrets.token_hex(4)
    try:
        into = Database(load_settings().url)
        migrate(into)
        seed(into, options.count, days=options.days, decided=options.decided, run=run)
    except ConfigurationError as error:
        print(f"seed: {error}", file=sys.stderr)
        return 1
    print(f"{options.count} requests are in {into.url.render_as_string(hide_password=True)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
