"""An outbox that goes wrong under relay and booking code, and is mended: said clearly, and nothing is lost."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from sender import CRM
from sender.errors import OutboxError
from tests.factories import repair_request
from tests.faults.disks import FAULTS, full, garbled, overwritten, without_privileges
from tests.receiver import Receiver, first, receipt_when
from tests.sender.site import SENTINEL, Site, eventually

UNUSABLE = "the outbox cannot be used: "


@pytest.mark.parametrize("name", FAULTS)
def test_a_relay_whose_outbox_goes_wrong_says_so_and_goes_on_when_it_is_mended(
    site: Site, receiver: Receiver, name: str
) -> None:
    crm = site.crm()
    before = [crm.repair_requested(repair_request(repair__notes=SENTINEL)) for _ in range(10)]
    with site.relaying() as (relay, lines):
        eventually(lambda: len(receiver.events) == len(before), "all is sent")
        eventually(lambda: set(site.statuses()) == {"delivered"}, "and recorded")
        with FAULTS[name](site.database, relay.pid):
            if name != "full":  # which only the relay meets
                with pytest.raises((DBAPIError, OutboxError)) as raised:
                    crm.repair_requested(repair_request(repair__notes=SENTINEL))
                assert SENTINEL not in str(raised.value)
                done = site.cli("status")
                assert (done.returncode, done.stdout) == (1, "")
                assert done.stderr.startswith("crm-sender: ")
                assert "Traceback" not in done.stderr
            eventually(lambda: any(UNUSABLE in line for line in lines), "the relay says so")
        after = eventually(lambda: booked(crm), "the same booking process can go on")
        eventually(lambda: site.status(after) == "delivered", "and so does the relay")
        eventually(lambda: site.json("status")["relay"]["running"], "which is said to run")
    assert sorted(request.id for request in receiver.events) == sorted([*before, after])
    assert site.json("status")["delivered"] == len(before) + 1


@pytest.mark.parametrize("is_link", [False, True])
def test_an_outbox_that_was_read_only_is_written_to_once_it_may_be(
    site: Site, receiver: Receiver, tmp_path: Path, is_link: bool
) -> None:
    [event] = site.book()
    if is_link:
        (tmp_path / "elsewhere").mkdir()
        site.database.symlink_to(site.database.rename(tmp_path / "elsewhere" / "file"))
    site.database.chmod(0o400)
    relay = subprocess.Popen(
        without_privileges([sys.executable, "-m", "sender", "relay"]),
        cwd=site.directory,
        env=site.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert relay.stderr
    with relay:
        try:
            assert any(f"{UNUSABLE}attempt to write a readonly database" in line for line in relay.stderr)
            site.database.chmod(0o600)  # an operator's hand: what lies beside it is SQLite's
            # Not by a look into the file: a reader that may do all, as in these tests, mends it by its own end.
            eventually(lambda: receiver.events, "the relay goes on")
        finally:
            relay.terminate()
    assert ([request.id for request in receiver.events], site.statuses()) == ([event], ["delivered"])
    assert relay.returncode == 0


def booked(crm: CRM) -> str | None:
    """Return a new event's id, unless the outbox cannot be used yet."""
    try:
        return crm.repair_requested(repair_request())
    except DBAPIError:
        return None


def test_a_log_that_is_deleted_takes_no_event_with_it(site: Site, receiver: Receiver) -> None:
    receiver.go_away()
    crm = site.crm()
    events = [crm.repair_requested(repair_request())]
    with site.relaying() as (relay, _):
        eventually(lambda: site.rows("SELECT 1 FROM crm_outbox_relays"), "the relay looks at it")
        events += [crm.repair_requested(repair_request()) for _ in range(3)]
        Path(f"{site.database}-wal").unlink()
        events.append(eventually(lambda: booked(crm), "a booking goes on"))
        receiver.come()
        eventually(lambda: {r.id for r in receiver.events} >= set(events), "all is sent")
        eventually(lambda: set(site.statuses()) == {"delivered"}, "and recorded")
        assert relay.poll() is None
    assert len(receiver.events) == len(events)


def test_a_disk_that_is_full_when_a_delivery_is_recorded_loses_and_repeats_nothing(
    site: Site, receiver: Receiver
) -> None:
    arrived, go_on = threading.Event(), threading.Event()
    receiver.event = first(receipt_when(go_on, arrived))
    [event] = site.book(repair__notes=SENTINEL)
    with site.relaying() as (relay, lines):
        assert arrived.wait(20)
        with full(site.database, relay.pid):
            go_on.set()
            eventually(lambda: any(UNUSABLE in line for line in lines), "it cannot be recorded")
            assert site.json("status")["pending"] == 1
        eventually(lambda: site.status(event) == "delivered", "it is recorded when there is room")
    assert site.verbs(event) == ["delivered"]
    assert len(receiver.events) == 1


def test_a_relay_that_ends_before_it_could_record_a_delivery_makes_the_next_one_send_it_again(
    site: Site, receiver: Receiver
) -> None:
    arrived, go_on = threading.Event(), threading.Event()
    receiver.event = first(receipt_when(go_on, arrived))
    [event] = site.book()
    relay = site.start_relay("--drain")
    assert arrived.wait(20)
    resource.prlimit(relay.pid, resource.RLIMIT_FSIZE, (0, 0))
    go_on.set()
    _, log = relay.communicate(timeout=30)
    assert (relay.returncode, f"crm-sender: {UNUSABLE}" in log, "Traceback" in log) == (1, True, False)
    with closing(sqlite3.connect(site.database)) as connection, connection:
        connection.execute("UPDATE crm_outbox SET lease_until = ?", [time.time() - 1])  # seven seconds later
    assert site.drain().delivered == 1
    assert [request.id for request in receiver.events] == [event, event]
    assert len({request.body for request in receiver.events}) == 1


def test_a_booking_that_a_full_disk_refuses_is_not_there_in_part(site: Site) -> None:
    engine = create_engine(site.url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE bookings (id INTEGER PRIMARY KEY)"))
    crm = site.crm()
    crm.repair_requested(repair_request())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO bookings VALUES (1)"))
        refused = crm.repair_requested(repair_request(repair__notes=SENTINEL), connection)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            with pytest.raises(DBAPIError) as raised:
                connection.commit()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert SENTINEL not in str(raised.value)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO bookings VALUES (2)"))
        taken = crm.repair_requested(repair_request(), connection)
    engine.dispose()
    assert [row["id"] for row in site.rows("SELECT id FROM bookings")] == [2]
    ids = [row["id"] for row in site.rows()]
    assert (refused in ids, taken in ids) == (False, True)


@pytest.mark.parametrize(
    "command",
    [["failed"], ["retry", "--all"], ["show", "x"], ["close", "x"], ["delivered", "--since", "2024-01-01T00:00Z"]],
    ids=lambda command: command[0],
)  # fmt: skip
def test_every_command_on_a_damaged_outbox_is_a_clear_error(site: Site, command: list[str]) -> None:
    site.book(3, repair__notes=SENTINEL)
    with overwritten(garbled)(site.database, 0):
        done = site.cli(*command)
    assert (done.returncode, done.stdout) == (1, "")
    where = f"CRM_OUTBOX_URL: sqlite:///{site.database}"
    assert done.stderr == f"crm-sender: {UNUSABLE}database disk image is malformed ({where})\n"


@pytest.mark.parametrize("damage", ["CAST(? || x'ff' AS TEXT)", "?", "replace(payload, 'deviceType', ?)"])
def test_a_damaged_payload_is_not_sent_not_quoted_and_stops_nobody_else(
    site: Site, receiver: Receiver, damage: str
) -> None:
    bad, good = site.book(2)
    with closing(sqlite3.connect(site.database)) as connection, connection:
        connection.execute(f"UPDATE crm_outbox SET payload = {damage} WHERE id = ?", [SENTINEL, bad])
    done = site.cli("relay", "--drain")
    assert (done.returncode, done.stdout) == (1, "1 delivered, 1 failed, 0 held, 0 pending\n"), done.stderr
    assert SENTINEL not in done.stderr
    [failed] = site.json("failed")
    assert failed["id"] == bad
    assert "damaged" in failed["reason"]
    assert [event.id for event in receiver.events] == [good]
    assert site.cli("close", bad).returncode == 0
