"""Outbox and approval queue, both real, are driven at random beside a model that is a list of events.

What is left out is the network and the relay's loop: any relay may claim, send, stand still and record
at any time, every answer may come or be lost, and the clock jumps. After each step both databases must
be what the model says.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, make_url, text

from crm_server import approval_queue
from crm_server.api.webhooks import receive_webhook
from crm_server.approval_queue import Receipt, ReceivedEvent
from crm_server.audit_trail import Actor
from crm_server.database import Database
from crm_server.errors import AlreadyDecided
from crm_server.idempotency import Conflict
from crm_server.middleware.contract import read_event
from crm_server.problems import Problem
from crm_server.validation import load_rules
from generated.operations import CURRENT, WEBHOOKS
from sender import CRM, ConflictingEvent, InvalidEvent, SenderSettings, outbox
from sender.database import open_engine, reading
from sender.delivery import JITTER, TRANSITIONS, Answer, Decision, Delivery, Fault, Outcome, Status, decide
from tests.crm_server.conftest import ON_BOTH
from tests.factories import Payload, customer_registration, repair_request
from tests.sender.engines import new_outbox
from tests.servers import migrated_database

CUSTOMERS = ("ada", "grace")
SCHEDULE = (1.0, 2.0)
LEASE = 6.0
NOT_FAILED: tuple[Status, ...] = ("pending", "held", "delivered", "closed")
COUNTED: tuple[Status, ...] = ("pending", "delivered", "failed", "held")
RULES = load_rules()[CURRENT]


@dataclass
class Booked:
    """An event, as the model knows it."""

    id: str
    name: str
    body: Payload
    due_at: float = outbox.AT_ONCE
    status: Status = "pending"
    attempts: int = 0
    token: str | None = None
    leased_until: float | None = None
    held_for: str | None = None
    held_by: int | None = None
    ever_failed: bool = False
    received: bool = False

    @property
    def customer(self) -> str:
        return str(self.body["customer"]["websiteUserId"])

    @property
    def is_undelivered(self) -> bool:
        return self.status in {"pending", "held"}

    def reopen(self) -> None:
        """Put it back to pending, as if it were new."""
        self.status, self.attempts, self.due_at, self.held_by = "pending", 0, outbox.AT_ONCE, None


@dataclass(frozen=True)
class Reply:
    """What may become of a request: whether it reaches the CRM, what comes back, and what that must mean."""

    outcome: Outcome | None
    """None: the CRM's own answer."""
    means: str
    reaches: bool = False
    healthy: bool = True


def problem(status: int, kind: str) -> Answer:
    return Answer(status, "application/problem+json", json.dumps({"type": kind, "status": status}).encode())


FOREIGN = {"status": "pending_approval", "natural_key": "another", "digest": "0" * 64}
REPLIES = {
    "the CRM's own answer": Reply(None, "delivered", reaches=True),
    "the answer is lost": Reply(Fault("timeout", "timeout"), "retry", reaches=True),
    "the request is lost": Reply(Fault("network", "Connection reset"), "retry"),
    "the CRM is away": Reply(Fault("refused", "Connection refused"), "wait", healthy=False),
    "the CRM dies before it answers": Reply(Fault("timeout", "timeout"), "wait", reaches=True, healthy=False),
    "another event's receipt": Reply(Answer(202, "application/json", json.dumps(FOREIGN).encode()), "retry"),
    "400": Reply(problem(400, "invalid-event"), "fail"),
    "409": Reply(problem(409, "conflict"), "fail"),
    "500": Reply(problem(500, "internal"), "retry"),
    "a 500 after the commit": Reply(problem(500, "internal"), "retry", reaches=True),
    "429": Reply(Answer(429, "", b"", retry_after=2.0), "wait"),
    "401": Reply(problem(401, "unauthorized"), "hold", healthy=False),
    "401 to this event alone": Reply(problem(401, "unauthorized"), "hold"),
    "an older CRM": Reply(problem(400, "unsupported-contract-version"), "hold for the release"),
}
REPLY = st.one_of(
    st.just(REPLIES["the CRM's own answer"]), st.sampled_from(sorted(REPLIES)).map(REPLIES.__getitem__)
)


@dataclass(frozen=True)
class Sent:
    """What a relay has in hand: an event that it sent and has not recorded."""

    delivery: Delivery
    decision: Decision
    reply: Reply


class Queue:
    """The approval queue without its committer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def receive(self, event: ReceivedEvent) -> Receipt | Conflict:
        with self._database.writing() as connection:
            [outcome] = approval_queue.receive(connection, [event])
        return outcome


def result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits for something")


def other_content(body: Payload) -> Payload:
    """Return a body of the same identity that says something else."""
    name = body["customer"]["firstName"] + "a"
    return {**body, "customer": {**body["customer"], "firstName": name}}


@dataclass
class Clock:
    """Stands in for the module `time` where booking code reads it."""

    now: float = 1_800_000_000.0

    def time(self) -> float:
        return self.now


class BothSides(RuleBasedStateMachine):
    """The rules: what booking code, relays, operators, staff and time may do."""

    def __init__(self, engine: str, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.directory = tempfile.TemporaryDirectory()
        folder = Path(self.directory.name)
        shutil.copy(migrated_database(), folder / "crm.sqlite3")
        url = new_outbox(engine, folder)
        self.crm = CRM(SenderSettings(outbox_url=url))
        self.engine = open_engine(url)
        self.database = Database(make_url(f"sqlite:///{folder}/crm.sqlite3"))
        self.events: list[Booked] = []
        self.seen: dict[str, Status] = {}
        self.claimed: list[Delivery] = []
        self.sent: list[Sent] = []
        self.decided: set[str] = set()

    def teardown(self) -> None:
        self.engine.dispose()
        self.crm._engine.dispose()
        self.database.close()
        self.directory.cleanup()

    def tell(self, name: str, body: Payload, *, resend: bool = False) -> str:
        call = self.crm.repair_requested if name == "repair-request" else self.crm.customer_registered
        return call(body, resend=resend)

    def some(self, pick: int, *states: Status) -> Booked:
        events = [event for event in self.events if not states or event.status in states]
        return events[pick % len(events)]

    def is_any(self, *states: Status) -> bool:
        return any(event.status in states for event in self.events)

    # booking code

    @initialize()
    def begin_with_some(self) -> None:
        for customer in (*CUSTOMERS, *CUSTOMERS):
            self.book(customer)

    @rule(customer=st.sampled_from(CUSTOMERS))
    def book(self, customer: str) -> None:
        known = any(event.customer == customer for event in self.events)
        make = repair_request if known else customer_registration
        name = "repair-request" if known else "customer-registration"
        body = make(customer__websiteUserId=customer)
        self.events.append(Booked(self.tell(name, body), name, body))

    @precondition(lambda self: self.events)
    @rule(pick=st.integers(0, 99), resend=st.booleans())
    def book_the_same_again(self, pick: int, resend: bool) -> None:
        event = self.some(pick)
        clicked_later = {
            **event.body,
            "metadata": {**event.body["metadata"], "timestamp": "2025-01-01T00:00:00Z"},
        }
        body = event.body if resend else clicked_later
        assert self.tell(event.name, body, resend=resend) == event.id
        if resend and event.status in {"delivered", "closed", "failed"}:
            event.reopen()

    @precondition(lambda self: self.events)
    @rule(pick=st.integers(0, 99), resend=st.booleans())
    def book_what_is_refused(self, pick: int, resend: bool) -> None:
        event = self.some(pick)
        with pytest.raises(InvalidEvent):
            self.tell(event.name, {**event.body, "customer": {}}, resend=resend)
        if not (resend and event.status == "closed"):
            with pytest.raises(ConflictingEvent):
                self.tell(event.name, other_content(event.body), resend=resend)

    def correctable(self) -> list[Booked]:
        """Return what was given up, and neither reached the CRM nor is in the hands of a relay that stood still."""
        in_hand = {delivery.id for delivery in self.claimed} | {sent.delivery.id for sent in self.sent}
        given_up = [event for event in self.events if event.status == "closed"]
        return [event for event in given_up if not event.received and event.id not in in_hand]

    @precondition(lambda self: self.correctable())
    @rule(pick=st.integers(0, 99))
    def correct_what_was_closed(self, pick: int) -> None:
        events = self.correctable()
        event = events[pick % len(events)]
        event.body = other_content(event.body)
        assert self.tell(event.name, event.body, resend=True) == event.id
        event.reopen()

    # relays

    def may_be_claimed(self, event: Booked) -> bool:
        """Say whether a relay may take an event now: due, the first of its customer's, none of which is in flight."""
        others = [other for other in self.events if other.customer == event.customer]
        is_first = next(other for other in others if other.is_undelivered) is event
        is_due = event.due_at <= self.clock.now or event.due_at > self.clock.now + max(SCHEDULE) * (
            1 + JITTER
        )
        return event.status == "pending" and is_first and is_due and not any(map(self.is_leased, others))

    def is_leased(self, event: Booked) -> bool:
        until = event.leased_until
        return until is not None and self.clock.now < until <= self.clock.now + 2 * LEASE

    @rule(limit=st.integers(1, 3), of_newest=st.integers(0, 3), by_turns=st.booleans())
    def claim(self, limit: int, of_newest: int = 0, by_turns: bool = False) -> None:
        free = [event for event in self.events if event.is_undelivered and self.may_be_claimed(event)]
        of_newest = min(of_newest, limit)
        share = outbox.Share(limit, of_newest, limit - of_newest, "")
        looked_at = [*free[::-1][:of_newest], *free[: limit - of_newest]]
        if by_turns:
            share = outbox.Share(limit, 0, 0, CUSTOMERS[0])
            looked_at = sorted(free, key=lambda event: (event.customer == CUSTOMERS[0], event.customer))[
                :limit
            ]
        token = str(uuid.uuid4())
        with self.engine.begin() as connection:
            due = outbox.Due(self.clock.now, lease=LEASE, longest_delay=max(SCHEDULE) * (1 + JITTER))
            sequences = {sequence for sequence, _ in outbox.look(connection, due, share)}
            deliveries = outbox.claim(connection, due, token, self.clock.now + LEASE, sequences)
        expected = [event for event in self.events if event in looked_at]
        assert [delivery.id for delivery in deliveries] == [event.id for event in expected]
        for event, delivery in zip(expected, deliveries, strict=True):
            assert json.loads(delivery.payload) == event.body
            assert (delivery.attempts, delivery.held_by) == (event.attempts, event.held_by)
            event.token, event.leased_until = token, self.clock.now + LEASE
        self.claimed += deliveries

    @rule(limit=st.integers(1, 3), reply=REPLY)
    def stand_still_past_the_lease(self, limit: int, reply: Reply) -> None:
        """Claim and send, then let time and other relays pass before anything is recorded."""
        claimed = len(self.claimed)
        self.claim(limit)
        if len(self.claimed) > claimed:
            self.send(claimed, reply)
        self.time_passes(LEASE + 1)

    @precondition(lambda self: self.claimed)
    @rule(pick=st.integers(0, 99), reply=REPLY)
    def send(self, pick: int, reply: Reply) -> None:
        delivery = self.claimed.pop(pick % len(self.claimed))
        own_answer = self.ask_crm(delivery) if reply.reaches else None
        decision = decide(
            reply.outcome or own_answer,  # type: ignore[arg-type]
            delivery,
            WEBHOOKS[delivery.event],
            healthy=reply.healthy,
            schedule=SCHEDULE,
            wait_when_away=True,
            jitter=0.0,
        )
        self.sent.append(Sent(delivery, decision, reply))

    def ask_crm(self, delivery: Delivery) -> Answer:
        headers = {"webhook-id": delivery.id, "webhook-contract": delivery.contract}
        scope: dict[str, Any] = {"crm.body": delivery.payload.encode(), "crm.headers": headers}
        scope |= {"crm.key": "0" * 12, "crm.address": "127.0.0.1"}
        try:
            scope["crm.event"] = read_event(RULES[delivery.event], delivery.contract, scope)
            answer = result(receive_webhook(Queue(self.database), scope))  # type: ignore[arg-type]
        except Problem as error:
            return Answer(error.status, "application/problem+json", error.body())
        [event] = [event for event in self.events if event.id == delivery.id]
        assert answer.content["duplicate"] == event.received
        event.received = True
        return Answer(answer.status, "application/json", json.dumps(answer.content).encode())

    @rule(replies=st.lists(REPLY, min_size=3, max_size=8))
    def deliver(self, replies: list[Reply]) -> None:
        """Claim, send and record one after the other, as a relay does that nothing befalls."""
        for reply in replies:
            claimed = len(self.claimed)
            self.claim(limit=1)
            if len(self.claimed) > claimed:
                self.send(claimed, reply)
                self.record(count=1)
            elif self.is_any("held"):
                self.release(pick=claimed, most=1_000)
            else:
                self.time_passes(max(SCHEDULE))
            self.the_outbox_is_what_the_model_says()

    @precondition(lambda self: self.sent)
    @rule(count=st.integers(1, 3))
    def record(self, count: int) -> None:
        batch, self.sent = self.sent[-count:], self.sent[:-count]
        with self.engine.begin() as connection:
            decided = [(sent.delivery, sent.decision) for sent in batch]
            written = outbox.record(connection, decided, self.clock.now, "relay")
        assert written == [self.has_become(sent) for sent in batch]

    def has_become(self, sent: Sent) -> bool:
        """Do in the model what the answer means, unless the lease is another's by now."""
        [event] = [event for event in self.events if event.id == sent.delivery.id]
        if event.token != sent.delivery.lease_token:
            return False
        held_by, event.held_by, event.token, event.leased_until = event.held_by, None, None, None
        event.due_at = self.clock.now
        means = sent.reply.means
        if means == "hold":
            means = "fail" if held_by == 401 and sent.reply.healthy else means
        if means == "retry" and event.attempts == len(SCHEDULE):
            means = "fail"
        match means:
            case "delivered" | "fail":
                event.status = "delivered" if means == "delivered" else "failed"
                event.attempts += 1
                event.ever_failed |= means == "fail"
            case "retry":
                event.due_at += SCHEDULE[event.attempts]
                event.attempts += 1
            case "hold":
                event.status, event.held_for, event.held_by = "held", WEBHOOKS[event.name].path, 401
            case "hold for the release":
                event.status, event.held_for = "held", CURRENT
            case _:
                assert means == "wait"
        return True

    @precondition(lambda self: self.claimed)
    @rule()
    def give_back(self) -> None:
        with self.engine.begin() as connection:
            outbox.give_back(connection, self.claimed)
        for delivery in self.claimed:
            for event in self.events:
                if (event.id, event.token) == (delivery.id, delivery.lease_token):
                    event.token = event.leased_until = None
        self.claimed = []

    @precondition(lambda self: self.is_any("held"))
    @rule(pick=st.integers(0, 99), most=st.sampled_from([1, 2, 1_000]))
    def release(self, pick: int, most: int) -> None:
        cured = self.some(pick, "held").held_for
        assert cured is not None
        held = [event for event in self.events if event.status == "held" and event.held_for == cured]
        freed = held[:most]
        with self.engine.begin() as connection:
            assert outbox.release(connection, cured, self.clock.now, "relay", most) == len(freed)
        for event in freed:
            event.status, event.held_for, event.due_at = "pending", None, outbox.AT_ONCE

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, LEASE, LEASE + 1, 7_200.0, -7_200.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    # operators and staff

    @precondition(lambda self: self.is_any("failed"))
    @rule(pick=st.integers(0, 99))
    def retry(self, pick: int) -> None:
        event = self.some(pick, "failed")
        with self.engine.begin() as connection:
            assert outbox.retry(connection, [event.id], self.clock.now, "cli:me") == [event.id]
        event.reopen()

    @precondition(lambda self: self.is_any("failed"))
    @rule(pick=st.integers(0, 99))
    def close(self, pick: int) -> None:
        event = self.some(pick, "failed")
        with self.engine.begin() as connection:
            assert outbox.close(connection, [event.id], self.clock.now, "cli:me") == [event.id]
        event.status = "closed"

    @precondition(lambda self: self.is_any(*NOT_FAILED))
    @rule(pick=st.integers(0, 99), verb=st.sampled_from([outbox.retry, outbox.close]))
    def retry_or_close_what_did_not_fail(self, pick: int, verb: Callable[..., list[str]]) -> None:
        event = self.some(pick, *NOT_FAILED)
        with self.engine.begin() as connection:
            assert verb(connection, [event.id], self.clock.now, "cli:me") == []

    @precondition(lambda self: any(event.received for event in self.events))
    @rule(pick=st.integers(0, 99), approves=st.booleans())
    def decide_on_a_request(self, pick: int, approves: bool) -> None:
        with self.database.reading() as connection:
            rows = list(approval_queue.list_approvals(connection))
        row = rows[pick % len(rows)]
        if row.id not in self.decided:
            with self.database.writing() as connection:
                self.decide_on(connection, row.id, approves)
            self.decided.add(row.id)
        with pytest.raises(AlreadyDecided), self.database.writing() as connection:
            self.decide_on(connection, row.id, approves)

    def decide_on(self, connection: Connection, request: str, approves: bool) -> None:
        if approves:
            approval_queue.approve(connection, request, Actor("cli:me"))
        else:
            approval_queue.reject(connection, request, Actor("cli:me"), "no reason")

    # what must hold at all times

    @invariant()
    def the_outbox_is_what_the_model_says(self) -> None:
        with reading(self.engine) as connection:
            rows = connection.execute(text("SELECT * FROM crm_outbox ORDER BY sequence")).all()
            counts = outbox.counts(connection)
        is_now = [
            (row.id, row.status, row.attempts, row.due_at, row.lease_token, row.held_for, row.held_by)
            for row in rows
        ]
        assert is_now == [
            (event.id, event.status, event.attempts, event.due_at, event.token, event.held_for, event.held_by)
            for event in self.events
        ]
        for row, event in zip(rows, self.events, strict=True):
            before = self.seen.get(row.id, "pending")
            assert row.status == before or row.status in TRANSITIONS[before]
            self.seen[row.id] = row.status
            erased = row.status in {"delivered", "closed"}
            assert (None if row.payload is None else json.loads(row.payload)) == (
                None if erased else event.body
            )
        statuses = [event.status for event in self.events]
        assert counts == outbox.Counts(**{state: statuses.count(state) for state in COUNTED})

    @invariant()
    def the_queue_has_each_event_once_unchanged_and_in_its_customers_order(self) -> None:
        with self.database.reading() as connection:
            rows = list(approval_queue.list_approvals(connection))
        stored = {row.webhook_id: json.loads(row.payload) for row in rows}
        assert len(rows) == len(stored)
        assert stored == {event.id: event.body for event in self.events if event.received}
        assert all(event.received for event in self.events if event.status == "delivered")
        for customer in CUSTOMERS:
            booked = [
                event.id for event in self.events if event.customer == customer and not event.ever_failed
            ]
            arrived = [row.webhook_id for row in rows if row.webhook_id in booked]
            assert arrived == booked[: len(arrived)]


@ON_BOTH
def test_outbox_and_queue_keep_the_promise_whatever_happens_in_whatever_order(
    on_engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("sender.crm.time", clock)

    class Machine(BothSides):
        def __init__(self) -> None:
            super().__init__(on_engine, clock)

    examples = settings().max_examples // 2
    run_state_machine_as_test(Machine, settings=settings(max_examples=examples, stateful_step_count=30))
