"""The relay: claims what is due, sends it, records what became of it.

One thread reads and writes the outbox, a few threads send. A customer's events go one by one, in
their order. Nothing is sent while the CRM is away (an outage), asks for patience (the pace), or
refuses us for what is not the event's fault (a hold).
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus

from sqlalchemy.exc import DBAPIError

from generated.operations import RELEASES, WEBHOOKS
from sender import outbox
from sender.alerts import watching
from sender.database import (
    PAUSE,
    Commits,
    begin_claim,
    begin_look,
    begin_work,
    open_engine,
    reading,
    words_of,
)
from sender.delivery import (
    JITTER,
    LONGEST_WAIT,
    Answer,
    Decision,
    Delivery,
    Fault,
    Outcome,
    decide,
    give_up_damaged,
    hold_for_release,
    hold_for_sender,
    is_busy,
    is_path,
    is_webhook,
    judge,
    stops_all,
)
from sender.erasure import empty_log
from sender.errors import NotMigrated, SettingsError
from sender.events import is_intact
from sender.settings import SenderSettings
from sender.transport import HEALTH_TIMEOUT, REFUSED, Health, Transport

log = logging.getLogger("crm_sender.relay")

POLL, IDLE_POLL, TOLD_POLL = 0.005, 0.02, 0.1
"""Seconds between two looks at an outbox in which nothing is due: soon after an event, later, and where
the database tells of commits."""

REST = 4.0
"""How many times as long as a look in vain the next is waited for at least: with the events of tens of thousands
of customers held, one takes tenths of a second."""

STAYS_BUSY = 1.0
"""Seconds for which the next event is expected soon."""

THREADS = 8
"""How many send at once: the CRM commits together what comes together. With more the interpreter is the bound."""

AHEAD = 16
"""Events that are claimed ahead for each thread, so that claims and results are written in batches."""

ENOUGH, GATHER = 3, 0.04
"""As long as each thread has so many events to send, what they have done waits so many seconds at most, to be
written together: a transaction for each event costs as much as its delivery."""

HEARTBEAT = 1.0
"""Seconds between two signs of life."""

EMPTY = 3.0
"""Seconds between two tries to empty SQLite's log while events come, which wait for it; else it is done at once."""

RELEASED = 1_000
"""How many held events are let go in one transaction, which bookings wait for: a few hundredths of a second."""

DAY = 86_400.0
"""Seconds between two warnings that the CRM gives up a release."""

FIRST_PROBE, LAST_PROBE = 1.0, 60.0
"""Seconds until the first probe of what is waited for, doubling up to the last."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run of the relay did."""

    delivered: int = 0
    failed: int = 0
    held: int = 0
    pending: int = 0

    @property
    def all_delivered(self) -> bool:
        """Whether nothing failed, is held, or is left."""
        return not (self.failed or self.held or self.pending)


@dataclass(slots=True)
class Backoff:
    """When to look again at what is waited for: after 1 s, doubling to 60 s, with jitter."""

    delay: float = field(default_factory=lambda: FIRST_PROBE)
    at: float = 0.0

    def push(self, now: float) -> None:
        """Put the next look off."""
        self.at = now + self.delay * (1 + JITTER * random.random())  # noqa: S311
        self.delay = min(self.delay * 2, LAST_PROBE)


@dataclass(slots=True)
class Pace:
    """How many events may be in flight: `most`, and fewer after the CRM asked for patience."""

    most: int
    until: float = 0.0
    window: int = 0
    asked_for: str | None = None
    """The customer for whose event, alone in flight, it asked: others get their turn first."""

    def __post_init__(self) -> None:
        self.window = self.most

    def slow_down(self, now: float, seconds: float, customer: str) -> None:
        """Wait, then resume with one in flight."""
        if self.window == 1 and now >= self.until:
            self.asked_for = customer
        self.until = max(self.until, now + seconds)
        self.window = 1

    def delivered(self, now: float) -> None:
        """Grow by one; what was in flight when the CRM asked for patience says nothing of later."""
        if now >= self.until:
            self.window = min(self.window + 1, self.most)
        if self.window == self.most:
            self.asked_for = None


@dataclass(slots=True)
class Outage:
    """The CRM is away: when to look for it, and whose event tried last."""

    backoff: Backoff = field(default_factory=Backoff)
    last_trial: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of a claimed event; `decision` is None when it was not sent."""

    delivery: Delivery
    decision: Decision | None


class Relay:
    """Delivers the outbox's events to the CRM until it is stopped.

    `threads` send at once, each over a connection of its own. `clock` tells the time of day that
    the outbox keeps, `monotonic` what the relay itself waits by, both in seconds.

    Raises SettingsError when there is no key to send with.
    """

    def __init__(
        self,
        settings: SenderSettings | None = None,
        *,
        threads: int = THREADS,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings or SenderSettings.read()
        if self._settings.api_key is None:
            raise SettingsError("CRM_API_KEY is not set: give it the key that the CRM has as WEBHOOK_API_KEY")
        self._clock = clock
        self._monotonic = monotonic
        self._threads = threads
        self._id = str(uuid.uuid4())
        self._process = socket.gethostname(), os.getpid()
        self._local = threading.local()
        self._resources = ExitStack()
        self._stopping = False  # not an Event: a signal's handler that sets one may wait for itself
        # Set by whichever thread first learns that nothing should be sent: what is claimed goes back.
        self._halt = threading.Event()
        self._in_flight: set[Future[Attempt]] = set()
        self._unrecorded: list[Attempt] = []
        self._pace = Pace(threads * AHEAD)
        self._outage: Outage | None = None
        self._held: dict[str, Backoff] = {}
        self._stuck_since: float | None = None
        self._versions: tuple[str, ...] | None = None
        self._warn_at: dict[str, float] = {}
        self._next_beat = self._empty_at = 0.0
        self._busy_until = 0.0
        self._looks = 0
        self._last_customer = ""
        self._delivered = self._failed = 0

    def stop(self) -> None:
        """Ask the relay to finish what is in flight and return; it does not begin again."""
        self._stopping = True

    def run(self, *, drain: bool = False, watch: Callable[[outbox.Counts], None] | None = None) -> Summary:
        """Deliver until `stop()`; with `drain` until nothing is pending. Tell `watch` each second how far it is.

        Beside it runs the watch of `alerts.py`, but for a drain. A drain gives up when it has waited for the CRM, or for the cure of a hold, as long as the
        retry schedule is; it may be run again. Raises NotMigrated when the outbox is not there; a drain also
        passes on an error of the database, which otherwise is logged and waited out.
        """
        self._watch = watch
        self._outage, self._held, self._stuck_since = None, {}, None
        self._next_beat, self._delivered, self._failed = 0.0, 0, 0
        with self._resources:
            self._engine = open_engine(self._settings.outbox_url, ping=False)
            self._resources.callback(self._engine.dispose)
            self._commits = Commits(self._engine)
            self._resources.callback(self._commits.close)
            with reading(self._engine) as connection:
                outbox.outbox_id(connection)
            log.info("relay started: %s to %s", self._settings.shown_outbox, self._settings.webhook_url)
            self._open_transport()
            if not drain:
                self._resources.enter_context(watching(self._settings, self._clock))
            with ThreadPoolExecutor(self._threads, "crm-relay", self._open_transport) as pool:
                self._greet()
                while not self._stopping and not (drain and self._is_drained()):
                    self._turn_or_wait(pool, drain)
            return self._leave()

    def _open_transport(self) -> None:
        """Give this thread a connection of its own."""
        self._local.transport = self._resources.enter_context(Transport(self._settings))

    def _turn_or_wait(self, pool: ThreadPoolExecutor, drain: bool) -> None:
        try:
            self._turn(pool)
        except (DBAPIError, NotMigrated) as error:
            if drain:
                raise
            log.error(
                "the outbox cannot be used: %s", words_of(error) if isinstance(error, DBAPIError) else error
            )
            time.sleep(HEARTBEAT)

    def _turn(self, pool: ThreadPoolExecutor) -> None:
        """Do what can be done now, then wait a little for the next thing."""
        now = self._monotonic()
        self._record()
        if now >= self._next_beat:
            self._beat(now)
        if not self._in_flight:
            self._look_for_crm(pool, now)
        self._look_at_holds(now)
        began = self._monotonic()
        if self._may_send(now):
            self._send_due(pool, self._pace.window - len(self._in_flight), self._pace.asked_for)
        if self._in_flight:
            self._busy_until = now + STAYS_BUSY
            self._gather()
            self._record()
            time.sleep(PAUSE)
        else:
            rest = REST * (self._monotonic() - began)
            poll = POLL if now < self._busy_until else IDLE_POLL
            self._commits.wait(max(poll, rest), max(TOLD_POLL, rest))

    def _gather(self) -> None:
        """Take what the threads have done; as long as they have enough to do, wait for more to write together."""
        wait(self._in_flight, timeout=POLL, return_when=FIRST_COMPLETED)
        until = time.monotonic() + GATHER
        while self._has_enough() and time.monotonic() < until:
            time.sleep(GATHER / 4)
        done = {future for future in self._in_flight if future.done()}
        self._in_flight -= done
        self._unrecorded += [future.result() for future in done]

    def _has_enough(self) -> bool:
        """Say whether no thread will soon have nothing to send."""
        to_send = sum(not future.done() for future in self._in_flight)
        return to_send > self._threads * ENOUGH and not (self._halt.is_set() or self._stopping)

    def _may_send(self, now: float) -> bool:
        if self._halt.is_set() and self._in_flight:
            return False
        waits = self._outage or now < self._pace.until or any(map(stops_all, self._held))
        return not waits and self._pace.window > len(self._in_flight)

    def _send_due(self, pool: ThreadPoolExecutor, limit: int, after: str | None) -> list[Delivery] | None:
        """Claim what is due and hand it to the threads. Return it; None where another relay was quicker.

        `after`: a customer after whom the others get their turn, so that one event cannot hold them up.
        """
        with reading(self._engine) as connection:
            due = self._due(begin_look(connection, self._clock))
            found = outbox.look(connection, due, self._share(limit, after))
        if not found:
            return []
        if not self._in_flight:
            self._halt.clear()
        with self._engine.begin() as connection:
            # The clocks are read here, where no other relay can claim: it may have taken long to come here.
            claimed, now = self._monotonic(), begin_claim(connection, self._clock)
            if now is None:
                return None
            lease_until = now + self._settings.lease
            sequences = {sequence for sequence, _ in found}
            deliveries = outbox.claim(connection, self._due(now), str(uuid.uuid4()), lease_until, sequences)
        self._last_customer = found[-1][1]
        self._in_flight |= {pool.submit(self._attempt, delivery, claimed) for delivery in deliveries}
        return deliveries or None

    def _due(self, now: float) -> outbox.Due:
        delays = list(self._settings.retry_schedule)
        if self._settings.when_away == "fail":  # an event itself waits as long as the CRM asks
            delays.append(LONGEST_WAIT)
        return outbox.Due(now, self._settings.lease, max(delays, default=0.0) * (1 + JITTER))

    def _share(self, limit: int, after: str | None) -> outbox.Share:
        """Give a quarter to the newest, so that what is booked now does not wait for a backlog to go."""
        if after is not None:
            return outbox.Share(limit, 0, 0, after)
        self._looks += 1
        of_newest = (limit + self._looks % 4) // 4  # on average, for there may be only one to give
        return outbox.Share(limit, of_newest, limit - of_newest, self._last_customer)

    # one attempt, in a thread of the pool

    def _attempt(self, delivery: Delivery, claimed: float) -> Attempt:
        if delivery.event not in WEBHOOKS:
            return Attempt(delivery, hold_for_sender(delivery))
        if self._versions is not None and delivery.contract not in self._versions:
            return Attempt(delivery, hold_for_release(delivery))
        webhooks = RELEASES.get(delivery.contract)  # None after a step back to an older sender
        if webhooks and not is_intact(delivery.payload, delivery.digest, webhooks[delivery.event]):
            return Attempt(delivery, give_up_damaged(delivery))
        lasts_at_most = self._settings.timeout + HEALTH_TIMEOUT
        late = self._monotonic() - claimed > self._settings.lease - lasts_at_most
        if late or self._halt.is_set() or self._stopping:
            return Attempt(delivery, None)
        outcome = self._transport.send(delivery)
        if isinstance(outcome, Answer) and outcome.given_up:
            self._warn_of_release(delivery.contract, outcome.given_up)
        if self._is_too_new(outcome, delivery):
            return Attempt(delivery, hold_for_release(delivery))
        decision = self._decide(outcome, delivery)
        if decision.away or decision.wait is not None or (decision.held_for and is_path(decision.held_for)):
            self._halt.set()
        return Attempt(delivery, decision)

    def _is_too_new(self, outcome: Outcome, delivery: Delivery) -> bool:
        """Say whether a path is not there because a CRM that was set back has no such webhook: others may go on."""
        if not isinstance(outcome, Answer) or outcome.status != HTTPStatus.NOT_FOUND:
            return False
        health = self._ask_health()
        return health.ok and health.versions is not None and delivery.contract not in health.versions

    def _decide(self, outcome: Outcome, delivery: Delivery) -> Decision:
        return decide(
            outcome,
            delivery,
            WEBHOOKS[delivery.event],
            healthy=self._is_crm_well(outcome, delivery),
            schedule=self._settings.retry_schedule,
            wait_when_away=self._settings.when_away == "wait",
            jitter=random.random(),  # noqa: S311
        )

    def _is_crm_well(self, outcome: Outcome, delivery: Delivery) -> bool:
        """Ask what an answer leaves open: whether the CRM is well, so that it is the event that is not."""
        webhook = WEBHOOKS[delivery.event]
        meaning = judge(outcome, delivery, webhook).meaning
        if isinstance(outcome, Fault) and outcome.kind == "refused":
            return False
        if meaning == "retry" and not is_busy(outcome):
            return self._transport.health().ok
        if meaning == "hold" and isinstance(outcome, Answer) and delivery.held_by == outcome.status:
            passed, _ = self._transport.probe(webhook.path)
            return passed
        return True

    @property
    def _transport(self) -> Transport:
        transport: Transport = self._local.transport
        return transport

    def _warn_of_release(self, contract: str, words: str) -> None:
        """Log once a day that the CRM will not take a release for ever."""
        now = self._monotonic()
        if now >= self._warn_at.get(contract, now):
            self._warn_at[contract] = now + DAY
            log.warning("the CRM says: contract %s %s; update what sends it", contract, words)

    # what became of attempts

    def _record(self) -> None:
        """Write what became of attempts; what cannot be written now is kept for the next turn."""
        if not self._unrecorded:
            return
        decided = [(attempt.delivery, attempt.decision) for attempt in self._unrecorded if attempt.decision]
        unsent = [attempt.delivery for attempt in self._unrecorded if not attempt.decision]
        with self._engine.begin() as connection:
            written = outbox.record(connection, decided, begin_work(connection, self._clock), "relay")
            outbox.give_back(connection, unsent)
        self._unrecorded.clear()
        for (delivery, decision), was_written in zip(decided, written, strict=True):
            if was_written:
                self._learn(delivery, decision)
            else:
                log.warning("%s %s: the lease ran out, another relay has it", delivery.event, delivery.id)

    def _learn(self, delivery: Delivery, decision: Decision) -> None:
        """Draw the conclusions of one attempt for all that follow."""
        now = self._monotonic()
        if decision.status == "delivered":
            self._delivered += 1
            self._pace.delivered(now)
        else:
            self._say(delivery, decision)
        if decision.status == "failed":
            self._failed += 1
        if decision.wait is not None:
            self._pace.slow_down(now, decision.wait, delivery.order_key)
        if decision.held_for:
            self._hold(decision.held_for, now)
        if decision.away:
            self._open_outage(now, decision.words)
        elif decision.status in {"delivered", "failed", "held"}:
            self._close_outage()

    def _say(self, delivery: Delivery, decision: Decision) -> None:
        """Log an attempt that did not deliver, in the integration guide's words."""
        of = len(self._settings.retry_schedule) + 1
        number = f"attempt {decision.attempts} of {of}" if decision.counted else "attempt not counted"
        then = {"failed": "FAILED", "held": f"held: {decision.reason}"}.get(decision.status)
        if then is None:
            due = datetime.fromtimestamp(self._clock() + decision.due_in, UTC).isoformat(timespec="seconds")
            then = "next when the CRM is back" if decision.away else f"next at {due}"
        words, name, key = decision.words, delivery.event, delivery.natural_key
        log.warning("%s: %s %s %s, %s, %s", words, name, delivery.id, key, number, then)

    # the handshake, and what is waited for

    def _greet(self) -> None:
        """Learn which contract releases the CRM speaks."""
        health = self._ask_health()
        if health.words == REFUSED and self._settings.when_away == "wait":
            self._open_outage(self._monotonic(), health.words)

    def _ask_health(self) -> Health:
        health = self._transport.health()
        if health.ok:
            self._versions = health.versions
        return health

    def _open_outage(self, now: float, words: str) -> None:
        if self._outage is None:
            self._outage = Outage()
            self._outage.backoff.push(now)
            log.warning("%s: the CRM is away; nothing is sent, and nothing fails, until it is back", words)

    def _close_outage(self) -> None:
        if self._outage is not None:
            self._outage = None
            log.info("the CRM is back")

    def _look_for_crm(self, pool: ThreadPoolExecutor, now: float) -> None:
        """Probe an absent CRM; when it answers, let one event try first, each time of another customer."""
        outage = self._outage
        if outage is None or now < outage.backoff.at or now < self._pace.until:
            return
        outage.backoff.push(now)
        if not self._ask_health().ok:
            return
        trial = self._send_due(pool, 1, outage.last_trial or "")
        if trial:
            outage.last_trial = trial[0].order_key
        elif trial is None:  # there is something to try, and another relay claims at this moment
            outage.backoff.at = now + FIRST_PROBE
        else:
            self._close_outage()

    def _hold(self, waited_for: str, now: float) -> None:
        if waited_for not in self._held:
            self._held[waited_for] = backoff = Backoff()
            backoff.push(now)

    def _look_at_holds(self, now: float) -> None:
        """Try what held events wait for, and let them go when it is cured."""
        if self._outage:
            return
        for waited_for, backoff in list(self._held.items()):
            if now < backoff.at or (self._in_flight and stops_all(waited_for)):
                continue
            backoff.push(now)
            cured, words = self._is_cured(waited_for)
            if cured:
                with self._engine.begin() as connection:
                    at = begin_work(connection, self._clock)
                    count = outbox.release(connection, waited_for, at, "relay", RELEASED)
                if count == RELEASED:
                    backoff.at = now  # the rest at the next turn
                elif is_path(waited_for):
                    # A release stays till the next beat: if it is back by then, we wait longer.
                    del self._held[waited_for]
                log.info("%s: %d held event(s) go on", waited_for, count)
            else:
                log.warning("%s: held events wait for %s", words, waited_for)

    def _is_cured(self, waited_for: str) -> tuple[bool, str]:
        if stops_all(waited_for):
            passed, words = self._transport.probe(waited_for)
            return passed or not self._is_path_spoken(waited_for), words
        if is_path(waited_for) or is_webhook(waited_for):
            return waited_for in WEBHOOKS, "this webhook is not known here"
        health = self._ask_health()
        return health.ok and waited_for in (health.versions or ()), "this release is not spoken yet"

    def _is_path_spoken(self, path: str) -> bool:
        """Say whether a CRM that is well speaks a release which has a path.

        Where not, it is the release that is waited for: the events that go on are held for that.
        """
        health = self._ask_health()
        if not health.ok or health.versions is None:
            return True
        known = (RELEASES.get(version) for version in health.versions)
        return any(
            webhooks is None or path in {webhook.path for webhook in webhooks.values()} for webhooks in known
        )

    # signs of life, erasure, the end

    def _beat(self, now: float) -> None:
        """Show that the relay runs, empty SQLite's log of what was erased, and learn of others' holds."""
        self._next_beat = now + HEARTBEAT
        with self._engine.begin() as connection:
            outbox.see_relay(connection, self._id, *self._process, begin_work(connection, self._clock))
            held = outbox.held_for(connection)
            counts = outbox.counts(connection) if self._watch else None
        if self._watch and counts:
            self._watch(counts)
        self._held = {waited_for: self._held.get(waited_for, Backoff()) for waited_for in held}
        if now >= min(self._busy_until, self._empty_at):
            self._empty_at = now + EMPTY
            empty_log(self._engine, self._clock)

    def _is_drained(self) -> bool:
        """Say whether a drain has nothing left to do, or has waited long enough for the CRM."""
        if self._in_flight or self._unrecorded:
            return False
        with reading(self._engine) as connection:
            counts = outbox.counts(connection)
            moves = outbox.is_any_head(connection)
        if not counts.pending and not counts.held:
            return True
        if moves and not self._outage and not any(map(stops_all, self._held)):
            self._stuck_since = None
            return False
        now = self._monotonic()
        self._stuck_since = self._stuck_since or now
        return now - self._stuck_since > sum(self._settings.retry_schedule)

    def _leave(self) -> Summary:
        """Record what was in flight, and say goodbye."""
        self._unrecorded += [future.result() for future in self._in_flight]
        self._in_flight.clear()
        self._record()
        with self._engine.begin() as connection:
            now = begin_work(connection, self._clock)
            outbox.see_relay(connection, self._id, *self._process, now, running=False)
            counts = outbox.counts(connection)
        empty_log(self._engine, self._clock)
        if self._watch:
            self._watch(counts)
        log.info("relay stopped")
        return Summary(self._delivered, self._failed, counts.held, counts.pending)
