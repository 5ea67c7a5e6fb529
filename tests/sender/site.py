"""A website for the sender's tests: its directory, its outbox, and what one asks of them."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sender import CRM, Relay, SenderSettings, Summary, delivery, relay
from sender.database import uncovered
from tests import programs
from tests.end_to_end.chaos import left_in_files
from tests.factories import repair_request
from tests.programs import Program
from tests.servers import KEY, clean_environment

SCHEDULE = (0.02, 0.04, 0.06)
SENTINEL = "sentinel-of-a-customer"
"""Stands in payloads, so that one can look for where they must not be."""


@dataclass
class Site:
    """A booking site whose database is the outbox."""

    directory: Path
    crm_url: str
    outbox_url: str | None = None
    """The outbox's address, unless it is the SQLite file."""

    def __post_init__(self) -> None:
        self._crms: list[CRM] = []

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.directory / "outbox.sqlite3"

    @property
    def url(self) -> str:
        """Its SQLAlchemy URL."""
        return self.outbox_url or f"sqlite:///{self.database}"

    def settings(self, **over: Any) -> SenderSettings:
        """Return settings with a short schedule."""
        given: dict[str, Any] = {
            "webhook_url": self.crm_url,
            "api_key": KEY,
            "outbox_url": self.url,
            "retry_schedule": SCHEDULE,
            "timeout": 2.0,
        }
        return SenderSettings(**(given | over))

    def crm(self) -> CRM:
        """Return a CRM that writes to this outbox."""
        crm = CRM(self.settings())
        self._crms.append(crm)
        return crm

    def close(self) -> None:
        """Leave no connection behind."""
        for crm in self._crms:
            crm._engine.dispose()

    def book(self, count: int = 1, **over: Any) -> list[str]:
        """Enqueue so many repairs, each of another customer unless told; return their ids."""
        crm = self.crm()
        ids = [crm.repair_requested(repair_request(**over)) for _ in range(count)]
        crm._engine.dispose()  # PostgreSQL takes no more than a hundred connections
        return ids

    def drain(self, **over: Any) -> Summary:
        """Run a relay until nothing is due."""
        return Relay(self.settings(**over)).run(drain=True)

    def rows(self, statement: str = "SELECT * FROM crm_outbox ORDER BY sequence", *parameters: object) -> Any:
        """Read from the database, or write to it."""
        from tests.sender.engines import rows  # noqa: PLC0415  # needs this module

        return rows(self.url, statement, *parameters)

    def row(self, event_id: str) -> Any:
        """Return the row of an event, its payload as it was given."""
        [row] = self.rows("SELECT * FROM crm_outbox WHERE id = ?", event_id)
        return {**dict(row), "payload": uncovered(row["payload"])}

    def status(self, event_id: str) -> str:
        """Return an event's status."""
        return str(self.row(event_id)["status"])

    def statuses(self) -> list[str]:
        """Return the status of each event, in their order."""
        return [row["status"] for row in self.rows()]

    def verbs(self, event_id: str) -> list[str]:
        """Return what happened to an event."""
        statement = "SELECT verb FROM crm_outbox_trail WHERE event_id = ? ORDER BY number"
        return [row["verb"] for row in self.rows(statement, event_id)]

    def environment(self, **over: str) -> dict[str, str]:
        """Return the environment of a program at this site."""
        given = {
            "CRM_WEBHOOK_URL": self.crm_url,
            "CRM_API_KEY": KEY,
            "CRM_OUTBOX_URL": self.url,
            "CRM_RETRY_SCHEDULE": ",".join(map(str, SCHEDULE)),
            "CRM_TIMEOUT": "2",
        }
        return sender_environment(**(given | over))

    def cli(self, *arguments: str, stdin: str | bytes = "", **over: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `crm-sender`."""
        return cli(*arguments, directory=self.directory, env=self.environment(**over), stdin=stdin)

    def cli_alone(self, *arguments: str, **over: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `crm-sender` that makes its imports itself, in the site's directory first."""
        command = [sys.executable, "-m", "sender", *arguments]
        return subprocess.run(
            command,
            cwd=self.directory,
            env=self.environment(**over),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def json(self, *arguments: str, **over: str) -> Any:
        """Run a command of `crm-sender` that prints JSON."""
        done = self.cli(*arguments, "--json", **over)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def left_of(self, secret: str) -> list[str]:
        """Return where bytes of a payload are left: SQLite's files, or PostgreSQL's tables with such rows."""
        if self.outbox_url is None:
            return left_in_files(self.directory, secret)
        names = [
            row[0]
            for row in self.rows(
                "SELECT relname FROM pg_class WHERE relname ~ '^crm_outbox' AND relkind = 'r'"
            )
        ]
        return [
            name
            for name in names
            if self.rows(f"SELECT 1 FROM {name} AS t WHERE t::text LIKE ?", f"%{secret}%")
        ]

    def start_relay(self, *arguments: str, **over: str) -> Program:
        """Start a `crm-sender relay`; what it logs can be read from its stderr."""
        return Program("sender", ["relay", *arguments], cwd=self.directory, env=self.environment(**over))

    @contextmanager
    def relaying(self, **over: str) -> Iterator[tuple[Program, list[str]]]:
        """Run a relay that is a process of its own for the block; give it, and the lines that it logs."""
        relay = self.start_relay(**over)
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(relay.stderr or ()))
        reader.start()
        try:
            yield relay, lines
        finally:
            relay.terminate()
            relay.wait(20)
            reader.join(10)
            for stream in (relay.stdout, relay.stderr):
                if stream:
                    stream.close()
        assert relay.returncode == 0, lines
        assert not [line for line in lines if SENTINEL in line or "Traceback" in line]


def sender_environment(**over: str) -> dict[str, str]:
    """Return this process's environment with none of our settings but these."""
    return clean_environment(**over)


def cli(
    *arguments: str, directory: Path, env: dict[str, str], stdin: str | bytes = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command of `crm-sender` in a directory: a process of its own, whose imports are made already."""
    return programs.run("sender", *arguments, cwd=directory, env=env, stdin=stdin)


def migrated_outbox(directory: Path) -> Path:
    """Return an outbox as `crm-sender migrate` makes it, in a file that may be copied."""
    path = directory / "outbox.sqlite3"
    done = cli("migrate", directory=directory, env=sender_environment(CRM_OUTBOX_URL=f"sqlite:///{path}"))
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that the file can be copied alone
    return path


def all_text(error: BaseException) -> str:
    """Return all that an error and those behind it say of themselves."""
    seen: list[str] = ["".join(traceback.format_exception(error))]
    current: BaseException | None = error
    while current is not None:
        seen += [str(current), repr(current), repr(current.args), repr(vars(current))]
        current = current.__cause__ or current.__context__
    return "\n".join(seen)


def be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have relays wait a twentieth of what they wait between looks; the order of waits stays."""
    monkeypatch.setattr(relay, "FIRST_PROBE", 0.05)
    monkeypatch.setattr(relay, "LAST_PROBE", 0.4)
    monkeypatch.setattr(relay, "HEARTBEAT", 0.1)
    monkeypatch.setattr(delivery, "SHORTEST_WAIT", 0.1)


@contextmanager
def running(relay: Relay) -> Iterator[Relay]:
    """Run a relay in a thread for the block; what it raises is raised at the end."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            relay.run()
        except BaseException as error:  # raised again below
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield relay
    finally:
        relay.stop()
        thread.join(30)
    if raised:
        raise raised[0]


def eventually(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Wait until a condition holds and return what it returned, or fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)
    return found
