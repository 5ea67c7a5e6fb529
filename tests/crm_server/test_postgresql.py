"""A PostgreSQL that is away, restarted, or held by others: 503 meanwhile, well again by itself, nothing lost."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from crm_server.database import WRITERS, Database
from crm_server.migrations import STEPS
from crm_server.settings import Settings
from tests.crm_server.answers import ask, post, send, until
from tests.crm_server.conftest import staff_token
from tests.factories import repair_request
from tests.postgresql import PostgreSQL, start_postgresql
from tests.servers import ROOT, Crm, clean_environment, start_crm

UNIT = ROOT / "docs" / "operating" / "crm-server.service"


@pytest.fixture(scope="module")
def cluster() -> PostgreSQL:
    """A PostgreSQL that these tests may end."""
    return start_postgresql()


@pytest.fixture(scope="module")
def served(cluster: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server on it."""
    directory = tmp_path_factory.mktemp("served")
    with start_crm(directory, CRM_DATABASE_URL=cluster.url(cluster.create())) as crm:
        yield crm
    assert "Traceback" not in crm.log


def is_healthy(crm: Crm) -> bool:
    return send(crm, "GET", "/health").status == 200


@pytest.mark.long
def test_while_it_is_away_every_answer_is_a_503_and_then_all_is_well(
    served: Crm, cluster: PostgreSQL
) -> None:
    first = post(served, "repair-request", repair_request())
    assert first.status == 202
    cluster.stop()
    payload = repair_request()
    try:
        answer = post(served, "repair-request", payload)
        assert (answer.status, answer.type, answer.headers["retry-after"]) == (503, "unavailable", "1")
        assert post(served, "repair-request", payload, webhook_test="true").status == 503
        until(lambda: not is_healthy(served))
        done = served.cli("approvals", "list")
        assert (done.returncode, done.stdout) == (1, "")
        assert "See that it runs" in done.stderr
    finally:
        cluster.start()
    until(lambda: is_healthy(served))
    second = post(served, "repair-request", payload)
    assert (second.status, second.json["duplicate"]) == (202, False)
    stored = [row["id"] for row in served.rows("SELECT id FROM approvals ORDER BY sequence")]
    assert stored == [first.json["id"], second.json["id"]]


def test_a_restart_under_load_loses_nothing_that_was_acknowledged(served: Crm, cluster: PostgreSQL) -> None:
    answered: list[str] = []
    statuses: list[int] = []
    stop = threading.Event()

    def keep_posting() -> None:
        while not stop.is_set():
            answer = post(served, "repair-request", repair_request())
            statuses.append(answer.status)
            if answer.status == 202:
                answered.append(answer.json["id"])

    with ThreadPoolExecutor(6) as pool:
        posting = [pool.submit(keep_posting) for _ in range(6)]
        try:
            until(lambda: len(answered) >= 30)
            cluster.stop()
            until(lambda: 503 in statuses)
            cluster.start()
            before = len(answered)
            until(lambda: len(answered) >= before + 30)
        finally:
            stop.set()
    for one in posting:
        one.result()
    assert set(statuses) == {202, 503}
    assert set(answered) <= {row["id"] for row in served.rows("SELECT id FROM approvals")}


@pytest.mark.long
def test_a_writer_that_holds_the_others_up_is_a_503_in_time(served: Crm) -> None:
    with psycopg.connect(served.database_url, autocommit=True) as other:
        other.execute(f"SELECT pg_advisory_lock({WRITERS})".encode())
        assert post(served, "repair-request", repair_request()).status == 503
        until(lambda: not is_healthy(served))
        assert served.cli("staff", "add", "Nobody", "--role", "viewer").returncode == 1
    until(lambda: is_healthy(served))
    assert post(served, "repair-request", repair_request()).status == 202


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_ends_a_server_in_time_although_the_database_hangs(
    cluster: PostgreSQL, tmp_path: Path, workers: int
) -> None:
    (limit,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    with start_crm(tmp_path, workers=workers, CRM_DATABASE_URL=cluster.url(cluster.create())) as crm:
        with cluster.frozen():
            until(lambda: not is_healthy(crm))
            crm.process.terminate()
            assert crm.process.wait(float(limit) - 5) == 1
        assert crm.log.count("does the database answer?") == workers


@pytest.mark.long
def test_a_writer_that_hangs_is_ended_so_that_others_get_their_turn(served: Crm) -> None:
    database = Database(Settings.model_validate({"CRM_DATABASE_URL": served.database_url}).url)
    with pytest.raises(DBAPIError, match="idle-in-transaction"), database.writing():
        until(lambda: post(served, "repair-request", repair_request()).status == 202)
    database.close()


def test_migrations_at_the_same_time_make_one_database(cluster: PostgreSQL, tmp_path: Path) -> None:
    crm = Crm(tmp_path, clean_environment(CRM_DATABASE_URL=cluster.url(cluster.create())))
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: crm.cli("migrate"), range(4)))
    assert [one.returncode for one in done] == [0] * 4, [one.stderr for one in done]
    assert [tuple(row) for row in crm.rows("SELECT version_num FROM alembic_version")] == [(STEPS[-1],)]


def test_a_database_that_is_not_migrated_or_not_there_is_named(cluster: PostgreSQL, tmp_path: Path) -> None:
    crm = Crm(tmp_path, clean_environment(CRM_DATABASE_URL=cluster.url(cluster.create())))
    assert "crm-server migrate" in crm.cli("approvals", "list").stderr
    crm.env["CRM_DATABASE_URL"] = cluster.url("nothing")
    done = crm.cli("approvals", "list")
    assert done.returncode == 1
    assert "CRM_DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_text_that_postgresql_cannot_hold_in_a_path_is_no_fault_of_the_database(
    tmp_path: Path,
) -> None:
    with start_crm(tmp_path, engine="postgresql", only=None) as crm:
        token = staff_token(crm, "Admin", "admin")
        for path in ("/approvals/%00", "/tickets/%00", "/audit?record_id=%00", "/customers?after=%00"):
            assert ask(crm, token, "GET", path).status in (200, 400, 404), path
        assert ask(crm, token, "POST", "/searches", {"text": "a\x00b"}).status in (201, 400)
        approval = post(crm, "repair-request", repair_request()).json["id"]
        for reason in ("a\x00b", "\ud800"):
            answer = ask(crm, token, "POST", f"/approvals/{approval}/reject", {"reason": reason})
            assert answer.status == 400, reason


def test_it_counts_on_behind_rows_that_were_copied(tmp_path: Path) -> None:
    with start_crm(tmp_path, engine="postgresql", only=None) as crm:
        token = staff_token(crm, "Counting", "approver")

        def approve_another() -> None:
            answer = post(crm, "repair-request", repair_request())
            assert answer.status == 202
            assert ask(crm, token, "POST", f"/approvals/{answer.json['id']}/approve", {}).status == 200

        for _ in range(3):
            approve_another()
        for counted in ("approvals", "audit_trail"):
            crm.rows(f"SELECT setval(pg_get_serial_sequence('{counted}', 'sequence'), 1, false)")
        crm.migrate()
        approve_another()
