"""One thread that writes: it gathers what waits, commits it as one transaction, and answers each.

A commit costs one wait for the disk whether it holds one row or fifty. Nobody is answered before the
commit that holds their row, and everybody is answered: at worst with Unavailable.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from sqlalchemy import Connection

from crm_server.database import BUSY_SECONDS, Database, is_database_error
from crm_server.errors import Refused, Unavailable, describe
from crm_server.metrics import Metrics
from crm_server.tracing import Tracing

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Phase = Literal["begin", "write", "commit"]

MOST_WAITING = 1000
"""How many requests may wait for the commit."""
LARGEST_BATCH = 200
"""How many rows one transaction holds at most, so that a batch stays a matter of milliseconds."""
PAUSE_SECONDS = 0.001
"""Between write transactions, so that another process that waits for the lock gets its turn."""
PATIENCE_SECONDS = 0.002
"""How long one waits for the next of those who were just answered."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something to be written, and who waits for its outcome."""

    future: "asyncio.Future[Any]"
    item: Any = None
    job: Callable[[Connection], Any] | None = None
    """Runs in a transaction of its own."""
    link: Any = None
    """To the trace of who waits."""


@dataclass(slots=True)
class State:
    """What the last transactions showed; read by health."""

    succeeded_at: float = float("-inf")
    """By the monotonic clock."""
    grouped_at: float = float("-inf")
    """When items were last written."""
    failed: bool = False
    """Whether the last one did."""


class GroupCommit(Generic[Item, Outcome]):
    """Writes items in groups, by `write`, which returns an outcome for each."""

    def __init__(
        self,
        database: Database,
        write: Callable[[Connection, Sequence[Item]], Sequence[Outcome]],
        *,
        most_waiting: int = MOST_WAITING,
        metrics: Metrics | None = None,
    ) -> None:
        """Prepare; `start` starts the thread. More than `most_waiting` at once are refused."""
        self._most_waiting = most_waiting
        self._metrics = metrics or Metrics()
        self._tracing = Tracing()
        self.state = State()
        self._database = database
        self._write = write
        self._gathered: list[Waiting] = []
        self._batches: queue.SimpleQueue[list[Waiting] | None] = queue.SimpleQueue()
        self._is_free = True
        self._expected = 1
        """Of how many the next batch will be, if those who were answered ask again."""
        self._patience: asyncio.TimerHandle | None = None
        self.waiting = 0
        """How many wait for a commit now."""
        self._ended = float("-inf")
        self._connection: Connection | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, made here: of one that was made before a fork Python thinks that it has ended."""
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Write what waits, then end the thread."""
        while self._gathered and self.alive:
            await asyncio.sleep(PAUSE_SECONDS)
        self._batches.put(None)
        if self._thread:
            await asyncio.to_thread(self._thread.join, 2 * BUSY_SECONDS)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    async def submit(self, item: Item) -> Outcome:
        """Write an item with others in one transaction; return its outcome after the commit."""
        future = asyncio.get_running_loop().create_future()
        waiting = Waiting(future, item, link=self._tracing.link())
        outcome: Outcome = await self._wait(waiting, BUSY_SECONDS)
        return outcome

    async def run(self, job: Callable[[Connection], Any], seconds: float = BUSY_SECONDS) -> Any:
        """Run a job in a write transaction of its own; return its outcome after the commit."""
        future = asyncio.get_running_loop().create_future()
        return await self._wait(Waiting(future, job=job, link=self._tracing.link()), seconds)

    async def _wait(self, waiting: Waiting, seconds: float) -> Any:
        if self.waiting >= self._most_waiting or not self.alive:
            raise Unavailable("Too many requests wait for the database.")
        self.waiting += 1
        self._gathered.append(waiting)
        loop = waiting.future.get_loop()
        if self._is_free:
            self._is_free = False
            loop.call_soon(self._gather)
        elif self._patience and len(self._gathered) >= self._expected:
            self._patience.cancel()
            self._patience = None  # not again, before it has gathered
            loop.call_soon(self._gather, len(self._gathered))
        # A timer by hand: asyncio.timeout costs several times as much, on every request.
        timer = loop.call_later(seconds, _give_up, waiting.future)
        try:
            return await waiting.future
        finally:
            timer.cancel()
            self.waiting -= 1

    def _gather(self, before: int = 0, *, has_waited: bool = False) -> None:
        """Give the thread what has gathered, once the loop has gone round without another.

        Waits a moment for those who were just answered, as long as they keep coming: clients that ask one thing
        after another ask again at once, and whoever is just late for one batch waits for all of the next.
        """
        loop, count = asyncio.get_running_loop(), len(self._gathered)
        self._patience = None
        if before < count < LARGEST_BATCH:
            loop.call_soon(self._gather, count)
        elif 0 < count < self._expected and not has_waited:
            self._patience = loop.call_later(PATIENCE_SECONDS, partial(self._gather, count, has_waited=True))
        elif count:
            batch, self._gathered = self._gathered[:LARGEST_BATCH], self._gathered[LARGEST_BATCH:]
            self._batches.put(batch)
        else:
            self._is_free = True

    def _gather_next(self, count: int) -> None:
        """Go on after a batch of so many."""
        self._expected = min(count + len(self._gathered), LARGEST_BATCH)
        self._gather()

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            # Whoever has gone, or has waited too long, is not written: the sender will ask again.
            wanted = [waiting for waiting in batch if not waiting.future.done()]
            try:
                self._commit(wanted)
            except Exception as error:
                # A bug; but this thread lives on, and nobody is left waiting.
                log.error("A bug: %s", describe(error))
                _answer(wanted, [Unavailable("The CRM failed.")] * len(wanted))
            batch[0].future.get_loop().call_soon_threadsafe(self._gather_next, len(batch))
        if self._connection is not None:
            self._connection.close()

    def _commit(self, wanted: list[Waiting]) -> None:
        self._commit_group([waiting for waiting in wanted if waiting.job is None])
        for waiting in wanted:
            if waiting.job is not None:
                self._commit_job(waiting, waiting.job)

    def _pause(self) -> None:
        """Wait until the last transaction is a moment past."""
        time.sleep(max(0.0, self._ended + PAUSE_SECONDS - time.monotonic()))

    def _commit_group(self, group: list[Waiting]) -> None:
        if not group:
            return
        items = [waiting.item for waiting in group]
        began = time.perf_counter()
        with self._tracing.transaction("commit", [waiting.link for waiting in group]):
            outcomes, phase = self._transact(lambda connection: self._write(connection, items), len(group))
        self.state.grouped_at = self._ended
        if phase is None:
            self._metrics.commit_seconds.observe(time.perf_counter() - began)
            self._metrics.batch_sizes.observe(len(group))
        if phase == "write" and len(group) > 1:
            # One of them spoils it for all: each in its own transaction, then.
            for waiting in group:
                if not waiting.future.done():
                    self._commit_group([waiting])
        else:
            _answer(group, outcomes)

    def _commit_job(self, waiting: Waiting, job: Callable[[Connection], Any]) -> None:
        with self._tracing.transaction("write", [waiting.link]):
            outcomes, _ = self._transact(lambda connection: [job(connection)], 1)
        _answer([waiting], outcomes)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """Give a connection in a write transaction; it is kept for the next one, unless this one fails."""
        connection, self._connection = self._connection or self._database.connect_writer(), None
        try:
            with self._database.writing_on(connection):
                yield connection
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _transact(
        self, work: Callable[[Connection], Sequence[Any]], count: int
    ) -> tuple[Sequence[Any], Phase | None]:
        """Run `work` in a transaction; return its outcomes, or errors and the phase in which it failed."""
        phase: Phase = "begin"
        self._pause()
        try:
            with self._writing() as connection:
                phase = "write"
                outcomes = work(connection)
                phase = "commit"
        except Refused as refusal:
            return [refusal] * count, phase
        except Exception as error:
            self.state.failed = phase != "write" or is_database_error(error)
            self._metrics.commit_failures.add(())
            log.error("A transaction of %d failed at its %s: %s", count, phase, describe(error))
            failure = Unavailable("The database failed.") if is_database_error(error) else error
            return [failure] * count, phase
        finally:
            self._ended = time.monotonic()
        self.state.succeeded_at, self.state.failed = time.monotonic(), False
        return outcomes, None


def _give_up(future: "asyncio.Future[Any]") -> None:
    if not future.done():
        future.set_exception(Unavailable("The database did not answer in time."))


def _answer(group: list[Waiting], outcomes: Sequence[Any]) -> None:
    """Hand every outcome to who waits for it, with one call into the loop."""
    if group:
        group[0].future.get_loop().call_soon_threadsafe(_resolve, group, outcomes)


def _resolve(group: list[Waiting], outcomes: Sequence[Any]) -> None:
    for waiting, outcome in zip(group, outcomes, strict=True):
        if waiting.future.done():
            continue
        if isinstance(outcome, Exception):
            waiting.future.set_exception(outcome)
        else:
            waiting.future.set_result(outcome)
