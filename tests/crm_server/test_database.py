"""The database itself refuses what must not be, whoever asks."""

import sqlite3
import traceback

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from crm_server.approval_queue import Filter, listed
from crm_server.database import Database, execute_as_is, insert_new
from crm_server.migrations import STEPS
from crm_server.pages import Window, count, merged
from crm_server.tables import approvals, metadata
from tests.crm_server.conftest import ON_BOTH

pytestmark = ON_BOTH
ON_SQLITE = pytest.mark.engines("sqlite")


def approval(**over: str | None) -> dict[str, str | None]:
    return {
        "id": "1",
        "event": "repair-request",
        "natural_key": "key",
        "webhook_id": "id",
        "contract": "1.0.0",
        "payload": "{}",
        "digest": "0" * 64,
        "status": "pending_approval",
        "received_at": "2024-12-13T10:00:00.000000Z",
        "decided_at": None,
        "decided_by": None,
        "erased_at": None,
        **over,
    }


def add_approval(connection: Connection, **over: str | None) -> None:
    row = approval(**over)
    names = ", ".join(row)
    values = ", ".join(f":{name}" for name in row)
    connection.execute(text(f"INSERT INTO approvals ({names}) VALUES ({values})"), row)


def test_the_newest_step_is_the_one_that_the_code_wants(database: Database) -> None:
    with database.reading() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == STEPS[-1]


def test_the_migrations_make_exactly_the_tables_of_the_code(database: Database) -> None:
    with database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


CHANGES = [
    ("UPDATE audit_trail SET actor = 'nobody'", ("sqlite", "postgresql")),
    ("DELETE FROM audit_trail", ("sqlite", "postgresql")),
    ("INSERT OR REPLACE INTO audit_trail VALUES (1, 'at', 'nobody', 'v', 'r', 'i', '[]', NULL)", ("sqlite",)),
    ("REPLACE INTO audit_trail VALUES (1, 'at', 'nobody', 'v', 'r', 'i', '[]', NULL)", ("sqlite",)),
    (
        "INSERT INTO audit_trail VALUES (1, 'at', 'nobody', 'v', 'r', 'i', '[]', NULL)"
        " ON CONFLICT (sequence) DO UPDATE SET actor = 'nobody'",
        ("sqlite", "postgresql"),
    ),
    ("TRUNCATE audit_trail", ("postgresql",)),
    ("TRUNCATE audit_trail RESTART IDENTITY CASCADE", ("postgresql",)),
]


def test_the_trail_is_append_only(database: Database, engine: str) -> None:
    with database.writing() as connection:
        connection.execute(text("INSERT INTO audit_trail VALUES (1, 'at', 'me', 'v', 'r', 'i', '[]', NULL)"))
    for statement, engines in CHANGES:
        if engine in engines:
            with pytest.raises(DBAPIError, match="append-only"), database.writing() as connection:
                connection.execute(text(statement))
    with database.reading() as connection:
        assert connection.execute(text("SELECT actor FROM audit_trail")).scalars().all() == ["me"]


@pytest.mark.parametrize(
    "over",
    [
        {"status": "maybe"},
        {"status": "approved"},
        {"decided_at": "2024-12-13T10:00:00.000000Z", "decided_by": "me"},
        {"status": "approved", "decided_at": "2024-12-13T10:00:00.000000Z"},
        {"payload": None},
        {"erased_at": "2024-12-13T10:00:00.000000Z"},
        {"digest": "short"},
    ],
)
def test_a_request_in_no_real_state_cannot_be_stored(database: Database, over: dict[str, str | None]) -> None:
    with pytest.raises(DBAPIError, match=r"(?i)check constraint"), database.writing() as connection:
        add_approval(connection, **over)


@pytest.mark.parametrize(
    "over",
    [{"natural_key": "key"}, {"webhook_id": "id"}, {"webhook_id": "id", "event": "customer-registration"}],
)
def test_one_identity_is_stored_once(database: Database, over: dict[str, str]) -> None:
    with database.writing() as connection:
        add_approval(connection)
    other = {"id": "2", "natural_key": "other", "webhook_id": "other", **over}
    with pytest.raises(DBAPIError, match=r"(?i)unique constraint"), database.writing() as connection:
        add_approval(connection, **other)


@ON_SQLITE
@pytest.mark.parametrize(
    ("pragma", "value"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 2),
        ("foreign_keys", 1),
        ("secure_delete", 1),
        ("recursive_triggers", 1),
        ("temp_store", 2),
        ("busy_timeout", 4000),
    ],
)
def test_every_connection_has_the_pragmas(database: Database, pragma: str, value: str | int) -> None:
    with database.reading() as one, database.writing() as other:
        for connection in (one, other):
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() == value


def test_an_error_of_the_database_shows_no_parameters(database: Database) -> None:
    wrong = {"payload": "Sentinel", "digest": "short"}
    with pytest.raises(IntegrityError) as caught, database.writing() as connection:
        add_approval(connection, **wrong)
    assert "Sentinel" not in "".join(traceback.format_exception(caught.value))


def test_an_error_past_sqlalchemy_is_the_one_that_it_would_raise_and_shows_no_parameters(
    database: Database,
) -> None:
    wrong = approval(payload="Sentinel", digest="short")
    with (
        pytest.raises(IntegrityError, match=r"(?i)check constraint") as caught,
        database.writing() as connection,
    ):
        insert_new(connection, approvals, [wrong])
    assert "Sentinel" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(DBAPIError, match="nowhere"), database.writing() as connection:
        execute_as_is(connection, "SELECT 1 FROM nowhere")
    with database.writing() as connection:
        assert insert_new(connection, approvals, [approval(), approval()]) == 1


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    with pytest.raises(DBAPIError), database.writing() as connection:  # noqa: PT012
        add_approval(connection)
        add_approval(connection)
    with database.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM approvals")).scalar() == 0


@ON_SQLITE
@pytest.mark.parametrize("wanted", [Filter(), Filter(status="approved"), Filter(event="repair-request")])
def test_a_page_and_its_count_are_read_by_one_index_whatever_is_filtered(
    database: Database, wanted: Filter
) -> None:
    page = merged(listed(wanted), approvals.c.sequence, Window(50, after=9))
    with database.reading() as connection:
        for statement in (page, count(listed(wanted))):
            query = statement.compile(connection, compile_kwargs={"literal_binds": True})
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all()
            reads = [row[3] for row in plan if "approvals" in row[3]]
            assert reads
            assert all("INDEX ix_approvals_event_status_sequence (event=? AND status=?" in r for r in reads)


@ON_SQLITE
def test_a_writer_that_reads_first_is_not_refused_when_another_wrote_in_between(database: Database) -> None:
    other = sqlite3.connect(str(database.file), timeout=0)
    with database.writing() as connection:
        connection.execute(text("SELECT count(*) FROM approvals"))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("INSERT INTO heartbeat VALUES (1, 'now')")
        add_approval(connection)
    other.close()
