"""What the parts of this server share: the settings, the outbox, what is known of the whole, and failures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from time import monotonic
from typing import Any, Generic, TypeVar

from sqlalchemy import Engine

from sender.integration.keys import Failures
from sender.receipts import TOO_BUSY, with_decisions
from sender.settings import SenderSettings
from sender.status import status_of, test_integration

FRESH_SECONDS = 5.0
"""How long what was found out is believed: who asks more often costs outbox and CRM nothing."""

QUESTIONS = 4
"""How many ask the CRM at once what became of events."""

Found = TypeVar("Found")


class Snapshot(Generic[Found]):
    """What a function finds out, in a thread: for all who ask at once, and for some time after."""

    def __init__(self, look: Callable[[], Found], fresh_for: float = FRESH_SECONDS) -> None:
        """Name the function, and for how many seconds after its start what it found is believed."""
        self._look, self._fresh_for = look, fresh_for
        self._looking: asyncio.Task[Found] | None = None
        self._until = 0.0

    async def get(self) -> Found:
        """Return what is found; raise what the function raises, which is believed no longer than it runs."""
        looking = self._looking
        if looking is None or (looking.done() and (monotonic() >= self._until or looking.exception())):
            self._until = monotonic() + self._fresh_for
            looking = self._looking = asyncio.create_task(asyncio.to_thread(self._look))
        return await asyncio.shield(looking)


class Questions:
    """Asks the CRM what became of delivered events, in a thread; a few at a time, for the outbox needs threads, too."""

    def __init__(self, settings: SenderSettings) -> None:
        """Take where the CRM is."""
        self._settings = settings
        self._turns = asyncio.Semaphore(QUESTIONS)

    async def ask(self, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return events with what became of them, as `with_decisions` does; at once when others ask already."""
        if self._turns.locked():
            busy = asdict(TOO_BUSY)
            return [
                {**event, "decided": busy if event["status"] == "delivered" else None} for event in events
            ]
        async with self._turns:
            return await asyncio.to_thread(with_decisions, self._settings, events)


class Site:
    """One website's side of the link."""

    def __init__(self, settings: SenderSettings, engine: Engine) -> None:
        """Take what everything is made of; nothing is asked yet."""
        self.settings, self.engine = settings, engine
        self.failures = Failures()
        self.questions = Questions(settings)
        self.status: Snapshot[dict[str, Any]] = Snapshot(partial(status_of, settings, engine))
        """What `crm-sender status` says."""
        self.test: Snapshot[dict[str, Any]] = Snapshot(partial(test_integration, settings), 0.0)
        """What `crm-sender test` says: one test at a time, whoever asks."""
