"""What is known of each key: by fingerprint when it was first and last used, and that it is due."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crm_server.database import Database
from crm_server.webhook_keys import fingerprint, list_keys, record_use
from tests.crm_server.answers import post, until
from tests.factories import repair_request
from tests.servers import Crm, start_crm

OLD, NEW = "the-old-key-0123456789", "the-new-key-0123456789"


@pytest.fixture(scope="module")
def rotating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server that knows two keys; both were used, and wrong ones."""
    with start_crm(tmp_path_factory.mktemp("rotating"), WEBHOOK_API_KEY=f"{OLD},{NEW}") as crm:
        for key, status in [(OLD, 202), ("wrong", 401), (OLD, 202), (NEW, 202)]:
            assert use(crm, key) == status
        until(lambda: len(used(crm)) == 2)
        yield crm
    assert OLD not in crm.log


def use(crm: Crm, key: str) -> int:
    return post(crm, "repair-request", repair_request(), authorization=f"Bearer {key}").status


def used(crm: Crm) -> Sequence[Any]:
    return crm.rows("SELECT * FROM webhook_keys ORDER BY first_used_at")


def test_the_use_of_each_right_key_is_noted_once_a_minute_at_most(rotating: Crm) -> None:
    assert [row["fingerprint"] for row in used(rotating)] == [fingerprint(OLD), fingerprint(NEW)]
    assert all(row["first_used_at"] == row["last_used_at"] for row in used(rotating))


def test_no_key_stands_in_the_database(rotating: Crm) -> None:
    files = [path.read_bytes() for path in rotating.database.parent.iterdir()]
    assert not any(key.encode() in file for file in files for key in (OLD, NEW))


def test_the_list_names_keys_by_fingerprint_and_shows_none(rotating: Crm) -> None:
    listed = json.loads(rotating.cli("keys", "--json").stdout)
    old = used(rotating)[0]
    assert [key["fingerprint"] for key in listed] == [fingerprint(OLD), fingerprint(NEW)]
    assert listed[0] == {**dict(old), "is_set": True, "days": 0, "is_due": False}
    printed = rotating.cli("keys").stdout
    assert old["last_used_at"] in printed
    assert OLD not in printed


def test_an_old_key_is_due_at_the_start_and_one_that_is_taken_out_is_no_longer_set(rotating: Crm) -> None:
    before = used(rotating)
    at = (datetime.now(UTC) - timedelta(days=91)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    with closing(sqlite3.connect(rotating.database, timeout=10)) as connection, connection:
        connection.execute("UPDATE webhook_keys SET first_used_at = ?", [at])
    rotating.env["WEBHOOK_API_KEY"] = NEW
    rotating.restart()
    assert f"{fingerprint(NEW)} was first used 91 days ago" in rotating.log
    assert f"{fingerprint(OLD)} was first used" not in rotating.log
    assert (use(rotating, OLD), use(rotating, NEW)) == (401, 202)
    until(lambda: used(rotating)[1]["last_used_at"] > before[1]["last_used_at"])
    assert used(rotating)[0]["last_used_at"] == before[0]["last_used_at"]
    assert [row["first_used_at"] for row in used(rotating)] == [at, at]
    [new, old] = rotating.cli("keys").stdout.splitlines()[1:]
    assert new.startswith(fingerprint(NEW))
    assert new.endswith("in use for more than 90 days: change it")
    assert old.startswith(fingerprint(OLD))
    assert old.endswith("no longer set")


@pytest.mark.parametrize(("days", "is_due"), [(0, False), (89, False), (90, True), (400, True)])
def test_a_key_is_due_90_days_after_its_first_use(database: Database, days: int, is_due: bool) -> None:
    with database.writing() as connection:
        record_use(connection, fingerprint(OLD))
    with database.reading() as connection:
        now = datetime.now(UTC) + timedelta(days=days)
        [old, new] = list_keys(connection, [OLD, NEW], now)
        [gone] = list_keys(connection, [], now)
    assert (old.days, old.is_due) == (days, is_due)
    assert (new.first_used_at, new.days, new.is_due) == (None, None, False)
    assert (gone.is_set, gone.is_due) == (False, False)


def test_a_clock_that_went_back_does_not_take_a_use_back(database: Database) -> None:
    future = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    row = {"fingerprint": fingerprint(OLD), "first_used_at": future, "last_used_at": future}
    with database.writing() as connection:
        columns = "(fingerprint, first_used_at, last_used_at)"
        values = "(:fingerprint, :first_used_at, :last_used_at)"
        connection.exec_driver_sql(f"INSERT INTO webhook_keys {columns} VALUES {values}", row)
        record_use(connection, fingerprint(OLD))
        [key] = list_keys(connection, [OLD])
    assert (key.last_used_at, key.is_due) == (future, False)
