"""Both directions of time: the programs that were released, as they were released, beside today's.

Real servers, real outboxes, real HTTP. A wheel under openapi/webhooks/releases/ is unpacked and run by this
environment's Python.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import pytest

from generated.operations import CURRENT, RELEASES
from tests.factories import customer_registration, payment_status, repair_request
from tests.receiver import TEST_OK, Receiver, problem, receipt, speaks, start_receiver
from tests.sender.site import eventually
from tests.servers import KEY, ROOT, Crm, clean_environment, free_port, start_crm

OLD = [release for release in RELEASES if release != CURRENT][-3:]
SPOKEN = {release: list(RELEASES)[: number + 1] for number, release in enumerate(RELEASES)}
"""What the CRM of each release spoke."""
LATEST = [pytest.param(each, marks=() if each == OLD[-1] else pytest.mark.long) for each in OLD]
"""The last three; all but the newest with `make faults`."""


@pytest.fixture(scope="session", params=LATEST)
def release(request: pytest.FixtureRequest) -> str:
    """A release before today's."""
    return str(request.param)


@pytest.fixture(scope="session")
def old(release: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the programs of that release are."""
    directory = tmp_path_factory.mktemp(f"wheel-{release}")
    [wheel] = (ROOT / "openapi/webhooks/releases" / release).glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(directory)
    return str(directory)


@dataclass
class Website:
    """A website with an outbox of its own, whose `crm-sender` may change."""

    directory: Path
    crm_url: str
    code: str = str(ROOT)
    """Where the programs are that it runs."""

    def __post_init__(self) -> None:
        self.directory.mkdir(exist_ok=True)
        self.run("migrate")

    @property
    def environment(self) -> dict[str, str]:
        settings = {"CRM_WEBHOOK_URL": self.crm_url, "CRM_API_KEY": KEY, "CRM_RETRY_SCHEDULE": "0.05,0.05"}
        url = f"sqlite:///{self.directory}/outbox.sqlite3"
        return clean_environment(**settings, CRM_OUTBOX_URL=url, PYTHONPATH=self.code)

    def run(self, *arguments: str, stdin: str = "", code: int = 0) -> str:
        """Run a command; return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "sender", *arguments],
            cwd=self.directory,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))

    def enqueue(self, event: str, payload: Any) -> str:
        """Put an event into the outbox; return its id."""
        printed = self.run("enqueue", event, "-", "--json", stdin=json.dumps(payload))
        return str(json.loads(printed)["id"])

    def counts(self) -> dict[str, int]:
        """Return how many events are in each state that has some; asked of the database, which is quick."""
        with closing(sqlite3.connect(self.directory / "outbox.sqlite3", timeout=10)) as connection:
            return dict(
                connection.execute("SELECT status, count(*) FROM crm_outbox GROUP BY status").fetchall()
            )

    def start_relay(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "sender", "relay"], cwd=self.directory, env=self.environment
        )


def bodies() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a customer, and a repair of theirs."""
    customer = customer_registration()
    user = customer["customer"]["websiteUserId"]
    return customer, repair_request(customer__websiteUserId=user)


def requests(crm: Crm) -> list[dict[str, Any]]:
    """Return what the CRM has, in order of receipt; asked of the database, which is quick."""
    rows = crm.rows("SELECT id, event, contract, status, payload FROM approvals ORDER BY sequence")
    return [{**dict(row), "payload": json.loads(row["payload"]), "text": row["payload"]} for row in rows]


def mine(crm: Crm, *payloads: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the requests that came of some payloads, in order of receipt."""
    return [row for row in requests(crm) if row["payload"] in payloads]


def approve(crm: Crm, request: dict[str, Any]) -> None:
    done = crm.cli("approvals", "approve", request["id"])
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """Today's CRM."""
    with start_crm(tmp_path_factory.mktemp("today")) as started:
        yield started


def test_an_old_senders_events_are_taken_kept_as_sent_and_approved(
    crm: Crm, old: str, release: str, tmp_path: Path
) -> None:
    website = Website(tmp_path / "site", crm.url, old)
    customer, repair = bodies()
    website.enqueue("customer-registration", customer)
    website.enqueue("repair-request", repair)
    assert website.run("relay", "--drain").startswith("2 delivered, 0 failed")
    taken = mine(crm, customer, repair)
    assert [(row["event"], row["contract"]) for row in taken] == [
        ("customer-registration", release),
        ("repair-request", release),
    ]
    assert taken[1]["text"] == json.dumps(repair, ensure_ascii=False, separators=(",", ":"))
    for row in taken:
        approve(crm, row)
    number = repair["repair"]["ticketNumber"]
    assert len(crm.rows("SELECT * FROM tickets WHERE ticket_number = ?", number)) == 1

    def count() -> int:
        listed = json.loads(crm.cli("releases", "--json").stdout)
        return int(next(each["count"] for each in listed if each["release"] == release))

    eventually(count, "it is counted")


@pytest.mark.long
def test_what_an_old_sender_sent_is_a_duplicate_from_todays_and_more_of_it_a_conflict(
    crm: Crm, old: str, tmp_path: Path
) -> None:
    _, repair = bodies()
    before = Website(tmp_path / "old", crm.url, old)
    before.enqueue("repair-request", repair)
    before.run("relay", "--drain")
    again = Website(tmp_path / "new", crm.url)
    again.enqueue("repair-request", repair)
    assert again.run("relay", "--drain").startswith("1 delivered")
    assert len(mine(crm, repair)) == 1
    more = {**repair, "repair": {**repair["repair"], "estimatedCost": 99, "currency": "EUR"}}
    other = Website(tmp_path / "other", crm.url)
    other.enqueue("repair-request", more)
    assert other.run("relay", "--drain", code=1).startswith("0 delivered, 1 failed")
    [failed] = other.json("failed")
    assert failed["reason"] == "409 Conflict"
    assert failed["answer"]["existing"]["id"] == mine(crm, repair)[0]["id"]


def test_todays_events_wait_for_an_old_crm_and_go_by_themselves_when_it_is_upgraded(
    old: str, release: str, tmp_path: Path
) -> None:
    database = f"sqlite:///{tmp_path}/crm/var/crm.sqlite3"
    port = free_port()
    customer, repair = bodies()
    first, second = bodies()
    website = Website(tmp_path / "site", f"http://127.0.0.1:{port}/webhooks")
    (tmp_path / "crm" / "var").mkdir(parents=True)
    events: list[tuple[str, dict[str, Any]]] = [
        ("customer-registration", customer),
        (
            "repair-request",
            {**repair, "repair": {**repair["repair"], "currency": "EUR", "estimatedCost": 80}},
        ),
        ("payment-status", payment_status(repair)),
    ]
    with start_crm(tmp_path / "crm", port=port, CRM_DATABASE_URL=database, PYTHONPATH=old) as crm:
        before = Website(tmp_path / "before", crm.url, old)
        before.enqueue("customer-registration", first)
        before.enqueue("repair-request", second)
        before.run("relay", "--drain")
        approve(crm, mine(crm, first)[0])
        for name, payload in events:
            website.enqueue(name, payload)
        relay = website.start_relay()
        try:
            eventually(lambda: website.counts().get("held") == 1, "the first waits, the others behind it", 60)
            status = website.json("status")
            assert status["outbox"]["held_for"] == [CURRENT]
            assert status["crm"]["contract_versions"] == SPOKEN[release]
            assert status["holds"][0]["waits_for"] == f"contract {CURRENT}"
            crm.stop()
            crm.env["PYTHONPATH"] = str(ROOT)
            crm.migrate()
            crm.start()
            eventually(lambda: website.counts().get("delivered") == len(events), "all go by themselves", 90)
        finally:
            relay.terminate()
            relay.wait(20)
        rows = requests(crm)
        assert [(row["event"], row["contract"]) for row in rows[2:]] == [
            (name, CURRENT) for name, _ in events
        ]
        assert [row["payload"] for row in rows[:2]] == [first, second]
        assert [row["status"] for row in rows[:2]] == ["approved", "pending_approval"]
        approve(crm, rows[1])


def test_an_outbox_that_an_old_sender_left_is_emptied_by_todays_as_it_was_written(
    old: str, release: str, tmp_path: Path
) -> None:
    with start_receiver() as receiver:
        receiver.health = speaks(*RELEASES)
        website = Website(tmp_path / "site", receiver.url, old)
        payloads = [repair_request() for _ in range(4)]
        website.enqueue("repair-request", payloads[0])
        receiver.event = problem(400, "invalid-event")
        website.run("relay", "--drain", code=1)
        website.enqueue("repair-request", payloads[1])
        receiver.event = receiver.test = problem(401, "unauthorized")
        website.run("relay", "--drain", code=1)
        for payload in payloads[2:]:
            website.enqueue("repair-request", payload)
        assert website.counts() == {"pending": 2, "failed": 1, "held": 1}

        website.code = str(ROOT)
        website.run("migrate")
        be_well(receiver)
        assert website.counts() == {"pending": 2, "failed": 1, "held": 1}
        assert website.json("status")["releases"] == {release: {"undelivered": 3, "delivered": 0}}
        website.run("relay", "--drain")
        assert "1" in website.run("retry", "--all")
        website.run("relay", "--drain")
        assert website.counts() == {"delivered": 4}
        sent = {json.dumps(each.json, sort_keys=True): each for each in receiver.events}
        assert sent.keys() == {json.dumps(payload, sort_keys=True) for payload in payloads}
        assert {each.headers["webhook-contract"] for each in sent.values()} == {release}
        assert {each.body.decode() for each in receiver.events} == {
            json.dumps(payload, ensure_ascii=False, separators=(",", ":")) for payload in payloads
        }


def be_well(receiver: Receiver) -> None:
    """Take every event from now on, and forget what came."""
    receiver.event, receiver.test = receipt, TEST_OK
    receiver.requests.clear()


@pytest.mark.long
def test_an_old_senders_events_wait_while_its_release_is_retired(
    crm: Crm, old: str, release: str, tmp_path: Path
) -> None:
    crm.rows("UPDATE release_uses SET day = '2020-01-01'")
    done = crm.cli("retire", release)
    assert done.returncode == 0, done.stderr
    eventually(lambda: release not in crm_versions(crm), "the server knows")
    website = Website(tmp_path / "site", crm.url, old)
    _, repair = bodies()
    website.enqueue("repair-request", repair)
    website.run("relay", "--drain", code=1)
    assert website.counts() == {"held": 1}
    assert crm.cli("unretire", release).returncode == 0
    eventually(lambda: release in crm_versions(crm), "the server knows")
    website.run("relay", "--drain")
    assert len(mine(crm, repair)) == 1


def crm_versions(crm: Crm) -> list[str]:
    """Return the releases that health says are spoken."""
    return list(httpx.get(f"{crm.url}/health", timeout=10).json()["contract"]["versions"])
