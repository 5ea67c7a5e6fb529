"""One thread that writes: it gathers what waits, commits it as one transaction, and answers each.

A commit costs one wait for the disk whether it holds one row or fifty. Nobody is answered before the
commit that holds their row, and everybody is answered: at worst with Unavailable.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
PATIENCE_SECONDS = 0.0005
"""How long the next of those who were just answered is waited for."""

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
        self._gathering = threading.Condition()
        self._wanted = 0
        """So many wake the thread; 0 when it is awake."""
        self._closed = False
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
        with self._gathering:
            self._closed = True
            self._gathering.notify()
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
        with self._gathering:
            self._gathered.append(waiting)
            if len(self._gathered) == self._wanted:
                self._gathering.notify()
        # A timer by hand: asyncio.timeout costs several times as much, on every request.
        timer = waiting.future.get_loop().call_later(seconds, _give_up, waiting.future)
        try:
            return await waiting.future
        finally:
            timer.cancel()
            self.waiting -= 1

    def _run(self) -> None:
        enough = 1
        while batch := self._next_batch(enough):
            # Whoever has gone, or has waited too long, is not written: the sender will ask again.
            wanted = [waiting for waiting in batch if not waiting.future.done()]
            try:
                self._commit(wanted)
            except Exception as error:
                # A bug; but this thread lives on, and nobody is left waiting.
                log.error("A bug: %s", describe(error))
                _answer(wanted, [Unavailable("The CRM failed.")] * len(wanted))
            # If those who were answered ask again.
            enough = min(len(batch) + len(self._gathered), LARGEST_BATCH)
        if self._connection is not None:
            self._connection.close()

    def _next_batch(self, enough: int) -> list[Waiting]:
        """Wait for somebody, and for others as long as they keep coming, until they are enough; none is the end.

        Clients that ask one thing after another ask again as soon as they are answered, and whoever is just late
        for one batch waits for all of the next.
        """
        with self._gathering:
            while not (self._gathered or self._closed):
                self._sleep(1)
            count = 0
            while count < len(self._gathered) < enough:
                count = len(self._gathered)
                self._sleep(enough, PATIENCE_SECONDS)
            batch, self._gathered = self._gathered[:LARGEST_BATCH], self._gathered[LARGEST_BATCH:]
        return batch

    def _sleep(self, wanted: int, seconds: float | None = None) -> None:
        self._wanted = wanted
        self._gathering.wait(seconds)
        self._wanted = 0

    def _commit(self, wanted: list[Waiting]) -> None:
        self._commit_group([waiting for waiting in wanted if waiting.job is None])
        for waiting in wanted:
            if waiting.job is not None:
                self._commit_job(waiting, waiting.job)

    def _pause(self) -> None:
        """Wait until the last transaction is a moment past."""
        if (seconds := self._ended + PAUSE_SECONDS - time.monotonic()) > 0:
            time.sleep(seconds)  # not for nothing: each time the interpreter must be got back from the loop

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
