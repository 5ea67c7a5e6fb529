"""One server for the tests that only ask; the CRM behind it is a scripted one that is well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.receiver import start_receiver
from tests.sender.integration.server import Server, start_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server that all tests share."""
    with (
        start_receiver() as crm,
        start_server(tmp_path_factory.mktemp("dashboard"), CRM_WEBHOOK_URL=crm.url) as started,
    ):
        yield started
