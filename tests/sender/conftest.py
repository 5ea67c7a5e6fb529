"""A migrated outbox, a scripted CRM, and a relay between them that does not wait long."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.receiver import Receiver, start_receiver
from tests.sender.site import Site, be_impatient, cli, sender_environment


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    be_impatient(monkeypatch)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outbox as `crm-sender migrate` makes it."""
    directory = tmp_path_factory.mktemp("migrated")
    path = directory / "outbox.sqlite3"
    done = cli("migrate", directory=directory, env=sender_environment(CRM_OUTBOX_URL=f"sqlite:///{path}"))
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that the file can be copied alone
    return path


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with start_receiver() as started:
        yield started


@pytest.fixture
def site(tmp_path: Path, migrated: Path, receiver: Receiver) -> Site:
    shutil.copy(migrated, tmp_path / "outbox.sqlite3")
    return Site(tmp_path, receiver.url)
