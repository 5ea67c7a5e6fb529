"""One server for the tests that only ask it, and others for those that break it."""

from collections.abc import Iterator

import pytest

from tests.servers import Crm, start_crm


@pytest.fixture(scope="session")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    with start_crm(tmp_path_factory.mktemp("crm")) as crm:
        yield crm


@pytest.fixture
def own_crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server that the test may stop, kill and starve."""
    with start_crm(tmp_path_factory.mktemp("own")) as crm:
        yield crm
