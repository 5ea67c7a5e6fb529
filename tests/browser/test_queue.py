"""The approval queue as staff use it: with and without JavaScript, and by keyboard alone."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.visits import HOSTILE, PASSWORD, examine, path, receive, session, visit
from tests.factories import customer_registration, repair_request
from tests.servers import Crm

both = pytest.mark.parametrize("javascript", [True, False], ids=["script", "no script"])


def search(page: Page, words: str) -> None:
    page.get_by_label("Search", exact=True).fill(words)
    page.get_by_role("button", name="Search").click()


def shown(page: Page) -> list[str]:
    """Return the names in the list, in order."""
    return page.locator(".requests a bdi:first-child").all_text_contents()


def three(crm: Crm, device: str) -> list[str]:
    """Have three people ask for the repair of a device; return their requests' ids."""
    names = ("Ada One", "Ada Two", "Ada Three")
    return [
        receive(crm, "repair-request", repair_request(repair__customerName=name, repair__deviceType=device))
        for name in names
    ]


@both
def test_staff_log_in_and_are_where_they_wanted_to_be(chromium: Browser, crm: Crm, javascript: bool) -> None:
    with visit(chromium, crm.pages_url, javascript=javascript) as page:
        page.goto("/approvals?status=rejected")
        expect(page).to_have_url(re.compile("/login"))
        page.get_by_label("Name").fill("Approver")
        page.get_by_label("Password").fill("not the password")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_have_text("No one has this name and this password.")
        expect(page.get_by_label("Name")).to_have_value("Approver")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page).to_have_url(f"{crm.pages_url}/approvals?status=rejected")
        page.get_by_role("button", name="Log out").click()
        page.goto("/approvals")
        expect(page).to_have_url(re.compile("/login"))


@both
def test_a_search_and_a_filter_survive_what_is_done(chromium: Browser, crm: Crm, javascript: bool) -> None:
    device = f"Zephyr {javascript}"
    three(crm, device)
    with session(chromium, crm, start="/approvals", javascript=javascript) as page:
        page.get_by_label("First").select_option("newest")
        page.get_by_role("button", name="Show").click()
        search(page, f"zeph {javascript}")
        assert shown(page) == ["Ada Three", "Ada Two", "Ada One"]
        for box in page.get_by_role("checkbox", name="Select").all()[:2]:
            box.check()
        page.get_by_role("button", name="Approve").click()
        expect(page.locator(".done")).to_have_text("2 decided.")
        assert shown(page) == ["Ada One"]
        page.get_by_label("State").select_option("approved")
        page.get_by_role("button", name="Show").click()
        assert shown(page) == ["Ada Three", "Ada Two"]
        assert device.split(maxsplit=1)[0] not in page.url


def test_going_back_after_a_decision_selects_nothing_that_nobody_selected(
    chromium: Browser, crm: Crm
) -> None:
    three(crm, "Aerodrome")
    with session(chromium, crm, start="/approvals") as page:
        search(page, "aerodrome")
        page.get_by_role("checkbox", name="Select").first.check()
        page.get_by_role("button", name="Approve").click()
        expect(page.locator(".done")).to_have_text("1 decided.")
        page.go_back()
        expect(page.get_by_role("checkbox", name="Select")).to_have_count(2)
        expect(page.get_by_role("checkbox", checked=True)).to_have_count(0)


@both
def test_who_forgets_the_reason_writes_it_and_goes_on_with_what_was_selected(
    chromium: Browser, crm: Crm, javascript: bool
) -> None:
    three(crm, f"Ornithopter {javascript}")
    with session(chromium, crm, start="/approvals", javascript=javascript) as page:
        search(page, f"ornithopter {javascript}")
        for box in page.get_by_role("checkbox", name="Select").all()[:2]:
            box.check()
        page.get_by_role("button", name="Reject").click()
        expect(page.get_by_role("alert")).to_contain_text("To reject needs a reason")
        expect(page.get_by_label("Reason to reject")).to_be_focused()
        expect(page.get_by_label("Reason to reject")).to_have_accessible_description(re.compile("a reason"))
        if javascript:
            examine(page)
        page.keyboard.type("Closed on Monday")
        page.get_by_role("button", name="Reject").click()
        expect(page.locator(".done")).to_have_text("2 decided.")
        assert shown(page) == ["Ada Three"]


@both
def test_a_request_is_rejected_with_a_reason_and_reopened(
    chromium: Browser, crm: Crm, javascript: bool
) -> None:
    request = receive(crm, "repair-request", repair_request())
    with session(chromium, crm, start=f"/approvals/{request}", javascript=javascript) as page:
        page.get_by_label("Reason to reject").fill("Booked twice.\nSee the other.")
        page.get_by_role("button", name="Reject").click()
        expect(page.get_by_text("Booked twice.")).to_be_visible()
        expect(page.locator(".meta")).to_contain_text("rejected by staff:Approver")
        page.get_by_role("button", name="Reopen").click()
        expect(page.locator(".meta")).to_contain_text("waiting")
        expect(page.get_by_text("Booked twice.")).not_to_be_visible()
        page.get_by_role("button", name="Approve").click()
        expect(page.locator(".meta")).to_contain_text("approved by staff:Approver")
        history = page.get_by_role("list").filter(has_text="received").get_by_role("listitem")
        expect(history).to_have_text(
            [re.compile(word) for word in ("received", "reject", "reopen", "approve")]
        )


def test_the_queue_is_worked_through_by_keyboard_alone(chromium: Browser, crm: Crm) -> None:
    three(crm, "Quokka")
    with session(chromium, crm, start="/approvals") as page:
        press = page.keyboard.press
        press("/")
        page.keyboard.type("quokka")
        press("Enter")
        expect(page.get_by_text("3 requests")).to_be_visible()
        for key, focused in (("j", "Ada One"), ("j", "Ada Two"), ("k", "Ada One"), ("k", "Ada One")):
            press(key)
            expect(page.locator("a:focus")).to_contain_text(focused)
            expect(page.locator("a:focus")).not_to_have_css("outline-style", "none")
        press("a")
        expect(page.locator(".done")).to_have_text("1 decided.")
        expect(page.locator("a:focus")).to_contain_text("Ada Two")
        press("r")
        page.keyboard.type("?/ajr are letters here")
        press("Control+Enter")
        expect(page.get_by_text("1 request", exact=True)).to_be_visible()
        press("j")
        press("o")
        expect(page.get_by_role("heading", level=1)).to_have_text("Ada Three")
        press("?")
        expect(page.get_by_role("dialog")).to_be_visible()
        press("Escape")
        expect(page.get_by_role("dialog")).not_to_be_visible()
        press("a")
        expect(page.locator(".meta")).to_contain_text("approved by")
        assert path(page).startswith("/approvals/")


def test_what_another_has_just_decided_is_said_and_nothing_is_changed(chromium: Browser, crm: Crm) -> None:
    request = receive(crm, "repair-request", repair_request())
    with (
        session(chromium, crm, "Admin", f"/approvals/{request}") as first,
        session(chromium, crm, "Approver", f"/approvals/{request}") as second,
    ):
        first.get_by_role("button", name="Approve").click()
        expect(first.locator(".meta")).to_contain_text("approved by staff:Admin")
        second.get_by_label("Reason to reject").fill("Too late.")
        second.get_by_role("button", name="Reject").click()
        expect(second.get_by_role("alert")).to_contain_text("this was approved by staff:Admin")
        expect(second.get_by_role("button", name="Reopen")).to_be_visible()
        examine(second)


def test_a_number_that_another_ticket_has_is_asked_for_anew(chromium: Browser, crm: Crm) -> None:
    number = repair_request()["repair"]["ticketNumber"]
    first, second = (
        receive(crm, "repair-request", repair_request(repair__ticketNumber=number)) for _ in range(2)
    )
    with session(chromium, crm, start=f"/approvals/{first}") as page:
        page.get_by_role("button", name="Approve").click()
        page.goto(f"/approvals/{second}")
        page.get_by_role("button", name="Approve").click()
        expect(page.get_by_role("alert")).to_contain_text("Another ticket has this number")
        examine(page)
        page.get_by_label("Ticket number").fill(f"{number}-2")
        page.get_by_role("button", name="Approve").click()
        expect(page.locator(".meta")).to_contain_text("approved by")


def test_arrivals_are_announced_and_move_nothing(chromium: Browser, crm: Crm) -> None:
    with session(chromium, crm) as page:
        page.clock.install()
        page.goto("/approvals?order=newest")
        before = shown(page)
        receive(crm, "customer-registration", customer_registration(customer__lastName="Newcomer"))
        page.clock.fast_forward(11_000)
        announced = page.get_by_role("status").filter(has_text="1 new request")
        expect(announced).to_be_visible()
        assert shown(page) == before
        announced.get_by_role("link").click()
        expect(page.locator(".requests a").first).to_contain_text("Newcomer")


def test_an_arrival_that_another_has_decided_meanwhile_is_announced_no_longer(
    chromium: Browser, crm: Crm
) -> None:
    with session(chromium, crm) as page:
        page.clock.install()
        page.goto("/approvals?order=newest")
        arrived = receive(crm, "customer-registration", customer_registration())
        page.clock.fast_forward(11_000)
        announced = page.get_by_role("status").filter(has_text="1 new request")
        expect(announced).to_be_visible()
        assert crm.cli("approvals", "approve", arrived).returncode == 0
        page.clock.fast_forward(11_000)
        expect(announced).to_have_count(0)


def test_a_viewer_sees_no_personal_data_and_no_buttons(chromium: Browser, crm: Crm) -> None:
    request = receive(crm, "repair-request", repair_request())
    with session(chromium, crm, "Viewer", f"/approvals/{request}") as page:
        expect(page.get_by_text("Apple MacBook Pro")).to_be_visible()
        assert not re.search("Lovelace|example.com|7946|cracked", page.content())
        assert [button.text_content() for button in page.get_by_role("button").all()] == ["Log out"]
        examine(page)


def test_hostile_text_is_shown_whole_and_does_nothing(chromium: Browser, crm: Crm) -> None:
    given = repair_request(
        repair__customerName=HOSTILE,
        repair__deviceType=HOSTILE,
        repair__issueDescription=f"{HOSTILE}\n{HOSTILE}",
        repair__photos=["https://evil.example/1.jpg", "javascript:alert(1)", HOSTILE],
        customer__firstName=HOSTILE,
        customer__lastName="\u202eمحمد",
    )
    request = receive(crm, "repair-request", given)
    registered = customer_registration(
        customer__firstName=HOSTILE, customer__preferences={HOSTILE[:60]: HOSTILE}
    )
    other = receive(crm, "customer-registration", registered)
    with session(chromium, crm, "Approver", "/approvals?order=newest") as page:
        expect(page.get_by_role("link", name=HOSTILE).first).to_be_visible()
        examine(page)
        page.goto(f"/approvals/{request}")
        expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
        for value in (HOSTILE, f"{HOSTILE}\n{HOSTILE}", "\u202eمحمد"):
            expect(page.locator("dd").get_by_text(value, exact=True).first).to_be_visible()
        links = page.locator("dd a")
        expect(links).to_have_text("https://evil.example/1.jpg")
        expect(links).to_have_attribute("rel", re.compile("noreferrer"))
        examine(page)
        page.goto(f"/approvals/{other}")
        expect(page.get_by_text(HOSTILE[:60], exact=True)).to_be_visible()
        examine(page)
