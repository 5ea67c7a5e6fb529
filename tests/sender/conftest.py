"""A migrated outbox, a scripted CRM, and a relay between them that does not wait long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from sender import CRM, SenderSettings
from tests.receiver import Receiver, start_receiver
from tests.sender.engines import new_outbox, outbox_url
from tests.sender.site import SCHEDULE, Site, be_impatient
from tests.servers import KEY

__all__ = ["outbox_url"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked with `engines` on each of these; everything else on SQLite, which is the default."""
    if "on_engine" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("engines")
        metafunc.parametrize("on_engine", marker.args if marker else ("sqlite",), scope="session")


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    be_impatient(monkeypatch)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with start_receiver() as started:
        yield started


@pytest.fixture
def site(tmp_path: Path, on_engine: str, receiver: Receiver) -> Iterator[Site]:
    """A website, on each of the engines with which a test is marked."""
    with new_site(tmp_path, on_engine, receiver.url) as site:
        yield site


@contextmanager
def new_site(directory: Path, engine: str, crm_url: str) -> Iterator[Site]:
    """Give a website whose outbox is a new one of an engine."""
    url = new_outbox(engine, directory)
    site = Site(directory, crm_url, url if engine == "postgresql" else None)
    yield site
    site.close()


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
