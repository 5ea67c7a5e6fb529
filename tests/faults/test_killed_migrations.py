"""A migration that is killed at any of its statements is done by the next one, and nothing runs until then."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

import crm_server.cli
import sender.cli
from tests.faults.dying import Fate, lay
from tests.servers import KEY, clean_environment

KILL_EVERY = int(os.environ.get("KILL_EVERY", "10"))
"""Every so manieth statement is one to die at; `make faults` takes each."""

MAINS: dict[str, Callable[[list[str]], int]] = {"crm_server": crm_server.cli.main, "sender": sender.cli.main}


@dataclass(frozen=True)
class Side:
    """One of the two programs: how it works on its database, and what it says when that is not migrated."""

    program: str
    work: tuple[str, ...]
    cure: str


SIDES = [
    Side("crm_server", ("serve", "--only", "webhooks", "--port", "0"), "crm-server migrate"),
    Side("sender", ("relay", "--drain"), "crm-sender migrate"),
]
each_side = pytest.mark.parametrize("side", SIDES, ids=[side.program for side in SIDES])


@dataclass(frozen=True)
class Database:
    """A database in a folder of its own."""

    side: Side
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "some.sqlite3"

    @property
    def errors(self) -> str:
        """All that the program printed on standard error."""
        return (self.folder / "stderr").read_text()

    def start(self, *arguments: str, dies_at: tuple[str, int] | None = None) -> ForkServerProcess:
        """Start the program in a process of its own, whose imports are made already."""
        self.folder.mkdir(exist_ok=True)
        url = f"sqlite:///{self.path}"
        env = clean_environment(
            WEBHOOK_API_KEY=KEY, CRM_API_KEY=KEY, CRM_DATABASE_URL=url, CRM_OUTBOX_URL=url
        )
        given = (self.side.program, arguments, dies_at, str(self.folder), env)
        process = processes().Process(target=run, args=given)
        process.start()
        return process

    def run(self, *arguments: str, dies_at: tuple[str, int] | None = None) -> int | None:
        """Run the program; return its exit code, negative for a signal."""
        return ended(self.start(*arguments, dies_at=dies_at))

    def content(self) -> list[tuple[Any, ...]]:
        """Return all definitions, the version, and how many rows there are of what."""
        with closing(sqlite3.connect(self.path)) as connection:
            schema = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2")
            content = schema.fetchall()
            for name in [name for kind, name, *_ in content if kind == "table"]:
                what = "*" if name.endswith("version") else "count(*)"
                content += connection.execute(f"SELECT '{name}', {what} FROM {name}")
        return content


@cache
def processes() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["alembic.command", "crm_server.app", "tests.faults.test_killed_migrations"]
    )
    return context


def run(
    program: str,
    arguments: tuple[str, ...],
    dies_at: tuple[str, int] | None,
    folder: str,
    env: dict[str, str],
) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    os.dup2(os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if dies_at:
        point, number = dies_at
        lay(point, Fate(number))
    sys.exit(MAINS[program](list(arguments)))


def ended(process: ForkServerProcess) -> int | None:
    process.join(30)
    assert process.exitcode is not None, "it does not end"
    return process.exitcode


@pytest.mark.long
@each_side
def test_a_migration_killed_at_any_statement_is_done_by_the_next(side: Side, tmp_path: Path) -> None:
    whole = Database(side, tmp_path / "whole")
    assert whole.run("migrate") == 0
    for number in itertools.count(1, KILL_EVERY):
        killed = Database(side, tmp_path / str(number))
        code = killed.run("migrate", dies_at=("statement ", number))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert killed.run(*side.work) == 1, number
        assert side.cure in killed.errors
        assert killed.run("migrate") == 0, killed.errors
        assert killed.content() == whole.content()
    assert number > 20
    assert "Traceback" not in killed.errors


@each_side
def test_a_migration_killed_right_after_its_commit_is_whole(side: Side, tmp_path: Path) -> None:
    whole, killed = Database(side, tmp_path / "whole"), Database(side, tmp_path / "killed")
    assert whole.run("migrate") == 0
    commit = "after sqlalchemy.engine.default:DefaultDialect.do_commit"
    assert killed.run("migrate", dies_at=(commit, 1)) == -signal.SIGKILL
    assert killed.content() == whole.content()
    assert killed.run("migrate") == 0


@pytest.mark.long
@each_side
def test_migrations_at_the_same_time_make_one_database(side: Side, tmp_path: Path) -> None:
    whole = Database(side, tmp_path / "whole")
    assert whole.run("migrate") == 0
    for number in range(5):
        shared = Database(side, tmp_path / str(number))
        assert [ended(process) for process in [shared.start("migrate") for _ in range(4)]] == [0] * 4, (
            shared.errors
        )
        assert shared.content() == whole.content()
