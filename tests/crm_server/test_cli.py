"""The command line of `crm-server`, as staff use it."""

import json
import os
import sqlite3
from pathlib import Path

import pytest

from tests.crm_server.answers import post
from tests.factories import customer_registration, repair_request
from tests.servers import Crm, clean_environment


@pytest.fixture
def empty(tmp_path: Path) -> Crm:
    """A directory in which nothing has been done."""
    return Crm(tmp_path, clean_environment())


@pytest.fixture
def migrated(empty: Crm) -> Crm:
    empty.migrate()
    return empty


def test_migrate_creates_a_database_for_its_owner_alone_and_may_be_repeated(empty: Crm) -> None:
    old = os.umask(0)
    try:
        for _ in range(2):
            done = empty.cli("migrate")
            assert (done.returncode, done.stderr) == (0, "")
            assert str(empty.database) in done.stdout
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in empty.database.parent.iterdir()} == {0o600}


def test_the_files_of_a_running_server_are_for_its_owner_alone(crm: Crm) -> None:
    post(crm, "repair-request", repair_request())
    files = list(crm.database.parent.iterdir())
    name = crm.database.name
    assert {name, f"{name}-wal", f"{name}-shm"} <= {path.name for path in files}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_the_queue_is_listed_oldest_first_with_every_state(crm: Crm) -> None:
    ids = [post(crm, "repair-request", repair_request()).json["id"] for _ in range(3)]
    assert crm.cli("approvals", "reject", ids[1], "--reason", "spam").returncode == 0
    rows = json.loads(crm.cli("approvals", "list", "--json").stdout)
    mine = [row for row in rows if row["id"] in ids]
    assert [row["id"] for row in mine] == ids
    assert [row["status"] for row in mine] == ["pending_approval", "rejected", "pending_approval"]
    assert [row["received_at"] for row in rows] == sorted(row["received_at"] for row in rows)
    only = json.loads(crm.cli("approvals", "list", "--json", "--status", "rejected").stdout)
    assert {row["status"] for row in only} == {"rejected"}


def test_a_listed_request_has_the_documented_keys_and_its_payload_as_json(crm: Crm) -> None:
    payload = customer_registration()
    receipt = post(crm, "customer-registration", payload, webhook_id="the-id", webhook_contract="1.0.0").json
    (row,) = [
        row for row in json.loads(crm.cli("approvals", "list", "--json").stdout) if row["id"] == receipt["id"]
    ]
    assert row["payload"] == payload
    assert (row["event"], row["webhook_id"], row["contract"]) == ("customer-registration", "the-id", "1.0.0")
    assert (row["natural_key"], row["status"]) == (receipt["natural_key"], "pending_approval")
    assert row["received_at"].endswith("Z")


def test_the_table_shows_no_personal_data(crm: Crm) -> None:
    receipt = post(crm, "repair-request", repair_request(customer__firstName="Sentinel-c0")).json
    table = crm.cli("approvals", "list").stdout
    assert receipt["id"] in table
    assert receipt["natural_key"] in table
    assert "Sentinel-c0" not in table
    assert "@" not in table


def test_an_empty_queue_is_an_empty_list(migrated: Crm) -> None:
    assert json.loads(migrated.cli("approvals", "list", "--json").stdout) == []
    assert migrated.cli("approvals", "list").stdout.startswith("ID")


def test_what_is_not_there_cannot_be_decided(migrated: Crm) -> None:
    for command in (["approve", "no-such-id"], ["reject", "no-such-id", "--reason", "x"]):
        done = migrated.cli("approvals", *command)
        assert done.returncode == 1
        assert "no-such-id" in done.stderr


def test_a_rejection_needs_a_reason(crm: Crm) -> None:
    approval = post(crm, "repair-request", repair_request()).json["id"]
    assert crm.cli("approvals", "reject", approval).returncode == 2
    assert crm.cli("approvals", "reject", approval, "--reason", "  ").returncode == 1
    assert crm.cli("approvals", "reject", approval, "--reason", "-", stdin=" \n").returncode == 1
    done = crm.cli("approvals", "reject", approval, "--reason", "-", "--json", stdin="Sentinel reason\n")
    assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "rejected")
    (row,) = crm.rows("SELECT reason FROM rejection_reasons WHERE approval_id = ?", approval)
    assert row["reason"] == "Sentinel reason"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["serve", "--port", "70000"], ["approvals"]])
def test_wrong_usage_exits_with_2(empty: Crm, arguments: list[str]) -> None:
    done = empty.cli(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage:")


@pytest.mark.parametrize("command", [["--help"], ["serve", "--help"]])
def test_every_command_explains_itself(empty: Crm, command: list[str]) -> None:
    done = empty.cli(*command)
    assert done.returncode == 0
    assert "usage: crm-server" in done.stdout


def test_nothing_starts_on_a_database_that_is_not_there(empty: Crm) -> None:
    empty.env["WEBHOOK_API_KEY"] = "0123456789abcdef"
    for command in (["serve"], ["approvals", "list"], ["approvals", "approve", "x"]):
        done = empty.cli(*command)
        assert done.returncode == 1
        assert "crm-server migrate" in done.stderr
        assert "Traceback" not in done.stderr
    assert not empty.database.exists()


def test_nothing_starts_on_a_database_that_is_not_migrated(empty: Crm) -> None:
    empty.env["WEBHOOK_API_KEY"] = "0123456789abcdef"
    empty.database.parent.mkdir()
    sqlite3.connect(empty.database).close()
    for command in (["serve"], ["approvals", "list"]):
        done = empty.cli(*command)
        assert done.returncode == 1
        assert "crm-server migrate" in done.stderr


def test_a_database_of_a_newer_server_is_left_alone(migrated: Crm) -> None:
    connection = sqlite3.connect(migrated.database)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    for command in (["migrate"], ["approvals", "list"]):
        done = migrated.cli(*command)
        assert done.returncode == 1
        assert "9999" in done.stderr
        assert "newer" in done.stderr


def test_a_place_where_no_database_can_be_is_named(empty: Crm) -> None:
    (empty.directory / "file").touch()
    empty.env["CRM_DATABASE_URL"] = "sqlite:///file/crm.sqlite3"
    done = empty.cli("migrate")
    assert done.returncode == 1
    assert str(empty.directory / "file") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_database_is_named_without_a_traceback(empty: Crm) -> None:
    empty.database.parent.mkdir()
    empty.database.write_text("no database, " * 500)
    for command in (["migrate"], ["approvals", "list"]):
        done = empty.cli(*command)
        assert done.returncode == 1
        assert done.stderr.startswith("crm-server: ")
        assert "Traceback" not in done.stderr


def test_the_server_does_not_start_without_a_key(migrated: Crm) -> None:
    done = migrated.cli("serve")
    assert done.returncode == 1
    assert "WEBHOOK_API_KEY" in done.stderr
