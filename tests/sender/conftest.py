"""A migrated outbox, a scripted CRM, and a relay between them that does not wait long."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.receiver import Receiver, start_receiver
from tests.sender.engines import outbox_url
from tests.sender.site import Site, be_impatient, migrated_outbox

__all__ = ["outbox_url"]


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    be_impatient(monkeypatch)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outbox as `crm-sender migrate` makes it."""
    return migrated_outbox(tmp_path_factory.mktemp("migrated"))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with start_receiver() as started:
        yield started


@pytest.fixture
def site(tmp_path: Path, migrated: Path, receiver: Receiver) -> Site:
    shutil.copy(migrated, tmp_path / "outbox.sqlite3")
    return Site(tmp_path, receiver.url)
