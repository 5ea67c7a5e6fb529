"""Erasing and exporting a person: what is found, what stays, and that no byte of it is left in the files."""

import json
import resource
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from crm_server.staff import RANKS, Role
from crm_server.tables import metadata
from tests.crm_server.answers import Answer, ask, post, until
from tests.crm_server.conftest import ON_BOTH, staff_token
from tests.factories import (
    FACTORIES,
    booking_status,
    customer_profile,
    customer_registration,
    repair_request,
)
from tests.servers import Crm, start_crm

SENTINEL = "Zentinel"
PERSONAL = {
    "customer__firstName": f"{SENTINEL}First",
    "customer__lastName": f"{SENTINEL}Last",
    "customer__phone": "+44 20 5550 1234",
}
REPAIR = {
    "repair__customerName": f"{SENTINEL}Name",
    "repair__issueDescription": f"{SENTINEL}Issue",
    "repair__address": f"{SENTINEL}Address",
    "repair__notes": f"{SENTINEL}Notes",
    "repair__photos": [f"https://example.com/{SENTINEL}.jpg"],
}
Tokens = Mapping[Role, str]


@pytest.fixture(scope="module")
def crm(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Crm]:
    """A server in whose files a test may look for bytes."""
    with start_crm(tmp_path_factory.mktemp("people"), only=None, engine=engine) as crm:
        yield crm
    assert SENTINEL not in crm.log
    assert "Traceback" not in crm.log


@pytest.fixture(scope="module")
def tokens(crm: Crm) -> Tokens:
    return {role: staff_token(crm, role.title(), role) for role in RANKS}


def receive(crm: Crm, event: str, payload: dict[str, Any]) -> str:
    answer = post(crm, event, payload)
    assert answer.status == 202, answer
    return str(answer.json["id"])


def approve(crm: Crm, tokens: Tokens, approval: str) -> None:
    assert ask(crm, tokens["approver"], "POST", f"/approvals/{approval}/approve").status == 200


def erase(
    crm: Crm, email: str, *options: str, stdin: str | None = None
) -> "subprocess.CompletedProcess[str]":
    return crm.cli("erase-person", "--email", email, *options, stdin=stdin)


def erase_over_http(crm: Crm, tokens: Tokens, email: str) -> Any:
    answer = ask(crm, tokens["admin"], "POST", "/people/erasure", {"email": email})
    assert answer.status == 200, answer
    return answer.json


def left_of(crm: Crm, word: str) -> list[str]:
    """Return the files of the database that hold a word, in whatever case.

    To close such a file ends the locks that this process has on it, and so its readers' snapshots.
    """
    files = crm.database.parent.glob(f"{crm.database.name}*")
    return [file.name for file in files if word.lower().encode() in file.read_bytes().lower()]


def shown(crm: Crm, tokens: Tokens, approval: str) -> dict[str, Any]:
    found: dict[str, Any] = ask(crm, tokens["admin"], "GET", f"/approvals/{approval}").json
    return found


def is_indexed(crm: Crm) -> bool:
    (row,) = crm.rows(
        "SELECT (SELECT max(sequence) FROM approvals) = (SELECT max(sequence) FROM search_documents)"
    )
    return bool(row[0])


def known_person(crm: Crm, tokens: Tokens, email: str) -> dict[str, str]:
    """Have the CRM hold a person in every place in which it holds one; return the requests' ids."""
    registration = customer_registration(
        **PERSONAL, customer__email=email, customer__preferences={"x": SENTINEL}
    )
    user = {"customer__websiteUserId": registration["customer"]["websiteUserId"], **PERSONAL}
    repair = repair_request(**REPAIR, **user, customer__email=email, repair__customerEmail=email)
    ids = {
        "registered": receive(crm, "customer-registration", registration),
        "approved": receive(crm, "repair-request", repair),
        "rejected": receive(crm, "repair-request", repair_request(**REPAIR, **user)),
        "waiting": receive(
            crm, "repair-request", repair_request(**REPAIR, **user, customer__email="other@a.b")
        ),
    }
    for name in ("registered", "approved"):
        approve(crm, tokens, ids[name])
    reason = {"reason": f"{SENTINEL}Reason"}
    assert ask(crm, tokens["admin"], "POST", f"/approvals/{ids['rejected']}/reject", reason).status == 200
    (ticket,) = crm.rows(
        "SELECT id FROM tickets WHERE website_repair_id = ?", repair["repair"]["websiteRepairId"]
    )
    note = {"text": f"{SENTINEL}Note"}
    assert ask(crm, tokens["admin"], "POST", f"/tickets/{ticket['id']}/notes", note).status == 200
    right = {"address": f"{SENTINEL}Lane 2"}
    assert ask(crm, tokens["admin"], "POST", f"/tickets/{ticket['id']}/corrections", right).status == 200
    assert ask(crm, tokens["admin"], "POST", "/searches", {"text": f"{SENTINEL}First"}).status == 201
    until(lambda: is_indexed(crm))
    return {**ids, "ticket": ticket["id"], "number": repair["repair"]["ticketNumber"]}


FOR_A_MOMENT = {("bulk_jobs", "reason")}
"""There while a decision on many runs; erased with its end."""


def personal_columns() -> list[tuple[str, str]]:
    return [
        (table.name, column.name)
        for table in metadata.sorted_tables
        for column in table.columns
        if column.info.get("personal")
    ]


def test_no_byte_is_left_of_anything_that_is_marked_personal_while_the_server_runs(
    crm: Crm, tokens: Tokens
) -> None:
    known_person(crm, tokens, f"{SENTINEL}@example.com")
    held = {
        (table, column): crm.rows(f"SELECT {column} FROM {table} WHERE {column} LIKE '%{SENTINEL}%'")
        for table, column in personal_columns()
        if column != "phone" and (table, column) not in FOR_A_MOMENT
    }
    assert [place for place, rows in held.items() if not rows] == [], "fill it in above, and erase it"
    assert left_of(crm, SENTINEL)
    done = erase(crm, f"{SENTINEL.upper()}@Example.com", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert SENTINEL.lower() not in done.stdout.lower()
    for word in (SENTINEL, "5550 1234", "55501234", "01234"):
        assert left_of(crm, word) == []
    assert crm.rows("PRAGMA integrity_check")[0][0] == "ok"


def test_somebody_with_two_ids_on_the_website_is_erased_by_either(crm: Crm, tokens: Tokens) -> None:
    first = customer_registration(customer__email="two-ids@example.com")
    second = customer_registration(customer__email="Two-Ids@example.com")
    approve(crm, tokens, receive(crm, "customer-registration", first))
    joining = receive(crm, "customer-registration", second)
    (suggested,) = shown(crm, tokens, joining)["suggestions"]
    choice = {"customer_id": suggested["customer_id"]}
    assert ask(crm, tokens["admin"], "POST", f"/approvals/{joining}/approve", choice).status == 200
    user = second["customer"]["websiteUserId"]
    later = receive(
        crm, "repair-request", repair_request(customer__websiteUserId=user, customer__email="new@a.b")
    )
    done = erase_over_http(crm, tokens, "two-ids@example.com")
    assert later in done["approvals"]
    assert crm.rows("SELECT * FROM customer_website_users WHERE website_user_id = ?", user) == []
    assert not done["bytes_left"]
    assert left_of(crm, user) == []


@ON_BOTH
def test_what_stays_is_the_shops_and_a_trail_that_tells_nothing(crm: Crm, tokens: Tokens) -> None:
    ids = known_person(crm, tokens, "stays@example.com")
    assert erase(crm, "stays@example.com", "--yes").returncode == 0
    requests = {
        name: shown(crm, tokens, ids[name]) for name in ("registered", "approved", "rejected", "waiting")
    }
    assert {r["payload"] for r in requests.values()} == {None}
    assert [r["status"] for r in requests.values()] == ["approved", "approved", "rejected", "rejected"]
    assert [e["verb"] for e in requests["waiting"]["history"]] == ["reject", "erase"]
    assert requests["rejected"]["reason"] is None
    ticket = ask(crm, tokens["admin"], "GET", f"/tickets/{ids['ticket']}").json
    assert (ticket["ticket_number"], ticket["status"], ticket["device_type"]) == (
        ids["number"],
        "open",
        "Apple MacBook Pro",
    )
    assert ticket["erased_at"]
    assert {ticket[name] for name in ("customer_name", "customer_email", "issue_description", "photos")} == {
        None
    }
    assert [note["text"] for note in ticket["staff_notes"]] == [None]
    assert ticket["history"][-1]["verb"] == "erase"
    assert ticket["history"][-1]["actor"].startswith("cli:")
    answer = ask(crm, tokens["approver"], "POST", f"/approvals/{ids['approved']}/reopen")
    assert (answer.status, answer.type) == (409, "cannot-reopen")


@ON_BOTH
def test_the_same_again_is_a_duplicate_and_other_content_is_told_that_it_was_erased(
    crm: Crm, tokens: Tokens
) -> None:
    payload = repair_request(customer__email="again@example.com", repair__customerEmail="again@example.com")
    first = post(crm, "repair-request", payload, webhook_id="again-1").json
    assert erase_over_http(crm, tokens, "again@example.com")["approvals"] == [first["id"]]
    for webhook_id in ("again-1", "again-2"):
        again = post(crm, "repair-request", payload, webhook_id=webhook_id).json
        assert again == {**first, "duplicate": True}
    assert post(crm, "repair-request", payload, webhook_test="true").status == 200
    changed = {**payload, "repair": {**payload["repair"], "notes": "other"}}
    for headers in ({}, {"webhook_test": "true"}):
        answer = post(crm, "repair-request", changed, **headers)
        assert (answer.status, answer.type) == (409, "erased")
        assert answer.json["existing"] == {"id": first["id"], "event": "repair-request"}
    other = post(crm, "repair-request", repair_request(), webhook_id="again-1")
    assert (other.status, other.type) == (409, "webhook-id-conflict")
    (row,) = crm.rows("SELECT * FROM approvals WHERE id = ?", first["id"])
    assert payload["repair"]["websiteRepairId"] not in tuple(row)
    assert first["digest"] not in tuple(row)
    assert (
        crm.rows("SELECT id FROM approvals WHERE natural_key = ?", payload["repair"]["websiteRepairId"]) == []
    )


@ON_BOTH
def test_what_the_website_told_of_somebody_is_exported_and_erased_with_the_keys_that_lead_there(
    crm: Crm, tokens: Tokens
) -> None:
    registration = customer_registration(customer__email="before@example.com")
    user = registration["customer"]["websiteUserId"]
    approve(crm, tokens, receive(crm, "customer-registration", registration))
    repair = repair_request(customer__websiteUserId=user, customer__email="before@example.com")
    waits, approved = (dict(repair, repair={**repair["repair"], **keys(n)}) for n in ("waits", "approved"))
    ids = [receive(crm, "repair-request", each) for each in (approved, waits)]
    approve(crm, tokens, ids[0])
    profile = receive(
        crm, "customer-profile", customer_profile(registration, customer__email=f"{SENTINEL}@example.net")
    )
    approve(crm, tokens, profile)
    told = [
        receive(crm, name, FACTORIES[name](each))
        for name in ("payment-status", "booking-status")
        for each in (waits, approved)
    ]
    until(lambda: is_indexed(crm))
    # By the address of the profile alone: the others are found by the account that this brings.
    found = ask(crm, tokens["admin"], "POST", "/people/export", {"email": f"{SENTINEL}@example.net"}).json
    assert {row["id"] for row in found["approvals"]} >= {*ids, profile, *told}
    erased = erase_over_http(crm, tokens, f"{SENTINEL}@example.net")
    assert set(erased["approvals"]) >= {*ids, profile, *told}
    assert {shown(crm, tokens, each)["payload"] for each in told} == {None}
    assert crm.rows("SELECT 1 FROM approvals WHERE about = ?", waits["repair"]["websiteRepairId"]) == []
    assert shown(crm, tokens, told[0])["repair_request"] is None
    if not crm.env.get("CRM_DATABASE_URL"):
        until(lambda: left_of(crm, waits["repair"]["websiteRepairId"]) == [])
        until(lambda: left_of(crm, "away that week") == [])


@ON_BOTH
def test_what_was_told_of_a_repair_by_another_account_is_exported_and_erased_with_it(
    crm: Crm, tokens: Tokens
) -> None:
    email = "passed-on@example.com"
    repair = repair_request(customer__email=email)
    approve(crm, tokens, receive(crm, "repair-request", repair))
    # A guest's booking, which an account has taken over since.
    passed_on = booking_status(repair, customer__websiteUserId="their-account")
    told = receive(crm, "booking-status", passed_on)
    until(lambda: shown(crm, tokens, told)["status"] == "approved")
    found = ask(crm, tokens["admin"], "POST", "/people/export", {"email": email}).json
    assert told in [row["id"] for row in found["approvals"]]
    assert told in erase_over_http(crm, tokens, email)["approvals"]
    assert shown(crm, tokens, told)["payload"] is None
    key = repair["repair"]["websiteRepairId"]
    assert crm.rows("SELECT 1 FROM approvals WHERE about = ?", key) == []
    assert post(crm, "booking-status", passed_on).json["duplicate"] is True


@ON_BOTH
def test_what_the_website_tells_after_the_erasure_is_rejected_and_erased_by_itself(
    crm: Crm, tokens: Tokens
) -> None:
    email = "late@example.com"
    repair = repair_request(customer__email=email, repair__customerEmail=email)
    approve(crm, tokens, receive(crm, "repair-request", repair))
    erase_over_http(crm, tokens, email)
    reason = {"booking__status": "cancelled", "booking__reason": f"{SENTINEL} is ill"}
    late = receive(crm, "booking-status", booking_status(repair, **reason))
    seen = until(lambda: (found := shown(crm, tokens, late))["payload"] is None and found)
    assert (seen["status"], seen["decided_by"], seen["about"]) == ("rejected", "website", None)
    assert [(each["verb"], each["actor"]) for each in seen["history"]] == [
        ("reject", "website"),
        ("erase", "website"),
    ]
    again = post(crm, "booking-status", booking_status(repair, **reason))
    assert again.json["id"] != late, "another event"
    until(lambda: shown(crm, tokens, again.json["id"])["payload"] is None)
    assert crm.rows("SELECT 1 FROM search_documents WHERE personal_words LIKE '%is ill%'") == []
    if not crm.env.get("CRM_DATABASE_URL"):
        until(lambda: left_of(crm, f"{SENTINEL} is ill") == [])


def keys(name: str) -> dict[str, str]:
    """Return what tells one repair from another."""
    return {"websiteRepairId": f"erased-{name}", "ticketNumber": f"ERASED-{name}"}


@pytest.mark.parametrize(
    ("over", "written"),
    [
        ({"customer__email": "One@Example.COM"}, "one@example.com"),
        ({"repair__customerEmail": "two@example.com"}, "two@example.com"),
        ({"customer__email": "thr/ee@example.com"}, "thr\\/ee@example.com"),
        ({"customer__email": "four@example.com"}, "f\\u006fur@example.com"),
    ],
)
def test_a_person_is_found_by_every_field_whatever_its_case_and_however_it_was_written(
    crm: Crm, tokens: Tokens, over: dict[str, str], written: str
) -> None:
    (email,) = over.values()
    raw = json.dumps(repair_request(**over)).replace(email, written).encode()
    approval = post(crm, "repair-request", raw).json["id"]
    found = ask(crm, tokens["admin"], "POST", "/people/export", {"email": email.lower()}).json
    assert [row["id"] for row in found["approvals"]] == [approval]


@ON_BOTH
def test_nobody_else_is_touched(crm: Crm, tokens: Tokens) -> None:
    other = repair_request(
        customer__email="xann@example.com", repair__notes="Ask ann@example.com, she knows."
    )
    approval = receive(crm, "repair-request", other)
    approve(crm, tokens, approval)
    receive(crm, "repair-request", repair_request(customer__email="ann@example.com"))
    assert erase_over_http(crm, tokens, "ann@example.com")["customers"] == []
    assert shown(crm, tokens, approval)["payload"] == other
    (customer,) = crm.rows(
        "SELECT email FROM customers WHERE website_user_id = ?", other["customer"]["websiteUserId"]
    )
    assert customer["email"] == "xann@example.com"


def test_the_list_is_shown_and_nothing_is_erased_without_a_yes(crm: Crm, tokens: Tokens) -> None:
    approval = receive(crm, "repair-request", repair_request(customer__email="asked@example.com"))
    done = erase(crm, "-", stdin="asked@example.com\nno\n")
    assert done.returncode == 1
    assert approval in done.stdout
    assert "asked@example.com" not in done.stdout
    assert shown(crm, tokens, approval)["payload"] is not None
    done = erase(crm, "-", stdin="asked@example.com\nyes\n")
    assert done.returncode == 0
    assert shown(crm, tokens, approval)["payload"] is None
    again = erase(crm, "asked@example.com", "--yes")
    assert (again.returncode, again.stdout) == (0, "Nothing is held of this person.\n")
    assert erase(crm, "no address", "--yes").returncode == 2


@ON_BOTH
def test_an_export_holds_all_that_is_held(crm: Crm, tokens: Tokens) -> None:
    ids = known_person(crm, tokens, "export@example.com")
    done = crm.cli("export-person", "--email", "-", stdin="EXPORT@example.com\n")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == ask(crm, tokens["admin"], "POST", "/people/export", {"email": "export@example.com"}).json
    assert {row["id"] for row in found["approvals"]} == {
        ids[n] for n in ("registered", "approved", "rejected", "waiting")
    }
    assert [row["reason"] for row in found["approvals"] if row["reason"]] == [f"{SENTINEL}Reason"]
    assert [row["email"] for row in found["customers"]] == ["export@example.com"]
    assert found["customers"][0]["preferences"] == {"x": SENTINEL}
    assert [note["text"] for row in found["tickets"] for note in row["staff_notes"]] == [f"{SENTINEL}Note"]
    assert [e["verb"] for e in shown(crm, tokens, ids["waiting"])["history"]] == ["export", "export"]


def test_an_administrator_erases_over_http(crm: Crm, tokens: Tokens) -> None:
    approval = receive(crm, "repair-request", repair_request(customer__email="http@example.com"))
    body = {"email": "http@example.com"}
    assert ask(crm, tokens["approver"], "POST", "/people/erasure", body).status == 403
    answer = ask(crm, tokens["admin"], "POST", "/people/erasure", body)
    assert answer.json["approvals"] == [approval]
    assert [e["actor"] for e in shown(crm, tokens, approval)["history"]] == ["staff:Admin"] * 2
    until(lambda: left_of(crm, "http@example.com") == [])
    assert ask(crm, tokens["admin"], "POST", "/people/erasure", body).json["approvals"] == []


def test_a_readers_snapshot_delays_it_which_is_said_and_the_server_goes_on(crm: Crm) -> None:
    receive(crm, "repair-request", repair_request(customer__email="snapshot@example.com"))
    with closing(sqlite3.connect(crm.database)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM approvals").fetchall()
        done = erase(crm, "snapshot@example.com", "--yes")
        assert done.returncode == 1
        assert "erased bytes are left" in done.stderr
        assert left_of(crm, "snapshot@example.com")
        reader.rollback()
    until(lambda: left_of(crm, "snapshot@example.com") == [])


def test_who_erases_over_http_waits_for_a_reader_of_a_moment(crm: Crm, tokens: Tokens) -> None:
    receive(crm, "repair-request", repair_request(customer__email="moment@example.com"))
    with closing(sqlite3.connect(crm.database, check_same_thread=False)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM approvals").fetchall()
        leaving = Timer(0.5, reader.rollback)
        leaving.start()
        try:
            done = erase_over_http(crm, tokens, "moment@example.com")
        finally:
            leaving.join()
    assert not done["bytes_left"]
    assert left_of(crm, "moment@example.com") == []


@ON_BOTH
def test_who_comes_again_after_an_erasure_is_a_new_customer(crm: Crm, tokens: Tokens) -> None:
    user = {"customer__websiteUserId": "user-comes-again", "customer__email": "back@example.com"}
    for _ in range(2):
        approve(crm, tokens, receive(crm, "repair-request", repair_request(**user)))
        (row,) = crm.rows("SELECT email FROM customers WHERE website_user_id = 'user-comes-again'")
        assert row["email"] == "back@example.com"
        assert len(erase_over_http(crm, tokens, "back@example.com")["customers"]) == 1
    assert crm.rows("SELECT id FROM customers WHERE website_user_id = 'user-comes-again'") == []


def test_an_answer_to_an_unknown_address_is_empty(crm: Crm, tokens: Tokens) -> None:
    answer: Answer = ask(crm, tokens["admin"], "POST", "/people/export", {"email": "nobody@example.com"})
    assert answer.json == {"approvals": [], "customers": [], "tickets": []}


ENTRY = json.dumps({"at": "2026-11-24T10:00:00.000000Z", "approvals": [], "customers": [], "tickets": []})


def test_what_cannot_be_noted_whole_is_not_erased_and_the_journal_is_as_it_was(
    own_staff: tuple[Crm, Tokens],
) -> None:
    crm, tokens = own_staff
    approval = receive(crm, "repair-request", repair_request(customer__email="full@example.com"))
    journal = Path(f"{crm.database}.erasures")
    # Longer than the database and its log: a file of that length is as long as a full disk lets one be.
    whole = f"{ENTRY}\n".encode() * 40_000
    journal.write_bytes(whole)
    most = len(whole) + 20
    before = resource.prlimit(crm.process.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    answer = ask(crm, tokens["admin"], "POST", "/people/erasure", {"email": "full@example.com"})
    resource.prlimit(crm.process.pid, resource.RLIMIT_FSIZE, before)
    assert answer.status == 503
    assert journal.read_bytes() == whole
    command = [
        "prlimit",
        f"--fsize={most}",
        *crm.program,
        "erase-person",
        "--email",
        "full@example.com",
        "--yes",
    ]
    done = subprocess.run(
        command, cwd=crm.directory, env=crm.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"crm-server: {journal} cannot be written: File too large. Nothing was erased: mend that, and erase again.\n"
    )
    assert journal.read_bytes() == whole
    assert shown(crm, tokens, approval)["payload"] is not None
    assert erase_over_http(crm, tokens, "full@example.com")["approvals"] == [approval]
    assert shown(crm, tokens, approval)["payload"] is None
    (line,) = journal.read_bytes().removeprefix(whole).splitlines()
    assert json.loads(line)["approvals"] == [approval]


def test_what_a_failed_write_left_in_the_journal_does_not_spoil_the_next(
    own_staff: tuple[Crm, Tokens],
) -> None:
    crm, tokens = own_staff
    approval = receive(crm, "repair-request", repair_request(customer__email="torn@example.com"))
    journal = Path(f"{crm.database}.erasures")
    journal.write_text(f"{ENTRY}\n{ENTRY[:50]}")
    erase_over_http(crm, tokens, "torn@example.com")
    first, second = journal.read_text().splitlines()
    assert first == ENTRY
    assert json.loads(second)["approvals"] == [approval]
