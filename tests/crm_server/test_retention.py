"""What is kept for a time only, and what erasing must withstand: asked of the database itself, and of a server."""

import json
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from crm_server import approval_queue, erasure, search, search_index
from crm_server.approval_queue import ReceivedEvent
from crm_server.audit_trail import Actor
from crm_server.database import Database
from crm_server.errors import PersonChanged
from crm_server.idempotency import Conflict, Identity
from tests.crm_server.answers import post, until
from tests.crm_server.conftest import ON_BOTH_IN_TIME
from tests.crm_server.test_erasing_people import left_of
from tests.factories import booking_status, repair_request
from tests.servers import Crm, start_crm

ME = Actor("cli:tests")


def received(key: str, email: str, webhook_id: str | None = None, digest: str = "0" * 64) -> ReceivedEvent:
    payload = repair_request(customer__email=email, customer__websiteUserId=f"user-{key}")
    return ReceivedEvent(Identity("repair-request", key, webhook_id, digest), "1.0.0", json.dumps(payload))


def receive(database: Database, *events: ReceivedEvent) -> list[approval_queue.Receipt | Conflict]:
    with database.writing() as connection:
        return approval_queue.receive(connection, events)


def erase(database: Database, email: str) -> None:
    person = erasure.find(database, email)
    with database.writing() as connection:
        erasure.erase(connection, person, ME)


def rejected_long_ago(crm: Crm, *payloads: dict[str, object]) -> list[str]:
    """Receive and reject requests; all but the last were rejected two days ago. Return their ids."""
    ids = [str(post(crm, "repair-request", payload).json["id"]) for payload in payloads]
    for approval in ids:
        assert crm.cli("approvals", "reject", approval, "--reason", "Because of Zentinel").returncode == 0
    with closing(sqlite3.connect(crm.database, timeout=10)) as connection, connection:
        old = "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-2 days')"
        change = f"UPDATE approvals SET decided_at = {old}, received_at = {old} WHERE id <> ? AND status = 'rejected'"
        connection.execute(change, [ids[-1]])
    return ids


def test_what_was_rejected_long_ago_is_erased_by_the_server_and_nothing_else(tmp_path: Path) -> None:
    with start_crm(tmp_path, CRM_RETENTION_DAYS="1") as crm:
        waits = post(crm, "repair-request", repair_request()).json["id"]
        payload = repair_request(repair__notes="Zentinel")
        old, new = rejected_long_ago(crm, payload, repair_request())
        crm.restart()
        until(lambda: left_of(crm, "Zentinel") == ["crm.sqlite3"])  # the reason of the newer one
        rows = crm.rows("SELECT id, payload, erased_at, status FROM approvals ORDER BY sequence")
        assert [(row["id"], row["payload"] is None) for row in rows] == [
            (waits, False),
            (old, True),
            (new, False),
        ]
        assert {row["status"] for row in rows} == {"pending_approval", "rejected"}
        trail = crm.rows("SELECT actor, verb FROM audit_trail WHERE record_id = ? ORDER BY sequence", old)
        assert tuple(trail[-1]) == ("server:retention", "erase")
        assert post(crm, "repair-request", payload).json["duplicate"] is True
        assert "Zentinel" not in crm.log


def test_what_the_website_told_of_a_repair_that_was_taken_back_and_rejected_is_erased_with_it(
    tmp_path: Path,
) -> None:
    with start_crm(tmp_path, only=None, CRM_RETENTION_DAYS="1") as crm:
        repair, other = repair_request(), repair_request()
        first, second = (str(post(crm, "repair-request", each).json["id"]) for each in (repair, other))
        for approval in (first, second):
            assert crm.cli("approvals", "approve", approval).returncode == 0
        told = booking_status(repair, booking__reason="Because of Zentinel")
        gone, kept = (
            str(post(crm, "booking-status", each).json["id"]) for each in (told, booking_status(other))
        )
        approved = "SELECT count(*) FROM approvals WHERE status = 'approved'"
        until(lambda: crm.rows(approved)[0][0] == 4)
        assert crm.cli("approvals", "reopen", first).returncode == 0
        assert crm.cli("approvals", "reject", first, "--reason", "Booked twice").returncode == 0
        crm.rows("UPDATE approvals SET decided_at = '2020-01-01T00:00:00.000000Z' WHERE id = ?", first)
        crm.restart()
        until(lambda: left_of(crm, "Zentinel") == [])
        rows = crm.rows("SELECT id FROM approvals WHERE payload IS NOT NULL ORDER BY sequence")
        assert [row["id"] for row in rows] == [second, kept]
        trail = crm.rows("SELECT actor, verb FROM audit_trail WHERE record_id = ? ORDER BY sequence", gone)
        assert [tuple(entry) for entry in trail] == [("website", "approve"), ("server:retention", "erase")]
        assert post(crm, "booking-status", told).json["duplicate"] is True


def test_without_the_setting_nothing_is_erased(tmp_path: Path) -> None:
    with start_crm(tmp_path) as crm:
        old, _ = rejected_long_ago(crm, repair_request(), repair_request())
        crm.restart()
        waiting = repair_request(customer__email="soon@example.com")
        post(crm, "repair-request", waiting)
        # When the log is empty again the task has looked.
        assert crm.cli("erase-person", "--email", "soon@example.com", "--yes").returncode == 0
        assert [
            row["id"] for row in crm.rows("SELECT id FROM approvals WHERE id = ? AND payload IS NULL", old)
        ] == []


@ON_BOTH_IN_TIME
def test_more_than_one_transaction_holds_is_erased_oldest_first(database: Database) -> None:
    count = erasure.EXPIRED_AT_ONCE + 5
    receive(database, *(received(f"key-{number:03}", "a@b.c") for number in range(count)))
    with database.writing() as connection:
        for row in approval_queue.list_approvals(connection):
            approval_queue.reject(connection, row.id, ME, "Because")
        connection.exec_driver_sql("UPDATE approvals SET decided_at = '2020-01-01T00:00:00.000000Z'")
    expired = []
    for _ in range(3):
        with database.writing() as connection:
            expired.append(erasure.expire(connection, 1, ME))
    assert expired == [erasure.EXPIRED_AT_ONCE, 5, 0]


def test_what_is_due_is_found_by_its_index(database: Database) -> None:
    with database.reading() as connection:
        plan = connection.exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT * FROM approvals WHERE status = 'rejected' AND erased_at IS NULL"
            " AND decided_at < '2020' ORDER BY decided_at LIMIT 50"
        ).all()
    assert "USING INDEX ix_approvals_expiring" in plan[0][3]


@ON_BOTH_IN_TIME
def test_an_erasure_finds_nothing_that_came_after_the_list_was_shown_and_so_refuses(
    database: Database,
) -> None:
    receive(database, received("first", "ada@example.com"))
    person = erasure.find(database, "ada@example.com")
    receive(database, received("second", "ADA@example.com"))
    with pytest.raises(PersonChanged, match="look again"), database.writing() as connection:
        erasure.erase(connection, person, ME)
    assert len(erasure.find(database, "ada@example.com").approvals) == 2


@ON_BOTH_IN_TIME
def test_words_that_were_read_before_an_erasure_are_not_indexed_after_it(database: Database) -> None:
    receive(database, received("key", "ada@example.com"))
    with database.reading() as connection:
        documents = search_index.read_documents(connection)
    assert documents[0].personal
    erase(database, "ada@example.com")
    with database.writing() as connection:
        search.add(connection, documents)
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM search_terms").scalar() == 0
        assert search.waiting(connection) == []


@ON_BOTH_IN_TIME
@pytest.mark.parametrize("together", [False, True])
def test_what_is_erased_is_known_in_a_batch_with_others(database: Database, together: bool) -> None:
    event = received("key", "ada@example.com", "id")
    [first] = receive(database, event)
    assert isinstance(first, approval_queue.Receipt)
    erase(database, "ada@example.com")
    new, other = received("new", "new@example.com"), received("key", "x@y.z", digest="1" * 64)
    again = (
        receive(database, event, new, other)
        if together
        else [outcome for each in (event, new, other) for outcome in receive(database, each)]
    )
    duplicate, stored, conflict = again
    assert duplicate == approval_queue.Receipt(first.id, duplicate=True, identity=event.identity)
    assert isinstance(stored, approval_queue.Receipt)
    assert not stored.duplicate
    assert isinstance(conflict, Conflict)
    assert conflict.kind == "erased"
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM approvals").scalar() == 2


@ON_BOTH_IN_TIME
def test_a_person_with_many_requests_in_many_parts_is_found_whole(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "PART", 3)
    monkeypatch.setattr(erasure, "AT_ONCE", 2)
    receive(database, *(received(f"key-{number}", "ada@example.com") for number in range(20)))
    find = partial(erasure.find, database, "ada@example.com")
    assert len(find().approvals) == 20
    assert len(find().users) == 20
    erase(database, "ada@example.com")
    assert len(find().approvals) == 0
