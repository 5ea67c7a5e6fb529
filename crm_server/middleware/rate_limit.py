"""How often: counted in this process, or in a Redis that several servers share.

The windows are fixed: one number a name, however many requests there are, and the time at which a window
ends is exactly what Retry-After must say. A moving window would remember the time of every request, to
refuse a burst across two windows, which does the CRM no harm.
"""

import asyncio
import importlib
import logging
import math
import time
from collections import Counter as Tally
from dataclasses import dataclass, field
from typing import Any

import limits
from limits.aio.storage import RedisStorage
from limits.errors import ConfigurationError as LimitsError
from starlette.types import ASGIApp, Receive, Scope, Send

from crm_server.errors import ConfigurationError, name_of
from crm_server.metrics import Counter
from crm_server.problems import Problem

REDIS_SECONDS = 0.25
"""How long Redis may take; then it is away."""
AWAY_SECONDS = 5.0
"""How long an absent Redis is left alone before it is asked again."""
TELL_SECONDS = 0.025
"""How long hits far from the limit gather before Redis is told of them."""
NEAR, UNTOLD = 2, 100
"""From a half of the limit on Redis is asked about each hit, and whenever it has not heard of a hundredth."""
FRESH_SECONDS = 0.1
"""How long it is believed what Redis said."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Batch:
    """Hits under one key that go to Redis as one, and what became of them."""

    seconds: int
    most: int
    count: int = 0
    is_awaited: bool = False
    """Whether somebody waits for what Redis says."""
    before: int | None = None
    """How many hits the window had before; None when Redis did not say."""
    wait: int = 0
    """Seconds until the window ends; known when there were too many."""
    done: asyncio.Event = field(default_factory=asyncio.Event)


class SharedCounters:
    """Counters in Redis. While it is away nobody waits for it, and each server counts for itself.

    A command costs more than the rest of a request. So while the limit is far nobody waits for one, and what
    comes meanwhile goes out with the next, as one. Only when half the limit comes within FRESH_SECONDS by way of
    another server may this one let through what Redis has not heard of: a hundredth of the limit.
    """

    def __init__(self, url: str) -> None:
        """Prepare a client; nothing is opened yet. Raises ConfigurationError for what is no Redis URL."""
        try:
            importlib.import_module("redis")
            self._redis = RedisStorage(
                f"async+{url}",
                implementation="redispy",
                key_prefix="revivatech",
                socket_connect_timeout=REDIS_SECONDS,
                socket_timeout=REDIS_SECONDS,
            )
        except ModuleNotFoundError:
            message = "RATE_LIMIT_STORAGE_URL needs a driver: install redis."
            raise ConfigurationError(message) from None
        except (LimitsError, ValueError):
            raise ConfigurationError("RATE_LIMIT_STORAGE_URL: is no Redis URL") from None
        self.away = False
        self._ask_again = 0.0
        self._batches: dict[str, Batch] = {}
        self._heard: dict[str, tuple[float, int]] = {}
        """When Redis last said how many hits each window had, and how many."""
        self._untold: Tally[str] = Tally()
        """Of which Redis has not said that it counted them."""
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def hit(self, key: str, seconds: int, most: int) -> int | None:
        """Count a hit; return 0, or the seconds to wait when there were too many; None while Redis is away."""
        if self.away:
            if time.monotonic() >= self._ask_again and not self._is_busy():
                self._task = asyncio.create_task(self._ask())
            return None
        batch = self._batches.setdefault(key, Batch(seconds, most))
        batch.count += 1
        self._untold[key] += 1
        if self._is_far(key, most):
            self._tell_soon()
            return 0
        place, batch.is_awaited = batch.count, True
        self._tell()
        await batch.done.wait()
        if batch.before is None:
            return None
        return batch.wait if batch.before + place > most else 0

    def _is_far(self, key: str, most: int) -> bool:
        """Say whether the limit is so far that a hit need not wait until it is counted."""
        at, total = self._heard.get(key, (float("-inf"), 0))
        untold = self._untold[key]
        is_fresh = time.monotonic() - at < FRESH_SECONDS
        return is_fresh and UNTOLD * untold <= most and NEAR * (total + untold) <= most

    def _tell_soon(self) -> None:
        self._timer = self._timer or asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if not self._is_busy():
            self._task = asyncio.create_task(self._count())

    async def close(self) -> None:
        """Tell what is not told, and close the connections."""
        while self._is_busy() or self._batches:
            self._tell()
            await asyncio.wait({self._task} if self._task else ())
        client: Any = self._redis.bridge  # redis-py's, which the library types as any client's
        await client.get_connection().aclose()

    def _is_busy(self) -> bool:
        return self._task is not None and not self._task.done()

    async def _count(self) -> None:
        """Have Redis count what is there now, and what somebody waits for meanwhile."""
        for key in list(self._batches):
            await self._count_one(key)
        while awaited := [key for key, batch in self._batches.items() if batch.is_awaited]:
            await self._count_one(awaited[0])
        if self._batches:
            self._tell_soon()

    async def _count_one(self, key: str) -> None:
        batch = self._batches.pop(key)
        try:
            if not self.away:
                await self._count_batch(key, batch)
        except Exception as error:
            self._miss(error)
        finally:
            self._untold[key] -= batch.count
            batch.done.set()

    async def _count_batch(self, key: str, batch: Batch) -> None:
        async with asyncio.timeout(REDIS_SECONDS):
            total = await self._redis.incr(key, batch.seconds, batch.count)
            if total > batch.most:
                ends = await self._redis.get_expiry(key)
                batch.wait = max(1, math.ceil(ends - time.time()))
        self._heard[key], batch.before = (time.monotonic(), total), total - batch.count

    async def _ask(self) -> None:
        """See whether Redis takes writes again."""
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                await self._redis.incr("ask", 1)
        except Exception as error:
            log.debug("Redis is still away: %s", name_of(error))
        else:
            self.away = False
            log.info("Redis is back: the servers share their rate limits again.")
        self._ask_again = time.monotonic() + AWAY_SECONDS

    def _miss(self, error: Exception) -> None:
        self.away, self._ask_again = True, time.monotonic() + AWAY_SECONDS
        log.warning(
            "Redis (RATE_LIMIT_STORAGE_URL) is away: %s. Until it is back this server counts for itself.",
            name_of(error),
        )


class Limit:
    """So many hits in a window of time, by name."""

    def __init__(
        self,
        notation: str,
        what: str,
        shared: SharedCounters | None = None,
        refused: Counter[str] | None = None,
    ) -> None:
        """Prepare; `what` tells its counters from another limit's, and what is `refused` by it."""
        self._refused = refused
        self._limit = limits.parse(notation)
        self._seconds, self._most = self._limit.get_expiry(), self._limit.amount
        self._what, self._shared = what, shared
        self._windows: dict[str, tuple[float, int]] = {}
        self._keys: dict[str, str] = {}

    async def hit(self, name: str) -> int:
        """Count a hit; return 0, or the seconds to wait (1 or more) when there were too many.

        There must be a bounded number of names: their counters stay.
        """
        wait = None
        if self._shared:
            if name not in self._keys:
                self._keys[name] = self._limit.key_for(self._what, name)
            wait = await self._shared.hit(self._keys[name], self._seconds, self._most)
        if wait is None:
            wait = self._hit_here(name)
        if wait and self._refused:
            self._refused.add(self._what)
        return wait

    def _hit_here(self, name: str) -> int:
        # By the monotonic clock: one of `limits` would refuse for a day when the clock is put back by one.
        now = time.monotonic()
        ends, count = self._windows.get(name, (now, 0))
        if ends <= now:
            ends, count = now + self._seconds, 0
        self._windows[name] = (ends, count + 1)
        return math.ceil(ends - now) if count >= self._most else 0


class KeyRateLimit:
    """Limits how often each webhook key is used: `scope["crm.key"]`, which authentication puts there."""

    def __init__(self, app: ASGIApp, *, limit: Limit) -> None:
        """Wrap an app."""
        self.app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or raise the 429."""
        key = scope.get("crm.key")
        if key and (seconds := await self._limit.hit(key)):
            raise too_many("This key is used too often.", seconds)
        await self.app(scope, receive, send)


def too_many(what: str, seconds: int, cure: str = "Wait as long as Retry-After says.") -> Problem:
    """Return the 429; a browser shows nobody its header, so that a page needs another `cure`."""
    return Problem("too-many-requests", f"{what} {cure}", headers={"retry-after": str(seconds)})
