"""The dashboard in a real browser: the guide's steps, an outage seen live, retry, with and without JavaScript."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect

from sender.integration.dashboard import PAGES
from tests.browser.visits import examine, tab_to, visit
from tests.sender.integration.admins import AT_FAULT, Shop, start_dashboard, start_shop
from tests.sender.integration.server import TOKEN

POLLED = 30_000
"""Milliseconds within which a page has surely asked, and what it was told is surely fresh."""

both = pytest.mark.parametrize("javascript", [True, False], ids=["script", "no script"])


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with start_shop(tmp_path_factory.mktemp("shop")) as started:
        yield started


@pytest.fixture
def shop(started: Shop) -> Shop:
    """A shop with an empty outbox, before a CRM that is well."""
    started.begin_anew()
    return started


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


@both
def test_the_guides_four_steps_of_a_manual_test(chromium: Browser, shop: Shop, javascript: bool) -> None:
    with session(
        chromium, shop.address, "/admin/find", javascript=javascript
    ) as page:  # 1. the admin dashboard
        page.get_by_role("link", name="CRM Integration").click()  # 2. its CRM Integration section
        expect(page.get_by_role("heading", level=1)).to_have_text("CRM Integration")
        page.get_by_role("button", name="Test Integration").click()  # 3.
        expect(page.get_by_role("status").last).to_contain_text("All is fine")  # 4. its results
        expect(page.get_by_role("listitem").filter(has_text="Repair request")).to_contain_text("fine")
        if javascript:
            examine(page)


def test_every_page_is_for_everybody_and_fits_a_telephone(chromium: Browser, shop: Shop) -> None:
    [event_id] = shop.fail()
    shop.site.book()
    shop.site.drain()
    with visit(chromium, shop.address) as page:
        page.goto("/admin/login")
        examine(page)
    paths = [
        page.path.replace("{id}", event_id) for page in PAGES if page.method == "GET" and not page.is_open
    ]
    with session(chromium, shop.address) as page:
        for path in [*paths, "/admin/deliveries?state=held", "/admin?span=7d"]:
            if not path.startswith("/deliveries/all/"):
                answer = page.goto(path if path.startswith("/admin") else f"/admin{path}")
                assert answer
                assert answer.status == 200, path
                expect(page.get_by_role("heading", level=1)).to_have_count(1)
                examine(page)
        page.goto("/admin/nowhere")
        examine(page)


def test_an_outage_and_failures_are_seen_without_a_touch(chromium: Browser, shop: Shop) -> None:
    with session(chromium, shop.address) as page:
        failed, news, crm = page.locator("[data-count=failed]"), page.locator("#news"), page.locator("#crm")
        expect(failed).to_have_text("0", timeout=POLLED)
        page.reload()
        page.get_by_role("link", name="The last 7 days").focus()
        where = page.evaluate("document.activeElement.getBoundingClientRect().top")
        expect(page.locator("#news[data-asked]")).to_have_count(1)
        shop.fail(2)
        expect(failed).to_have_text("2", timeout=POLLED)
        expect(news).to_have_text("2 more deliveries have failed. Show")
        shop.receiver.go_away()
        try:
            expect(crm).to_have_text("not reachable: Connection refused", timeout=POLLED)
            expect(news).to_contain_text("The CRM is not reachable: Connection refused.")
        finally:
            shop.receiver.come()
        expect(crm).to_have_text("reachable: 200 OK", timeout=POLLED)
        assert page.evaluate("document.activeElement.getBoundingClientRect().top") == where
        examine(page)
        news.get_by_role("link", name="Show").click()
        expect(page.get_by_role("checkbox")).to_have_count(2)


@both
def test_a_failure_is_found_retried_and_delivered(chromium: Browser, shop: Shop, javascript: bool) -> None:
    [event_id] = shop.fail()
    ticket = shop.ticket(event_id)
    with session(chromium, shop.address, "/admin/find", javascript=javascript) as page:
        page.get_by_label("A ticket number, an id or a natural key").fill(ticket)
        page.get_by_role("button", name="Find").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text(ticket)
        assert ticket not in page.url
        expect(page.get_by_text(AT_FAULT)).to_be_visible()
        page.get_by_role("button", name="Retry").click()
        expect(page.get_by_role("status").last).to_have_text("1 back to pending.")
        shop.site.drain()
        page.reload()
        expect(page.get_by_text("waits for the CRM")).to_be_visible()


@both
def test_everything_that_matches_is_retried_after_it_was_seen(
    chromium: Browser, shop: Shop, javascript: bool
) -> None:
    shop.fail(3)
    with session(chromium, shop.address, "/admin/deliveries", javascript=javascript) as page:
        page.get_by_label("Answer").select_option("400")
        page.get_by_role("button", name="Show").click()
        page.get_by_role("link", name="Retry everything that matches").click()
        page.get_by_role("button", name="Retry 3 deliveries").click()
        while page.get_by_role("link", name="Look again").count():
            page.get_by_role("link", name="Look again").click()
        expect(page.get_by_role("status").last).to_have_text("3 back to pending.")
    assert shop.site.statuses() == ["pending"] * 3


def test_going_back_after_a_retry_selects_nothing_that_nobody_selected(chromium: Browser, shop: Shop) -> None:
    shop.fail(4)
    with session(chromium, shop.address, "/admin/deliveries") as page:
        for checkbox in page.get_by_role("checkbox").all()[:2]:
            checkbox.check()
        page.get_by_role("button", name="Retry", exact=True).click()
        expect(page.get_by_role("status").last).to_have_text("2 back to pending.")
        page.go_back()
        expect(page.get_by_role("checkbox")).to_have_count(2)
        expect(page.get_by_role("checkbox", checked=True)).to_have_count(0)


def test_a_second_click_while_a_booking_is_written_is_told_nothing_else(
    chromium: Browser, shop: Shop
) -> None:
    shop.fail(3)
    with (
        session(chromium, shop.address, "/admin/deliveries") as page,
        closing(sqlite3.connect(shop.site.database, isolation_level=None)) as booking,
    ):
        for checkbox in page.get_by_role("checkbox").all():
            checkbox.check()
        retry = page.get_by_role("button", name="Retry", exact=True)
        retry.scroll_into_view_if_needed()
        box = retry.bounding_box()
        assert box
        booking.execute("BEGIN IMMEDIATE")
        with page.expect_request("**/deliveries/retry*"):
            page.mouse.click(box["x"] + 5, box["y"] + 5)  # unlike the button's own click it waits for no page
        page.mouse.click(box["x"] + 5, box["y"] + 5)
        booking.execute("ROLLBACK")
        expect(page.get_by_role("status").last).to_have_text("3 back to pending.")
        expect(page.get_by_role("alert")).to_have_count(0)
    assert shop.site.statuses() == ["pending"] * 3


def test_by_the_keyboard_alone_one_is_selected_retried_and_another_closed(
    chromium: Browser, shop: Shop
) -> None:
    again, given_up = shop.fail(2)
    ticket, other = (shop.ticket(event_id) for event_id in (again, given_up))
    with visit(chromium, shop.address) as page:
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
    assert (shop.site.status(again), shop.site.status(given_up)) == ("pending", "closed")


def test_a_session_that_is_over_changes_nothing_and_says_so(chromium: Browser, shop: Shop) -> None:
    [event_id] = shop.fail()
    with start_dashboard(shop.site) as address:
        port = address.rpartition(":")[2]
        visiting = session(chromium, address, f"/admin/deliveries/{event_id}", javascript=False)
        page = visiting.__enter__()
    with start_dashboard(shop.site, "--port", port):
        page.get_by_role("button", name="Retry").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("You are logged out")
        visiting.__exit__(None, None, None)
    assert shop.site.status(event_id) == "failed"
