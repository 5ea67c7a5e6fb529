"""The committing thread by itself: what it does with a queue that is full, clients that leave, and bugs."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, text

from crm_server.database import Database
from crm_server.errors import Unavailable
from crm_server.group_commit import GroupCommit


class Ledger:
    """Writes numbers, when it is let; some numbers are bad."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[int]] = []

    def write(self, connection: Connection, numbers: Sequence[int]) -> list[int]:
        self.entered.set()
        assert self.gate.wait(10)
        self.batches.append(list(numbers))
        if 13 in numbers:
            raise ValueError("13 is a bug of ours")
        if 666 in numbers:
            # The foreign key is looked at when the transaction commits.
            connection.execute(text("PRAGMA defer_foreign_keys = ON"))
            connection.execute(text("INSERT INTO rejection_reasons VALUES ('nothing', 'x')"))
        return [number * 2 for number in numbers]


Commits = GroupCommit[int, int]


def run(
    database: Database, test: Callable[[Ledger, Commits], Coroutine[Any, Any, None]], most: int = 100
) -> Ledger:
    ledger = Ledger()

    async def main() -> None:
        commits: Commits = GroupCommit(database, ledger.write, most_waiting=most)
        commits.start()
        try:
            await test(ledger, commits)
        finally:
            ledger.gate.set()
            await commits.close()
        assert not commits.alive

    asyncio.run(main())
    return ledger


async def occupy(ledger: Ledger, commits: Commits) -> "asyncio.Task[int]":
    """Submit a first number, and wait until its transaction is open: what comes then gathers behind it."""
    first = asyncio.create_task(commits.submit(1))
    while not ledger.entered.is_set():
        await asyncio.sleep(0.001)
    return first


def test_what_waits_is_written_in_one_transaction(database: Database) -> None:
    async def test(ledger: Ledger, commits: Commits) -> None:
        first = await occupy(ledger, commits)
        others = [asyncio.create_task(commits.submit(number)) for number in (2, 3, 4)]
        await asyncio.sleep(0)
        ledger.gate.set()
        assert await asyncio.gather(first, *others) == [2, 4, 6, 8]

    assert run(database, test).batches == [[1], [2, 3, 4]]


def test_a_full_queue_refuses_at_once_and_the_waiting_are_answered(database: Database) -> None:
    async def test(ledger: Ledger, commits: Commits) -> None:
        first = await occupy(ledger, commits)
        second = asyncio.create_task(commits.submit(2))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await commits.submit(3)
        ledger.gate.set()
        assert (await first, await second) == (2, 4)
        assert await commits.submit(4) == 8

    run(database, test, most=2)


def test_who_has_left_is_not_written_and_the_others_are(database: Database) -> None:
    async def test(ledger: Ledger, commits: Commits) -> None:
        first = await occupy(ledger, commits)
        others = [asyncio.create_task(commits.submit(number)) for number in (2, 3, 4)]
        await asyncio.sleep(0)
        others[1].cancel()
        await asyncio.sleep(0)
        ledger.gate.set()
        assert (await first, await others[0], await others[2]) == (2, 4, 8)

    assert run(database, test).batches == [[1], [2, 4]]


def test_a_bug_with_one_of_them_is_that_ones_alone_and_shows_no_value(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(ledger: Ledger, commits: Commits) -> None:
        first = await occupy(ledger, commits)
        others = [asyncio.create_task(commits.submit(number)) for number in (2, 13, 4)]
        await asyncio.sleep(0)
        ledger.gate.set()
        outcomes = await asyncio.gather(first, *others, return_exceptions=True)
        assert [outcomes[i] for i in (0, 1, 3)] == [2, 4, 8]
        assert isinstance(outcomes[2], ValueError)
        assert not commits.state.failed

    assert run(database, test).batches == [[1], [2, 13, 4], [2], [13], [4]]
    assert "ValueError" in caplog.text
    assert "13 is a bug" not in caplog.text


def test_when_the_outcome_of_a_commit_is_unknown_all_of_it_are_told_so(database: Database) -> None:
    async def test(ledger: Ledger, commits: Commits) -> None:
        first = await occupy(ledger, commits)
        others = [asyncio.create_task(commits.submit(number)) for number in (2, 666, 4)]
        await asyncio.sleep(0)
        ledger.gate.set()
        assert await first == 2
        outcomes = await asyncio.gather(*others, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
        assert commits.state.failed
        assert await commits.submit(5) == 10
        assert not commits.state.failed

    assert run(database, test).batches == [[1], [2, 666, 4], [5]]


def test_a_job_has_a_transaction_of_its_own(database: Database) -> None:
    async def test(ledger: Ledger, commits: Commits) -> None:
        ledger.gate.set()
        with pytest.raises(ZeroDivisionError):
            await commits.run(lambda _: 1 / 0)
        assert await commits.run(lambda connection: connection.execute(text("SELECT 7")).scalar()) == 7
        assert await commits.submit(2) == 4

    run(database, test)


def test_the_end_waits_for_what_is_being_written_and_for_no_more(database: Database) -> None:
    async def test(ledger: Ledger, commits: Commits) -> None:
        first = await occupy(ledger, commits)
        ended = asyncio.create_task(commits.close())
        await asyncio.sleep(0.01)
        assert not ended.done()
        ledger.gate.set()
        assert await first == 2
        await ended
        assert not commits.alive

    run(database, test)


def test_after_the_end_nothing_is_taken(database: Database) -> None:
    kept: list[Commits] = []

    async def test(ledger: Ledger, commits: Commits) -> None:
        kept.append(commits)
        ledger.gate.set()
        assert await commits.submit(1) == 2

    run(database, test)

    async def late() -> None:
        with pytest.raises(Unavailable):
            await kept[0].submit(2)

    asyncio.run(late())
