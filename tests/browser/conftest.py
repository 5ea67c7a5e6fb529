"""One Chromium for all of these tests. It is never skipped: where there is none, they fail and say the cure."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from crm_server.staff import RANKS
from scripts import browser
from tests.browser.visits import add_staff
from tests.crm_server.conftest import assert_nothing_private
from tests.servers import Crm, start_crm


@pytest.fixture(scope="package")  # not longer: while it runs, no other test could run an event loop
def chromium() -> Iterator[Browser]:
    with browser.browser() as started:
        yield started


@pytest.fixture(scope="package")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A CRM with a member of staff for each role, who is called like it."""
    with start_crm(tmp_path_factory.mktemp("crm"), only=None) as crm:
        for role in RANKS:
            add_staff(crm, role.title(), role)
        yield crm
    assert_nothing_private(crm)
