"""Backing up while the server works, and restoring: whole, checked, and without who was erased since."""

import json
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.crm_server.answers import post
from tests.crm_server.conftest import migrate_to
from tests.factories import repair_request
from tests.postgresql import shared_postgresql
from tests.servers import ROOT, Crm, clean_environment, migrated_database, start_crm


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
    assert "Traceback" not in done.stderr
    assert contents(stopped.database.parent) == before


def test_a_destroyed_database_is_replaced(backup: Path, stopped: Crm) -> None:
    for destroyed in (b"\0" * 100_000, None):
        stopped.database.write_bytes(destroyed) if destroyed else stopped.database.unlink()
        done = stopped.cli("restore", str(backup))
        assert (done.returncode, done.stderr) == (0, "")
        assert ids_in(stopped.database) == ids_in(backup)
        assert ("before-restore" in done.stdout) == bool(destroyed)


def test_a_backup_of_an_earlier_step_is_brought_up_to_date(stopped: Crm, tmp_path: Path) -> None:
    backup = tmp_path / "earlier"
    migrate_to("0001", backup).close()
    assert stopped.cli("restore", str(backup)).returncode == 0
    assert json.loads(stopped.cli("approvals", "list", "--json").stdout) == []


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
    crm.stop()
    try:
        done = crm.cli("restore", str(backup))
        assert done.returncode == 0, done.stderr
        assert "3 records" in done.stdout  # request, customer, ticket
    finally:
        crm.start()
    assert ids_in(crm.database, "payload IS NULL") == [approval]
    assert other in ids_in(crm.database)
    assert back not in ids_in(crm.database)
    assert crm.rows("SELECT email FROM customers")[0]["email"] is None
    assert b"erased@example.com" not in crm.database.read_bytes()


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


def test_on_postgresql_the_commands_name_what_it_has_for_this(tmp_path: Path) -> None:
    crm = Crm(tmp_path, clean_environment(CRM_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none"), port=0)
    done = crm.cli("restore", str(tmp_path / "x"))
    assert done.returncode == 1
    assert "pg_restore" in done.stderr


def test_a_backup_is_named_from_where_one_stands(stopped: Crm) -> None:
    done = stopped.cli("backup", "here.sqlite3")
    assert done.returncode == 0, done.stderr
    assert (stopped.directory / "here.sqlite3").is_file()
    done = stopped.cli("restore", "here.sqlite3")
    assert done.returncode == 0, done.stderr
