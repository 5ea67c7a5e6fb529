"""Runs a program of ours and strikes it at a chosen point: SIGKILL as a power cut, SIGSTOP as a long pause.

    python -m tests.faults.dying [OPTIONS] POINT NUMBER PROGRAM ARGUMENTS…

A point is one of these; the program is struck when it comes there for the NUMBER-th time:

    before MODULE:FUNCTION    a function is called
    after MODULE:FUNCTION     a function has done its work, and its caller does not know yet
    statement WORDS           an SQL statement that starts with these words is about to run
"""

from __future__ import annotations

import argparse
import inspect
import os
import runpy
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from importlib import import_module
from typing import Any

from crm_server import group_commit


class Fate:
    """Counts how often the point was passed, in whichever thread, and strikes."""

    def __init__(self, number: int, blow: signal.Signals = signal.SIGKILL, lingers: float = 0.0) -> None:
        self._number = number
        self._blow = blow
        self._lingers = lingers
        self._passed = 0
        self._lock = threading.Lock()

    def comes_near(self) -> None:
        """Pass the point."""
        with self._lock:
            self._passed += 1
            if self._passed == self._number:
                time.sleep(self._lingers)
                os.kill(os.getpid(), self._blow)


def lay(point: str, fate: Fate) -> None:
    """Put a fate in the way of a program that will run in this process."""
    kind, _, what = point.partition(" ")
    if kind in {"before", "after"}:
        wrap_function(what, fate, after=kind == "after")
    else:
        watch_statements(what, fate)


def wrap_function(name: str, fate: Fate, *, after: bool) -> None:
    """Replace a function, or a class's method, by one that passes the point."""
    module, _, path = name.partition(":")
    *owners, attribute = path.split(".")
    owner: Any = import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    function: Callable[..., Any] = getattr(owner, attribute)

    async def wait_and_die(outcome: Awaitable[Any]) -> Any:
        waited_for = await outcome
        fate.comes_near()
        return waited_for

    @wraps(function)
    def mortal(*args: Any, **kwargs: Any) -> Any:
        if not after:
            fate.comes_near()
            return function(*args, **kwargs)
        outcome = function(*args, **kwargs)
        if inspect.iscoroutine(outcome):
            return wait_and_die(outcome)
        fate.comes_near()
        return outcome

    setattr(owner, attribute, mortal)


def watch_statements(words: str, fate: Fate) -> None:
    """Have every SQLite connection of this process tell of each statement before it runs."""

    def look(statement: str) -> None:
        if statement.lstrip().startswith(words):
            fate.comes_near()

    def connect(connect: Callable[..., sqlite3.Connection], *args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(look)
        return connection

    for module in (sqlite3, sqlite3.dbapi2):  # the server opens by the first, SQLAlchemy by the other
        module.connect = partial(connect, module.connect)  # type: ignore[attr-defined]


def main(argv: list[str]) -> None:
    """Run a program until its fate."""
    parser = argparse.ArgumentParser(prog="dying", description="Run a program and strike it at a point.")
    parser.add_argument("--signal", choices=["KILL", "STOP"], default="KILL")
    parser.add_argument("--lingers", type=float, default=0.0, help="its other threads go on for so long")
    parser.add_argument("--gathers", type=float, help="the server's committer waits so long for a batch")
    parser.add_argument("point")
    parser.add_argument("number", type=int)
    parser.add_argument("program")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args(argv)
    lay(options.point, Fate(options.number, signal.Signals[f"SIG{options.signal}"], options.lingers))
    if options.gathers is not None:
        group_commit.PAUSE_SECONDS = options.gathers
    sys.argv = [options.program, *options.arguments]
    runpy.run_module(options.program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
