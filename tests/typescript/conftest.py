"""One site for all of these tests, and one CRM for those that only ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scripts import node
from tests.receiver import Receiver, start_receiver
from tests.servers import Crm, start_crm
from tests.typescript.site import Site, install_site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with the package."""
    node.install()
    return install_site(tmp_path_factory.mktemp("next"))


@pytest.fixture(scope="package")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A real CRM."""
    with start_crm(tmp_path_factory.mktemp("crm")) as crm:
        yield crm


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A scripted CRM."""
    with start_receiver() as receiver:
        yield receiver
