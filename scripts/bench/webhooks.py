"""Durable webhooks a second, and how long one waits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from scripts.bench.processes import KEY, LOAD_CORE, environment, our_server, peer
from scripts.bench.report import Measurement

Server = Callable[[Path], AbstractContextManager[int]]

SERVERS: dict[str, Server] = {
    "ours": our_server,
    "by hand (FastAPI + SQLAlchemy)": partial(peer, "by_hand"),
    "Connexion as it comes, no database": partial(peer, "stock_connexion"),
    "ceiling (parses the model only)": partial(peer, "ceiling"),
}


def measure(rounds: int, seconds: float) -> list[Measurement]:
    """Measure every server in turn, round by round, at 8 and 32 connections."""
    found = []
    for number in range(rounds):
        for connections in (8, 32):
            for name, server in SERVERS.items():
                with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as port:
                    run_load(port, connections, 0.5)
                    result = run_load(port, connections, seconds)
                for figure, value in result.items():
                    found.append(
                        Measurement(f"webhooks, {connections} connections", name, figure, value, number)
                    )
    return found


def run_load(port: int, connections: int, seconds: float, *more: str) -> dict[str, float]:
    """Run the load in a process of its own, on the other core; return what it measured."""
    with loading(port, connections, seconds, *more) as process:
        printed, _ = process.communicate()
    if process.returncode:
        raise RuntimeError("the load failed; see above")
    result: dict[str, float] = json.loads(printed)
    return result


def loading(port: int, connections: int, seconds: float, *more: str) -> subprocess.Popen[str]:
    """Start the load."""
    command = [sys.executable, "-m", "scripts.bench.load", str(port), "--key", KEY, *more]
    command += ["--connections", str(connections), "--seconds", str(seconds)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    os.sched_setaffinity(process.pid, {LOAD_CORE})
    return process
