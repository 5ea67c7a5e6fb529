"""`crm-sender doctor`: what is fine, and for what is not the symptom, the cause and the solution."""

from __future__ import annotations

import base64
import json
import sqlite3
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from crm_server.database import BUSY_SECONDS
from generated.operations import CURRENT, RELEASES
from sender import Relay
from sender.troubles import (
    AUTHENTICATION_FAILED,
    CONNECTION_REFUSED,
    VALIDATION_ERRORS,
    WEBHOOK_TIMEOUTS,
)
from tests.receiver import TEST_OK, Answer, Receiver, Reply, Request, always, html, problem, reply, speaks
from tests.sender.engines import rows
from tests.sender.site import SENTINEL, Site, cli, eventually, running, sender_environment
from tests.servers import KEY

PATIENT = {"CRM_TIMEOUT": "5"}
"""The tests' own is shorter, which is something to be looked at."""
SECRET = base64.b64encode(SENTINEL.encode()).decode()


def examine(site: Site, **over: str) -> dict[str, Any]:
    """Return what the doctor says, by program; its exit code says the same."""
    done = site.cli("doctor", "--json", **{**PATIENT, **over})
    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if told["ok"] else 1), done.stderr
    return told


def wrong(site: Site, **over: str) -> list[dict[str, Any]]:
    """Return what is not fine, but for the relay, which runs in few of these tests."""
    findings = examine(site, **over)["findings"]
    return [found for found in findings if found["state"] != "fine" and found["subject"] != "relay"]


def health(**over: object) -> Answer:
    """Answer a health probe well, with more."""
    body = {"status": "ok", "database": "ok", "contract": {"versions": list(RELEASES)}, **over}
    return always(reply(200, body))


def clock(seconds: float) -> Answer:
    """Answer a health probe by a clock that is so far ahead."""

    def answer(request: Request) -> Reply:
        now = datetime.fromtimestamp(time.time() + seconds, UTC)
        return health(time=now.isoformat())(request)

    return answer


@pytest.mark.usefixtures("_private")
def test_all_is_fine_where_all_is_fine_and_nothing_is_stored(
    site: Site, receiver: Receiver, outbox_url: str
) -> None:
    receiver.health = clock(0)
    trail = "SELECT count(*) FROM crm_outbox_trail"
    with running(Relay(site.settings(outbox_url=outbox_url))):
        eventually(lambda: rows(outbox_url, "SELECT 1 FROM crm_outbox_relays"), "it is seen")
        done = site.cli("doctor", CRM_OUTBOX_URL=outbox_url, **PATIENT)
        assert (done.returncode, done.stderr) == (0, "")
        assert {line.split()[0] for line in done.stdout.splitlines()} == {"fine", "It"}
        assert done.stdout.endswith("It can work.\n")
        told = examine(site, CRM_OUTBOX_URL=outbox_url)
        assert {found["subject"] for found in told["findings"]} == {
            "settings", "outbox", "relay", "deliveries", "network", "health", "clock", "handshake", "key",
        }  # fmt: skip
    assert KEY not in done.stdout
    assert receiver.events == []
    assert rows(outbox_url, trail)[0][0] == 0


@pytest.fixture
def _private(site: Site) -> None:
    """Give the outbox's file, which is a copy here, the rights with which it was made."""
    site.database.chmod(0o600)


def away(receiver: Receiver) -> None:
    receiver.go_away()


def silent(receiver: Receiver) -> None:
    def answer(request: Request) -> Reply:
        threading.Event().wait(3)
        return reply(200)

    receiver.health = answer


def unauthorised(receiver: Receiver) -> None:
    receiver.test = problem(401, "unauthorized")


def invalid(receiver: Receiver) -> None:
    receiver.test = problem(400, "invalid-event")


IN_THE_GUIDES_WORDS = {
    "network": (away, CONNECTION_REFUSED),
    "key": (unauthorised, AUTHENTICATION_FAILED),
    "health": (silent, WEBHOOK_TIMEOUTS),
    "key of an invalid event": (invalid, VALIDATION_ERRORS),
}


@pytest.mark.usefixtures("_private")
@pytest.mark.parametrize("subject", IN_THE_GUIDES_WORDS)
def test_a_common_issue_is_told_in_the_guides_words_and_exits_1(
    site: Site, receiver: Receiver, subject: str
) -> None:
    befall, trouble = IN_THE_GUIDES_WORDS[subject]
    befall(receiver)
    findings = wrong(site)
    assert findings
    for found in findings:
        assert (found["subject"], found["state"]) == (subject.split(maxsplit=1)[0], "broken")
        assert [found[name] for name in ("symptom", "cause", "solution")] == [
            trouble.symptom, trouble.cause, trouble.solution,
        ]  # fmt: skip
    told = site.cli("doctor").stdout
    assert f"cause       {trouble.cause}\n" in told
    assert told.endswith("It cannot work.\n")


BROKEN: dict[str, tuple[dict[str, Answer], str, str]] = {
    "another network": ({"test": problem(403, "forbidden-network")}, "key", "WEBHOOK_ALLOWED_NETWORKS"),
    "a wrong path": ({"test": html(404)}, "key", "CRM_WEBHOOK_URL"),
    "a proxy": ({"health": html(200)}, "health", "what stands before the CRM"),
    "too many wrong keys": ({"test": problem(429, "too-many-requests")}, "key", "wait"),
    "a CRM that cannot store": ({"health": problem(503, "unavailable")}, "health", "CRM's log"),
    "an old CRM": ({"health": speaks("0.9.0")}, "handshake", "update the CRM"),
    "a CRM that has retired our release": (
        {"health": speaks("1.900.0")},
        "handshake",
        f"crm-server unretire {CURRENT}",
    ),
}


@pytest.mark.usefixtures("_private")
@pytest.mark.parametrize(("answers", "subject", "solution"), BROKEN.values(), ids=BROKEN)
def test_what_keeps_events_from_going_is_named_with_its_cure(
    site: Site, receiver: Receiver, answers: dict[str, Answer], subject: str, solution: str
) -> None:
    for name, answer in answers.items():
        setattr(receiver, name, answer)
    findings = wrong(site)
    assert {(found["subject"], found["state"]) for found in findings} == {(subject, "broken")}
    assert solution in findings[0]["solution"]


@pytest.mark.usefixtures("_private")
def test_a_crm_that_names_no_releases_is_looked_at(site: Site, receiver: Receiver) -> None:
    receiver.health = always(reply(200, {"status": "ok"}))
    [found] = wrong(site)
    assert (found["subject"], found["state"]) == ("handshake", "look")


@pytest.mark.usefixtures("_private")
def test_clocks_that_differ_are_a_symptom_and_with_signatures_break_it(
    site: Site, receiver: Receiver
) -> None:
    for seconds, secret, state in (
        (90, "", "look"), (-4_000, "", "look"), (90, SECRET, "look"), (4_000, SECRET, "broken"), (20, SECRET, None),
    ):  # fmt: skip
        receiver.health = clock(seconds)
        found = [each for each in wrong(site, CRM_SIGNING_SECRET=secret) if each["subject"] == "clock"]
        assert [each["state"] for each in found] == ([state] if state else [])


# settings


@pytest.mark.usefixtures("_private")
def test_each_setting_is_shown_with_where_it_comes_from_and_no_secret(site: Site, receiver: Receiver) -> None:
    env_file = site.directory / ".env"
    env_file.write_text(f"CRM_API_KEY={KEY}\nCRM_TIMEOUT=1.5\nCRM_SIGNING_SECRET={SECRET}\n")
    env_file.chmod(0o600)
    env = sender_environment(CRM_WEBHOOK_URL=receiver.url, CRM_OUTBOX_URL=site.url, CRM_TIMEOUT="2")
    done = cli("doctor", directory=site.directory, env=env)
    assert done.returncode == 0, done.stdout
    for line in (
        "CRM_API_KEY is set (.env)",
        "CRM_SIGNING_SECRET is set (.env)",
        "CRM_TIMEOUT 2.0 (environment)",
        "CRM_RETRY_SCHEDULE 1,2,3 (default)",
        f"CRM_OUTBOX_URL {site.url} (environment)",
    ):
        assert f"fine    settings    {line}\n" in done.stdout
    assert KEY not in done.stdout
    assert SECRET not in done.stdout


def test_a_password_in_an_address_is_not_shown(site: Site) -> None:
    done = site.cli("doctor", CRM_OUTBOX_URL=f"postgresql://shop:{SENTINEL}@127.0.0.1:9/shop")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "BROKEN  outbox" in done.stdout
    assert SENTINEL not in done.stdout + done.stderr


@pytest.mark.usefixtures("_private")
def test_a_file_of_settings_that_others_can_read_is_looked_at(site: Site) -> None:
    (site.directory / ".env").write_text("OTHER=1\n")
    (site.directory / ".env").chmod(0o644)
    [found] = wrong(site)
    assert (found["state"], found["solution"]) == ("look", "chmod 600 .env")


@pytest.mark.parametrize(
    ("over", "state", "symptom"),
    [
        ({"CRM_API_KEY": ""}, "broken", "the relay does not start"),
        ({"CRM_API_KEY": "short"}, "look", "it can be guessed"),
        ({"CRM_TIMEOUT": SENTINEL}, "broken", "no command starts"),
        (
            {"CRM_TIMEOUT": f"{BUSY_SECONDS:g}"},
            "look",
            "an attempt is given up that the CRM was about to confirm, and counts",
        ),
    ],
)
@pytest.mark.usefixtures("_private")
def test_a_setting_that_is_missing_weak_or_wrong_is_told(
    site: Site, over: dict[str, str], state: str, symptom: str
) -> None:
    [found] = wrong(site, **over)
    assert (found["subject"], found["state"], found["symptom"]) == ("settings", state, symptom)
    assert SENTINEL not in json.dumps(found)


@pytest.mark.usefixtures("_private")
def test_a_file_of_settings_that_is_no_text_is_told(site: Site) -> None:
    (site.directory / ".env").write_bytes(f"CRM_API_KEY={SENTINEL}\xfc".encode("latin-1"))
    [found] = wrong(site)
    assert (found["subject"], found["state"]) == ("settings", "broken")
    assert found["found"] == ".env is not UTF-8: save it as UTF-8"


@pytest.mark.usefixtures("_private")
def test_a_file_of_authorities_that_holds_none_is_told(site: Site) -> None:
    (site.directory / "authority.pem").write_text(SENTINEL)
    [found] = wrong(site, CRM_CA_FILE="authority.pem")
    assert (found["subject"], found["state"]) == ("settings", "broken")
    assert found["found"] == "CRM_CA_FILE: holds no certificate in PEM"


@pytest.mark.usefixtures("_private")
def test_a_key_that_travels_readable_is_looked_at(site: Site, receiver: Receiver) -> None:
    [found] = wrong(site, CRM_WEBHOOK_URL=receiver.url.replace("127.0.0.1", "0.0.0.0"))
    assert (found["state"], found["found"]) == ("look", "http:// to 0.0.0.0")
    assert wrong(site, CRM_WEBHOOK_URL=receiver.url.replace("127.0.0.1", "localhost")) == []


@pytest.mark.usefixtures("_private")
def test_a_host_that_has_no_address_is_told(site: Site) -> None:
    found = wrong(site, CRM_WEBHOOK_URL="https://crm..example/webhooks")
    assert [each["subject"] for each in found] == ["network"]
    assert found[0]["cause"] == "no address is known for crm..example"


# the outbox


def test_a_driver_that_is_missing_is_told_with_what_to_install(site: Site) -> None:
    (site.directory / "psycopg.py").write_text("raise ModuleNotFoundError")
    url = "postgresql://someone:secret@127.0.0.1/shop"
    done = site.cli_alone("doctor", "--json", CRM_OUTBOX_URL=url)
    broken = [found for found in json.loads(done.stdout)["findings"] if found["state"] == "broken"]
    words = "CRM_OUTBOX_URL: PostgreSQL needs a driver: install psycopg[binary]"
    assert (done.returncode, [found["found"] for found in broken]) == (1, [words])


def test_a_value_that_no_driver_takes_is_told_and_not_shown(site: Site) -> None:
    [found] = wrong(site, CRM_OUTBOX_URL=f"{site.url}?timeout=sentinel")
    assert (found["subject"], found["state"]) == ("settings", "broken")
    assert found["found"] == "CRM_OUTBOX_URL: what stands behind its ? is nothing that the driver takes"


def test_an_outbox_that_is_not_there_is_told_with_the_command(site: Site, tmp_path: Path) -> None:
    for path in ("nowhere.sqlite3", "empty.sqlite3"):
        sqlite3.connect(tmp_path / "empty.sqlite3").close()
        [found] = wrong(site, CRM_OUTBOX_URL=f"sqlite:///{tmp_path / path}")
        assert (found["subject"], found["state"], found["solution"]) == (
            "outbox",
            "broken",
            "crm-sender migrate",
        )


def test_tables_of_another_release_are_looked_at(site: Site, outbox_url: str) -> None:
    for version, solution in (("0001", "crm-sender migrate"), ("9999", "update this crm-sender")):
        rows(outbox_url, f"UPDATE crm_outbox_version SET version_num = '{version}'")
        found = [each for each in wrong(site, CRM_OUTBOX_URL=outbox_url) if "tables" in each["found"]]
        assert [(each["state"], each["solution"]) for each in found] == [("look", solution)]


def test_files_that_others_can_read_are_looked_at(site: Site) -> None:
    site.database.chmod(0o644)
    [found] = wrong(site)
    assert (found["subject"], found["state"]) == ("outbox", "look")
    assert "chmod 600" in found["solution"]


@pytest.mark.usefixtures("_private")
def test_an_outbox_that_cannot_be_written_breaks_it(site: Site) -> None:
    with closing(sqlite3.connect(site.database)) as other:
        other.execute("BEGIN IMMEDIATE")
        [found] = wrong(site)
    assert (found["state"], found["found"]) == ("broken", "database is locked")


# the work


@pytest.mark.usefixtures("_private")
def test_work_that_does_not_go_is_looked_at(site: Site, receiver: Receiver) -> None:
    receiver.event = problem(400, "invalid-event")
    site.book()
    site.drain()
    receiver.event = receiver.test = problem(403, "forbidden-network")
    [held] = site.book()
    site.drain()
    with closing(sqlite3.connect(site.database)) as connection, connection:
        connection.execute("UPDATE crm_outbox SET enqueued_at = enqueued_at - 1000 WHERE id = ?", [held])
    receiver.test = TEST_OK
    work = {found["found"].split(" since ")[0]: found for found in wrong(site)}
    assert set(work) == {"1 failed", "1 held", "the oldest waits"}
    assert {found["state"] for found in work.values()} == {"look"}
    assert work["1 held"]["cause"] == "the CRM does not take webhooks from this address"
    relay = [found for found in examine(site)["findings"] if found["subject"] == "relay"]
    assert [found["symptom"] for found in relay] == ["events stay pending"]
