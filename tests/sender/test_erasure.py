"""After delivery no byte of a payload is left in the outbox's files."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
from contextlib import closing

import psycopg
import pytest
from sqlalchemy import create_engine

from sender import Relay
from sender.database import open_engine, reading
from tests.crm_server.conftest import ON_BOTH
from tests.factories import repair_request
from tests.receiver import Receiver, problem
from tests.sender.site import SENTINEL, Site, eventually, running


@ON_BOTH
def test_no_byte_is_left_within_seconds_while_the_relay_runs(site: Site) -> None:
    with running(Relay(site.settings())):
        site.book(50, repair__notes=SENTINEL * 100)
        eventually(lambda: set(site.statuses()) == {"delivered"}, "all is delivered")
        eventually(lambda: site.left_of(SENTINEL) == [], "nothing is left of them")
        eventually(
            lambda: site.rows("SELECT erasing_since FROM crm_outbox_state")[0][0] is None, "it says so"
        )


@ON_BOTH
def test_no_byte_is_left_when_a_drain_ends(site: Site) -> None:
    site.book(20, repair__notes=SENTINEL)
    assert site.left_of(SENTINEL)
    site.drain()
    assert site.left_of(SENTINEL) == []


def test_a_relay_that_was_killed_before_it_emptied_the_log_does_so_when_it_starts(
    site: Site, receiver: Receiver
) -> None:
    # A reader's snapshot keeps the first relay from it; then it is killed.
    with closing(sqlite3.connect(site.database)) as reader:
        site.book(5, repair__notes=SENTINEL)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM crm_outbox").fetchall()
        relay = site.start_relay()
        try:
            eventually(lambda: set(site.statuses()) == {"delivered"}, "all is delivered")
        finally:
            relay.send_signal(signal.SIGKILL)
            relay.communicate()
        reader.rollback()
        assert site.left_of(SENTINEL)
        site.drain()
    assert site.left_of(SENTINEL) == []


def test_a_readers_snapshot_delays_erasure_and_status_says_since_when(site: Site) -> None:
    with running(Relay(site.settings())):
        with closing(sqlite3.connect(site.database)) as reader:
            site.book(3, repair__notes=SENTINEL)
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM crm_outbox").fetchall()
            eventually(lambda: set(site.statuses()) == {"delivered"}, "all is delivered")
            seen = site.rows("SELECT seen_at FROM crm_outbox_relays")[0][0]
            eventually(
                lambda: site.rows("SELECT seen_at FROM crm_outbox_relays")[0][0] > seen, "a try to erase"
            )
            assert site.json("status")["outbox"]["erasing_since"] is not None
            assert site.left_of(SENTINEL)
        eventually(lambda: site.left_of(SENTINEL) == [], "nothing is left when the reader is gone")
    assert site.json("status")["outbox"]["erasing_since"] is None


@ON_BOTH
def test_closing_a_failed_event_erases_its_payload(site: Site, receiver: Receiver) -> None:
    receiver.event = problem(400, "invalid-event")
    [event] = site.book(repair__notes=SENTINEL)
    site.drain()
    assert site.left_of(SENTINEL)
    assert site.cli("close", event).returncode == 0
    assert site.status(event) == "closed"
    site.drain()
    assert site.left_of(SENTINEL) == []


def test_every_connection_of_ours_erases_and_is_durable(site: Site) -> None:
    engine = open_engine(site.url)
    with reading(engine) as connection, reading(engine) as another:
        for each in (connection, another):
            pragmas = [
                each.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("secure_delete", "synchronous")
            ]
            assert pragmas == [1, 2]
            assert each.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    engine.dispose()


def test_the_sites_own_connection_erases_from_its_first_event_on(site: Site) -> None:
    engine = create_engine(site.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA secure_delete=OFF")
        site.crm().repair_requested(repair_request(), connection)
        assert connection.exec_driver_sql("PRAGMA secure_delete").scalar() == 1
    engine.dispose()


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_the_outboxs_files_are_for_their_owner_alone(site: Site, umask: int) -> None:
    private = site.directory / "new" / "outbox.sqlite3"
    private.parent.mkdir()
    old = os.umask(umask)
    try:
        done = site.cli_alone("migrate", CRM_OUTBOX_URL=f"sqlite:///{private}")
    finally:
        os.umask(old)
    assert done.returncode == 0, done.stderr
    engine = open_engine(f"sqlite:///{private}")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE crm_outbox_state SET delivered = 0")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in private.parent.iterdir()}
    engine.dispose()
    assert modes == dict.fromkeys(("outbox.sqlite3", "outbox.sqlite3-wal", "outbox.sqlite3-shm"), 0o600)


@ON_BOTH
@pytest.mark.parametrize(
    "statement", ["UPDATE crm_outbox SET status = 'delivered'", "UPDATE crm_outbox SET payload = NULL"]
)
def test_the_database_itself_refuses_a_delivered_event_with_a_payload(site: Site, statement: str) -> None:
    site.book()
    with pytest.raises((sqlite3.IntegrityError, psycopg.IntegrityError)):
        site.rows(statement)
