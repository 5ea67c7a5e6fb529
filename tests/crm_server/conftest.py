"""One server for the tests that only ask it, and others for those that break it."""

from collections.abc import Iterator

import pytest

from tests.servers import Crm, start_crm


@pytest.fixture(scope="session")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    with start_crm(tmp_path_factory.mktemp("crm")) as crm:
        yield crm
    assert_nothing_private(crm)


@pytest.fixture
def own_crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server that the test may stop, kill and starve."""
    with start_crm(tmp_path_factory.mktemp("own")) as crm:
        yield crm
    assert_nothing_private(crm)


def assert_nothing_private(crm: Crm) -> None:
    """Hold all that a server printed while it was tested against what must never be printed."""
    private = [crm.key, "Lovelace", "ada@example.com", "7946", "St James", "cracked", "Sentinel", "Traceback"]
    assert [word for word in private if word in crm.log] == []
