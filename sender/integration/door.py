"""The outbox's own door: the webhooks' contract, and behind it the outbox instead of the CRM.

Who cannot write the event in the booking's transaction (a Next.js site, a shell script) sends it here. It
is durable before the answer, which says `queued`: that it is in the outbox, and not yet in the CRM.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection
from starlette.types import Scope

from generated.operations import CURRENT, RELEASES, WEBHOOKS
from sender import outbox
from sender.database import PAUSE, begin_work, reading
from sender.deliveries import described
from sender.errors import Fault
from sender.events import TEST_KEY, Event, event_from, faults_of
from sender.integration.contract import Answer, Handler, operation_id, read_json, refused
from sender.integration.problems import Problem, faulty, unavailable
from sender.integration.site import Site, Snapshot
from sender.transport import USER_AGENT

WAIT_SECONDS = 4.0
"""How long an event waits for its turn to be written: less than an attempt may take."""
AT_ONCE = {"sqlite": 1, "postgresql": 8}
"""How many transactions write at once: SQLite has one writer, and bookings must get their turn."""
HEALTHY_SECONDS = 1.0
"""How long the last look at the outbox is believed."""
BEFORE_THE_CRM: Mapping[str, str] = {
    "pending": "queued", "held": "queued", "failed": "failed", "closed": "failed", "erased": "failed",
}  # fmt: skip
"""What a receipt says of an event that the CRM does not have, by its state."""
TRACEPARENT = re.compile("00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, as far as it is known today."""


class EventRules:
    """Makes the body an event, by the release that it names; Connexion's `body` validator."""

    def validate(self, scope: Scope, faults: list[Fault]) -> None:
        """Put the event into `scope["link.event"]`; raise 400 with every fault, the headers' first.

        A body whose release is not known, or has no such webhook, is not judged.
        """
        headers: Mapping[str, str] = scope["link.headers"]
        release, name = headers.get("webhook-contract", CURRENT), str(operation_id(scope))
        has_it = name in RELEASES.get(release, {})
        known = has_it and all(fault.pointer != "#webhook-contract" for fault in faults)
        if known:
            text, body = read_json(scope["link.body"], RELEASES[release][name], faults)
            if found := faults_of(name, text, body, release):
                raise refused(faults, found, "invalid-event")
            if not faults:
                scope["link.event"] = event_from(
                    name,
                    text,
                    body,
                    contract=release,
                    event_id=headers.get("webhook-id"),
                    traceparent=traceparent(scope),
                )
        if faults:
            raise faulty("malformed-request", faults)
        if not known:
            raise Problem(
                "unsupported-contract-version",
                "This outbox does not take this webhook by the release that webhook-contract names.",
                versions=[each for each, webhooks in RELEASES.items() if name in webhooks],
            )


def traceparent(scope: Scope) -> str | None:
    """Return the trace that a request belongs to, where it says so in a form that is known."""
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"]
    return given[0] if len(given) == 1 and TRACEPARENT.fullmatch(given[0]) else None


class Door:
    """Writes events that come over HTTP to the outbox."""

    def __init__(self, site: Site) -> None:
        """Take the outbox; nothing is opened yet."""
        self._engine, self._questions = site.engine, site.questions
        self._turns = asyncio.Semaphore(AT_ONCE[site.engine.dialect.name])
        self._health = Snapshot(self._try_to_write, HEALTHY_SECONDS)

    def operations(self) -> Mapping[str, Handler]:
        """Return the contract's operations, by operationId."""
        return {**dict.fromkeys(WEBHOOKS, self.receive), "receipt": self.receipt, "health": self.health}

    async def receive(self, scope: Scope) -> Answer:
        """Put a valid event into the outbox, once."""
        event: Event = scope["link.event"]
        if comes_from_relay(scope):
            raise delivery_loop()
        if scope["link.headers"].get("webhook-test"):
            await asyncio.to_thread(self._judge, event)
            return Answer(200, {"status": "test_ok"})
        if event.natural_key == TEST_KEY:
            detail = "This natural key is for tests: send it with 'webhook-test: true'."
            raise Problem("reserved-natural-key", detail)
        first_id = await self._take_turn(event)
        return Answer(
            202,
            {
                "id": first_id or event.id,
                "status": "queued",
                "duplicate": first_id is not None,
                "natural_key": event.natural_key,
                "digest": event.digest,
            },
        )

    async def _take_turn(self, event: Event) -> str | None:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            raise unavailable() from None
        try:
            return await asyncio.to_thread(self._write, event)
        finally:
            self._turns.release()

    def _write(self, event: Event) -> str | None:
        """Write an event, unless it is there: then return its first id. Raises the 409."""
        with self._engine.begin() as connection:
            now = begin_work(connection, time.time)
            first_id = first_id_of(connection, event)
            if first_id is None:
                if outbox.add(connection, event, now):
                    outbox.note(connection, [event.id], now, "door", outbox.ACCEPTED)
                else:  # it came at this very moment
                    first_id = first_id_of(connection, event)
        time.sleep(PAUSE)
        return first_id

    def _judge(self, event: Event) -> None:
        """Raise the 409 that an event would get."""
        with reading(self._engine) as connection:
            first_id_of(connection, event)

    async def receipt(self, scope: Scope) -> Answer:
        """Tell what became of an event, by the id of its first receipt: the CRM's word where that can be had."""
        event_id = scope["link.path"]["id"]
        found = await asyncio.to_thread(self._look, event_id)
        if found is None:
            raise Problem("unknown-receipt", "The outbox has given no receipt with this id.")
        [event] = await self._questions.ask([found])
        told = {
            "id": event["id"],
            "event": event["event"],
            "status": BEFORE_THE_CRM.get(event["status"], event["status"]),
            "received_at": event["enqueued_at"].replace("+00:00", "Z"),
        }
        decided = event["decided"] or {}
        if decided.get("status"):
            told["status"] = decided["status"]
        if decided.get("at"):
            told["decided_at"] = decided["at"]
        return Answer(200, told)

    def _look(self, event_id: str) -> dict[str, Any] | None:
        with reading(self._engine) as connection:
            row = outbox.one(connection, event_id)
            return described(row) | {"decided": None} if row else None

    async def health(self, _: Scope) -> Answer:
        """Tell whether an event could be stored now, and which contract releases we know."""
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        known: dict[str, Any] = {"time": now, "contract": {"versions": list(RELEASES)}}
        try:
            await self._health.get()
        except Exception:  # whatever it is, nothing could be stored
            raise unavailable(database="unavailable", **known) from None
        return Answer(200, {"status": "ok", "database": "ok", **known})

    def _try_to_write(self) -> None:
        with self._engine.begin() as connection:
            begin_work(connection, time.time)
            outbox.try_to_write(connection)


def first_id_of(connection: Connection, event: Event) -> str | None:
    """Return the id under which the same event is in the outbox already, None where it is not.

    Raise the 409 where something else is there under its id or its natural key, and where its id is one that
    the outbox itself gave: then a relay sends the outbox its own event.
    """
    known: Sequence[Any] = outbox.known(connection, event)
    for row in known:
        if row.id == event.id and not row.was_accepted:
            raise delivery_loop()
        if (row.event, row.natural_key) != (event.name, event.natural_key):
            raise conflict("webhook-id-conflict", "This webhook-id belongs to another event.", row)
    for row in known:
        if row.status == "erased":
            detail = "What the outbox had under this natural key was erased, and nothing more is sent of it."
            raise conflict("erased", detail, row)
        if row.digest != event.digest:
            raise conflict("conflict", "The outbox has other content under this natural key.", row)
        return str(row.id)
    return None


def conflict(type_: str, detail: str, row: Any) -> Problem:
    """Return the 409 that points to what is there."""
    return Problem(type_, detail, existing={"id": row.id, "event": row.event})


def delivery_loop() -> Problem:
    """Return the 409 by which a relay holds its events."""
    detail = "This is the outbox's own door: a relay must send to the CRM. Mend CRM_WEBHOOK_URL."
    return Problem("delivery-loop", detail)


def comes_from_relay(scope: Scope) -> bool:
    """Tell whether a relay of ours asks: `queued` is no receipt to it, whatever it sends here."""
    agents = [value for name, value in scope["headers"] if name == b"user-agent"]
    return any(agent.startswith(USER_AGENT.encode()) for agent in agents)
