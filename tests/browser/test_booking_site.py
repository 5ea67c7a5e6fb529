"""The demo's booking site as a customer sees it: with and without JavaScript, and by keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.visits import HOSTILE, examine, path, tab_to, visit
from tests.demo.site import start_booking_site

PERSON = {"First name": "Ada", "Last name": "Lovelace", "E-mail": "ada@example.com"}
REPAIR = {"Device": "Apple MacBook Pro", "What is wrong?": "The screen is cracked.\nIt still turns on."}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_booking_site(tmp_path_factory.mktemp("site")) as address:
        yield address


def fill(page: Page, **values: str) -> None:
    for label, value in {**REPAIR, **PERSON, **values}.items():
        page.get_by_label(label).fill(value)


@pytest.mark.parametrize("javascript", [True, False])
def test_a_customer_registers_and_books(chromium: Browser, address: str, javascript: bool) -> None:
    with visit(chromium, address, javascript=javascript) as page:
        page.goto("/")
        page.get_by_role("link", name="Register", exact=True).click()
        for label, value in PERSON.items():
            page.get_by_label(label).fill(value)
        page.get_by_role("button", name="Register").click()
        expect(page.get_by_text("You are registered.")).to_be_visible()
        fill(page)
        page.get_by_label("Kind of repair").select_option("Screen")
        page.get_by_role("button", name="Book").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Your repair is booked")
        expect(page.get_by_text("REV-")).to_be_visible()
        expect(page.get_by_text("Apple MacBook Pro")).to_be_visible()


def test_a_repair_is_booked_by_keyboard_alone(chromium: Browser, address: str) -> None:
    with visit(chromium, address) as page:
        page.goto("/")
        tab_to(page, "link", "Book a repair")
        page.keyboard.press("Enter")
        for label, value in {**REPAIR, "Kind of repair": "Ba", **PERSON}.items():
            tab_to(page, "combobox" if label == "Kind of repair" else "textbox", label)
            page.keyboard.type(value)
        expect(page.get_by_label("Kind of repair")).to_have_value("BATTERY_REPLACEMENT")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Your repair is booked")


def test_every_page_is_readable_by_all_and_fits_a_telephone(chromium: Browser, address: str) -> None:
    with visit(chromium, address) as page:
        for there in ("/", "/register", "/book"):
            page.goto(there)
            examine(page)
        fill(page, **{"Last name": "L" * 201})
        page.get_by_role("button", name="Book").click()
        expect(page.get_by_label("Last name")).to_have_accessible_description("Last name is too long.")
        examine(page)
        fill(page)
        page.get_by_role("button", name="Book").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Your repair is booked")
        examine(page)


def test_hostile_text_is_shown_as_it_is(chromium: Browser, address: str) -> None:
    with visit(chromium, address) as page:
        page.goto("/book")
        fill(page, Device=HOSTILE)
        page.get_by_role("button", name="Book").click()
        expect(page.locator("dd").nth(1)).to_have_text(HOSTILE)
        assert path(page).startswith("/bookings/")
        examine(page)
