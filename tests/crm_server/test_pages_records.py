"""The records' pages: what was corrected stands beside what is right, for those who may see it."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.crm_server.answers import post
from tests.crm_server.visitors import Visitor, logged_in
from tests.factories import repair_request
from tests.servers import Crm


@pytest.fixture(scope="module")
def approver(crm: Crm) -> Visitor:
    return logged_in(crm, "Correcting approver", "approver")


@pytest.fixture(scope="module")
def viewer(crm: Crm) -> Visitor:
    return logged_in(crm, "Looking viewer", "viewer")


@pytest.fixture(scope="module")
def paths(crm: Crm) -> dict[str, str]:
    """Where the ticket and the customer of one approved repair are."""
    approval = post(crm, "repair-request", repair_request(repair__address="1 Wrong Lane")).json["id"]
    assert crm.cli("approvals", "approve", approval).returncode == 0
    made = crm.rows("SELECT record, record_id FROM decision_records WHERE approval_id = ?", approval)
    return {row["record"]: f"/{row['record']}s/{row['record_id']}" for row in made}


def correct(visitor: Visitor, path: str, field: str, right: str) -> int:
    return visitor.post(f"{path}/corrections", {"field": field, "right": right}).status_code


def test_a_correction_stands_beside_what_was_sent(
    approver: Visitor, viewer: Visitor, paths: dict[str, str]
) -> None:
    assert correct(approver, paths["ticket"], "address", "2 Right Lane\r\nLondon") == 303
    text = " ".join(approver.html(paths["ticket"]).text.split())
    assert "2 Right Lane London" in text
    assert "Correcting approver: Address, before 1 Wrong Lane" in text
    masked = viewer.html(paths["ticket"]).text
    assert "Address, before" in masked
    assert "Wrong Lane" not in masked
    assert "Right Lane" not in masked


def test_a_customer_is_corrected_on_their_page(approver: Visitor, paths: dict[str, str]) -> None:
    assert correct(approver, paths["customer"], "first_name", "Augusta") == 303
    html = approver.html(paths["customer"])
    assert "Augusta" in html.text
    assert "First name, before" in html.text


@pytest.mark.parametrize(
    ("record", "field", "right"),
    [
        ("ticket", "customer_email", "not an address"),
        ("ticket", "status", "closed"),
        ("customer", "first_name", "x" * 201),
        ("customer", "id", "another"),
        ("customer", "", ""),
    ],
)
def test_what_the_contract_refuses_is_said_and_nothing_is_changed(
    approver: Visitor, paths: dict[str, str], record: str, field: str, right: str
) -> None:
    before = approver.html(paths[record]).text
    answer = approver.post(f"{paths[record]}/corrections", {"field": field, "right": right})
    assert answer.status_code == 400
    assert "Nothing was changed." in answer.text
    assert approver.html(paths[record]).text == before


def test_an_erased_record_is_not_corrected_which_its_page_says(crm: Crm, approver: Visitor) -> None:
    email = "erased-records@example.com"
    approval = post(crm, "repair-request", repair_request(customer__email=email)).json["id"]
    assert approver.post(f"/approvals/{approval}/approve").status_code == 303
    assert crm.cli("erase-person", "--email", email, "--yes").returncode == 0
    made = crm.rows("SELECT record, record_id FROM decision_records WHERE approval_id = ?", approval)
    assert {row["record"] for row in made} == {"customer", "ticket"}
    for row in made:
        field = "first_name" if row["record"] == "customer" else "customer_name"
        path = f"/{row['record']}s/{row['record_id']}"
        assert "Correct; what was sent is kept" not in approver.html(path).text
        answer = approver.post(f"{path}/corrections", {"field": field, "right": "Augusta"})
        assert answer.status_code == 409
        assert f"Nothing was changed. This {row['record']} is erased, and stays empty" in answer.text
        assert "Augusta" not in approver.html(path).text


def test_no_request_is_approved_for_an_erased_customer_which_its_page_says(
    crm: Crm, approver: Visitor
) -> None:
    email = "erased-customer@example.com"
    first = post(crm, "repair-request", repair_request(customer__email=email)).json["id"]
    assert approver.post(f"/approvals/{first}/approve").status_code == 303
    (customer,) = crm.rows("SELECT id FROM customers WHERE email = ?", email)
    second = post(crm, "repair-request", repair_request()).json["id"]
    assert crm.cli("erase-person", "--email", email, "--yes").returncode == 0
    answer = approver.post(f"/approvals/{second}/approve", {"customer_id": customer["id"]})
    assert answer.status_code == 409
    assert "Nothing was changed." in answer.text
    assert "This customer is erased, and stays empty" in answer.text


def notes(visitor: Visitor, path: str) -> list[str]:
    """What is noted on a ticket, oldest first."""
    return re.findall(r'</bdi><span class="text" dir="auto">(Noted \w+)</span>', visitor.get(path).text)


def test_a_note_is_there_once_however_often_its_form_is_sent(
    crm: Crm, approver: Visitor, paths: dict[str, str]
) -> None:
    path = paths["ticket"]
    (form,) = approver.html(path).all("input", type="hidden", name="note")
    first, second = ({"note": form["value"], "text": f"Noted {word}"} for word in ("first", "second"))
    with ThreadPoolExecutor() as threads:
        answers = [*threads.map(lambda _: approver.post(f"{path}/notes", first), range(3))]
    assert {(answer.status_code, answer.headers["location"]) for answer in answers} == {(303, path)}
    assert notes(approver, path) == ["Noted first"]
    for _ in range(2):  # by the back button, and changed
        assert approver.post(f"{path}/notes", second).status_code == 303
    assert notes(approver, path) == ["Noted first", "Noted second"]
    other = logged_in(crm, "Noting approver", "approver")
    assert other.post(f"{path}/notes", first).status_code == 303
    (form,) = approver.html(path).all("input", type="hidden", name="note")
    assert approver.post(f"{path}/notes", {**first, "note": form["value"]}).status_code == 303
    assert notes(approver, path) == ["Noted first", "Noted second", "Noted first", "Noted first"]
    ticket_id = path.rpartition("/")[2]
    trail = crm.rows("SELECT verb FROM audit_trail WHERE record_id = ? AND verb = 'note'", ticket_id)
    assert len(trail) == len(notes(approver, path))


def test_no_record_that_is_not_there_is_corrected(approver: Visitor) -> None:
    for path in ("/tickets/none", "/customers/none"):
        assert correct(approver, path, "customer_name" if "tickets" in path else "first_name", "Ada") == 404
