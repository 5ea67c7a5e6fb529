"""What the website tells of a repair and of a customer, as staff see it in a browser: every page of it, by axe too."""

from __future__ import annotations

from playwright.sync_api import Browser, expect

from tests.browser.visits import HOSTILE, examine, receive, session
from tests.crm_server.answers import until
from tests.factories import (
    booking_status,
    customer_profile,
    customer_registration,
    payment_status,
    repair_request,
)
from tests.servers import Crm


def test_what_came_of_a_repair_is_read_on_its_way_to_the_ticket(chromium: Browser, crm: Crm) -> None:
    repair = repair_request()
    request = receive(crm, "repair-request", repair)
    paid = receive(crm, "payment-status", payment_status(repair))
    moved = receive(crm, "booking-status", booking_status(repair, booking__reason=HOSTILE))
    with session(chromium, crm, start="/approvals?order=newest") as page:
        examine(page)
        page.goto(f"/approvals/{paid}")
        expect(page.get_by_role("button", name="Approve")).to_have_count(0)
        page.keyboard.press("a")  # does nothing where there is nothing to approve
        examine(page)
        page.get_by_role("link", name="repair request").click()
        expect(page.get_by_role("heading", name="On the website")).to_be_visible()
        expect(page.get_by_role("region", name="On the website").get_by_text(HOSTILE)).to_be_visible()
        examine(page)
        page.keyboard.press("a")
        expect(page.locator(".meta").first).to_contain_text("approved")
        of_both = "SELECT 1 FROM approvals WHERE id IN (?, ?) AND status = 'approved'"
        until(lambda: len(crm.rows(of_both, paid, moved)) == 2)
        page.goto(f"/approvals/{moved}")
        examine(page)
        page.get_by_role("link", name=f"ticket {repair['repair']['ticketNumber']}").click()
        expect(page.get_by_role("region", name="On the website")).to_contain_text("paid, 299.99 GBP by card")
        examine(page)
        page.get_by_role("link", name="Job sheet").click()
        expect(page.get_by_text("rescheduled, for")).to_be_visible()
        examine(page)
    assert request


def test_a_changed_profile_is_compared_approved_and_taken_back(chromium: Browser, crm: Crm) -> None:
    registration = customer_registration(customer__firstName="Before")
    profile = customer_profile(registration, customer__firstName=HOSTILE)
    registered, changed = (
        receive(crm, name, payload)
        for name, payload in (("customer-registration", registration), ("customer-profile", profile))
    )
    with session(chromium, crm, start=f"/approvals/{changed}") as page:
        expect(page.get_by_role("region", name="What changes")).to_contain_text("is not on record")
        examine(page)
        page.goto(f"/approvals/{registered}")
        page.get_by_role("button", name="Approve").click()
        page.goto(f"/approvals/{changed}")
        changes = page.get_by_role("region", name="What changes")
        expect(changes.locator("del").get_by_text("Before")).to_be_visible()
        expect(changes.locator("ins").get_by_text(HOSTILE)).to_be_visible()
        examine(page)
        page.keyboard.press("a")
        expect(page.get_by_role("region", name="What has changed")).to_be_visible()
        examine(page)
        page.get_by_role("button", name="Reopen").click()
        expect(page.get_by_role("region", name="What changes")).to_be_visible()
