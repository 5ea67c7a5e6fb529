"""What is found out for all who ask: at most so old, once at a time, and a failure is not kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Event

import pytest

from sender.integration import site
from sender.integration.site import Snapshot


class Clock:
    """A clock that a test turns."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(site, "monotonic", clock)
    return clock


def looks() -> Callable[[], int]:
    """Return a function that returns how often it was called."""
    calls = iter(range(1, 1000))
    return lambda: next(calls)


def test_what_is_found_is_believed_for_its_time_and_no_longer(clock: Clock) -> None:
    async def ask() -> list[int]:
        snapshot, found = Snapshot(looks(), 5.0), []
        for seconds in (0.0, 4.9, 0.2, 4.8, 0.1):
            clock.now += seconds
            found.append(await snapshot.get())
        return found

    assert asyncio.run(ask()) == [1, 1, 2, 2, 2]


def test_those_who_come_while_it_is_found_out_get_the_same(clock: Clock) -> None:
    go_on = Event()
    count = looks()

    def look() -> int:
        go_on.wait(10)
        return count()

    async def ask() -> list[int]:
        snapshot = Snapshot(look, 0.0)
        asking = [asyncio.create_task(snapshot.get()) for _ in range(5)]
        await asyncio.sleep(0)
        go_on.set()
        return [*await asyncio.gather(*asking), await snapshot.get()]

    assert asyncio.run(ask()) == [1, 1, 1, 1, 1, 2]


def test_a_failure_is_told_to_who_asked_and_forgotten(clock: Clock) -> None:
    count = looks()

    def look() -> int:
        if (number := count()) == 1:
            raise OSError("away")
        return number

    async def ask() -> int:
        snapshot = Snapshot(look, 5.0)
        with pytest.raises(OSError, match="away"):
            await snapshot.get()
        return await snapshot.get()

    assert asyncio.run(ask()) == 2


def test_one_who_leaves_takes_nothing_from_the_others(clock: Clock) -> None:
    go_on = Event()

    def look() -> int:
        go_on.wait(10)
        return 7

    async def ask() -> int:
        snapshot = Snapshot(look, 5.0)
        leaver, other = asyncio.create_task(snapshot.get()), asyncio.create_task(snapshot.get())
        await asyncio.sleep(0)
        leaver.cancel()
        await asyncio.sleep(0)
        go_on.set()
        return await other

    assert asyncio.run(ask()) == 7
