"""Backing up while the server works, and restoring: whole, checked, and without who was erased since."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from crm_server.backup import nobody_using, read_staff
from crm_server.database import new_id, utc_now
from tests.crm_server.answers import ask, post
from tests.crm_server.conftest import migrate_to, staff_token
from tests.crm_server.visitors import PASSWORD, Visitor, add_staff
from tests.factories import customer_profile, customer_registration, repair_request
from tests.postgresql import shared_postgresql
from tests.programs import Program
from tests.servers import PROGRAM, ROOT, Crm, clean_environment, migrated_database, start_crm

NOT_KNOWN = (
    "crm-server: who was disabled, and which tokens and passwords were changed since the backup, is not known:"
    " look through `crm-server staff list`.\n"
)


@pytest.fixture(scope="module")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server that holds some requests."""
    with start_crm(tmp_path_factory.mktemp("backup")) as crm:
        for number in range(20):
            receive(crm, f"first-{number}@example.com")
        yield crm


@pytest.fixture(scope="module")
def backup(crm: Crm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of it."""
    return backed_up(crm, tmp_path_factory.mktemp("backups") / "crm.backup")


@pytest.fixture
def stopped(tmp_path: Path) -> Crm:
    """A CRM whose server does not run, with an empty database."""
    crm = Crm(tmp_path / "stopped", clean_environment(), port=0)
    crm.database.parent.mkdir(parents=True)
    shutil.copy(migrated_database(), crm.database)
    return crm


def receive(crm: Crm, email: str) -> str:
    return str(post(crm, "repair-request", repair_request(customer__email=email)).json["id"])


def ids_in(database: Path, where: str = "TRUE") -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [
            row for (row,) in connection.execute(f"SELECT id FROM approvals WHERE {where} ORDER BY sequence")
        ]


def backed_up(crm: Crm, target: Path) -> Path:
    done = crm.cli("backup", str(target))
    assert (done.returncode, done.stderr) == (0, ""), done
    return target


@contextmanager
def restored(crm: Crm, backup: Path) -> "Iterator[subprocess.CompletedProcess[str]]":
    """Restore a backup while the server is stopped, and give what was printed; it runs again after the block."""
    crm.stop()
    try:
        yield crm.cli("restore", str(backup))
    finally:
        crm.start()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_backup_is_whole_private_and_of_one_moment_while_the_server_goes_on(
    crm: Crm, tmp_path: Path
) -> None:
    before, done = ids_in(crm.database), threading.Event()
    received: list[str] = []

    def go_on() -> None:
        while not done.is_set():
            received.append(receive(crm, "meanwhile@example.com"))

    website = threading.Thread(target=go_on)
    website.start()
    old = os.umask(0)
    try:
        backup = backed_up(crm, tmp_path / "crm.backup")
    finally:
        os.umask(old)
        done.set()
        website.join()
    assert [path.name for path in tmp_path.iterdir()] == ["crm.backup"]
    assert backup.stat().st_mode & 0o777 == 0o600
    found, after = ids_in(backup), ids_in(crm.database)
    assert received
    assert len(before) <= len(found) <= len(after)
    assert found == after[: len(found)]
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_backup_may_be_named_from_where_one_is(stopped: Crm) -> None:
    assert stopped.cli("backup", "crm.backup").returncode == 0
    done = stopped.cli("restore", "crm.backup")
    assert (done.returncode, done.stderr) == (0, "")
    assert ids_in(stopped.directory / "crm.backup") == []


def test_a_backup_replaces_nothing_and_leaves_nothing_when_it_fails(crm: Crm, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    done = crm.cli("backup", str(tmp_path / "mine"))
    assert done.returncode == 1
    assert "replaces nothing" in done.stderr
    assert contents(tmp_path) == {"mine": b"precious"}
    assert crm.cli("backup", str(tmp_path / "file")).returncode == 0
    for wrong in (tmp_path / "no" / "folder", tmp_path / "file"):
        done = crm.cli("backup", str(wrong))
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
    assert set(contents(tmp_path)) == {"mine", "file"}


def test_a_database_that_is_used_is_not_replaced(crm: Crm, backup: Path) -> None:
    before = ids_in(crm.database)
    done = crm.cli("restore", str(backup))
    assert done.returncode == 1
    assert "end the server first" in done.stderr
    receive(crm, "goes-on@example.com")
    assert len(ids_in(crm.database)) == len(before) + 1
    assert not [
        path for path in crm.database.parent.iterdir() if "part" in path.name or "before" in path.name
    ]


def test_a_restored_database_is_what_was_backed_up_and_the_old_one_is_kept_with_its_log(
    backup: Path, stopped: Crm, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(stopped.database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("INSERT INTO heartbeat VALUES (1, 'old')")
        connection.commit()
        for suffix in ("", "-wal"):  # as a killed server leaves them
            shutil.copy(f"{stopped.database}{suffix}", tmp_path / f"old{suffix}")
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"old{suffix}", f"{stopped.database}{suffix}")
    done = stopped.cli("restore", str(backup))
    assert (done.returncode, done.stderr) == (0, "")
    assert ids_in(stopped.database) == ids_in(backup)
    assert stopped.rows("SELECT at FROM heartbeat WHERE at = 'old'") == []
    (entry,) = stopped.rows("SELECT actor, verb FROM audit_trail ORDER BY sequence DESC LIMIT 1")
    assert (entry["actor"].partition(":")[0], entry["verb"]) == ("cli", "restore")
    assert stopped.database.stat().st_mode & 0o777 == 0o600
    (aside,) = (path for path in stopped.database.parent.glob("*before-restore*") if "-wal" not in path.name)
    assert str(aside) in done.stdout
    with closing(sqlite3.connect(aside)) as connection:
        assert connection.execute("SELECT at FROM heartbeat").fetchall() == [("old",)]


@pytest.mark.parametrize(
    "what", ["nothing", "no database", "another database", "a damaged one", "a newer one"]
)
def test_what_is_no_sound_backup_of_ours_is_refused_and_nothing_changes(
    backup: Path, stopped: Crm, tmp_path: Path, what: str
) -> None:
    wrong = tmp_path / "wrong"
    if what == "no database":
        wrong.write_bytes(b"Nothing of SQLite's." * 1000)
    elif what == "another database":
        with closing(sqlite3.connect(wrong)) as connection:
            connection.execute("CREATE TABLE approvals (id)")
    elif what == "a damaged one":
        content = backup.read_bytes()
        half = len(content) // 2
        wrong.write_bytes(content[:half] + os.urandom(half))
    elif what == "a newer one":
        shutil.copy(backup, wrong)
        with closing(sqlite3.connect(wrong)) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = contents(stopped.database.parent)
    done = stopped.cli("restore", str(wrong))
    assert done.returncode == 1
    assert done.stderr.startswith("crm-server: ")
    assert str(wrong) in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(stopped.database.parent) == before


def test_a_destroyed_database_is_replaced(backup: Path, stopped: Crm) -> None:
    for destroyed in (b"\0" * 100_000, None):
        stopped.database.write_bytes(destroyed) if destroyed else stopped.database.unlink()
        done = stopped.cli("restore", str(backup))
        assert (done.returncode, done.stderr) == (0, "")
        assert ids_in(stopped.database) == ids_in(backup)
        assert ("before-restore" in done.stdout) == bool(destroyed)
        assert NOT_KNOWN in done.stdout


def test_a_backup_of_an_earlier_step_is_brought_up_to_date(stopped: Crm, tmp_path: Path) -> None:
    backup = tmp_path / "earlier"
    migrate_to("0001", backup).close()
    assert stopped.cli("restore", str(backup)).returncode == 0
    assert json.loads(stopped.cli("approvals", "list", "--json").stdout) == []


@pytest.mark.parametrize("step", ["0001", "0010"])
def test_a_database_of_an_older_release_is_backed_up_before_it_is_migrated(
    stopped: Crm, tmp_path: Path, step: str
) -> None:
    stopped.database.unlink()
    migrate_to(step, stopped.database).close()
    stopped.rows("INSERT INTO heartbeat VALUES (1, 'then')")
    backup = backed_up(stopped, tmp_path / "crm.backup")
    assert steps_of(stopped.database) == steps_of(backup) == [step]
    stopped.migrate()
    stopped.rows("UPDATE heartbeat SET at = 'since'")
    done = stopped.cli("restore", str(backup))
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["at"] for row in stopped.rows("SELECT at FROM heartbeat")] == ["then"]


def steps_of(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [step for (step,) in connection.execute("SELECT version_num FROM alembic_version")]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("nothing", "There is no database at "),
        ("no database", "The file is no database"),
        ("another database", "run `crm-server migrate`"),
        ("a newer one", "newer than this crm-server"),
    ],
)
def test_what_is_no_database_of_ours_or_a_newer_one_is_not_backed_up(
    stopped: Crm, tmp_path: Path, what: str, words: str
) -> None:
    if what == "a newer one":
        stopped.rows("UPDATE alembic_version SET version_num = '9999'")
    else:
        stopped.database.unlink()
    if what == "no database":
        stopped.database.write_bytes(b"Nothing of SQLite's." * 1000)
    elif what == "another database":
        stopped.rows("CREATE TABLE approvals (id)")
    done = stopped.cli("backup", str(tmp_path / "crm.backup"))
    assert (done.returncode, words in done.stderr) == (1, True), done.stderr
    assert list(tmp_path.glob("crm.backup*")) == []


def test_the_journal_and_a_backup_are_their_owners_whatever_the_umask(tmp_path: Path) -> None:
    with start_crm(tmp_path) as crm:
        receive(crm, "masked@example.com")
        backup, journal = tmp_path / "crm.backup", Path(f"{crm.database}.erasures")
        for arguments in (
            ["backup", str(backup)],
            ["erase-person", "--email", "masked@example.com", "--yes"],
        ):
            command = [*PROGRAM, *arguments]
            done = subprocess.run(command, cwd=crm.directory, env=crm.env, umask=0o777, check=False)
            assert done.returncode == 0
        assert [file.stat().st_mode & 0o777 for file in (backup, journal)] == [0o600, 0o600]


def test_who_was_erased_since_is_erased_again_in_what_is_restored(crm: Crm, tmp_path: Path) -> None:
    approval, other = receive(crm, "erased@example.com"), receive(crm, "kept@example.com")
    assert crm.cli("approvals", "approve", approval).returncode == 0
    backup = backed_up(crm, tmp_path / "crm.backup")
    assert crm.cli("erase-person", "--email", "erased@example.com", "--yes").returncode == 0
    journal = Path(f"{crm.database}.erasures")
    assert journal.stat().st_mode & 0o777 == 0o600
    assert "erased@example.com" not in journal.read_text()
    back = receive(crm, "erased@example.com")
    assert b"erased@example.com" in backup.read_bytes(), "a backup holds what was there"
    with restored(crm, backup) as done:
        assert done.returncode == 0, done.stderr
        assert "3 records" in done.stdout  # request, customer, ticket
    assert ids_in(crm.database, "payload IS NULL") == [approval]
    assert other in ids_in(crm.database)
    assert back not in ids_in(crm.database)
    assert crm.rows("SELECT email FROM customers")[0]["email"] is None
    assert b"erased@example.com" not in crm.database.read_bytes()


def test_a_database_that_was_moved_without_its_journal_is_not_replaced(stopped: Crm, tmp_path: Path) -> None:
    with start_crm(tmp_path / "first") as first:
        receive(first, "erased@example.com")
        backup = backed_up(first, tmp_path / "crm.backup")
        assert first.cli("erase-person", "--email", "erased@example.com", "--yes").returncode == 0
    journal = Path(f"{stopped.database}.erasures")
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            shutil.copy(f"{first.database}{suffix}", f"{stopped.database}{suffix}")
    before = contents(stopped.database.parent)
    done = stopped.cli("restore", str(backup))
    assert (done.returncode, str(journal) in done.stderr) == (1, True), done
    assert contents(stopped.database.parent) == before
    shutil.copy(f"{first.database}.erasures", journal)
    assert "1 records" in stopped.cli("restore", str(backup)).stdout
    assert b"erased@example.com" not in stopped.database.read_bytes()


def test_what_was_filled_again_after_an_erasure_is_erased_again_and_later_notes_stay(
    crm: Crm, tmp_path: Path
) -> None:
    assert crm.cli("approvals", "approve", receive(crm, "first-time@example.com")).returncode == 0
    (customer,) = crm.rows("SELECT id FROM customers WHERE email = 'first-time@example.com'")
    (ticket,) = crm.rows("SELECT id FROM tickets WHERE customer_id = ?", customer["id"])
    assert crm.cli("erase-person", "--email", "first-time@example.com", "--yes").returncode == 0
    # As releases did that let staff approve a request for an erased customer.
    second = receive(crm, "second-time@example.com")
    joined = (
        "INSERT INTO customer_website_users SELECT json_extract(payload, '$.customer.websiteUserId'), ?, id"
        " FROM approvals WHERE id = ?"
    )
    crm.rows(joined, customer["id"], second)
    crm.rows(
        "UPDATE customers SET email = 'second-time@example.com', phone = '555' WHERE id = ?", customer["id"]
    )
    note(crm, ticket["id"], "second-time@example.com called")
    backup = backed_up(crm, tmp_path / "first.backup")
    assert crm.cli("erase-person", "--email", "second-time@example.com", "--yes").returncode == 0
    crm.stop()
    try:
        assert crm.cli("restore", str(backup)).returncode == 0
        assert b"second-time@example.com" not in crm.database.read_bytes()
        (row,) = crm.rows("SELECT email, phone FROM customers WHERE id = ?", customer["id"])
        assert tuple(row) == (None, None)
        assert crm.rows("SELECT 1 FROM customer_website_users WHERE customer_id = ?", customer["id"]) == []
        note(crm, ticket["id"], "It is on the upper shelf.")
        later = backed_up(crm, tmp_path / "later.backup")
        done = crm.cli("restore", str(later))
        assert (done.returncode, "erased again" in done.stdout) == (0, False)
        notes = crm.rows("SELECT text FROM ticket_notes WHERE ticket_id = ? ORDER BY at", ticket["id"])
        assert [row["text"] for row in notes] == [None, "It is on the upper shelf."]
    finally:
        crm.start()


def test_what_came_after_the_backup_and_was_erased_is_known_when_it_is_sent_again(
    crm: Crm, tmp_path: Path
) -> None:
    backup = backed_up(crm, tmp_path / "crm.backup")
    sent = {f"msg-late-{n}": customer_registration(customer__email=f"late-{n}@example.com") for n in range(2)}
    late = [
        str(post(crm, "customer-registration", payload, webhook_id=webhook_id).json["id"])
        for webhook_id, payload in sent.items()
    ]
    for payload in reversed(sent.values()):
        done = crm.cli("erase-person", "--email", payload["customer"]["email"], "--yes")
        assert done.returncode == 0
    journal = Path(f"{crm.database}.erasures").read_text()
    for webhook_id, payload in sent.items():
        for told in (
            webhook_id,
            *(payload["customer"][name] for name in ("email", "phone", "websiteUserId")),
        ):
            assert told not in journal
    with restored(crm, backup) as done:
        assert (done.returncode, done.stderr, "send them again" in done.stdout) == (0, "", False)
    assert ids_in(crm.database) == [*ids_in(backup), *late], "in order of receipt"
    for (webhook_id, payload), known in zip(sent.items(), late, strict=True):
        again = post(crm, "customer-registration", payload, webhook_id=webhook_id)
        assert (again.json["id"], again.json["duplicate"]) == (known, True)
        other = {**payload, "customer": {**payload["customer"], "firstName": "Other"}}
        assert post(crm, "customer-registration", other).type == "erased"
        same_id = customer_registration()
        assert post(crm, "customer-registration", same_id, webhook_id=webhook_id).status == 409
    (newest,) = crm.rows("SELECT received_at FROM approvals WHERE id = ?", receive(crm, "newest@example.com"))
    times = [row["received_at"] for row in crm.rows("SELECT received_at FROM approvals ORDER BY sequence")]
    assert (times, times[-1]) == (sorted(times), newest["received_at"])
    assert b"late-0@example.com" not in crm.database.read_bytes()


def test_what_was_received_anew_where_an_erasure_was_not_known_can_be_erased_again(
    crm: Crm, tmp_path: Path
) -> None:
    backup = backed_up(crm, tmp_path / "by-hand.backup")
    sent = customer_registration(customer__email="anew@example.com")
    first = post(crm, "customer-registration", sent).json["id"]
    assert crm.cli("erase-person", "--email", "anew@example.com", "--yes").returncode == 0
    crm.stop()
    crm.database.unlink()
    for suffix in ("-wal", "-shm"):
        Path(f"{crm.database}{suffix}").unlink(missing_ok=True)
    shutil.copy(backup, crm.database)
    crm.start()
    again = post(crm, "customer-registration", sent).json
    assert (again["id"] != first, again["duplicate"]) == (True, False)
    later = backed_up(crm, tmp_path / "later.backup")
    with restored(crm, later) as done:
        assert (done.returncode, done.stderr) == (0, "")
        assert crm.cli("erase-person", "--email", "anew@example.com", "--yes").returncode == 0
        again = crm.cli("restore", str(backup))
        assert (again.returncode, again.stderr) == (0, "")
    assert post(crm, "customer-registration", sent).json["duplicate"]


def test_what_an_earlier_release_erased_after_the_backup_is_named(backup: Path, stopped: Crm) -> None:
    entry = {"at": "2026-11-24T10:00:00.000000Z", "approvals": ["late"], "customers": [], "tickets": []}
    Path(f"{stopped.database}.erasures").write_text(f"{json.dumps(entry)}\n")
    done = stopped.cli("restore", str(backup))
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 requests came after the backup" in done.stdout
    assert "send them again: late." in done.stdout
    assert ids_in(stopped.database) == ids_in(backup)


@pytest.fixture
def joined(crm: Crm) -> tuple[str, str]:
    """A customer, and an approved request of somebody else who was taken for that customer."""
    registration = customer_registration(customer__email="somebody@example.com")
    approve(crm, str(post(crm, "customer-registration", registration).json["id"]))
    newest = "SELECT id FROM customers WHERE email = 'somebody@example.com' ORDER BY id DESC LIMIT 1"
    (customer,) = crm.rows(newest)
    mistaken = repair_request(
        customer__email="mistaken@example.com",
        customer__phone="555-1234",
        repair__customerEmail="mistaken@example.com",
        repair__customerName="Mistaken",
    )
    request = str(post(crm, "repair-request", mistaken).json["id"])
    approve(crm, request, "--customer-id", customer["id"], "--use-sent", "phone")
    return customer["id"], request


def approve(crm: Crm, request: str, *options: str) -> None:
    done = crm.cli("approvals", "approve", request, *options)
    assert done.returncode == 0, done.stderr


def reopen_and_erase(crm: Crm, email: str, *requests: str) -> None:
    """Take decisions back, then erase a person."""
    for request in requests:
        assert crm.cli("approvals", "reopen", request).returncode == 0
    assert crm.cli("erase-person", "--email", email, "--yes").returncode == 0


def test_what_was_taken_back_before_it_was_erased_is_taken_back_in_what_is_restored(
    crm: Crm, joined: tuple[str, str], tmp_path: Path
) -> None:
    customer, request = joined
    (before,) = crm.rows("SELECT before FROM corrections WHERE approval_id = ?", request)
    backup = backed_up(crm, tmp_path / "crm.backup")
    reopen_and_erase(crm, "mistaken@example.com", request)
    with restored(crm, backup) as done:
        assert (done.returncode, done.stderr, "may hold" in done.stdout) == (0, "", False)
        (row,) = crm.rows("SELECT email, phone FROM customers WHERE id = ?", customer)
        assert tuple(row) == ("somebody@example.com", before["before"])
        assert crm.rows("SELECT 1 FROM tickets WHERE customer_id = ?", customer) == []
        for told in (b"mistaken@example.com", b"555-1234", b"Mistaken"):
            assert told not in crm.database.read_bytes()
        assert ids_in(crm.database, f"id = '{request}' AND payload IS NULL AND status = 'rejected'")


def test_what_cannot_be_taken_back_in_what_is_restored_is_named(
    crm: Crm, joined: tuple[str, str], tmp_path: Path
) -> None:
    customer, request = joined
    (user,) = crm.rows("SELECT website_user_id FROM customers WHERE id = ?", customer)
    later = repair_request(
        customer__email="somebody@example.com", customer__websiteUserId=user["website_user_id"]
    )
    second = str(post(crm, "repair-request", later).json["id"])
    approve(crm, second)
    backup = backed_up(crm, tmp_path / "crm.backup")
    reopen_and_erase(crm, "mistaken@example.com", second, request)
    with restored(crm, backup) as done:
        assert (done.returncode, done.stderr) == (0, "")
        assert f"customer {customer} may hold what an erased person had sent" in done.stdout
        (row,) = crm.rows("SELECT email, phone FROM customers WHERE id = ?", customer)
        assert tuple(row) == ("somebody@example.com", "555-1234"), "it is not ours to say whose it is"
        for told in (b"mistaken@example.com", b"Mistaken"):
            assert told not in crm.database.read_bytes()
        (kept,) = crm.rows("SELECT customer_name FROM tickets WHERE website_repair_id = ?", repair_id(later))
        assert kept["customer_name"] == "Ada Lovelace"


def test_who_was_taken_for_an_erased_person_until_that_was_taken_back_is_whole_and_waits_again(
    crm: Crm, joined: tuple[str, str], tmp_path: Path
) -> None:
    customer, request = joined
    backup = backed_up(crm, tmp_path / "crm.backup")
    assert crm.cli("approvals", "reopen", request).returncode == 0
    approve(crm, request)
    assert crm.cli("erase-person", "--email", "somebody@example.com", "--yes").returncode == 0
    with restored(crm, backup) as done:
        assert (done.returncode, done.stderr, "taken back" in done.stdout) == (0, "", False)
        assert waits_whole(crm, request)
        (row,) = crm.rows("SELECT email, phone FROM customers WHERE id = ?", customer)
        assert tuple(row) == (None, None)
        assert crm.rows("SELECT id FROM tickets WHERE customer_id = ?", customer) == []
        assert b"somebody@example.com" not in crm.database.read_bytes()
    approve(crm, request)
    (ticket,) = crm.rows("SELECT customer_name FROM tickets WHERE customer_email = 'mistaken@example.com'")
    assert ticket["customer_name"] == "Mistaken"
    assert crm.cli("erase-person", "--email", "mistaken@example.com", "--yes").returncode == 0


def test_who_was_taken_for_a_customer_whom_an_erased_request_had_made_is_whole_and_waits_again(
    crm: Crm, tmp_path: Path
) -> None:
    first = receive(crm, "anna@example.com")
    approve(crm, first)
    (anna,) = crm.rows("SELECT id FROM customers WHERE email = 'anna@example.com'")
    second = receive(crm, "ben@example.com")
    approve(crm, second, "--customer-id", anna["id"])
    backup = backed_up(crm, tmp_path / "crm.backup")
    reopen_and_erase(crm, "anna@example.com", second, first)
    with restored(crm, backup) as done:
        assert (done.returncode, done.stderr, "may hold" in done.stdout) == (0, "", False)
        assert waits_whole(crm, second)
        assert crm.rows("SELECT id FROM customers WHERE id = ?", anna["id"]) == []
        assert b"anna@example.com" not in crm.database.read_bytes()


def test_what_another_person_has_under_an_erased_customer_is_left_whole_and_named(
    crm: Crm, joined: tuple[str, str], tmp_path: Path
) -> None:
    customer, request = joined
    (user,) = crm.rows("SELECT website_user_id FROM customers WHERE id = ?", customer)
    changed = customer_profile(
        customer__websiteUserId=user["website_user_id"], customer__email="somebody@example.com"
    )
    profile = str(post(crm, "customer-profile", changed).json["id"])
    approve(crm, profile)
    backup = backed_up(crm, tmp_path / "crm.backup")
    for each in (profile, request):
        assert crm.cli("approvals", "reopen", each).returncode == 0
    approve(crm, profile)
    approve(crm, request)
    assert crm.cli("erase-person", "--email", "somebody@example.com", "--yes").returncode == 0
    with restored(crm, backup) as done:
        assert (done.returncode, done.stderr, "may hold" in done.stdout) == (0, "", False)
        assert f"approval request {request} is another person's" in done.stdout
        (ticket,) = crm.rows("SELECT customer_name, erased_at FROM tickets WHERE customer_id = ?", customer)
        assert tuple(ticket) == ("Mistaken", None)
        assert ids_in(crm.database, f"id = '{request}' AND payload IS NOT NULL AND status = 'approved'")
        assert b"somebody@example.com" not in crm.database.read_bytes()
        assert crm.cli("erase-person", "--email", "mistaken@example.com", "--yes").returncode == 0
        (ticket,) = crm.rows("SELECT customer_name FROM tickets WHERE customer_id = ?", customer)
        assert ticket["customer_name"] is None


def waits_whole(crm: Crm, request: str) -> bool:
    """Whether a request has its payload and waits for approval."""
    whole = f"id = '{request}' AND payload IS NOT NULL AND status = 'pending_approval'"
    return ids_in(crm.database, whole) == [request]


def repair_id(payload: dict[str, Any]) -> str:
    return str(payload["repair"]["websiteRepairId"])


def note(crm: Crm, ticket_id: str, text: str) -> None:
    """Note something on a ticket, now."""
    at = utc_now()
    crm.rows("INSERT INTO ticket_notes VALUES (?, ?, ?, 'staff:Grace', ?)", new_id(), ticket_id, at, text)


@pytest.mark.parametrize("rest", [b"", b'{"at": "2026-11-', b"\0" * 100])
def test_the_unfinished_end_of_the_journal_is_passed_over(backup: Path, stopped: Crm, rest: bytes) -> None:
    (kept, *_) = ids_in(backup)
    journal = Path(f"{stopped.database}.erasures")
    entry = {"at": "2026-11-24T10:00:00.000000Z", "approvals": [kept], "customers": [], "tickets": []}
    journal.write_bytes(json.dumps(entry).encode() + b"\n" + rest)
    done = stopped.cli("restore", str(backup))
    assert (done.returncode, done.stderr) == (0, "")
    assert ids_in(stopped.database, "payload IS NULL") == [kept]


@pytest.mark.parametrize(
    "line",
    [
        "",
        '{"at": "2026-11-',
        "[]",
        '{"at": "2026-11-24", "approvals": []}',
        "\0",
        '{"at": "2026-11-24", "approvals": [], "customers": [], "tickets": [], "requests": [{"id": "1"}]}',
    ],
)
def test_a_damaged_line_of_the_journal_is_named_and_nothing_is_restored(
    backup: Path, stopped: Crm, line: str
) -> None:
    journal = Path(f"{stopped.database}.erasures")
    entry = {"at": "2026-11-24T10:00:00.000000Z", "approvals": [], "customers": [], "tickets": []}
    journal.write_text(f"{json.dumps(entry)}\n{line}\n{json.dumps(entry)}\n")
    before = contents(stopped.database.parent)
    done = stopped.cli("restore", str(backup))
    assert done.returncode == 1
    assert done.stderr.startswith(f"crm-server: {journal}, line 2, is damaged")
    assert "`erase-person`" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(stopped.database.parent) == before


def test_the_staff_stay_as_they_are_and_nobody_stays_logged_in(tmp_path: Path) -> None:
    with start_crm(tmp_path / "crm", only=None) as crm:
        tokens = {name: staff_token(crm, name, "admin") for name in ("Stays", "Disabled", "Revoked")}
        for name in ("Visitor", "Changed"):
            add_staff(crm, name, "viewer")
        visitor = Visitor(crm)
        assert visitor.log_in("Visitor").status_code == 303
        assert ask(crm, tokens["Stays"], "POST", "/searches", {"text": "Ada"}).status == 201
        backup = backed_up(crm, tmp_path / "crm.backup")
        for verb, name in (("disable", "Disabled"), ("revoke", "Revoked")):
            assert crm.cli("staff", verb, name).returncode == 0
        done = crm.cli("staff", "password", "Changed", "--password-stdin", stdin="another long password\n")
        assert done.returncode == 0
        tokens["New"] = staff_token(crm, "New", "viewer")
        before = staff_of(crm)
        crm.kill()  # so that this is in the log alone
        done = crm.cli("restore", str(backup))
        assert (done.returncode, done.stderr, NOT_KNOWN in done.stdout) == (0, "", False)
        assert staff_of(crm) == before
        assert crm.rows("SELECT digest FROM staff_sessions") == []
        crm.start()
        statuses = {name: ask(crm, token, "GET", "/approvals").status for name, token in tokens.items()}
        assert statuses == {"Stays": 200, "Disabled": 401, "Revoked": 401, "New": 200}
        assert visitor.get("/approvals").status_code == 303, "they have to log in again"
        assert Visitor(crm).log_in("Changed").status_code != 303
        assert Visitor(crm).log_in("Changed", "another long password").status_code == 303
        assert Visitor(crm).log_in("Visitor", PASSWORD).status_code == 303
        assert sorted(path.name for path in crm.database.parent.glob("*.part*")) == []


def staff_of(crm: Crm) -> list[list[tuple[object, ...]]]:
    """The staff and their tokens, as a database has them."""
    tables = ("staff", "staff_tokens")
    return [[tuple(row) for row in crm.rows(f"SELECT * FROM {table} ORDER BY 1")] for table in tables]


@pytest.mark.parametrize("step", ["0001", "0003"])
@pytest.mark.parametrize("older", ["the backup", "what was there"])
def test_the_staff_are_kept_across_steps(stopped: Crm, tmp_path: Path, step: str, older: str) -> None:
    backup = tmp_path / "crm.backup"
    if older == "the backup":
        migrate_to(step, backup).close()
    else:
        shutil.copy(stopped.database, backup)
        stopped.database.unlink()
        migrate_to(step, stopped.database).close()
    has_staff = older == "the backup" or step == "0003"
    if has_staff:
        row = ("1", "Grace", "admin", None, "2026-11-24", "2026-11-25")
        stopped.rows("INSERT INTO staff VALUES (?, ?, ?, ?, ?, ?)", *row)
        stopped.rows("INSERT INTO staff_tokens VALUES ('digest', '1', '2026-11-24')")
    before = staff_of(stopped) if has_staff else [[], []]
    done = stopped.cli("restore", str(backup))
    assert (done.returncode, done.stderr, NOT_KNOWN in done.stdout) == (0, "", not has_staff)
    assert staff_of(stopped) == before


def test_the_staff_of_a_damaged_database_are_kept_where_they_can_be_read(
    stopped: Crm, tmp_path: Path
) -> None:
    assert stopped.cli("staff", "add", "Grace", "--role", "admin").returncode == 0
    assert stopped.cli("staff", "add", "Alan", "--role", "admin").returncode == 0
    backup = backed_up(stopped, tmp_path / "crm.backup")
    assert stopped.cli("staff", "disable", "Alan").returncode == 0
    before = staff_of(stopped)
    damage(stopped, "approvals")
    done = stopped.cli("restore", str(backup))
    assert (done.returncode, done.stderr, NOT_KNOWN in done.stdout) == (0, "", False)
    assert staff_of(stopped) == before
    damage(stopped, "staff")
    done = stopped.cli("restore", str(backup))
    assert (done.returncode, done.stderr, NOT_KNOWN in done.stdout) == (0, "", True)
    assert [row["disabled_at"] for row in stopped.rows("SELECT disabled_at FROM staff")] == [None, None]


def damage(crm: Crm, table: str) -> None:
    """Overwrite the first page of a table."""
    (row,) = crm.rows("SELECT rootpage FROM sqlite_master WHERE name = ?", table)
    with crm.database.open("r+b") as file:
        file.seek((row["rootpage"] - 1) * 4096)
        file.write(b"\xa5" * 4096)


def test_nobody_gets_at_a_database_whose_staff_were_read(stopped: Crm) -> None:
    look = f"import sqlite3; sqlite3.connect({str(stopped.database)!r}, timeout=0).execute('SELECT * FROM staff')"
    with nobody_using(stopped.database) as file:
        assert file is not None
        read_staff(stopped.database, file, None)
        done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    assert "database is locked" in done.stderr
    subprocess.run([sys.executable, "-c", look], check=True)


def test_staff_who_cannot_be_copied_stop_a_restore_and_nothing_changes(backup: Path, stopped: Crm) -> None:
    before = contents(stopped.database.parent)
    command = ["prlimit", "--fsize=4096", *stopped.program, "restore", str(backup)]  # as on a full disk
    done = subprocess.run(
        command, cwd=stopped.directory, env=stopped.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"crm-server: The staff in {stopped.database} cannot be copied: ")
    assert "Make room" in done.stderr
    assert contents(stopped.database.parent) == before


def test_postgresqls_own_programs_bring_back_what_was_dumped(tmp_path: Path) -> None:
    with start_crm(tmp_path, engine="postgresql") as crm:
        kept = receive(crm, "kept@example.com")
        assert crm.cli("approvals", "approve", kept).returncode == 0
        dump = "pg_dump --format=custom --file=crm.dump $CRM_DATABASE_URL"
        restore = "pg_restore --clean --if-exists --no-owner --dbname=$CRM_DATABASE_URL crm.dump"
        page = (ROOT / "docs" / "backup.md").read_text().replace('"', "")
        assert dump in page
        assert restore in page
        run_of_postgresql(crm, dump)
        receive(crm, "after@example.com")
        crm.rows("UPDATE customers SET email = 'damaged'")
        crm.stop()
        run_of_postgresql(crm, restore)
        assert crm.cli("migrate").returncode == 0
        crm.start()
        assert [tuple(row) for row in crm.rows("SELECT id, status FROM approvals")] == [(kept, "approved")]
        assert [row["email"] for row in crm.rows("SELECT email FROM customers")] == ["kept@example.com"]
        newer = receive(crm, "newer@example.com")
        assert crm.rows("SELECT count(*) FROM approvals WHERE id = ? AND sequence > 1", newer)[0][0] == 1
        with pytest.raises(psycopg.Error, match="append-only"):
            crm.rows("DELETE FROM audit_trail")


def run_of_postgresql(crm: Crm, line: str) -> None:
    """Run a program of PostgreSQL as the page shows it."""
    environment = {**crm.env, "PATH": f"{shared_postgresql().programs}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", line.replace("$CRM_DATABASE_URL", '"$CRM_DATABASE_URL"')],
        cwd=crm.directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_on_postgresql_the_commands_name_what_it_has_for_this(tmp_path: Path, command: str) -> None:
    crm = Crm(tmp_path, clean_environment(CRM_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none"), port=0)
    done = crm.cli(command, str(tmp_path / "x"))
    assert done.returncode == 1
    words = "PostgreSQL has pg_dump and pg_restore for this: see docs/backup.md."
    assert done.stderr == f"crm-server: {words}\n"


def test_a_backup_is_named_from_where_one_stands(stopped: Crm) -> None:
    done = stopped.cli("backup", "here.sqlite3")
    assert done.returncode == 0, done.stderr
    assert (stopped.directory / "here.sqlite3").is_file()
    done = stopped.cli("restore", "here.sqlite3")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("is_there", [True, False])
def test_of_two_restores_at_the_same_time_one_is_refused_and_the_other_is_done(
    backup: Path, stopped: Crm, is_there: bool
) -> None:
    if not is_there:
        stopped.database.unlink()
    # One stops where it reads what was erased, until somebody writes that.
    journal = Path(f"{stopped.database}.erasures")
    os.mkfifo(journal)
    command = ["restore", str(backup)]
    both = [Program("crm_server", command, cwd=stopped.directory, env=stopped.env) for _ in range(2)]
    with journal.open("wb"):
        deadline = time.monotonic() + 10
        while all(each.poll() is None for each in both) and time.monotonic() < deadline:
            time.sleep(0.05)
    printed = [each.communicate(30) for each in both]
    assert sorted(each.wait() for each in both) == [0, 1], printed
    assert "Another backup or restore" in "".join(errors for _, errors in printed)
    assert ids_in(stopped.database) == ids_in(backup)
    assert [path.name for path in stopped.database.parent.glob("*.part*")] == []
    assert len(list(stopped.database.parent.glob("*.before*"))) == is_there


def test_of_two_backups_to_one_file_the_second_is_refused_and_the_first_is_whole(
    crm: Crm, tmp_path: Path
) -> None:
    target = tmp_path / "crm.backup"
    command = ["backup", str(target)]
    while True:
        first = Program("crm_server", command, cwd=crm.directory, env=crm.env)
        while not (tmp_path / "crm.backup.part").exists() and not target.exists():
            time.sleep(0.0001)
        first.send_signal(signal.SIGSTOP)
        if not target.exists():
            break
        first.send_signal(signal.SIGCONT)  # it was quicker
        first.communicate(30)
        target.unlink()
    second = crm.cli(*command)
    first.send_signal(signal.SIGCONT)
    first.communicate(30)
    assert (first.returncode, second.returncode) == (0, 1)
    assert "Another backup or restore" in second.stderr
    assert ids_in(target) == ids_in(crm.database)
    assert [path.name for path in tmp_path.iterdir()] == ["crm.backup"]


def test_what_a_killed_backup_left_is_in_nobodys_way(crm: Crm, tmp_path: Path) -> None:
    for left in ("crm.backup.part", "crm.backup.part.lock"):
        (tmp_path / left).write_text("of before")
    assert ids_in(backed_up(crm, tmp_path / "crm.backup")) == ids_in(crm.database)
    assert [path.name for path in tmp_path.iterdir()] == ["crm.backup"]


def test_a_backup_by_the_name_of_an_unfinished_file_is_left_where_it_is(backup: Path, stopped: Crm) -> None:
    name = Path(f"{stopped.database}.part")
    shutil.copy(backup, name)
    before = contents(stopped.database.parent)
    done = stopped.cli("restore", str(name))
    assert (done.returncode, "give it another" in done.stderr) == (1, True), done
    assert contents(stopped.database.parent) == before


def test_a_restore_whose_words_nobody_takes_says_all_of_them_elsewhere(backup: Path, stopped: Crm) -> None:
    full = Path("/dev/full")
    restoring = Program(
        "crm_server", ["restore", str(backup)], cwd=stopped.directory, env=stopped.env, stdout=full
    )
    _, printed = restoring.communicate(30)
    assert restoring.returncode == 1
    assert f"is what {backup} holds.\n" in printed
    assert NOT_KNOWN in printed
    assert printed.endswith("crm-server: [Errno 28] No space left on device\n")
    assert ids_in(stopped.database) == ids_in(backup)


def test_what_root_makes_belongs_to_whom_the_server_runs_for(tmp_path: Path) -> None:
    user = 1000 if os.geteuid() == 0 else os.geteuid()
    crm = Crm(tmp_path / "site", clean_environment(), port=0)
    crm.database.parent.mkdir(parents=True)
    os.chown(crm.database.parent, user, -1)
    assert crm.cli("migrate").returncode == 0
    with start_crm(crm.directory) as running:
        receive(running, "ada@example.com")
    backed_up(crm, tmp_path / "crm.backup")
    assert crm.cli("erase-person", "--email", "ada@example.com", "--yes").returncode == 0
    done = crm.cli("restore", str(tmp_path / "crm.backup"))
    assert done.returncode == 0, done.stderr
    made = {path.name: path.stat().st_uid for path in crm.database.parent.iterdir()}
    assert made.keys() >= {"crm.sqlite3", "crm.sqlite3.erasures"}
    assert set(made.values()) == {user}
