"""Servers for the benchmarks: started on the first core, so that the load has the second."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

KEY = "a-key-of-the-benchmarks-0123456789"
ROOT = Path(__file__).resolve().parent.parent.parent
SERVER_CORE, LOAD_CORE = 0, (os.cpu_count() or 1) - 1


def free_port() -> int:
    """Return a port of the loopback interface on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(**over: str) -> dict[str, str]:
    """Return this environment without our settings, and with `over`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CRM_", "WEBHOOK_"))}
    ours = {
        "PYTHONPATH": str(ROOT),
        "BENCH_KEY": KEY,
        "WEBHOOK_API_KEY": KEY,
        "CRM_API_KEY": KEY,
        "WEBHOOK_RATE_LIMIT": "1000000/second",  # counted, and never reached
    }
    return kept | ours | over


@contextmanager
def running(command: list[str], folder: Path, env: dict[str, str], port: int) -> Iterator[int]:
    """Run a server on the first core for the block, from when it answers; yield its port."""
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=env,
            stdout=log,
            stderr=log,
        )
    os.sched_setaffinity(process.pid, {SERVER_CORE})
    try:
        wait_for(port, process, folder / "server.log")
        yield port
    finally:
        process.terminate()
        process.wait(30)


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server answers."""
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"it ended:\n{log.read_text()}")
        try:
            httpx.get(f"http://127.0.0.1:{port}/webhooks/health", timeout=5)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"it did not start:\n{log.read_text()}")


@contextmanager
def our_server(
    folder: Path,
    database: str = "sqlite:///var/crm.sqlite3",
    *,
    staff_port: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Run our CRM server on a database, which is made if it is not there; its staff side too if it has a port."""
    env = environment(CRM_DATABASE_URL=database, **(settings or {}))
    crm_server(folder, database, "migrate")
    port = free_port()
    part = ["--frontend-port", str(staff_port)] if staff_port else ["--only", "webhooks"]
    with running(["crm_server", "serve", "--port", str(port), *part], folder, env, port):
        yield port


def crm_server(folder: Path, database: str, *command: str, stdin: str | None = None) -> str:
    """Run a command of the CRM on a database; return what it prints."""
    return subprocess.run(
        [sys.executable, "-m", "crm_server", *command],
        cwd=folder,
        env=environment(CRM_DATABASE_URL=database),
        check=True,
        stdout=subprocess.PIPE,
        input=stdin,
        text=True,
    ).stdout


@contextmanager
def peer(name: str, folder: Path, database: str | None = None) -> Iterator[int]:
    """Run a peer under uvicorn, as fast as it goes."""
    port = free_port()
    env = environment(BENCH_DATABASE_URL=database or f"sqlite+aiosqlite:///{folder}/peer.sqlite3")
    app = f"scripts.bench.peers.{name}:app"
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error"]
    with running(["uvicorn", app, "--port", str(port), *options], folder, env, port):
        yield port
