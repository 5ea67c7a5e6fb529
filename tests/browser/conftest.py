"""One Chromium for all of these tests. It is never skipped: where there is none, they fail and say the cure."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from scripts import browser


@pytest.fixture(scope="package")  # not longer: while it runs, no other test could run an event loop
def chromium() -> Iterator[Browser]:
    with browser.browser() as started:
        yield started
