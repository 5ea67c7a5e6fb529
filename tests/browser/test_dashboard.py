"""The dashboard in a real browser: the guide's steps, an outage seen live, retry, with and without JavaScript."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from sender.integration.dashboard import PAGES
from tests.browser.visits import examine, tab_to, visit
from tests.receiver import Receiver, first, problem, start_receiver
from tests.sender.integration.admins import start_dashboard
from tests.sender.integration.server import TOKEN
from tests.sender.site import Site, migrated_outbox

both = pytest.mark.parametrize("javascript", [True, False], ids=["script", "no script"])
REFUSED = problem(400, "invalid-event", errors=[{"pointer": "/repair/priority"}])


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
def address(site: Site) -> Iterator[str]:
    with start_dashboard(site) as started:
        yield started


@contextmanager
def session(
    chromium: Browser, address: str, start: str = "/admin", *, javascript: bool = True
) -> Iterator[Page]:
    """Visit the dashboard with the admin token, beginning at a path."""
    with visit(chromium, address, javascript=javascript) as page:
        page.goto(start)
        page.get_by_label("Admin token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("button", name="Log out")).to_be_visible()
        yield page


def fail(site: Site, receiver: Receiver, count: int = 1) -> list[str]:
    """Book so many repairs that the CRM refuses; return their ids."""
    receiver.event = first(*[REFUSED] * count)
    ids = site.book(count)
    assert site.drain().failed == count
    return ids


@both
def test_the_guides_four_steps_of_a_manual_test(chromium: Browser, address: str, javascript: bool) -> None:
    with session(chromium, address, "/admin/find", javascript=javascript) as page:  # 1. the admin dashboard
        page.get_by_role("link", name="CRM Integration").click()  # 2. its CRM Integration section
        expect(page.get_by_role("heading", level=1)).to_have_text("CRM Integration")
        page.get_by_role("button", name="Test Integration").click()  # 3.
        expect(page.get_by_role("status").last).to_contain_text("All is fine")  # 4. its results
        expect(page.get_by_role("listitem").filter(has_text="Repair request")).to_contain_text("fine")
        if javascript:
            examine(page)


def test_every_page_is_for_everybody_and_fits_a_telephone(
    chromium: Browser, site: Site, receiver: Receiver, address: str
) -> None:
    [event_id] = fail(site, receiver)
    site.book()
    site.drain()
    with visit(chromium, address) as page:
        page.goto("/admin/login")
        examine(page)
    paths = [
        page.path.replace("{id}", event_id) for page in PAGES if page.method == "GET" and not page.is_open
    ]
    with session(chromium, address) as page:
        for path in [*paths, "/admin/deliveries?state=held", "/admin?span=7d"]:
            if not path.startswith("/deliveries/all/"):
                answer = page.goto(path if path.startswith("/admin") else f"/admin{path}")
                assert answer
                assert answer.status == 200, path
                expect(page.get_by_role("heading", level=1)).to_have_count(1)
                examine(page)
        page.goto("/admin/nowhere")
        examine(page)


def test_an_outage_and_a_failure_are_seen_without_a_touch(
    chromium: Browser, site: Site, receiver: Receiver, address: str
) -> None:
    with session(chromium, address) as page:
        failed = page.locator("[data-count=failed]")
        expect(failed).to_have_text("0")
        page.get_by_role("link", name="The last 7 days").focus()
        where = page.evaluate("document.activeElement.getBoundingClientRect().top")
        expect(page.locator("#news[data-asked]")).to_have_count(1)
        fail(site, receiver, 2)
        expect(failed).to_have_text("2", timeout=20_000)
        expect(page.locator("#news")).to_have_text("2 more deliveries have failed: show")
        assert page.evaluate("document.activeElement.getBoundingClientRect().top") == where
        examine(page)
        page.get_by_role("link", name="2 more deliveries have failed: show").click()
        expect(page.get_by_role("checkbox")).to_have_count(2)


@both
def test_a_failure_is_found_retried_and_delivered(
    chromium: Browser, site: Site, receiver: Receiver, address: str, javascript: bool
) -> None:
    [event_id] = fail(site, receiver)
    ticket = site.row(event_id)["reference"]
    with session(chromium, address, "/admin/find", javascript=javascript) as page:
        page.get_by_label("A ticket number, an id or a natural key").fill(ticket)
        page.get_by_role("button", name="Find").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text(ticket)
        assert ticket not in page.url
        expect(page.get_by_text("/repair/priority")).to_be_visible()
        page.get_by_role("button", name="Retry").click()
        expect(page.get_by_role("status").last).to_have_text("1 back to pending.")
        site.drain()
        page.reload()
        expect(page.get_by_text("The CRM has received it")).to_be_visible()


@both
def test_everything_that_matches_is_retried_after_it_was_seen(
    chromium: Browser, site: Site, receiver: Receiver, address: str, javascript: bool
) -> None:
    fail(site, receiver, 3)
    with session(chromium, address, "/admin/deliveries", javascript=javascript) as page:
        page.get_by_label("Answer").select_option("400")
        page.get_by_role("button", name="Show").click()
        page.get_by_role("link", name="Retry everything that matches").click()
        page.get_by_role("button", name="Retry 3 deliveries").click()
        while page.get_by_role("link", name="Look again").count():
            page.get_by_role("link", name="Look again").click()
        expect(page.get_by_role("status").last).to_have_text("3 back to pending.")
    assert site.statuses() == ["pending"] * 3


def test_by_the_keyboard_alone_one_is_selected_retried_and_another_closed(
    chromium: Browser, site: Site, receiver: Receiver, address: str
) -> None:
    again, given_up = fail(site, receiver, 2)
    ticket, other = (site.row(event_id)["reference"] for event_id in (again, given_up))
    with visit(chromium, address) as page:
        page.goto("/admin/deliveries")
        expect(page.get_by_label("Admin token")).to_be_focused()
        page.keyboard.type(TOKEN)
        page.keyboard.press("Enter")
        tab_to(page, "checkbox", f"Select {ticket}, repair request")
        page.keyboard.press("Space")
        tab_to(page, "button", "Retry")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status").last).to_have_text("1 back to pending.")
        tab_to(page, "link", f"{other}, repair request")
        page.keyboard.press("Enter")
        tab_to(page, "checkbox", "Its payload is erased; it will never be sent")
        page.keyboard.press("Space")
        tab_to(page, "button", "Close")
        page.keyboard.press("Enter")
        expect(page.get_by_text("dashboard: closed")).to_be_visible()
    assert (site.status(again), site.status(given_up)) == ("pending", "closed")


def test_a_session_that_is_over_changes_nothing_and_says_so(
    chromium: Browser, site: Site, receiver: Receiver
) -> None:
    [event_id] = fail(site, receiver)
    with start_dashboard(site) as address:
        port = address.rpartition(":")[2]
        visiting = session(chromium, address, f"/admin/deliveries/{event_id}", javascript=False)
        page = visiting.__enter__()
    with start_dashboard(site, "--port", port):
        page.get_by_role("button", name="Retry").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("You are logged out")
        visiting.__exit__(None, None, None)
    assert site.status(event_id) == "failed"
