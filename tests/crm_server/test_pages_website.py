"""What the website tells of a repair, and of a customer, as staff read it and know what to do."""

from collections.abc import Mapping

import pytest

from tests.crm_server.answers import post, until
from tests.crm_server.visitors import Html, Visitor, logged_in
from tests.factories import (
    Payload,
    booking_status,
    customer_profile,
    customer_registration,
    payment_status,
    repair_request,
)
from tests.servers import Crm


@pytest.fixture(scope="module")
def visitors(crm: Crm) -> Mapping[str, Visitor]:
    return {role: logged_in(crm, f"Website {role}", role) for role in ("viewer", "approver")}


@pytest.fixture
def approver(visitors: Mapping[str, Visitor]) -> Visitor:
    return visitors["approver"]


@pytest.fixture
def viewer(visitors: Mapping[str, Visitor]) -> Visitor:
    return visitors["viewer"]


def send(crm: Crm, name: str, payload: Payload) -> str:
    answer = post(crm, name, payload)
    assert answer.status == 202
    return f"/approvals/{answer.json['id']}"


def can(html: Html, *decisions: str) -> bool:
    """Tell whether a page offers these decisions and no other."""
    offered = [name for name in ("approve", "reject", "reopen") if html.all("button", id=name)]
    return offered == list(decisions)


def approve(visitor: Visitor, path: str) -> None:
    assert visitor.post(f"{path}/approve").status_code == 303


def seen(visitor: Visitor, path: str, words: str) -> str:
    """Wait until a page says something; return its text."""

    def found() -> str | None:
        text = visitor.html(path).words
        return text if words in text else None

    return str(until(found))


def test_a_pending_repair_shows_what_came_since_and_each_leads_to_the_other(
    crm: Crm, approver: Visitor, viewer: Visitor
) -> None:
    repair = repair_request()
    request = send(crm, "repair-request", repair)
    paid = send(crm, "payment-status", payment_status(repair))
    moved = send(crm, "booking-status", booking_status(repair))
    html = approver.html(request)
    text = html.words
    assert "Payment paid, 299.99 GBP by card" in text
    assert "Booking rescheduled, for 2024-12-20 14:00 UTC" in text
    assert "Lovelace is away that week" in text
    assert "It stands on the ticket once there is one." in text
    assert html.all("a", href=paid)
    assert html.all("a", href=moved)
    about = approver.html(paid)
    assert about.all("a", href=request)
    assert "waits for a decision. Once that is approved, this is approved by itself." in about.words
    assert can(about, "reject")
    assert "Lovelace is away" not in viewer.html(request).words


def test_a_ticket_and_its_job_sheet_show_the_last_payment_and_booking(crm: Crm, approver: Visitor) -> None:
    repair = repair_request(repair__currency="EUR", repair__createdAt="2024-12-15T10:00:00+05:30")
    request = send(crm, "repair-request", repair)
    approve(approver, request)
    paid = send(crm, "payment-status", payment_status(repair, payment__status="pending"))
    moved = send(crm, "booking-status", booking_status(repair))
    text = seen(approver, moved, "approved by website")
    assert "It stands on ticket" in text
    [ticket] = [link["href"] for link in approver.html(moved).all("a") if "/tickets/" in link["href"]]
    seen(approver, paid, "approved by website")
    text = approver.html(ticket).words
    assert "On the website Payment pending, 299.99 GBP by card Booking rescheduled" in text
    assert "Estimated cost 299.99 EUR" in text
    sheet = approver.html(f"{ticket}/job-sheet").words
    assert "Estimate 299.99 EUR" in sheet
    assert "Booked 2024-12-15 04:30 UTC" in sheet
    assert "Booking rescheduled, for 2024-12-20 14:00 UTC" in sheet
    assert can(approver.html(moved)), "it happened: there is nothing to decide"


def test_a_status_names_its_ticket_by_the_number_that_the_ticket_has(crm: Crm, approver: Visitor) -> None:
    others = repair_request()
    approve(approver, send(crm, "repair-request", others))
    number = others["repair"]["ticketNumber"]
    repair = repair_request(repair__ticketNumber=number)
    request = send(crm, "repair-request", repair)
    assert approver.post(f"{request}/approve", {"ticket_number": f"{number}-B"}).status_code == 303
    paid = send(crm, "payment-status", payment_status(repair))
    assert f"It stands on ticket {number}-B ." in seen(approver, paid, "approved by website")


def test_a_status_without_its_repair_says_what_to_do(crm: Crm, approver: Visitor) -> None:
    html = approver.html(send(crm, "payment-status", payment_status()))
    assert "has not come." in html.words
    assert "reject this" in html.words
    assert can(html, "reject")


def test_a_status_of_a_rejected_repair_says_what_to_do(crm: Crm, approver: Visitor) -> None:
    repair = repair_request()
    request = send(crm, "repair-request", repair)
    assert approver.post(f"{request}/reject", {"reason": "Spam"}).status_code == 303
    paid = send(crm, "payment-status", payment_status(repair))
    assert "was rejected. Reject this too, or reopen the repair request." in approver.html(paid).words
    refused = approver.post(f"{paid}/approve")
    assert refused.status_code == 409
    assert "Nothing was changed. Its repair has no ticket" in Html(refused.text).words


def test_a_reopened_repair_says_that_its_statuses_stay_approved(crm: Crm, approver: Visitor) -> None:
    repair = repair_request()
    request = send(crm, "repair-request", repair)
    approve(approver, request)
    paid = send(crm, "payment-status", payment_status(repair))
    seen(approver, paid, "approved by website")
    assert approver.post(f"{request}/reopen").status_code == 303
    assert "What was approved before stays so." in approver.html(request).words
    assert "waits for a decision. This stays approved." in approver.html(paid).words


def test_a_profile_shows_what_changes_and_what_has_changed(
    crm: Crm, approver: Visitor, viewer: Visitor
) -> None:
    registration = customer_registration()
    registered = send(crm, "customer-registration", registration)
    profile = send(
        crm, "customer-profile", customer_profile(registration, customer__preferences={"newsletter": False})
    )
    html = approver.html(profile)
    assert "The customer is not on record: approve their registration" in html.words
    assert can(html, "reject")
    approve(approver, registered)
    html = approver.html(profile)
    assert "Phone +44 20 7946 0000 on record +44 20 7946 0001 sent" in html.words
    assert "newsletter yes" in html.words
    assert can(html, "approve", "reject")
    masked = viewer.html(profile).words
    assert "Phone ••• on record ••• sent" in masked
    assert "7946" not in masked
    approve(approver, profile)
    html = approver.html(profile)
    assert "What has changed" in html.words
    assert "+44 20 7946 0000 before" in html.words
    assert can(html, "reopen")


def test_an_older_profile_says_what_is_left_out_of_it(crm: Crm, approver: Visitor) -> None:
    registration = customer_registration()
    approve(approver, send(crm, "customer-registration", registration))
    newer = customer_profile(registration, metadata__changedAt="2024-12-16T08:00:00Z")
    approve(approver, send(crm, "customer-profile", newer))
    both = {"customer__phone": "+44 20 7946 0002", "customer__language": ...}
    profile = send(crm, "customer-profile", customer_profile(registration, **both))
    left_out = "Left out: Phone . The customer changed it again later, and that is approved already."
    text = approver.html(profile).words
    assert left_out in text
    assert "the customer's record says all of it" not in text
    approve(approver, profile)
    text = approver.html(profile).words
    assert left_out in text
    assert "the customer's record says all of it" not in text


def test_the_queue_lists_them_readably_and_by_event(crm: Crm, approver: Visitor, viewer: Visitor) -> None:
    repair = repair_request()
    paid = send(crm, "payment-status", payment_status(repair))
    moved = send(crm, "booking-status", booking_status(repair))
    profile = send(crm, "customer-profile", customer_profile(repair))
    for name, path, words in (
        ("payment-status", paid, "Payment paid , 299.99 GBP"),
        ("booking-status", moved, "Booking rescheduled , for 2024-12-20"),
        ("customer-profile", profile, f"{repair['customer']['websiteUserId']} , phone, language"),
    ):
        query = f"?event={name}&order=newest"
        html = approver.html(f"/approvals{query}")
        assert next(link["href"] for link in html.all("a") if "data-request" in link) == f"{path}{query}"
        assert words in html.words
    assert "Lovelace is away" in approver.html("/approvals?event=booking-status&order=newest").words
    assert "Lovelace is away" not in viewer.html("/approvals?event=booking-status&order=newest").words
    labels = approver.html("/approvals").words
    assert "Registration Repair request Payment status Booking status Customer profile all" in labels


def test_a_status_is_found_by_its_ticket_number(crm: Crm, viewer: Visitor) -> None:
    repair = repair_request(repair__ticketNumber="REV-57913577")
    paid = send(crm, "payment-status", payment_status(repair))
    path = viewer.post("/approvals/search", {"text": "rev-57913577"}).headers["location"]
    until(lambda: any(link["href"].startswith(paid) for link in viewer.html(path).all("a")))
