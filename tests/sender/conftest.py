"""A migrated outbox, a scripted CRM, and a relay between them that does not wait long."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from sender import CRM, SenderSettings
from tests.receiver import Receiver, start_receiver
from tests.sender.engines import outbox_url
from tests.sender.site import SCHEDULE, Site, be_impatient, migrated_outbox
from tests.servers import KEY

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


@pytest.fixture
def settings(outbox_url: str, receiver: Receiver) -> SenderSettings:
    """Settings of a site on either database."""
    return SenderSettings(
        webhook_url=receiver.url,
        api_key=SecretStr(KEY),
        outbox_url=outbox_url,
        retry_schedule=SCHEDULE,
        timeout=2.0,
    )


@pytest.fixture
def crm(settings: SenderSettings) -> Iterator[CRM]:
    """What that site's booking code has."""
    crm = CRM(settings)
    yield crm
    crm._engine.dispose()
