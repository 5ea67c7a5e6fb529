"""Real servers on free ports, started as a user starts them, that a test may kill and start again."""

import atexit
import functools
import itertools
import os
import random
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests import postgresql, programs
from tests.postgresql import shared_postgresql
from tests.programs import Program

KEY = "a-key-of-the-tests-0123456789"
UNLIMITED = {
    "WEBHOOK_RATE_LIMIT": "1000000/second",
    "WEBHOOK_AUTH_FAILURE_LIMIT": "1000000/second",
    "CRM_LOGIN_LIMIT": "1000000/second",
}
"""For servers that are asked more often, and with more wrong keys, than a website's would be."""
ROOT = Path(__file__).resolve().parent.parent
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For httpx's `verify`: all is plain HTTP here, and left to itself it reads every certificate of the system a call."""
PROGRAM = (sys.executable, "-m", "crm_server")
START_SECONDS = 60
STOP_SECONDS = 15


FIRST_PORT, PORTS = 20_000, 1_500
"""Of each process that runs tests. They lie below those that systems give to whoever asks for any port: one
of those may be taken between the look and the start."""


@functools.cache
def _ports() -> Iterator[int]:
    first = FIRST_PORT + PORTS * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    start = random.randrange(PORTS)  # another run may look beside this one
    return (first + (start + number) % PORTS for number in itertools.count())


def free_port() -> int:
    """Return a port of the loopback interface on which nobody listens now."""
    for port in itertools.islice(_ports(), PORTS):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("There is no free port.")


@dataclass
class Crm:
    """A `crm-server serve` and its database, in a directory of its own."""

    directory: Path
    env: dict[str, str]
    port: int = field(default_factory=free_port)
    frontend_port: int = field(default_factory=free_port)
    key: str = KEY
    only: str | None = "webhooks"
    """The part that is served alone."""
    program: Sequence[str] = PROGRAM
    workers: int = 1
    process: "Program | subprocess.Popen[bytes]" = field(init=False)

    @property
    def url(self) -> str:
        """What `CRM_WEBHOOK_URL` would be."""
        return f"http://127.0.0.1:{self.port}/webhooks"

    @property
    def pages_url(self) -> str:
        """Where the staff pages are."""
        return f"http://127.0.0.1:{self.frontend_port}"

    @property
    def staff_url(self) -> str:
        """Where the staff API is."""
        return f"{self.pages_url}/api"

    @property
    def database(self) -> Path:
        """The SQLite file, unless CRM_DATABASE_URL says otherwise."""
        return self.directory / "var" / "crm.sqlite3"

    @property
    def database_url(self) -> str:
        """The database's address."""
        return self.env.get("CRM_DATABASE_URL", f"sqlite:///{self.database}")

    @property
    def log(self) -> str:
        """All that the server has printed, over all its starts."""
        return (self.directory / f"server-{self.port}.log").read_text()

    def cli(self, *arguments: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a command of `crm-server` in the same directory and environment."""
        if not has_todays_code(self.env):
            command = [*PROGRAM, *arguments]
            return subprocess.run(
                command,
                cwd=self.directory,
                env=self.env,
                input=stdin,
                capture_output=True,
                text=True,
                check=False,
            )
        return programs.run("crm_server", *arguments, cwd=self.directory, env=self.env, stdin=stdin or "")

    def migrate(self) -> None:
        """Create the database."""
        done = self.cli("migrate")
        assert done.returncode == 0, done.stderr

    def start(self, *launcher: str) -> None:
        """Start the server, by a module that runs it where one is named, and wait until it answers."""
        program = (sys.executable, "-m", *launcher, "crm_server") if launcher else self.program
        self.process = start_serve(
            self.directory,
            self.env,
            self.port,
            self.directory / f"server-{self.port}.log",
            program,
            self.only,
            self.frontend_port,
            self.workers,
        )
        port, probe = self.port, f"{self.url}/health"
        if self.only != "webhooks":  # both ports are opened before either answers
            port, probe = self.frontend_port, self.staff_url
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log
            try:
                # A client for each try costs more.
                socket.create_connection(("127.0.0.1", port), 5).close()
                httpx.get(probe, timeout=5, verify=NO_TLS)
            except (OSError, httpx.TransportError):
                time.sleep(0.02)
            else:
                return
        raise AssertionError(f"The server did not start in {START_SECONDS} s: {self.log}")

    def stop(self) -> int:
        """End the server as an operator does, with SIGTERM; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """End the server as a power cut does, with SIGKILL."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def restart(self) -> None:
        """Start the server again on the same port and database, ending it first if it runs."""
        if self.process.poll() is None:
            self.stop()
        self.start()

    def rows(self, statement: str, *parameters: object) -> Sequence[Any]:
        """Read from the database, or write to it, beside the server."""
        if self.database_url.startswith("postgresql"):
            return postgresql.run(self.database_url, statement, *parameters)
        with closing(sqlite3.connect(self.database, timeout=10)) as connection, connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(statement, parameters).fetchall()

    def post(
        self, event: str, payload: object, *, headers: dict[str, str] | None = None, timeout: float = 30
    ) -> httpx.Response:
        """Send a webhook with the right key."""
        given = {"authorization": f"Bearer {self.key}", **(headers or {})}
        return httpx.post(f"{self.url}/{event}", json=payload, headers=given, timeout=timeout, verify=NO_TLS)


def start_serve(
    directory: Path,
    env: dict[str, str],
    port: int,
    log: Path,
    program: Sequence[str] = PROGRAM,
    only: str | None = "webhooks",
    frontend_port: int = 0,
    workers: int = 1,
) -> "Program | subprocess.Popen[bytes]":
    """Start `crm-server serve`; it may not listen yet."""
    arguments = ["serve", "--port", str(port), "--frontend-port", str(frontend_port)]
    arguments += ["--only", only] if only else []
    arguments += ["--workers", str(workers)] if workers > 1 else []
    if program == PROGRAM and has_todays_code(env):
        return Program("crm_server", arguments, cwd=directory, env=env, stdout=log, stderr=log)
    with log.open("ab") as output:
        return subprocess.Popen([*program, *arguments], cwd=directory, env=env, stdout=output, stderr=output)


def has_todays_code(env: dict[str, str]) -> bool:
    """Tell whether a program in this environment is this project's, and not one of an older wheel."""
    return env.get("PYTHONPATH") == str(ROOT)


OURS = ("CRM_", "WEBHOOK_", "STAFF_", "RATE_LIMIT_")
"""How the names of our settings begin."""


def clean_environment(**env: str) -> dict[str, str]:
    """Return this process's environment with none of our settings but `env`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
    return {**kept, "PYTHONPATH": str(ROOT), **env}


@functools.cache
def migrated_database() -> Path:
    """Return an empty database that `crm-server migrate` made; to copy it saves a second a server."""
    directory = Path(tempfile.mkdtemp(prefix="migrated-"))
    atexit.register(shutil.rmtree, directory)
    crm = Crm(directory, clean_environment(), port=0)
    crm.migrate()
    with closing(sqlite3.connect(crm.database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that the file can be copied alone
    return crm.database


@functools.cache
def migrated_template() -> str:
    """Return the name of an empty database that `crm-server migrate` made in the shared PostgreSQL."""
    name = shared_postgresql().create()
    with tempfile.TemporaryDirectory() as directory:
        env = clean_environment(CRM_DATABASE_URL=shared_postgresql().url(name))
        Crm(Path(directory), env, port=0).migrate()
    return name


def new_postgresql() -> str:
    """Return the address of a new database in the shared PostgreSQL, which is migrated and empty."""
    return shared_postgresql().url(shared_postgresql().create(migrated_template()))


@contextmanager
def start_crm(
    directory: Path,
    *,
    port: int | None = None,
    only: str | None = "webhooks",
    program: Sequence[str] = PROGRAM,
    engine: str = "sqlite",
    workers: int = 1,
    **env: str,
) -> Iterator[Crm]:
    """Start a migrated CRM in `directory`, with settings `env` beside its key; end it after the block.

    Its database is a new one of an `engine`, unless the settings name one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    settings = {"WEBHOOK_API_KEY": KEY, **UNLIMITED, **env}
    crm = Crm(
        directory,
        clean_environment(**settings),
        port=port or free_port(),
        only=only,
        program=program,
        workers=workers,
    )
    if "CRM_DATABASE_URL" in env or crm.database.exists():
        crm.migrate()
    elif engine == "postgresql":
        crm.env["CRM_DATABASE_URL"] = new_postgresql()
    else:
        crm.database.parent.mkdir(exist_ok=True)
        shutil.copy(migrated_database(), crm.database)
    crm.start()
    try:
        yield crm
    finally:
        if crm.process.poll() is None:
            crm.stop()
