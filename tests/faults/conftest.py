"""A real CRM, a proxy before it, a site that sends through the proxy, and a relay that does not wait long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crm_server.conftest import assert_nothing_private
from tests.faults.proxy import Proxy, start_proxy
from tests.sender.conftest import new_site, pytest_generate_tests
from tests.sender.site import Site, be_impatient
from tests.servers import Crm, start_crm

__all__ = ["pytest_generate_tests"]


@pytest.fixture(scope="session")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    with start_crm(tmp_path_factory.mktemp("crm")) as crm:
        yield crm
    assert_nothing_private(crm)


@pytest.fixture
def proxy(crm: Crm) -> Iterator[Proxy]:
    with start_proxy(crm) as started:
        yield started


@pytest.fixture
def site(tmp_path: Path, on_engine: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    be_impatient(monkeypatch)
    with new_site(tmp_path, on_engine, proxy.url) as site:
        yield site
