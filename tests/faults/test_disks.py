"""Databases that go wrong under a running CRM and a running website, and are mended: nothing is lost.

Real: every process, file and socket. What is asserted is what a sender or an operator sees.
"""

from __future__ import annotations

import json
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.crm_server.answers import Answer, post, send, until
from tests.factories import Payload, repair_request
from tests.faults.disks import FAULTS, PAGE, cut, overwritten, without_privileges
from tests.sender.site import SENTINEL
from tests.servers import KEY, PROGRAM, Crm, clean_environment, migrated_database, start_crm

ANSWER_SECONDS = 10
"""No answer takes longer, whatever the disk does: the CRM waits four seconds for its database."""


@dataclass
class Sender:
    """Posts repairs, and knows which of them the CRM said that it has."""

    crm: Crm
    taken: dict[str, Payload] = field(default_factory=dict)

    def post(self) -> Answer:
        """Send a new repair."""
        payload = repair_request(repair__notes=SENTINEL)
        began = time.monotonic()
        answer = post(self.crm, "repair-request", payload)
        assert time.monotonic() - began < ANSWER_SECONDS
        if answer.status == 202:
            self.taken[answer.json["id"]] = payload
        return answer

    def cut_power(self) -> None:
        """End the CRM as a power cut does, and start it again."""
        self.crm.kill()
        self.crm.start()

    def assert_nothing_is_lost(self, database: Path | None = None) -> None:
        """Compare what the CRM said that it has with what is in its database, or was when it had another."""
        with closing(sqlite3.connect(database or self.crm.database, timeout=10)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            rows = connection.execute("SELECT id, payload FROM approvals").fetchall()
        stored = {id_: json.loads(payload) for id_, payload in rows}
        assert {id_: stored.get(id_) for id_ in self.taken} == self.taken


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sender]:
    with start_crm(tmp_path_factory.mktemp("crm")) as crm:
        sender = Sender(crm)
        for _ in range(40):  # so that there are pages to lose
            sender.post()
        yield sender
        assert SENTINEL not in crm.log
        assert "Traceback" not in crm.log


def health(crm: Crm) -> int:
    return send(crm, "GET", "/health").status


@pytest.mark.parametrize("fault", FAULTS)
def test_a_crm_whose_database_goes_wrong_says_503_until_it_is_mended_and_loses_nothing(
    shared: Sender, fault: str
) -> None:
    crm = shared.crm
    assert shared.post().status == 202
    with FAULTS[fault](crm.database, crm.process.pid):
        for answer in (shared.post(), shared.post()):
            assert (answer.status, answer.type, answer.headers["retry-after"]) == (503, "unavailable", "1")
        until(lambda: health(crm) == 503)
    until(lambda: shared.post().status == 202)
    until(lambda: health(crm) == 200)
    shared.assert_nothing_is_lost()


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_log_that_is_deleted_under_the_crm_takes_no_answered_event_with_it(
    shared: Sender, suffix: str
) -> None:
    for _ in range(3):
        assert shared.post().status == 202
    Path(f"{shared.crm.database}{suffix}").unlink()
    until(lambda: shared.post().status == 202)
    shared.cut_power()
    shared.assert_nothing_is_lost()


def without_oldest_rows(content: bytes) -> bytes:
    """Return a database in which one page of old requests cannot be read."""
    start = content.index(SENTINEL.encode()) // PAGE * PAGE
    return content[:start] + b"\xa5" * PAGE + content[start + PAGE :]


def test_a_page_that_cannot_be_read_spoils_no_event_that_is_taken(shared: Sender) -> None:
    """The page is one of old requests: new ones need it not, and a list of all says that it is spoilt."""
    with overwritten(without_oldest_rows)(shared.crm.database, 0):
        until(lambda: shared.post().status == 202)
        done = shared.crm.cli("approvals", "list")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.endswith("SQLITE_CORRUPT. It is damaged: restore it from a backup.\n")
    shared.assert_nothing_is_lost()


def test_a_database_that_is_replaced_is_not_spoilt_by_the_log_of_the_old_one(tmp_path: Path) -> None:
    with start_crm(tmp_path) as crm:
        old, new = Sender(crm), Sender(crm)
        for _ in range(10):
            old.post()
        with closing(sqlite3.connect(crm.database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        old.post()  # its row, and the pages that it changed, are in the log alone
        aside = crm.database.rename(tmp_path / "old.sqlite3")
        shutil.copy(migrated_database(), crm.database)
        until(lambda: new.post().status == 202)
        new.assert_nothing_is_lost()
        old.assert_nothing_is_lost(aside)


@contextmanager
def locked_whole(path: Path) -> Iterator[None]:
    """Another program has the whole database for itself."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        yield


@contextmanager
def read_only_folder(path: Path) -> Iterator[None]:
    """No file can be made beside the database."""
    path.parent.chmod(0o500)
    yield
    path.parent.chmod(0o700)


@contextmanager
def full_disk(_: Path) -> Iterator[None]:
    """No file can grow: what is started in the block has that as its limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


COMMANDS = [["serve", "--port", "0"], ["approvals", "list"]]


@pytest.mark.parametrize(
    ("fault", "cure"),
    [
        (lambda path: overwritten(cut)(path, 0), "restore it from a backup"),
        (locked_whole, "end that one first"),
        (read_only_folder, "mend the permissions"),
        (full_disk, "make room"),
    ],
    ids=["cut", "locked", "read-only", "full"],
)
def test_a_database_that_cannot_be_used_refuses_to_start_and_says_what_to_do(
    tmp_path: Path, fault: Callable[[Path], AbstractContextManager[None]], cure: str
) -> None:
    database = tmp_path / "var" / "crm.sqlite3"
    database.parent.mkdir()
    shutil.copy(migrated_database(), database)
    with fault(database):
        programs = [
            subprocess.Popen(
                without_privileges([*PROGRAM, *command]),
                cwd=tmp_path,
                env=clean_environment(WEBHOOK_API_KEY=KEY),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for command in COMMANDS
        ]
        for program in programs:
            output, errors = program.communicate(timeout=60)
            assert (program.returncode, output) == (1, "")
            assert errors.startswith("crm-server: the database failed: ")
            assert cure in errors
            assert "Traceback" not in errors


@pytest.mark.long
def test_a_database_that_was_read_only_is_written_to_once_it_may_be(tmp_path: Path) -> None:
    database = tmp_path / "var" / "crm.sqlite3"
    database.parent.mkdir()
    shutil.copy(migrated_database(), database)
    database.chmod(0o400)
    with start_crm(tmp_path, program=without_privileges(list(PROGRAM))) as crm:
        sender = Sender(crm)
        assert (sender.post().status, health(crm)) == (503, 503)
        database.chmod(0o600)  # an operator's hand: what lies beside it is SQLite's
        until(lambda: sender.post().status == 202)
        sender.assert_nothing_is_lost()
