"""The page on which an admin finds, exports and erases what is held of a person."""

import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.crm_server.answers import ask, post
from tests.crm_server.conftest import assert_nothing_private, staff_token
from tests.crm_server.visitors import Html, Visitor, logged_in
from tests.factories import customer_registration, repair_request
from tests.servers import Crm, start_crm

THEIR_ADDRESS = "192.0.2.7"
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server behind a proxy that it trusts."""
    directory = tmp_path_factory.mktemp("people")
    with start_crm(directory, only=None, CRM_TRUSTED_PROXIES="127.0.0.1/32") as crm:
        yield crm
    assert_nothing_private(crm)
    assert "Sentinel" not in crm.log


@pytest.fixture(scope="module")
def admin(crm: Crm) -> Visitor:
    visitor = logged_in(crm, "People admin", "admin")
    visitor.headers = {"x-forwarded-for": THEIR_ADDRESS}
    return visitor


@pytest.fixture
def email() -> str:
    return f"sentinel-{next(numbers)}@example.test"


@pytest.fixture
def person(crm: Crm, admin: Visitor, email: str) -> dict[str, str]:
    """Somebody with a customer, a ticket with a note, and a request that waits; the requests' ids."""
    registration = customer_registration(customer__email=email, customer__lastName="Sentinelson")
    user = registration["customer"]["websiteUserId"]
    repair = {"customer__websiteUserId": user, "customer__lastName": "Sentinelson"}
    payloads = {
        "registered": registration,
        "approved": repair_request(**repair),
        "waiting": repair_request(**repair),
    }
    ids = {
        name: str(
            post(crm, "customer-registration" if name == "registered" else "repair-request", each).json["id"]
        )
        for name, each in payloads.items()
    }
    for name in ("registered", "approved"):
        assert admin.post(f"/approvals/{ids[name]}/approve").status_code == 303
    return ids


def seen(html: Html) -> str:
    """What stands for what the page showed."""
    (given,) = html.all("input", type="hidden", name="seen")
    return given["value"]


def find(admin: Visitor, email: str) -> Html:
    answer = admin.post("/people", {"email": email})
    assert answer.status_code == 200, answer.text
    return Html(answer.text)


def erase(admin: Visitor, email: str, html: Html, **fields: str) -> Any:
    return admin.post("/people/erase", {"email": email, "seen": seen(html), "sure": "yes", **fields})


def payloads_left(crm: Crm, person: dict[str, str]) -> int:
    marks = ",".join("?" * len(person))
    rows = crm.rows(
        f"SELECT 1 FROM approvals WHERE payload IS NOT NULL AND id IN ({marks})", *person.values()
    )
    return len(rows)


def trail(crm: Crm, verb: str) -> set[tuple[str, str]]:
    """Who did something to a person, and from where."""
    rows = crm.rows("SELECT actor, origin FROM audit_trail WHERE verb = ?", verb)
    return {(row["actor"], row["origin"]) for row in rows}


def test_all_that_is_held_is_listed_with_a_link_to_each(
    crm: Crm, admin: Visitor, email: str, person: dict[str, str]
) -> None:
    html = find(admin, email.upper())
    links = {link["href"] for link in html.all("a")}
    assert links >= {f"/approvals/{each}" for each in person.values()}
    (customer,) = crm.rows("SELECT id FROM customers WHERE email = ?", email)
    (ticket,) = crm.rows("SELECT id FROM tickets WHERE customer_id = ?", customer["id"])
    assert links >= {f"/customers/{customer['id']}", f"/tickets/{ticket['id']}"}
    assert not [link for link in links if "@" in link], "an address stands in no URL"


def test_the_export_is_a_file_that_is_named_after_nobody(
    crm: Crm, admin: Visitor, email: str, person: dict[str, str]
) -> None:
    answer = admin.post("/people/export", {"email": email})
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == 'attachment; filename="person.json"'
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["cache-control"] == "no-store"
    held = json.loads(answer.text)
    assert {each["id"] for each in held["approvals"]} == set(person.values())
    assert [each["email"] for each in held["customers"]] == [email]
    assert trail(crm, "export") == {("staff:People admin", THEIR_ADDRESS)}


def test_what_was_shown_is_erased_once_somebody_is_sure(
    crm: Crm, admin: Visitor, email: str, person: dict[str, str]
) -> None:
    html = find(admin, email)
    unsure = erase(admin, email, html, sure="")
    assert unsure.status_code == 400
    assert "Say that you are sure." in unsure.text
    assert payloads_left(crm, person) == 3
    answer = erase(admin, email, html)
    assert answer.status_code == 200
    assert "Requests: 3, customers: 1, tickets: 1, notes: 0, corrections: 0." in answer.text
    assert payloads_left(crm, person) == 0
    assert trail(crm, "erase") == {("staff:People admin", THEIR_ADDRESS)}
    assert "Nothing is held of this person." in find(admin, email).text
    again = erase(admin, email, html)
    assert again.status_code == 409, "to load the answer anew erases nothing"
    assert_erased_already(again)


def assert_erased_already(answer: Any) -> None:
    assert "All that was held of this person is erased already." in answer.text
    assert "Nothing was erased" not in answer.text


def test_of_two_clicks_to_erase_the_second_does_not_say_that_nothing_was_erased(
    crm: Crm, admin: Visitor, email: str, person: dict[str, str]
) -> None:
    html = find(admin, email)
    with ThreadPoolExecutor() as threads:
        answers = [*threads.map(lambda _: erase(admin, email, html), range(2))]
    first, second = sorted(answers, key=lambda answer: int(answer.status_code))
    assert (first.status_code, second.status_code) == (200, 409)
    assert "Requests: 3, customers: 1, tickets: 1" in first.text
    assert_erased_already(second)
    assert payloads_left(crm, person) == 0


def test_what_has_come_since_is_shown_first(
    crm: Crm, admin: Visitor, email: str, person: dict[str, str]
) -> None:
    html = find(admin, email)
    late = post(crm, "repair-request", repair_request(customer__email=email)).json["id"]
    answer = erase(admin, email, html)
    assert answer.status_code == 409
    assert "Nothing was erased: look again." in answer.text
    assert payloads_left(crm, person) == 3
    now = Html(answer.text)
    assert f"/approvals/{late}" in {link["href"] for link in now.all("a")}
    assert erase(admin, email, now).status_code == 200
    assert payloads_left(crm, person) == 0


@pytest.mark.parametrize("path", ["/people", "/people/export", "/people/erase"])
def test_what_is_no_address_is_asked_for_once_more(admin: Visitor, path: str) -> None:
    for wrong in ("", "nobody", "a@b@c", '"><script>alert(1)</script>', "x" * 300 + "@example.test"):
        answer = admin.post(path, {"email": wrong})
        assert answer.status_code == 400
        assert "Give one e-mail address." in answer.text
        assert Html(answer.text).all("input", id="email")[0]["value"] == wrong


def test_the_api_too_notes_from_where_it_was_asked_behind_a_proxy(crm: Crm, email: str) -> None:
    token = staff_token(crm, "People program", "admin")
    post(crm, "repair-request", repair_request(customer__email=email))
    for path in ("/people/export", "/people/erasure"):
        answer = ask(crm, token, "POST", path, {"email": email}, x_forwarded_for="192.0.2.8")
        assert answer.status == 200
    rows = crm.rows("SELECT verb, origin FROM audit_trail WHERE actor = 'staff:People program'")
    assert {row["verb"] for row in rows} >= {"export", "erase"}
    assert {row["origin"] for row in rows} == {"192.0.2.8"}
