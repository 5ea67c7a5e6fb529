"""`crm-sender erase-person`: what is not delivered yet of somebody is gone when it answers, from the files too."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from sender import CRM, Relay, SenderSettings, erasure, outbox
from sender.database import open_engine
from tests.factories import customer_registration, repair_request
from tests.receiver import Answer, Receiver, Reply, Request, problem, receipt, receipt_when
from tests.sender.engines import rows
from tests.sender.site import SENTINEL, Site, cli, eventually, running, sender_environment
from tests.servers import KEY

ADA = "Ada.Lovelace@example.com"


def erase(
    settings: SenderSettings, directory: Path, *arguments: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command on an outbox."""
    env = sender_environment(CRM_OUTBOX_URL=settings.outbox_url, CRM_API_KEY=KEY, CRM_TIMEOUT="2")
    return cli("erase-person", *arguments, directory=directory, env=env, stdin=stdin)


def of_ada(**over: Any) -> dict[str, Any]:
    """Return a repair of a person whose every word can be looked for."""
    return repair_request(customer__email=ADA, repair__notes=SENTINEL, customer__websiteUserId="ada", **over)


def statuses(settings: SenderSettings) -> dict[str, str]:
    return {
        row["id"]: row["status"] for row in rows(settings.outbox_url, "SELECT id, status FROM crm_outbox")
    }


def test_all_that_waits_or_failed_of_a_person_is_erased_and_nothing_else(
    settings: SenderSettings, crm: CRM, receiver: Receiver, tmp_path: Path
) -> None:
    delivered = crm.repair_requested(of_ada())
    Relay(settings).run(drain=True)
    receiver.event = problem(400, "invalid-event")
    failed = crm.repair_requested(of_ada())
    Relay(settings).run(drain=True)
    receiver.event = receiver.test = problem(401, "unauthorized")
    held = crm.repair_requested(of_ada())
    Relay(settings).run(drain=True)
    pending = crm.repair_requested(of_ada())
    # By the other field, in another case; and by the customer's id alone.
    written = crm.repair_requested(
        repair_request(repair__customerEmail=ADA.upper(), customer__websiteUserId="al")
    )
    registered = crm.customer_registered(customer_registration(customer__websiteUserId="al"))
    longer = crm.repair_requested(
        repair_request(customer__email=f"not.{ADA}", repair__customerEmail=f"not.{ADA}")
    )

    done = erase(settings, tmp_path, "--email", "-", "--yes", stdin=f"{ADA.lower()}\n")
    assert done.returncode == 0, done.stderr
    gone = {failed, held, pending, written, registered}
    assert statuses(settings) == {delivered: "delivered", longer: "pending"} | dict.fromkeys(gone, "erased")
    assert (
        rows(settings.outbox_url, "SELECT 1 FROM crm_outbox WHERE status = 'erased' AND payload IS NOT NULL")
        == []
    )
    assert all(event in done.stdout for event in gone)
    assert longer not in done.stdout
    assert ADA.lower() not in (done.stdout + done.stderr).lower()
    assert SENTINEL not in done.stdout + done.stderr
    assert "crm-server erase-person" in done.stdout
    noted = rows(
        settings.outbox_url, "SELECT event_id, actor, detail FROM crm_outbox_trail WHERE verb = 'erased'"
    )
    assert {row["event_id"] for row in noted} == gone
    assert {row["actor"].partition(":")[0] for row in noted} == {"cli"}
    assert {row["detail"] for row in noted} == {""}
    # The relay goes on with what is left, of the same customer too.
    receiver.event = receipt
    later = crm.repair_requested(of_ada())
    Relay(settings).run(drain=True)
    assert statuses(settings)[later] == "delivered"


def test_no_byte_is_left_in_the_files(site: Site) -> None:
    site.book(3, customer__email=ADA, repair__notes=SENTINEL)
    assert site.left_of(SENTINEL)
    assert site.cli("erase-person", "--email", ADA, "--yes").returncode == 0
    assert site.left_of(SENTINEL) == site.left_of("Lovelace@") == []


def test_an_address_that_json_writes_with_escapes_is_found(site: Site) -> None:
    escaped = json.dumps(repair_request(customer__email=ADA)).replace("@", "\\u0040")
    path = site.directory / "event.json"
    path.write_text(escaped)
    event = site.json("enqueue", "repair-request", str(path))["id"]
    with closing(sqlite3.connect(site.database)) as connection, connection:
        connection.execute("UPDATE crm_outbox SET payload = ?", [escaped])
    assert site.cli("erase-person", "--email", ADA, "--yes").returncode == 0
    assert site.status(event) == "erased"


def test_a_damaged_payload_that_names_the_person_is_erased(site: Site) -> None:
    [event] = site.book()
    with closing(sqlite3.connect(site.database)) as connection, connection:
        connection.execute("UPDATE crm_outbox SET payload = ?", [f'{{"customer": "{ADA}'])
    assert site.cli("erase-person", "--email", ADA, "--yes").returncode == 0
    assert site.status(event) == "erased"


def test_it_asks_first(site: Site) -> None:
    [event] = site.book(customer__email=ADA)
    refused = site.cli("erase-person", "--email", "-", stdin=f"{ADA}\nno\n")
    assert (refused.returncode, site.status(event)) == (1, "pending")
    assert "Nothing was erased." in refused.stdout
    assert event in refused.stdout
    assert site.cli("erase-person", "--email", "-", stdin=f"{ADA}\nyes\n").returncode == 0
    assert site.status(event) == "erased"


def test_nothing_of_somebody_unknown_is_erased(site: Site) -> None:
    [event] = site.book()
    done = site.cli("erase-person", "--email", ADA, "--yes")
    assert (done.returncode, site.status(event)) == (0, "pending")
    assert "Nothing of this person" in done.stdout


def test_what_is_no_address_is_wrong_usage(site: Site) -> None:
    assert site.cli("erase-person", "--email", "ada", "--yes").returncode == 2
    assert site.cli("erase-person", "--yes").returncode == 2


def test_it_answers_when_nothing_is_in_flight_any_more(
    settings: SenderSettings, crm: CRM, receiver: Receiver, tmp_path: Path
) -> None:
    arrived, go_on = threading.Event(), threading.Event()
    receiver.event = receipt_when(go_on, arrived)
    in_flight, waiting = crm.repair_requested(of_ada()), crm.repair_requested(of_ada())
    answers: list[subprocess.CompletedProcess[str]] = []
    with running(Relay(settings)):
        assert arrived.wait(10)
        command = threading.Thread(
            target=lambda: answers.append(erase(settings, tmp_path, "--email", ADA, "--yes"))
        )
        command.start()
        eventually(lambda: statuses(settings)[waiting] == "erased", "what only waits is erased at once")
        assert not answers
        go_on.set()
        command.join(20)
        [other] = [crm.repair_requested(repair_request())]
        eventually(lambda: statuses(settings)[other] == "delivered", "the relay goes on")
    [done] = answers
    assert done.returncode == 0, done.stderr
    assert statuses(settings)[in_flight] == "delivered"
    assert "1 erased; 1 were delivered before that." in done.stdout
    assert [request.id for request in receiver.events] == [in_flight, other]


def test_what_is_still_in_flight_is_found_again_though_only_the_customers_id_tells_whose_it_is(
    settings: SenderSettings, crm: CRM
) -> None:
    erased = crm.repair_requested(of_ada())
    leased = crm.repair_requested(repair_request(customer__websiteUserId="ada"))
    lease = "UPDATE crm_outbox SET lease_token = 'busy', lease_until = ? WHERE id = ?"
    rows(settings.outbox_url, lease, time.time() + 10, leased)
    engine = open_engine(settings.outbox_url)
    found, users = erasure.find(engine, ADA)
    with engine.begin() as connection:
        assert outbox.erase(connection, [row.id for row in found], time.time(), 10, "me") == (
            [erased],
            [leased],
        )
    again, _ = erasure.find(engine, ADA, users)
    engine.dispose()
    assert [row.id for row in again] == [leased]


def test_what_comes_back_from_an_attempt_is_erased_before_the_next(
    settings: SenderSettings, crm: CRM, receiver: Receiver, tmp_path: Path
) -> None:
    arrived, go_on = threading.Event(), threading.Event()
    event = crm.repair_requested(of_ada())
    receiver.event = refuse_when(go_on, arrived)
    answers: list[subprocess.CompletedProcess[str]] = []
    with running(Relay(settings.model_copy(update={"retry_schedule": (30.0,)}))):
        assert arrived.wait(10)
        command = threading.Thread(
            target=lambda: answers.append(erase(settings, tmp_path, "--email", ADA, "--yes"))
        )
        command.start()
        go_on.set()
        command.join(20)
    assert [done.returncode for done in answers] == [0]
    assert statuses(settings)[event] == "erased"
    assert len(receiver.events) == 1


def refuse_when(go_on: threading.Event, arrived: threading.Event) -> Answer:
    """Answer that the CRM cannot, but not before it is let."""

    def answer(request: Request) -> Reply:
        arrived.set()
        go_on.wait(10)
        return problem(500, "internal-error")(request)

    return answer


def test_a_lease_that_its_relay_never_gives_back_runs_out(
    settings: SenderSettings, crm: CRM, tmp_path: Path
) -> None:
    event = crm.repair_requested(of_ada())
    leased = "UPDATE crm_outbox SET lease_token = 'of the stopped', lease_until = ?"
    until = time.time() + 1.5
    rows(settings.outbox_url, leased, until)
    done = erase(settings, tmp_path, "--email", ADA, "--yes")
    assert (done.returncode, statuses(settings)[event]) == (0, "erased"), done.stderr
    assert time.time() > until


def test_a_reader_that_keeps_the_bytes_in_the_log_is_told_of(site: Site) -> None:
    site.book(customer__email=ADA, repair__notes=SENTINEL)
    with closing(sqlite3.connect(site.database)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM crm_outbox").fetchall()
        done = site.cli("erase-person", "--email", ADA, "--yes")
        assert done.returncode == 1
        assert "left in SQLite's log" in done.stderr
    site.drain()
    assert site.left_of(SENTINEL) == []
