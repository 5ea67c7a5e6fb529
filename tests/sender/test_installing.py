"""The outbox's tables by each of three ways, on each database: by the command, by printed SQL, by a site's own Alembic."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, make_url

from sender import CRM, NotMigrated, SenderSettings
from tests.factories import repair_request
from tests.sender.engines import ENGINES, new_database, rows
from tests.sender.site import cli, sender_environment
from tests.servers import KEY

ENV = """
from alembic import context
from sqlalchemy import Column, MetaData, String, Table

import sender

bookings = Table("bookings", MetaData(), Column("id", String(64), primary_key=True))
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=[bookings.metadata, sender.metadata],
)
with context.begin_transaction():
    context.run_migrations()
"""


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that holds nothing."""
    return new_database(str(request.param), tmp_path)


@pytest.fixture
def crm_sender(url: str, tmp_path: Path) -> Callable[..., str]:
    """Runs a command at this database; returns what it prints."""

    def run(*arguments: str, exits: int = 0) -> str:
        environment = sender_environment(CRM_OUTBOX_URL=url, CRM_API_KEY=KEY)
        done = cli(*arguments, directory=tmp_path, env=environment)
        assert done.returncode == exits, done.stderr
        return done.stdout + done.stderr

    return run


def apply(url: str, sql: str) -> None:
    """Run a script by the driver alone, as a site that has its own way does."""
    if url.startswith("postgresql"):
        with psycopg.connect(url) as connection:
            connection.execute(sql.encode())
    else:
        with closing(sqlite3.connect(str(make_url(url).database))) as connection:
            connection.executescript(sql)


def enqueue(url: str) -> None:
    """Write an event as the site does."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        CRM(SenderSettings(outbox_url=url)).repair_requested(repair_request(), connection)
    engine.dispose()


def identity(url: str) -> str:
    return str(rows(url, "SELECT outbox_id FROM crm_outbox_state")[0][0])


def test_the_printed_sql_makes_what_migrate_makes(
    url: str, crm_sender: Callable[..., str], tmp_path: Path
) -> None:
    sql = crm_sender("migrate", "--sql")
    apply(url, sql)
    assert crm_sender("migrate").endswith("is up to date\n")
    enqueue(url)
    assert json.loads(crm_sender("status", "--json"))["pending"] == 1
    engine = url.partition(":")[0]
    (tmp_path / "second").mkdir()
    second = new_database(engine, tmp_path / "second")
    apply(second, sql)
    assert identity(second) != identity(url)


def test_the_printed_sql_leaves_the_transaction_to_who_runs_it(crm_sender: Callable[..., str]) -> None:
    statements = crm_sender("migrate", "--sql").upper().split(";")
    assert not {"BEGIN", "COMMIT"} & {statement.strip() for statement in statements}


def test_sql_for_what_is_there_already_begins_after_it(url: str, crm_sender: Callable[..., str]) -> None:
    everything, rest = crm_sender("migrate", "--sql"), crm_sender("migrate", "--sql", "--after", "0001")
    assert everything.endswith(rest)
    assert "CREATE TABLE crm_outbox_state" not in rest
    assert "ADD COLUMN traceparent" in rest
    assert "there is no step 4711" in crm_sender("migrate", "--sql", "--after", "4711", exits=2)
    assert "goes with --sql" in crm_sender("migrate", "--after", "0001", exits=2)


def migrate_by_alembic(url: str, folder: Path, line: str) -> None:
    """Have a site's own Alembic make a migration from `sender.metadata`, add a line to it, and run it."""
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.config_file_name = str(folder.parent / "alembic.ini")
    command.init(config, str(folder))
    (folder / "env.py").write_text(ENV)
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        revision = command.revision(config, "bookings and outbox", autogenerate=True)
        assert revision
        assert not isinstance(revision, list)
        script = Path(revision.path)
        before, mark, after = script.read_text().partition("    # ### end Alembic commands ###\n")
        script.write_text("import sender\n" + before + mark + line + after)
        command.upgrade(config, "head")
        command.check(config)
    engine.dispose()


def test_a_sites_own_alembic_makes_the_outbox(
    url: str, crm_sender: Callable[..., str], tmp_path: Path
) -> None:
    migrate_by_alembic(url, tmp_path / "alembic", "    op.execute(sender.outbox_identity())\n")
    enqueue(url)
    assert json.loads(crm_sender("status", "--json"))["pending"] == 1
    for _ in range(2):
        assert crm_sender("migrate").endswith("is up to date\n")
        assert json.loads(crm_sender("status", "--json"))["pending"] == 1
    rows(
        url, "INSERT INTO crm_outbox_trail (event_id, at, actor, verb, detail) VALUES ('x', 1, 'me', 'x', '')"
    )
    with pytest.raises((sqlite3.Error, psycopg.Error), match="append-only"):
        rows(url, "UPDATE crm_outbox_trail SET verb = 'y'")


def test_tables_without_an_identity_say_what_to_do_and_migrate_gives_them_one(
    url: str, crm_sender: Callable[..., str], tmp_path: Path
) -> None:
    migrate_by_alembic(url, tmp_path / "alembic", "")
    with pytest.raises(NotMigrated, match="outbox_identity"):
        CRM(SenderSettings(outbox_url=url)).repair_requested(repair_request())
    assert "outbox_identity" in crm_sender("status", exits=1)
    crm_sender("migrate")
    assert identity(url)
    enqueue(url)


def test_a_sites_own_tables_of_another_release_are_left_to_its_own_migrations(
    url: str, crm_sender: Callable[..., str], tmp_path: Path
) -> None:
    migrate_by_alembic(url, tmp_path / "alembic", "    op.execute(sender.outbox_identity())\n")
    rows(url, "ALTER TABLE crm_outbox DROP COLUMN traceparent")
    assert "the site's own migrations" in crm_sender("migrate", exits=1)
