"""The demo's booking site, over HTTP: what it keeps, what it refuses, and what a second click does."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.demo.site import start_booking_site

PERSON = {"first_name": "Ada", "last_name": "Lovelace", "email": "ada@example.com"}
REPAIR = {"device": "Apple MacBook Pro", "issue": "The screen\r\nis cracked", "service": "SCREEN_REPAIR"}
FORM = {**PERSON, **REPAIR, "priority": "normal"}


@dataclass
class Site:
    """A started booking site, a browser, and a look into its database."""

    browser: httpx.Client
    database: Path
    log: Path

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.database, timeout=10)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    def counts(self) -> list[int]:
        tables = ("customers", "bookings", "crm_outbox")
        return [self.rows(f"SELECT count(*) FROM {table}")[0][0] for table in tables]

    def open_form(self, path: str) -> str:
        """Return the id that an empty form carries."""
        found = re.search(r'name="id" value="([^"]+)"', self.browser.get(path).text)
        assert found
        return found[1]

    def submit(self, path: str, filled: Mapping[str, str]) -> httpx.Response:
        return self.browser.post(path, data={"id": self.open_form(path), **filled})


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Return the address of a site without relay or CRM, and its folder."""
    folder = tmp_path_factory.mktemp("site")
    with start_booking_site(folder) as address:
        yield address, folder


@pytest.fixture
def site(started: tuple[str, Path]) -> Iterator[Site]:
    address, folder = started
    with httpx.Client(base_url=address) as browser:
        yield Site(browser, folder / "site.sqlite3", folder / "site.log")


def test_a_booking_is_kept_without_the_person_and_the_event_has_it_all(site: Site) -> None:
    before = site.counts()
    answer = site.submit("/book", FORM)
    assert answer.status_code == 303
    page = site.browser.get(answer.headers["location"]).text
    [(booking_id, ticket, device, _)] = site.rows("SELECT * FROM bookings ORDER BY created_at DESC LIMIT 1")
    assert device == "Apple MacBook Pro"
    assert ticket in page
    [(key, payload)] = site.rows("SELECT natural_key, payload FROM crm_outbox ORDER BY sequence DESC LIMIT 1")
    assert key == booking_id
    assert '"issueDescription":"The screen\\nis cracked"' in payload
    assert site.counts() == [before[0], before[1] + 1, before[2] + 1]
    kept = str(site.rows("SELECT * FROM bookings")) + str(site.rows("SELECT * FROM customers"))
    assert "Ada" not in kept
    assert "example.com" not in kept


def test_a_second_click_makes_no_second_booking(site: Site) -> None:
    form = {"id": site.open_form("/book"), **FORM}
    first = site.browser.post("/book", data=form)
    counts = site.counts()
    second = site.browser.post("/book", data={**form, "device": "Apple iPad"})
    assert (first.status_code, second.status_code) == (303, 303)
    assert first.headers["location"] == second.headers["location"]
    assert site.counts() == counts


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", "ada at example.com"),
        ("first_name", ""),
        ("last_name", "x" * 201),
        ("device", "\x00"),
        ("issue", " "),
        ("service", "<b>"),
        ("priority", "yesterday"),
    ],
)
def test_what_the_contract_refuses_is_shown_beside_the_field_and_nothing_is_kept(
    site: Site, field: str, value: str
) -> None:
    before = site.counts()
    answer = site.submit("/book", {**FORM, field: value})
    assert answer.status_code == 422
    shown = re.findall(r'class="fault" id="([a-z_]+)-fault"', answer.text)
    assert shown == [field]
    assert f'aria-describedby="{field}-fault"' in answer.text
    assert site.counts() == before


def test_all_faults_are_shown_at_once_and_what_was_typed_stays(site: Site) -> None:
    answer = site.submit("/register", {"last_name": "O'Neill <script>", "email": "nobody"})
    assert re.findall(r'id="([a-z_]+)-fault"', answer.text) == ["first_name", "email"]
    assert "O&#39;Neill &lt;script&gt;" in answer.text
    assert "<script" not in answer.text


def test_a_registered_customer_books_under_the_same_id_and_a_guest_under_a_new_one(site: Site) -> None:
    assert site.submit("/register", PERSON).status_code == 303
    [(customer,)] = site.rows("SELECT id FROM customers ORDER BY registered_at DESC LIMIT 1")
    site.submit("/book", FORM)
    site.browser.cookies.clear()
    site.submit("/book", FORM)
    site.browser.cookies.set("revivatech_customer", "somebody-else")
    site.submit("/book", FORM)
    order = "SELECT order_key FROM crm_outbox ORDER BY sequence DESC LIMIT 4"
    forged, guest, booked, registered = (key for (key,) in site.rows(order))
    assert registered == booked == customer
    assert len({customer, guest, forged, "somebody-else"}) == 4


def last_events(site: Site, count: int) -> list[tuple[str, Any]]:
    """Return the name and the body of the last events, in their order."""
    rows = site.rows(f"SELECT event, payload FROM crm_outbox ORDER BY sequence DESC LIMIT {count}")
    return [(event, json.loads(payload)) for event, payload in reversed(rows)]


def test_what_becomes_of_a_booking_is_told_of_that_booking_and_its_customer(site: Site) -> None:
    site.submit("/register", PERSON)
    page = site.submit("/book", FORM).headers["location"]
    form_id = site.open_form(page)
    for _ in range(2):  # a second click changes nothing
        assert site.browser.post(f"{page}/pay", data={"id": form_id}).status_code == 303
        answer = site.browser.post(f"{page}/day", data={"id": form_id, "day": "2030-01-15"})
        assert answer.status_code == 303
    profile = {"id": site.open_form("/profile"), "phone": "+44 20 7946 0001"}
    for _ in range(2):
        assert site.browser.post("/profile", data=profile).status_code == 303
    (_, booked), (paid, payment), (moved, booking), (changed, customer) = last_events(site, 4)
    assert (paid, moved, changed) == ("payment-status", "booking-status", "customer-profile")
    for block in (payment["payment"], booking["booking"]):
        for name in ("websiteRepairId", "ticketNumber"):
            assert block[name] == booked["repair"][name]
    assert {body["customer"]["websiteUserId"] for body in (payment, booking, customer)} == {
        booked["customer"]["websiteUserId"]
    }
    assert customer["customer"].keys() == {"websiteUserId", "phone"}
    text = site.browser.get(page).text
    assert "Deposit paid" in text
    assert "Moved to 2030-01-15" in text
    assert f"{page}/pay" not in text


def test_a_day_or_a_profile_that_the_contract_refuses_is_shown_and_nothing_is_kept(site: Site) -> None:
    site.submit("/register", PERSON)
    page = site.submit("/book", FORM).headers["location"]
    before = [*site.counts(), site.rows("SELECT count(*) FROM changes")]
    moved = site.browser.post(f"{page}/day", data={"id": site.open_form(page), "day": "<b>"})
    assert (moved.status_code, 'id="day-fault"' in moved.text) == (422, True)
    assert site.submit("/profile", {}).status_code == 422
    wrong = site.submit("/profile", {"email": "nobody"})
    assert (wrong.status_code, 'id="email-fault"' in wrong.text) == (422, True)
    assert [*site.counts(), site.rows("SELECT count(*) FROM changes")] == before


def test_who_has_not_registered_has_no_profile(site: Site) -> None:
    assert site.browser.get("/profile").status_code == 404
    assert site.browser.post("/bookings/none/pay", data={}).status_code == 404


@pytest.mark.parametrize("body", [b"", b"id=1", b"id=%ff%fe&device=%00"])
def test_a_form_that_is_not_ours_is_refused(site: Site, body: bytes) -> None:
    assert site.browser.post("/book", content=body).status_code == 400


def test_a_form_that_is_too_large_is_refused(site: Site) -> None:
    assert site.submit("/book", {**FORM, "issue": "x" * 70_000}).status_code == 413


def test_an_unknown_booking_is_not_found(site: Site) -> None:
    assert site.browser.get("/bookings/none").status_code == 404


@pytest.mark.parametrize("path", ["/", "/register", "/book"])
def test_pages_run_no_script_and_load_nothing_from_elsewhere(site: Site, path: str) -> None:
    page = site.browser.get(path)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert "style=" not in page.text
    assert set(re.findall(r'(?:src|href)="(https?:)?[^"]*"', page.text)) <= {""}
    assert site.browser.get("/static/site.css").status_code == 200


def test_the_log_knows_nobody(site: Site) -> None:
    site.submit("/book", {**FORM, "email": "nobody in particular"})
    assert not re.search(r"Ada|Lovelace|nobody|cracked|Traceback", site.log.read_text())
