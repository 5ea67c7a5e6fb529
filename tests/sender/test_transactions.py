"""What only some ways to write can do wrong: another's connection that is waited on, cancelled, unknown or not in WAL yet."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import aiosqlite
import psycopg
import pytest
from django.db import transaction
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sender import (
    CRM,
    AsyncCRM,
    ConflictingEvent,
    NoTransaction,
    SenderSettings,
    metadata,
    outbox,
    outbox_identity,
)
from sender.database import leave_values_out
from tests.factories import customer_registration, repair_request
from tests.sender.doors import Door, OfConnection, OfDjango, OfScopedSession, OfSQLAlchemy, OfSqlite3
from tests.sender.engines import ENGINES, new_outbox, rows
from tests.sender.site import SENTINEL, Site, cli, sender_environment
from tests.servers import ROOT


@pytest.fixture
def postgresql(tmp_path: Path) -> str:
    return new_outbox("postgresql", tmp_path)


def test_a_serialization_failure_is_passed_on_as_the_driver_raises_it(postgresql: str) -> None:
    crm, body = CRM(SenderSettings(outbox_url=postgresql)), repair_request(repair__notes=SENTINEL)
    with psycopg.connect(postgresql) as late, psycopg.connect(postgresql) as early:
        late.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        late.execute("SELECT 1 FROM crm_outbox")
        crm.repair_requested(body, early)
        early.commit()
        with pytest.raises(psycopg.errors.SerializationFailure):
            crm.repair_requested(body, late)
        late.rollback()


def test_a_booking_does_not_wait_for_ever_for_an_outbox_that_says_nothing(postgresql: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor() as pool:
        crm = CRM(SenderSettings(outbox_url=f"postgresql://127.0.0.1:{silent.getsockname()[1]}/bookings"))

        def book() -> str:
            with psycopg.connect(postgresql) as connection:
                return crm.repair_requested(repair_request(), connection)

        refused = pool.submit(book).exception
        try:
            assert isinstance(refused(15), psycopg.OperationalError)
        finally:
            silent.shutdown(socket.SHUT_RDWR)
            silent.close()


def test_psycopgs_own_cursors_and_rows_are_not_used(postgresql: str) -> None:
    crm = CRM(SenderSettings(outbox_url=postgresql))
    with psycopg.connect(postgresql, cursor_factory=psycopg.RawCursor) as connection:
        event_id = crm.repair_requested(repair_request(), connection)
        assert connection.cursor_factory is psycopg.RawCursor
    assert [row["id"] for row in rows(postgresql, "SELECT id FROM crm_outbox")] == [event_id]


class AsyncpgError(Exception):
    """As asyncpg's, which shows the details of the server's answer behind its words."""

    detail: str | None = f"Failing row contains ({SENTINEL})."

    def __str__(self) -> str:
        return f"{self.args[0]}" + (f"\nDETAIL:  {self.detail}" if self.detail else "")


def raise_as_pg8000() -> None:
    """Raise an error that is the fields of the server's answer, and while it is handled another of the same."""
    told = {"S": "ERROR", "M": "null value in column", "D": f"Failing row contains ({SENTINEL})."}
    try:
        raise LookupError(told)
    except LookupError:
        raise ValueError(told)  # noqa: B904


def raise_as_asyncpg() -> None:
    """Raise an error from asyncpg's, whose whole text it repeats, as SQLAlchemy 2.0 does."""
    try:
        raise AsyncpgError("null value in column")
    except AsyncpgError as error:
        raise ValueError(f"{type(error)}: {error}") from error


@pytest.mark.parametrize("fail", [raise_as_pg8000, raise_as_asyncpg])
def test_a_row_that_a_driver_tells_of_in_its_own_way_is_left_out_of_its_error(
    fail: Callable[[], None],
) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # its text is what is at stake
        fail()
    error = IntegrityError("INSERT", None, raised.value)
    error.__cause__ = raised.value
    leave_values_out(error)
    assert SENTINEL not in "".join(traceback.format_exception(error)) + repr(error.orig)
    assert "null value in column" in str(error)


def test_what_the_site_was_handling_is_left_as_it_was() -> None:
    its_own = LookupError("the site's")
    raised = psycopg.errors.CheckViolation("no")
    raised.__context__ = its_own
    leave_values_out(IntegrityError("INSERT", None, raised))
    assert its_own.args == ("the site's",)


def test_pipeline_mode_is_refused_for_nobody_knows_yet_what_is_there(postgresql: str) -> None:
    crm = CRM(SenderSettings(outbox_url=postgresql))
    with psycopg.connect(postgresql) as connection:
        crm.repair_requested(repair_request(), connection)
        with connection.pipeline(), pytest.raises(NoTransaction, match="pipeline mode"):
            crm.repair_requested(repair_request(), connection)
    assert len(rows(postgresql, "SELECT 1 FROM crm_outbox")) == 1


def test_a_session_of_a_tenant_writes_to_the_tenants_outbox(postgresql: str) -> None:
    rows(postgresql, "CREATE SCHEMA north")
    tenants = {"schema_translate_map": {None: "north"}}
    engine = create_engine(
        postgresql.replace("postgresql:", "postgresql+psycopg:"), execution_options=tenants
    )
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(outbox_identity())
    crm = CRM(SenderSettings(outbox_url=f"{postgresql}&options=-csearch_path%3Dnorth"))
    body = repair_request()
    with Session(engine) as session, session.begin():
        event_id = crm.repair_requested(body, session)
    with Session(engine) as session, session.begin():
        assert crm.repair_requested(body, session) == event_id
    engine.dispose()
    assert [row["id"] for row in rows(postgresql, "SELECT id FROM north.crm_outbox")] == [event_id]
    assert rows(postgresql, "SELECT id FROM public.crm_outbox") == []


def test_who_is_cancelled_leaves_no_event_behind(postgresql: str) -> None:
    settings, body = SenderSettings(outbox_url=postgresql), repair_request()

    async def book(connection: psycopg.AsyncConnection[Any]) -> None:
        async with connection.transaction():
            await AsyncCRM(settings).repair_requested(body, connection)

    async def story(blocker: psycopg.Connection[Any]) -> None:
        async with await psycopg.AsyncConnection.connect(postgresql, autocommit=True) as connection:
            task = asyncio.create_task(book(connection))
            waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            while not rows(postgresql, waits):
                await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.sleep(0)
            blocker.rollback()
            with pytest.raises(asyncio.CancelledError):
                await task

    with psycopg.connect(postgresql) as blocker:
        CRM(settings).repair_requested(body, blocker)
        asyncio.run(asyncio.wait_for(story(blocker), 30))
    assert rows(postgresql, "SELECT id FROM crm_outbox") == []


def test_who_is_cancelled_again_and_again_ends_only_when_the_event_is_written(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As anyio does it, at each turn of the loop: the booking was rolled back, and the event written after that."""
    begun, go_on = Event(), Event()
    monkeypatch.setattr("sender.crm.outbox.enqueue", partial(slowly, outbox.enqueue, begun, go_on))

    async def book(connection: aiosqlite.Connection) -> None:
        await connection.execute("BEGIN IMMEDIATE")
        try:
            await AsyncCRM(site.settings()).repair_requested(repair_request(), connection)
        except BaseException:
            await connection.execute("ROLLBACK")
            raise
        await connection.execute("COMMIT")

    async def story() -> None:
        path = make_url(site.settings().outbox_url).database
        async with aiosqlite.connect(str(path), isolation_level=None) as connection:
            task = asyncio.create_task(book(connection))
            await asyncio.to_thread(begun.wait, 10)
            for _ in range(5):
                task.cancel()
                await asyncio.sleep(0.01)
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0.1)  # what a thread still does is done then

    asyncio.run(story())
    assert site.rows("SELECT id FROM crm_outbox") == []


def test_of_two_corrections_at_once_the_second_is_refused_and_not_dropped(
    postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm, body = CRM(SenderSettings(outbox_url=postgresql)), repair_request()
    first, second = ({**body, "repair": {**body["repair"], "notes": words}} for words in ("One", "Two"))
    send_again, begun, go_on = outbox._send_again, Event(), Event()
    with (
        psycopg.connect(postgresql) as late,
        psycopg.connect(postgresql) as early,
        ThreadPoolExecutor(1) as pool,
    ):
        event_id = crm.repair_requested(body, early)
        early.execute("UPDATE crm_outbox SET status = 'closed', payload = NULL, finished_at = 1")
        early.commit()
        # Both have read that it is closed.
        monkeypatch.setattr(outbox, "_send_again", partial(slowly, send_again, begun, go_on))
        waiting = pool.submit(crm.repair_requested, second, late, resend=True)
        assert begun.wait(10)
        monkeypatch.setattr(outbox, "_send_again", send_again)
        assert crm.repair_requested(first, early, resend=True) == event_id
        early.commit()
        go_on.set()
        with pytest.raises(ConflictingEvent):
            waiting.result(20)
    (row,) = rows(postgresql, "SELECT status, payload FROM crm_outbox")
    assert (row["status"], json.loads(row["payload"])["repair"]["notes"]) == ("pending", "One")


def slowly(do: Callable[..., Any], begun: Event, go_on: Event, *given: Any, **more: Any) -> Any:
    begun.set()
    assert go_on.wait(10)
    return do(*given, **more)


FORKS = """
import json, os, sys
from sender import CRM
body = json.load(sys.stdin)
def write(number):
    body["repair"]["websiteRepairId"] = body["repair"]["ticketNumber"] = f"fork-{number}"
    crm.repair_requested(body)
crm = CRM()
write(0)
children = []
for child in range(2):
    if not (pid := os.fork()):
        for number in range(50):
            write(f"{child}-{number}")
        os._exit(0)
    children.append(pid)
codes = [os.waitpid(pid, 0)[1] for pid in children]
write("last")
sys.exit(any(codes))
"""


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_a_process_that_is_forked_after_the_first_event_writes_by_itself(engine: str, tmp_path: Path) -> None:
    url = new_outbox(engine, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FORKS],
        env=sender_environment(CRM_OUTBOX_URL=url, PYTHONPATH=str(ROOT)),
        input=json.dumps(repair_request()),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,  # over one connection the children wait for each other's answers
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(url, "SELECT count(*) AS found FROM crm_outbox")[0]["found"] == 102


def test_what_is_no_session_is_a_mistake_of_the_caller(site: Site) -> None:
    with pytest.raises(TypeError, match=r"transaction of SQLAlchemy .* not str"):
        site.crm().repair_requested(repair_request(), SENTINEL)  # type: ignore[arg-type]


def test_a_driver_that_we_do_not_know_is_named_with_its_package(site: Site) -> None:
    session = type("connection", (), {"__module__": "psycopg2.extensions"})()
    with pytest.raises(TypeError, match=r"psycopg or Django .* not psycopg2\.extensions\.connection"):
        site.crm().repair_requested(repair_request(), session)


def test_asyncios_connection_belongs_to_asyncios_twin(site: Site, postgresql: str) -> None:
    async def story() -> None:
        async with await psycopg.AsyncConnection.connect(postgresql) as connection:
            with pytest.raises(TypeError, match="AsyncCRM takes those"):
                site.crm().repair_requested(repair_request(), connection)  # type: ignore[arg-type]

    asyncio.run(story())


def test_who_waits_for_a_transaction_of_asyncio_takes_it_no_thread_that_it_needs(postgresql: str) -> None:
    registration, repair = customer_registration(), repair_request()

    async def story() -> tuple[str, str]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        crm = AsyncCRM(SenderSettings(outbox_url=postgresql))
        connect = psycopg.AsyncConnection.connect
        async with await connect(postgresql) as first, await connect(postgresql) as second:
            await second.execute("SET lock_timeout = '5s'")
            written = await crm.customer_registered(registration, first)
            waiting = asyncio.create_task(crm.customer_registered(registration, second))
            while not rows(postgresql, "SELECT 1 FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
            await crm.repair_requested(repair, first)
            await first.commit()
            return written, await waiting

    written, again = asyncio.run(story())
    assert again == written
    assert len(rows(postgresql, "SELECT id FROM crm_outbox")) == 2


@pytest.mark.parametrize("door", [OfSQLAlchemy, OfScopedSession, OfConnection, OfSqlite3, OfDjango])
def test_what_is_not_asyncios_is_refused_by_asyncios_twin(site: Site, door: type[Door]) -> None:
    async def write(session: Any) -> str:
        return await AsyncCRM(site.settings()).repair_requested(repair_request(), session)

    with (
        closing(door(site.url)) as opened,
        opened.transaction(),
        pytest.raises(TypeError, match=rf"of asyncio.* not .+\.{type(opened.session).__name__}; CRM takes"),
    ):
        asyncio.run(write(opened.session))
    assert site.rows() == []


def test_another_object_than_a_session_is_named_by_asyncios_twin_too(site: Site) -> None:
    with pytest.raises(TypeError, match=r"of asyncio.* not str; CRM takes"):
        asyncio.run(AsyncCRM(site.settings()).repair_requested(repair_request(), SENTINEL))  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_transaction_that_django_will_roll_back_takes_no_event(engine: str, tmp_path: Path) -> None:
    url = new_outbox(engine, tmp_path)
    with closing(OfDjango(url)) as door, door.transaction():
        with pytest.raises(ZeroDivisionError), transaction.atomic(using=door.alias, savepoint=False):
            raise ZeroDivisionError
        with pytest.raises(transaction.TransactionManagementError):
            door.write(SenderSettings(outbox_url=url), repair_request())
    assert rows(url, "SELECT id FROM crm_outbox") == []


def test_a_booking_may_be_the_first_to_use_an_outbox_that_has_no_log_yet(tmp_path: Path) -> None:
    path = tmp_path / "by-hand.sqlite3"
    settings = SenderSettings(outbox_url=f"sqlite:///{path}")
    env = sender_environment(CRM_OUTBOX_URL=settings.outbox_url)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(cli("migrate", "--sql", directory=tmp_path, env=env).stdout)
        connection.execute("BEGIN IMMEDIATE")
        CRM(settings).repair_requested(repair_request(), connection)
        connection.execute("COMMIT")
    assert len(rows(settings.outbox_url, "SELECT id FROM crm_outbox")) == 1


def test_sqlite3_as_it_comes_begins_the_callers_transaction(site: Site) -> None:
    with closing(sqlite3.connect(site.database)) as connection:
        site.crm().repair_requested(repair_request(), connection)
        assert connection.in_transaction
        assert site.rows() == []
        connection.rollback()
    assert site.rows() == []


def test_another_row_factory_and_bytes_for_text_spoil_nothing(site: Site) -> None:
    body = repair_request()
    with closing(sqlite3.connect(site.database)) as connection:
        connection.row_factory, connection.text_factory = sqlite3.Row, bytes
        first = site.crm().repair_requested(body, connection)
        assert site.crm().repair_requested(body, connection) == first
        assert (connection.row_factory, connection.text_factory) == (sqlite3.Row, bytes)
        connection.commit()
    assert site.status(first) == "pending"


def test_one_event_is_one_insert_over_a_drivers_connection_too(site: Site) -> None:
    seen: list[str] = []
    crm = site.crm()
    with closing(sqlite3.connect(site.database)) as connection:
        crm.repair_requested(repair_request(), connection)
        connection.set_trace_callback(seen.append)
        crm.repair_requested(repair_request(), connection)
        connection.rollback()
    assert [statement.split("(")[0] for statement in seen if "crm_outbox " in statement] == [
        "INSERT INTO crm_outbox "
    ]


def test_autocommit_of_the_driver_is_refused(site: Site) -> None:
    with (
        closing(sqlite3.connect(site.database, isolation_level=None)) as connection,
        pytest.raises(NoTransaction, match="autocommit"),
    ):
        site.crm().repair_requested(repair_request(), connection)
    assert site.rows() == []
