"""Customers, tickets, job sheets and the trail as staff use them, with and without JavaScript."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.visits import HOSTILE, examine, receive, session
from tests.factories import repair_request
from tests.servers import Crm

both = pytest.mark.parametrize("javascript", [True, False], ids=["script", "no script"])
CLICK_TWICE = """() => {
  const areStopped = [];
  addEventListener("submit", (event) => areStopped.push(event.defaultPrevented));
  const button = document.querySelector("form[action$=notes] button");
  button.click();
  button.click();
  return areStopped;
}"""
"""Returns of each click whether it sends nothing."""


def open_ticket(page: Page, crm: Crm, **over: object) -> str:
    """Approve a new request; show its ticket and return its number."""
    given = repair_request(**over)
    page.goto(f"/approvals/{receive(crm, 'repair-request', given)}")
    page.get_by_role("button", name="Approve").click()
    number = str(given["repair"]["ticketNumber"])
    page.get_by_role("link", name="Tickets", exact=True).click()
    page.get_by_role("link", name=number).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(number)
    return number


@both
def test_a_ticket_goes_from_open_to_closed(chromium: Browser, crm: Crm, javascript: bool) -> None:
    with session(chromium, crm, javascript=javascript) as page:
        number = open_ticket(page, crm)
        page.get_by_label("Note for staff").fill("The customer comes on Friday.")
        page.get_by_role("button", name="Add note").click()
        expect(page.get_by_text("The customer comes on Friday.")).to_be_visible()
        for state in ("in repair", "ready", "closed"):
            page.get_by_role("button", name=f"It is {state}").click()
            expect(page.locator(".meta").first).to_contain_text(state)
        expect(page.get_by_role("button", name="It is")).to_have_count(0)
        page.get_by_role("link", name="Customer", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Ada Lovelace")
        expect(page.get_by_role("link", name="Repair request")).to_have_count(1)
        page.get_by_role("link", name=number).click()
        page.goto("/tickets")
        page.get_by_label("State").select_option("closed")
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_role("link", name=number)).to_be_visible()
        page.get_by_label("State").select_option("open")
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_role("link", name=number)).to_have_count(0)


def test_a_second_click_while_a_form_is_under_way_sends_nothing_and_the_back_button_works(
    chromium: Browser, crm: Crm
) -> None:
    with session(chromium, crm) as page:
        open_ticket(page, crm)
        page.get_by_label("Note for staff").fill("Comes on Friday.")
        assert page.evaluate(CLICK_TWICE) == [False, True]
        expect(page.locator("#notes + .history li")).to_have_text(re.compile("Comes on Friday"))
        page.go_back()
        page.get_by_label("Note for staff").fill("Or on Monday.")
        page.get_by_role("button", name="Add note").click()
        expect(page.locator("#notes + .history li")).to_have_count(2)


def test_a_ticket_that_another_has_moved_is_not_moved_twice(chromium: Browser, crm: Crm) -> None:
    with session(chromium, crm) as page, session(chromium, crm, "Admin") as other:
        open_ticket(page, crm)
        other.goto(page.url)
        for visiting in (page, other):
            visiting.get_by_role("button", name="It is in repair").click()
        expect(other.get_by_role("alert")).to_contain_text("Somebody has moved the ticket: it is in repair.")
        expect(other.get_by_role("button", name="It is ready")).to_be_visible()
        examine(other)


def test_a_job_sheet_is_printed_without_what_is_only_for_the_screen(chromium: Browser, crm: Crm) -> None:
    with session(chromium, crm) as page:
        number = open_ticket(page, crm)
        page.get_by_role("link", name="Job sheet").click()
        page.emulate_media(media="print")
        expect(page.get_by_role("heading", level=1)).to_have_text(f"Job sheet {number}")
        expect(page.get_by_text("Given back to")).to_be_visible()
        for hidden in (page.get_by_role("navigation"), page.get_by_role("button"), page.locator(".trail")):
            expect(hidden).to_have_count(0) if hidden.count() == 0 else expect(hidden.first).to_be_hidden()
        assert page.pdf(format="A4").count(b"/Type /Page\n") == 1


def test_the_trail_is_read_by_record_and_leads_to_it(chromium: Browser, crm: Crm) -> None:
    with session(chromium, crm) as page:
        open_ticket(page, crm)
        ticket = page.url.rpartition("/")[2]
        page.goto("/audit")
        page.get_by_label("Record's id").fill(ticket)
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_text("1 entry")).to_be_visible()
        expect(page.locator(".requests li")).to_contain_text("staff:Approver: open")
        page.get_by_role("link", name="ticket", exact=True).click()
        expect(page).to_have_url(re.compile(f"/tickets/{ticket}$"))


def test_a_viewer_sees_records_masked_and_changes_nothing(chromium: Browser, crm: Crm) -> None:
    with session(chromium, crm) as page:
        open_ticket(page, crm)
        page.get_by_label("Note for staff").fill("Ada is my neighbour.")
        page.get_by_role("button", name="Add note").click()
        ticket, customer = (
            page.url,
            page.get_by_role("link", name="Customer", exact=True).get_attribute("href"),
        )
    with session(chromium, crm, "Viewer") as page:
        for there in ("/customers", str(customer), "/tickets", ticket, f"{ticket}/job-sheet", "/audit"):
            page.goto(there)
            assert not re.search("Lovelace|example.com|7946|cracked|neighbour", page.content())
            assert page.get_by_role("button").all_text_contents()[0] == "Log out"
            assert not re.search('<form[^>]*action="/tickets/', page.content())


def test_hostile_text_is_shown_whole_on_records_too(chromium: Browser, crm: Crm) -> None:
    over = {f"repair__{name}": HOSTILE for name in ("customerName", "deviceType", "notes", "address")}
    with session(chromium, crm) as page:
        open_ticket(page, crm, **over, customer__firstName=HOSTILE, repair__photos=["javascript:alert(1)"])
        page.get_by_label("Note for staff").fill(HOSTILE)
        page.get_by_role("button", name="Add note").click()
        expect(page.locator("dd, li > .text").get_by_text(HOSTILE, exact=True)).to_have_count(5)
        expect(page.locator("dd a")).to_have_count(0)
        examine(page)
        for link in ("Job sheet", "Customer"):
            ticket = page.url
            page.get_by_role("link", name=link, exact=True).click()
            expect(page.get_by_text(HOSTILE).first).to_be_visible()
            examine(page)
            page.goto(ticket)
        for there in ("/tickets", "/customers"):
            page.goto(there)
            expect(page.get_by_text(HOSTILE).first).to_be_visible()
            examine(page)
