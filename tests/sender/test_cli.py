"""`crm-sender` as an operator uses it: a process, its exit code, and what it prints."""

from __future__ import annotations

import errno
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from generated.operations import CURRENT, WEBHOOKS
from sender import SenderSettings
from sender.cli import main
from sender.settings import without_secrets
from tests.crm_server.conftest import ON_BOTH_IN_TIME
from tests.factories import FACTORIES, repair_request
from tests.programs import interrupt
from tests.receiver import (
    TEST_OK,
    Receiver,
    Reply,
    always,
    first,
    html,
    problem,
    receipt,
    receipt_when,
    reply,
)
from tests.sender.site import SENTINEL, Site, cli, eventually, sender_environment
from tests.servers import KEY

FAULTS = [{"pointer": "/repair/priority", "detail": "is not allowed", "expected": "normal"}]


@ON_BOTH_IN_TIME
def fail(site: Site, receiver: Receiver, **over: Any) -> str:
    """Return an event that the CRM judged."""
    receiver.event = problem(400, "invalid-event", errors=FAULTS)
    [event] = site.book(**over)
    site.drain()
    receiver.event = receipt
    return event


def test_a_drain_delivers_waits_for_retries_and_exits_0(site: Site, receiver: Receiver) -> None:
    receiver.event = first(always(reply(500)), always(reply(500)))
    site.book(3, repair__notes=SENTINEL)
    done = site.cli("relay", "--drain")
    assert (done.returncode, done.stdout) == (0, "3 delivered, 0 failed, 0 held, 0 pending\n")
    assert "500 Internal Server Error: repair-request" in done.stderr
    assert SENTINEL not in done.stderr + done.stdout


@ON_BOTH_IN_TIME
def on_terminal(site: Site, *arguments: str) -> str:
    """Run a command of `crm-sender` whose standard error is a terminal; return what is shown there."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sender", *arguments],
        cwd=site.directory,
        env=site.environment(),
        stdout=subprocess.PIPE,
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    with suppress(OSError):  # which is how the end of a terminal is told
        while part := os.read(leader, 65_536):
            shown += part
    os.close(leader)
    process.communicate(timeout=20)
    return shown.decode()


@ON_BOTH_IN_TIME
def test_a_drain_shows_on_a_terminal_how_far_it_is(site: Site, receiver: Receiver) -> None:
    receiver.event = first(problem(400, "invalid-event"))
    site.book(40)
    shown = on_terminal(site, "relay", "--drain")
    drawn = [line.strip() for line in shown.split("\x1b[K") if line.startswith("[")]
    assert drawn[0].startswith(f"[{'.' * 30}] 0 of 40, 0/s, waiting")
    assert drawn[-1].startswith(f"[{'#' * 30}] 40 of 40, ")
    assert drawn[-1].endswith("/s, 0:00:00 left")
    assert "\r\x1b[K20" in shown, "what is logged goes above it"


def test_what_is_no_terminal_gets_lines_alone(site: Site) -> None:
    site.book(3)
    assert "\x1b" not in site.cli("relay", "--drain").stderr


@ON_BOTH_IN_TIME
@pytest.mark.parametrize("answer", [problem(400, "invalid-event"), html(404)], ids=["failed", "held"])
def test_a_drain_exits_1_when_something_failed_or_is_held(
    site: Site, receiver: Receiver, answer: object
) -> None:
    receiver.event = receiver.test = answer  # type: ignore[assignment]
    site.book()
    assert site.cli("relay", "--drain").returncode == 1
    receiver.event, receiver.test = receipt, TEST_OK
    assert site.cli("relay", "--drain").returncode == 0


def test_a_drain_gives_up_and_exits_1_when_the_crm_is_away(site: Site, receiver: Receiver) -> None:
    receiver.go_away()
    site.book(2)
    done = site.cli("relay", "--drain")
    assert (done.returncode, done.stdout) == (1, "0 delivered, 0 failed, 0 held, 2 pending\n")
    assert "nothing fails, until it is back" in done.stderr


@ON_BOTH_IN_TIME
@ON_BOTH_IN_TIME
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_relay_that_is_told_to_stop_records_what_is_in_flight_and_exits_0(
    site: Site, receiver: Receiver, number: signal.Signals
) -> None:
    arrived, go_on = threading.Event(), threading.Event()
    receiver.event = receipt_when(go_on, arrived)
    [event] = site.book()
    relay = site.start_relay()
    assert arrived.wait(20)
    assert site.json("status")["relay"]["running"] is True
    relay.send_signal(number)
    go_on.set()
    _, log = relay.communicate(timeout=20)
    assert relay.returncode == 0, log
    assert "relay stopped" in log
    assert site.status(event) == "delivered"
    assert site.json("status")["relay"]["running"] is False


def test_enqueue_reads_a_file_or_standard_input(site: Site) -> None:
    payload = repair_request(repair__createdAt="2024-12-13T10:00:00+00:00")
    path = site.directory / "event.json"
    path.write_text(json.dumps(payload))
    event = site.json("enqueue", "repair-request", str(path))["id"]
    again = site.cli("enqueue", "repair-request", "-", stdin=json.dumps(payload))
    assert (again.returncode, again.stdout) == (0, f"{event}\n")
    assert json.loads(site.row(event)["payload"]) == payload


@pytest.mark.parametrize("event", WEBHOOKS)
def test_enqueue_takes_every_event_of_the_contract(site: Site, event: str) -> None:
    done = site.cli("enqueue", event, "-", stdin=json.dumps(FACTORIES[event]()))
    assert done.returncode == 0, done.stderr
    assert site.row(done.stdout.strip())["event"] == event


@ON_BOTH_IN_TIME
@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        (json.dumps(repair_request(customer__email=SENTINEL, repair__priority=SENTINEL)), "/repair/priority"),
        (f'{{"{SENTINEL}": 1, "{SENTINEL}": 2}}', "the event has a name twice"),
        (SENTINEL, "the event is not JSON"),
        (SENTINEL.encode() + b"\xff", "the event is not UTF-8"),
    ],
    ids=["invalid", "duplicate names", "not JSON", "not UTF-8"],
)
def test_enqueue_refuses_what_the_contract_refuses_with_pointers_and_no_values(
    site: Site, content: str | bytes, pointer: str
) -> None:
    done = site.cli("enqueue", "repair-request", "-", stdin=content)
    assert done.returncode == 1
    assert pointer in done.stderr
    assert SENTINEL not in done.stderr + done.stdout
    assert site.rows() == []


def test_enqueue_says_where_other_content_is(site: Site) -> None:
    payload = repair_request()
    event = site.crm().repair_requested(payload)
    payload["repair"]["notes"] = SENTINEL
    done = site.cli("enqueue", "repair-request", "-", stdin=json.dumps(payload))
    assert done.returncode == 1
    assert f"crm-sender show {event}" in done.stderr
    assert SENTINEL not in done.stderr


@ON_BOTH_IN_TIME
def test_enqueue_names_a_file_that_is_not_there(site: Site) -> None:
    done = site.cli("enqueue", "repair-request", "missing.json")
    assert (done.returncode, done.stderr) == (1, "crm-sender: No such file or directory: missing.json\n")


def test_status_says_how_all_is(site: Site, receiver: Receiver) -> None:
    fail(site, receiver)
    site.book(2)
    status = site.json("status")
    assert {name: status[name] for name in ("pending", "delivered", "failed", "held")} == {
        "pending": 2, "delivered": 0, "failed": 1, "held": 0,
    }  # fmt: skip
    assert status["crm"]["reachable"] is True
    assert status["crm"]["contract_versions"] == [CURRENT]
    assert status["relay"]["running"] is False
    assert site.cli("status").stdout.startswith("pending   2\ndelivered 0\nfailed    1\nheld      0\n")


@ON_BOTH_IN_TIME
def test_status_exits_0_when_the_crm_is_away_or_silent(site: Site, receiver: Receiver) -> None:
    silent = threading.Event()
    receiver.health = lambda r: Reply([b""] if silent.wait(20) else [])
    assert site.json("status")["crm"]["answer"] == "timeout"
    silent.set()
    receiver.go_away()
    crm = site.json("status")["crm"]
    assert (crm["reachable"], crm["answer"], crm["contract_versions"]) == (False, "Connection refused", [])


@ON_BOTH_IN_TIME
def test_failed_lists_what_the_crm_said(site: Site, receiver: Receiver) -> None:
    event = fail(site, receiver, repair__notes=SENTINEL)
    [row] = site.json("failed")
    assert set(row) == {"id", "event", "natural_key", "reason", "answer", "attempts", "failed_at"}
    assert (row["id"], row["event"], row["attempts"]) == (event, "repair-request", 1)
    assert row["reason"] == "400 Bad Request"
    assert row["answer"]["pointers"] == ["/repair/priority"]
    assert row["failed_at"].endswith("+00:00")
    assert SENTINEL not in site.cli("failed").stdout


@pytest.mark.parametrize(
    "command", [["failed"], ["held"], ["delivered", "--since", "2024-01-01T00:00Z"], ["trail"]]
)
def test_a_list_of_nothing_has_no_lines(site: Site, command: list[str]) -> None:
    done = site.cli(*command)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_retry_puts_failed_ones_back_and_keeps_what_is_not_failed(site: Site, receiver: Receiver) -> None:
    event, other = fail(site, receiver), fail(site, receiver)
    assert site.json("retry", event) == {"retried": 1, "refused": 0}
    assert [site.status(e) for e in (event, other)] == ["pending", "failed"]
    again = site.cli("retry", event, "unknown")
    assert again.returncode == 1
    assert f"{event}: is pending" in again.stderr
    assert site.cli("retry", "--all").stdout == "1 retried, 0 refused\n"
    assert site.drain().delivered == 2
    assert site.verbs(event) == ["failed", "retried", "delivered"]


def test_retry_checks_again_what_todays_contract_says(site: Site, receiver: Receiver) -> None:
    event = fail(site, receiver)
    with closing(sqlite3.connect(site.database)) as connection, connection:
        connection.execute(
            "UPDATE crm_outbox SET payload = json_set(payload, '$.repair.priority', ?)", [SENTINEL]
        )
    done = site.cli("retry", event)
    assert done.returncode == 1
    assert "/repair/priority" in done.stderr
    assert SENTINEL not in done.stderr
    assert site.status(event) == "failed"


@ON_BOTH_IN_TIME
@pytest.mark.parametrize(
    "arguments",
    [
        [], ["retry"], ["retry", "--all", "x"], ["unknown"], ["enqueue", "unknown", "-"], ["relay", "--fast"],
        ["delivered"], ["delivered", "--since", "yesterday"], ["delivered", "--since", "0001-01-01T00:00"],
        ["dashboard", "--port", "99999"], ["dashboard", "--port", "-1"], ["dashboard", "--port", "x"],
        ["migrate", "--sql", "--after", "0001:0003"], ["migrate", "--sql", "--after", "0001:"],
        ["migrate", "--sql", "--after", "9999"],
    ],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)  # fmt: skip
def test_wrong_usage_exits_2(site: Site, arguments: list[str]) -> None:
    assert site.cli(*arguments).returncode == 2


LATIN = f"{SENTINEL}-ü".encode("latin-1")
ESCAPED = LATIN.decode(errors="surrogateescape")
"""As Python hands the bytes of an argument on."""


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", ESCAPED], ["retry", ESCAPED], ["close", ESCAPED], ["failed", "--answer", ESCAPED],
        ["erase-person", "--email", f"{ESCAPED}@example.com"], ["enqueue", "repair-request", ESCAPED], [ESCAPED],
    ],
    ids=lambda arguments: arguments[0].replace(ESCAPED, "…"),
)  # fmt: skip
def test_an_argument_that_is_no_text_is_wrong_usage(site: Site, arguments: list[str]) -> None:
    done = site.cli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("crm-sender: error: an argument is not UTF-8\n")
    assert SENTINEL not in done.stderr


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_input_that_is_no_text_is_named(site: Site, locale: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sender", "erase-person", "--email", "-"],
        cwd=site.directory,
        env=site.environment(LC_ALL=locale),
        input=LATIN + b"@example.com\n",
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"crm-sender: standard input is not UTF-8: convert it\n"


def test_a_terminal_that_lacks_a_character_is_shown_its_number(site: Site) -> None:
    body = json.dumps(repair_request(repair__websiteRepairId="natural-key"))
    [event] = site.cli("enqueue", "repair-request", "-", stdin=body).stdout.split()
    site.rows(
        "UPDATE crm_outbox SET status = 'failed', finished_at = 1, reason = '400 → ü' WHERE id = ?", event
    )
    done = site.cli_alone("failed", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "400 \\u2192 \\xfc" in done.stdout


def test_an_at_sign_in_a_password_is_asked_for_escaped_and_not_shown(site: Site) -> None:
    url = f"postgresql://user:first@{SENTINEL}@127.0.0.1:1/crm"
    for command in (["status"], ["doctor"]):
        done = site.cli(*command, CRM_OUTBOX_URL=url)
        assert done.returncode == 1
        assert "CRM_OUTBOX_URL" in done.stdout + done.stderr
        assert "write it as %40" in done.stdout + done.stderr
        assert SENTINEL not in done.stdout + done.stderr


def test_settings_that_are_no_text_are_named(site: Site) -> None:
    (site.directory / ".env").write_bytes(b"CRM_API_KEY=" + LATIN)
    done = site.cli("status")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "crm-sender: .env is not UTF-8: save it as UTF-8\n"


@pytest.mark.parametrize("made", [os.mkdir, partial(os.symlink, "nowhere")])
def test_settings_that_are_no_file_are_named(site: Site, made: Callable[[Path], None]) -> None:
    made(site.directory / ".env")
    done = site.cli("status")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("crm-sender: .env is no file")


def test_ctrl_c_at_the_question_erases_nothing(site: Site) -> None:
    [event] = site.book(customer__email="interrupted@example.com")
    arguments = ["erase-person", "--email", "interrupted@example.com"]
    done = interrupt("sender", *arguments, cwd=site.directory, env=site.environment(), question="Type yes: ")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert site.status(event) == "pending"


def test_an_error_of_the_system_that_names_no_file_is_shown_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(SenderSettings, "read", fail)
    assert main(["migrate"]) == 1
    assert capsys.readouterr().err == f"crm-sender: [Errno {errno.ENOSPC}] No space left on device\n"


@ON_BOTH_IN_TIME
def test_close_gives_up_only_what_failed(site: Site, receiver: Receiver) -> None:
    event = fail(site, receiver)
    [pending] = site.book()
    assert site.cli("close", pending).returncode == 1
    assert site.cli("close", "unknown").returncode == 1
    assert site.json("close", event) == {"closed": 1, "refused": 0}
    assert site.row(event)["payload"] is None
    assert site.cli("retry", event).returncode == 1


@ON_BOTH_IN_TIME
def test_show_finds_an_event_by_its_id_and_by_its_ticket(site: Site, receiver: Receiver) -> None:
    event = fail(site, receiver, repair__notes=SENTINEL)
    ticket = site.row(event)["reference"]
    for key in (event, ticket, site.row(event)["natural_key"]):
        [found] = site.json("show", key)
        assert (found["id"], found["status"], found["reference"]) == (event, "failed", ticket)
        assert [step["what"] for step in found["trail"]] == ["enqueued", "failed"]
    assert SENTINEL not in site.cli("show", ticket).stdout
    unknown = site.cli("show", "nothing")
    assert (unknown.returncode, "no event has the id" in unknown.stderr) == (1, True)


def test_delivered_lists_what_was_delivered_since_a_time(site: Site) -> None:
    [event] = site.book()
    site.drain()
    [row] = site.json("delivered", "--since", "2024-01-01T00:00Z")
    assert (row["id"], row["digest"]) == (event, site.row(event)["digest"])
    assert site.json("delivered", "--since", "2999-01-01T00:00Z") == []


@ON_BOTH_IN_TIME
def test_a_long_list_is_printed_as_it_would_be_at_once(site: Site) -> None:
    events = site.book(2)
    site.drain()
    for since, expected in (("2024-01-01T00:00Z", events), ("2999-01-01T00:00Z", [])):
        text = site.cli("delivered", "--since", since, "--json").stdout
        assert text == json.dumps(json.loads(text), indent=2) + "\n"
        ids = [event["id"] for event in json.loads(text)]
        assert sorted(ids) == sorted(expected)  # either may have been delivered first
        lines = site.cli("delivered", "--since", since).stdout
        assert [line.split()[0] for line in lines.splitlines()] == ids
        trail = site.cli("trail", "--since", since, "--json").stdout
        steps = ",\n".join(map(json.dumps, json.loads(trail)))
        assert trail == f"[\n{steps}\n]\n"


@ON_BOTH_IN_TIME
def test_test_says_step_by_step_whether_the_way_is_clear(site: Site, receiver: Receiver) -> None:
    steps = site.json("test")
    assert steps["ok"] is True
    assert [s["step"] for s in steps["steps"]] == [
        "health",
        "handshake",
        *WEBHOOKS,
    ]
    receiver.test = problem(401, "unauthorized")
    done = site.cli("test")
    assert done.returncode == 1
    assert "401 Unauthorized" in done.stdout
    receiver.go_away()
    assert "Connection refused" in site.cli("test").stdout
    assert receiver.events == []


@ON_BOTH_IN_TIME
def test_migrating_twice_changes_nothing(site: Site) -> None:
    [event] = site.book()
    identity = site.rows("SELECT outbox_id FROM crm_outbox_state")[0][0]
    assert site.cli("migrate").returncode == 0
    assert site.status(event) == "pending"
    assert site.rows("SELECT outbox_id FROM crm_outbox_state")[0][0] == identity


def test_after_a_step_back_the_newer_tables_are_left_alone_and_used(site: Site, receiver: Receiver) -> None:
    site.rows("UPDATE crm_outbox_version SET version_num = '9999'")
    done = site.cli("migrate")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "crm-sender: the outbox's tables are of a newer release, and stay as they are\n"
    assert site.rows("SELECT version_num FROM crm_outbox_version")[0][0] == "9999"
    [event] = site.book()
    assert site.cli("relay", "--drain").returncode == 0
    assert site.status(event) == "delivered"
    assert len(receiver.events) == 1


def test_the_printed_sql_makes_an_outbox(site: Site, receiver: Receiver) -> None:
    done = site.cli("migrate", "--sql")
    assert done.returncode == 0, done.stderr
    url = f"sqlite:///{site.directory / 'by-hand.sqlite3'}"
    with closing(sqlite3.connect(site.directory / "by-hand.sqlite3")) as connection:
        connection.executescript(done.stdout)
    stdin = json.dumps(repair_request())
    assert site.cli("enqueue", "repair-request", "-", stdin=stdin, CRM_OUTBOX_URL=url).returncode == 0
    assert site.cli("relay", "--drain", CRM_OUTBOX_URL=url).returncode == 0
    assert site.cli("migrate", CRM_OUTBOX_URL=url).returncode == 0
    assert len(receiver.events) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CRM_WEBHOOK_URL", "sentinel"),
        ("CRM_WEBHOOK_URL", "http://[sentinel"),
        ("CRM_WEBHOOK_URL", "http://crm:sentinel/webhooks"),
        ("CRM_WEBHOOK_URL", "http://crm\u2603sentinel/webhooks"),
        ("CRM_WEBHOOK_URL", "http://xn--a/sentinel"),
        ("CRM_WEBHOOK_URL", "http://user:sentinel@crm/webhooks"),
        ("CRM_WEBHOOK_URL", "http://crm/webhooks?key=sentinel"),
        ("CRM_API_KEY", "sentinel with spaces"),
        ("CRM_API_KEY", "sentinel,two"),
        ("CRM_API_KEY", "sentinel-ü"),
        ("CRM_SIGNING_SECRET", "whsec_sentinel sentinel"),
        ("CRM_SIGNING_SECRET", "whsec_"),
        ("CRM_OUTBOX_URL", "sentinel"),
        ("CRM_OUTBOX_URL", "sentinel://host/db"),
        ("CRM_OUTBOX_URL", "postgresql://user@host:sentinel/db"),
        ("CRM_OUTBOX_URL", "sqlite://sentinel/outbox.sqlite3"),
        ("CRM_OUTBOX_URL", "sqlite://"),
        ("CRM_OUTBOX_URL", "sqlite:///:memory:"),
        ("CRM_OUTBOX_URL", "sqlite:///sentinel.sqlite3?mode=ro&uri=true"),
        ("CRM_RETRY_SCHEDULE", "1,sentinel"),
        ("CRM_RETRY_SCHEDULE", "-1"),
        ("CRM_RETRY_SCHEDULE", "nan"),
        ("CRM_TIMEOUT", "sentinel"),
        ("CRM_TIMEOUT", "0"),
        ("CRM_WHEN_AWAY", "sentinel"),
        ("CRM_ALERT_URL", "http://xn--a/sentinel"),
    ],
)
def test_a_wrong_setting_is_named_without_its_value(site: Site, name: str, value: str) -> None:
    done = site.cli("status", **{name: value})
    assert done.returncode == 1
    assert done.stderr.startswith(f"crm-sender: {name}")
    assert "sentinel" not in done.stderr


def test_postgresql_without_its_driver_says_what_to_install(site: Site) -> None:
    (site.directory / "psycopg.py").write_text("raise ModuleNotFoundError")
    url = "postgresql://someone:secret@127.0.0.1/shop"
    done = site.cli_alone("migrate", CRM_OUTBOX_URL=url)
    words = "crm-sender: CRM_OUTBOX_URL: PostgreSQL needs a driver: install psycopg[binary]\n"
    assert (done.returncode, done.stderr) == (1, words)


def run_closed(site: Site, stream: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `crm-sender` with a stream closed, as a shell writes it."""
    return subprocess.run(
        ["bash", "-c", f'exec "$0" -m sender "$@" {stream}', sys.executable, *command],
        cwd=site.directory, env=site.environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "command", [["enqueue", "repair-request", "-"], ["erase-person", "--email", "-", "--yes"]]
)
def test_a_closed_standard_input_is_wrong_usage(site: Site, command: list[str]) -> None:
    done = run_closed(site, "<&-", *command)
    words = "crm-sender: standard input is closed: name a file, or give --email E --yes\n"
    assert (done.returncode, done.stderr) == (2, words)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (">/dev/full", "crm-sender: [Errno 28] No space left on device\n"),
        ("> >(exec sleep 0)", ""),  # whoever read it has seen enough
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_standard_output_that_takes_nothing_is_a_failure(
    site: Site, monkeypatch: pytest.MonkeyPatch, unbuffered: str, stream: str, words: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    done = run_closed(site, stream, "failed", "--json")
    assert (done.returncode, done.stderr) == (1, words)


@pytest.mark.parametrize(
    "command",
    [
        ["migrate", "--sql"],
        ["delivered", "--since", "2024-01-01T00:00Z", "--json"],
        ["trail", "--json"],
        ["trail", "--csv"],
    ],
    ids=" ".join,
)
def test_a_closed_standard_output_is_named(site: Site, command: list[str]) -> None:
    done = run_closed(site, ">&-", *command)
    words = "crm-sender: standard output is closed, and all of this goes there\n"
    assert (done.returncode, done.stderr) == (1, words)


def test_a_relay_without_a_key_says_what_is_missing(site: Site) -> None:
    done = site.cli("relay", CRM_API_KEY="")
    assert done.returncode == 1
    assert "CRM_API_KEY is not set" in done.stderr


def test_the_env_file_is_read_and_the_environment_wins(site: Site, receiver: Receiver) -> None:
    (site.directory / ".env").write_text(
        f"CRM_WEBHOOK_URL={receiver.url}\nCRM_API_KEY={KEY}\nCRM_OUTBOX_URL=sqlite:///outbox.sqlite3\nOTHER=1\n"
    )
    env = sender_environment()
    done = cli("status", "--json", directory=site.directory, env=env)
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert status["crm"]["reachable"] is True
    assert status["outbox"]["url"] == site.url
    done = cli(
        "status", "--json", directory=site.directory, env=env | {"CRM_WEBHOOK_URL": "http://127.0.0.1:9/w"}
    )
    assert json.loads(done.stdout)["crm"]["reachable"] is False


@pytest.mark.parametrize(
    "command", [["status"], ["failed"], ["relay"], ["relay", "--drain"], ["enqueue"], ["show", "x"]]
)
def test_an_outbox_that_is_not_migrated_names_the_command(site: Site, command: list[str]) -> None:
    arguments = ["enqueue", "repair-request", "-"] if command == ["enqueue"] else command
    new = f"sqlite:///{site.directory / 'new.sqlite3'}"
    done = site.cli(*arguments, stdin=json.dumps(repair_request()), CRM_OUTBOX_URL=new)
    assert done.returncode == 1
    assert "crm-sender migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_outbox_that_root_makes_belongs_to_whom_the_site_runs_for(site: Site) -> None:
    user = 1000 if os.geteuid() == 0 else os.geteuid()
    folder = site.directory / "var"
    folder.mkdir()
    os.chown(folder, user, -1)
    done = site.cli("migrate", CRM_OUTBOX_URL=f"sqlite:///{folder / 'new.sqlite3'}")
    assert done.returncode == 0, done.stderr
    assert {path.stat().st_uid for path in folder.iterdir()} == {user}


@pytest.mark.engines("postgresql")
def test_a_password_in_the_query_of_an_address_is_not_shown(site: Site) -> None:
    secret = f"{site.url}&password=sentinel"
    nowhere = make_url(secret).set(database="nowhere").render_as_string(hide_password=False)
    commands = (["status"], ["status", "--json"], ["migrate"], ["doctor"], ["relay", "--drain"])
    for command, url in product(commands, (secret, nowhere)):
        done = site.cli(*command, CRM_OUTBOX_URL=url)
        assert done.returncode in {0, 1}
        assert "sentinel" not in done.stdout + done.stderr


@pytest.mark.engines("postgresql")
def test_a_database_that_is_not_there_is_not_said_to_want_tables(site: Site) -> None:
    url = make_url(site.url).set(database="nowhere").render_as_string(hide_password=False)
    for command in (["status"], ["migrate"]):
        done = site.cli(*command, CRM_OUTBOX_URL=url)
        assert done.returncode == 1
        assert 'database "nowhere" does not exist' in done.stderr
        assert f"(CRM_OUTBOX_URL: {without_secrets(make_url(url))})" in done.stderr
        assert "create its tables" not in done.stderr


def _corrupt(path: Path) -> None:
    path.write_bytes(b"this is no database" * 500)


def _directory(path: Path) -> None:
    path.mkdir()


def _garbled(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\x00" + b"\xff" * 5_000)


@pytest.mark.parametrize("break_it", [_corrupt, _directory, _garbled])
@pytest.mark.parametrize(
    "command", [["status"], ["relay", "--drain"], ["enqueue", "repair-request", "-"], ["migrate"]]
)
def test_a_broken_outbox_is_a_clear_error(site: Site, break_it: object, command: list[str]) -> None:
    broken = site.directory / "broken.sqlite3"
    break_it(broken)  # type: ignore[operator]
    done = site.cli(
        *command,
        stdin=json.dumps(repair_request(repair__notes=SENTINEL)),
        CRM_OUTBOX_URL=f"sqlite:///{broken}",
    )
    assert done.returncode == 1
    assert done.stderr.startswith("crm-sender: ")
    assert f"CRM_OUTBOX_URL: sqlite:///{broken}" in done.stderr
    assert "Traceback" not in done.stderr
    assert SENTINEL not in done.stderr


def test_a_locked_outbox_is_a_clear_error(site: Site) -> None:
    with closing(sqlite3.connect(site.database)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert site.cli("status").returncode == 0
        done = site.cli("enqueue", "repair-request", "-", stdin=json.dumps(repair_request()))
    assert (done.returncode, "database is locked" in done.stderr) == (1, True)


def test_a_full_disk_is_a_clear_error_and_what_was_written_stays(site: Site) -> None:
    [event] = site.book()
    limit = 36  # kB: the log's index needs 32, the event in the log more than that
    payload = json.dumps(
        repair_request(repair__notes=SENTINEL + "x" * 4_900, repair__issueDescription="y" * 4_900)
    )
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f {limit}; trap '' XFSZ; exec \"$0\" -m sender enqueue repair-request -", sys.executable],
        cwd=site.directory, env=site.environment(), input=payload, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("crm-sender: the outbox cannot be used: ")
    assert SENTINEL not in done.stderr
    assert site.statuses() == ["pending"]
    assert site.drain().delivered == 1
    assert site.status(event) == "delivered"


@ON_BOTH_IN_TIME
def test_every_command_explains_itself(site: Site) -> None:
    done = site.cli("--help")
    assert done.returncode == 0
    for command in (
        "relay",
        "enqueue",
        "status",
        "failed",
        "held",
        "retry",
        "close",
        "show",
        "delivered",
        "trail",
        "erase-person",
        "test",
        "doctor",
        "migrate",
    ):
        assert command in done.stdout


def test_a_killed_relay_is_not_said_to_run_for_long(site: Site) -> None:
    relay = site.start_relay(CRM_TIMEOUT="0.1")
    eventually(lambda: site.rows("SELECT * FROM crm_outbox_relays"), "it is seen")
    relay.kill()
    relay.communicate()
    site.rows("UPDATE crm_outbox_relays SET seen_at = ?", time.time() - 20)
    assert site.json("status")["relay"]["running"] is False


def test_nothing_listens_for_the_sender(site: Site) -> None:
    relay = site.start_relay()
    eventually(lambda: site.rows("SELECT * FROM crm_outbox_relays"), "it is seen")
    listening = [line.split() for line in Path(f"/proc/{relay.pid}/net/tcp").read_text().splitlines()[1:]]
    inodes = {fields[9] for fields in listening if fields[3] == "0A"}
    own = {link.readlink().name for link in Path(f"/proc/{relay.pid}/fd").iterdir()}
    relay.terminate()
    relay.communicate(timeout=20)
    assert not {f"socket:[{inode}]" for inode in inodes} & own
