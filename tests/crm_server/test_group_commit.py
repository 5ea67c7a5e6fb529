"""Group commit under faults: every waiting request is answered, and a 202 is always on the disk."""

import resource
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.crm_server.answers import Answer, post, send, until
from tests.factories import customer_registration, repair_request
from tests.servers import Crm, start_crm


def post_all(crm: Crm, events: list[tuple[str, dict[str, Any]]]) -> list[Answer]:
    """Send all at the same time; return the answers in order."""
    gate = threading.Barrier(len(events))

    def one(event: tuple[str, dict[str, Any]]) -> Answer:
        gate.wait()
        return post(crm, *event)

    with ThreadPoolExecutor(len(events)) as pool:
        return list(pool.map(one, events))


@contextmanager
def locked(crm: Crm) -> Iterator[None]:
    """Hold the database's write lock, as a stuck process would."""
    connection = sqlite3.connect(crm.database, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.rollback()
        connection.close()


def test_one_bad_row_of_a_batch_does_not_fail_the_others(own_crm: Crm) -> None:
    connection = sqlite3.connect(own_crm.database)
    connection.execute(
        """
        CREATE TRIGGER poison BEFORE INSERT ON approvals WHEN NEW.natural_key = 'poison'
        BEGIN SELECT RAISE(ABORT, 'poison'); END
        """
    )
    connection.close()
    good = [("repair-request", repair_request()) for _ in range(20)]
    bad = ("repair-request", repair_request(repair__websiteRepairId="poison"))
    with ThreadPoolExecutor(1) as pool:
        with locked(own_crm):
            sending = pool.submit(post_all, own_crm, [*good[:10], bad, *good[10:]])
            time.sleep(1)  # so that they gather behind the lock, in one batch
        answers = sending.result()
    assert [answer.status for answer in answers] == [202] * 10 + [503] + [202] * 10
    assert len(own_crm.rows("SELECT 1 FROM approvals")) == 20


def test_no_copy_of_what_a_batch_changes_is_written_beside_the_database(tmp_path: Path) -> None:
    beside = tmp_path / "temporary"
    beside.mkdir()
    untouched = beside.stat().st_mtime_ns
    # Its imports are its own: SQLite asks where temporary files go once.
    program = (sys.executable, "-B", "-m", "crm_server")
    server = start_crm(tmp_path / "crm", program=program, SQLITE_TMPDIR=str(beside))
    with server as crm, ThreadPoolExecutor(1) as pool:
        for _ in range(20):
            post_all(crm, [("repair-request", repair_request()) for _ in range(60)])
        with locked(crm):
            sending = pool.submit(post_all, crm, [("repair-request", repair_request()) for _ in range(100)])
            time.sleep(1)  # so that they are one batch, which changes many of the pages that are there
        assert {answer.status for answer in sending.result()} == {202}
    assert beside.stat().st_mtime_ns == untouched, "a file that is made and deleted at once is seen too"


def test_one_batch_answers_new_duplicate_and_conflict_each_rightly(own_crm: Crm) -> None:
    payload = repair_request()
    other = {**payload, "repair": {**payload["repair"], "notes": "Other"}}
    events = [("repair-request", payload), ("repair-request", payload), ("repair-request", other)]
    events += [("customer-registration", customer_registration())]
    answers = post_all(own_crm, events * 3)
    assert {answer.status for answer in answers} <= {202, 409}, answers
    new = [answer for answer in answers if answer.status == 202 and not answer.json["duplicate"]]
    assert len(new) == len(own_crm.rows("SELECT 1 FROM approvals")) == 2


def test_a_locked_database_is_a_503_in_time_and_health_says_so_and_both_recover(own_crm: Crm) -> None:
    payload = repair_request()
    with locked(own_crm):
        answer = post(own_crm, "repair-request", payload)
        assert (answer.status, answer.type, answer.headers["retry-after"]) == (503, "unavailable", "1")
        until(lambda: send(own_crm, "GET", "/health").status == 503)
    until(lambda: send(own_crm, "GET", "/health").status == 200)
    assert post(own_crm, "repair-request", payload).status == 202


def test_health_answers_while_the_database_is_locked(own_crm: Crm) -> None:
    with locked(own_crm), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post, own_crm, "repair-request", repair_request())
        statuses = [send(own_crm, "GET", "/health").status for _ in range(2)]
    assert set(statuses) <= {200, 503}
    assert waiting.result().status in (202, 503)


def test_a_database_that_is_gone_is_a_503_until_it_is_back(own_crm: Crm) -> None:
    first = post(own_crm, "repair-request", repair_request())
    away = own_crm.directory / "away"
    shutil.move(own_crm.database.parent, away)
    for _ in range(2):
        assert post(own_crm, "repair-request", repair_request()).type == "unavailable"
    until(lambda: send(own_crm, "GET", "/health").status == 503)
    assert not own_crm.database.exists()
    assert post(own_crm, "repair-request", repair_request(), webhook_test="true").status == 503
    shutil.move(away, own_crm.database.parent)
    second = until(lambda: (a := post(own_crm, "repair-request", repair_request())).status == 202 and a)
    assert [row["id"] for row in own_crm.rows("SELECT id FROM approvals ORDER BY sequence")] == [
        first.json["id"],
        second.json["id"],
    ]


def test_a_full_disk_is_a_503_until_there_is_room_again(own_crm: Crm) -> None:
    kept = post(own_crm, "repair-request", repair_request()).json["id"]
    # Nothing more is appended, so that not even the one row by which health tries finds room.
    full = own_crm.database.with_name(f"{own_crm.database.name}-wal").stat().st_size
    before = resource.prlimit(own_crm.process.pid, resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
    payload = repair_request(repair__notes="n" * 5000)
    answers = [post(own_crm, "repair-request", repair_request(repair__notes="n" * 5000)) for _ in range(30)]
    assert answers[-1].type == "unavailable"
    until(lambda: send(own_crm, "GET", "/health").status == 503)
    resource.prlimit(own_crm.process.pid, resource.RLIMIT_FSIZE, before)
    until(lambda: post(own_crm, "repair-request", payload).status == 202)
    until(lambda: send(own_crm, "GET", "/health").status == 200)
    accepted = [answer.json["id"] for answer in answers if answer.status == 202]
    stored = [row["id"] for row in own_crm.rows("SELECT id FROM approvals ORDER BY sequence")]
    assert stored[:-1] == [kept, *accepted]


def test_received_at_never_goes_back_and_the_order_is_that_of_receipt(own_crm: Crm) -> None:
    first = post(own_crm, "repair-request", repair_request())
    future = "2999-01-01T00:00:00.000000Z"
    connection = sqlite3.connect(own_crm.database)
    connection.execute("UPDATE approvals SET received_at = ?", [future])
    connection.commit()
    connection.close()
    second = post(own_crm, "repair-request", repair_request())
    rows = own_crm.rows("SELECT id, received_at FROM approvals ORDER BY sequence")
    assert [tuple(row) for row in rows] == [(first.json["id"], future), (second.json["id"], future)]


def test_nothing_of_a_fault_shows_a_payload(own_crm: Crm) -> None:
    connection = sqlite3.connect(own_crm.database)
    connection.execute("ALTER TABLE approvals RENAME COLUMN payload TO content")
    connection.close()
    answer = post(own_crm, "repair-request", repair_request(customer__firstName="Sentinel-5b1"))
    assert answer.status == 503
    assert "Sentinel-5b1" not in own_crm.log
    assert "Sentinel" not in answer.body.decode()
