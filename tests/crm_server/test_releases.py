"""Who sends which release of the contract; one is given up, then retired, and what is stored of it stays."""

import asyncio
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crm_server.database import Database
from crm_server.errors import Unavailable
from crm_server.metrics import Counter, Memory
from crm_server.migrations import migrate
from crm_server.releases import DAYS, Releases, list_releases, record_uses
from crm_server.webhook_keys import fingerprint
from generated.operations import CURRENT, RELEASES
from tests.crm_server.answers import Answer, ask, post, send, until
from tests.crm_server.conftest import ON_BOTH, assert_nothing_private, migrate_to, staff_token
from tests.crm_server.giving_up import GIVEN_UP
from tests.crm_server.test_metrics import scrape, value
from tests.crm_server.visitors import logged_in
from tests.factories import repair_request
from tests.servers import KEY, Crm, start_crm

OLD = next(iter(RELEASES))


def ago(days: float) -> str:
    """Return a time of the database's."""
    at = datetime.now(UTC) - timedelta(days=days)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def book(crm: Crm, release: str = OLD, **headers: str) -> Answer:
    return post(crm, "repair-request", repair_request(), webhook_contract=release, **headers)


def listed(crm: Crm) -> dict[str, Any]:
    """Return what `crm-server releases` says of the oldest release."""
    found: dict[str, Any] = json.loads(crm.cli("releases", "--json").stdout)[0]
    return found


def versions(crm: Crm) -> list[str]:
    """Return the releases that health says are spoken."""
    spoken: list[str] = send(crm, "GET", "/health", authorization="").json["contract"]["versions"]
    return spoken


@pytest.fixture
def busy(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Crm]:
    """A server of two processes where the engine allows it, to which somebody has sent the oldest release."""
    workers = 2 if engine == "postgresql" else 1
    with start_crm(tmp_path_factory.mktemp("busy"), only=None, engine=engine, workers=workers) as crm:
        for _ in range(3):
            assert book(crm).status == 202
        # Each of the two processes writes what came to it in its own time, and after the first in a minute.
        until(lambda: listed(crm)["count"] == 3, 120)
        yield crm
    assert_nothing_private(crm)


def send_long_ago(crm: Crm) -> None:
    """Have what was sent be sent so long ago that it no longer counts."""
    at = ago(DAYS + 1)
    crm.rows("UPDATE release_uses SET day = ?, last_at = ?", at[:10], at)


@ON_BOTH
def test_a_release_that_somebody_sends_is_not_retired_and_it_says_who(busy: Crm) -> None:
    done = busy.cli("retire", OLD)
    assert done.returncode == 1
    assert f"{OLD} was sent in the last {DAYS} days: key {fingerprint(KEY)}" in done.stderr
    assert listed(busy)["last_at"] in done.stderr
    assert OLD in versions(busy)


@ON_BOTH
def test_a_release_that_nobody_sends_is_retired_and_running_servers_know_within_seconds(busy: Crm) -> None:
    send_long_ago(busy)
    assert busy.cli("retire", OLD).returncode == 0
    until(lambda: OLD not in versions(busy))
    until(lambda: book(busy).status == 400)
    until(lambda: all(book(busy).status == 400 for _ in range(10)))  # whichever process answers
    answer = book(busy)
    assert answer.type == "unsupported-contract-version"
    assert answer.json["versions"] == versions(busy) == list(RELEASES)[1:]
    assert book(busy, CURRENT).status == 202
    assert listed(busy)["state"] == "retired"
    assert ("crm_contract_info", frozenset({("release", OLD)})) not in scrape(busy)


@pytest.fixture(scope="module")
def retired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server that has a request of the oldest release, which then was retired, and was started again."""
    with start_crm(tmp_path_factory.mktemp("retired"), only=None) as crm:
        assert book(crm).status == 202
        until(lambda: listed(crm)["last_at"])
        send_long_ago(crm)
        assert crm.cli("retire", OLD).returncode == 0
        crm.restart()
        yield crm
    assert_nothing_private(crm)


def test_a_retired_release_is_refused_from_the_first_request_after_a_start(retired: Crm) -> None:
    assert book(retired).status == 400


def test_what_is_stored_of_a_retired_release_is_decided_and_read_as_before(retired: Crm) -> None:
    token = staff_token(retired, "Grace", "admin")
    [first] = ask(retired, token, "GET", "/approvals").json["items"]
    assert ask(retired, token, "GET", f"/approvals/{first['id']}").json["payload"]["repair"]["deviceType"]
    assert ask(retired, token, "POST", f"/approvals/{first['id']}/approve", {}).status == 200


def test_a_retired_release_is_accepted_again_and_the_trail_says_both(retired: Crm) -> None:
    for command in ("retire", "unretire", "unretire"):
        assert retired.cli(command, OLD).returncode == 0
    until(lambda: book(retired).status == 202)
    token = staff_token(retired, "Ada", "admin")
    entries = ask(retired, token, "GET", f"/audit?record_id={OLD}&order=oldest").json["items"]
    assert [(entry["verb"], entry["record"]) for entry in entries] == [
        ("retire", "release"),
        ("unretire", "release"),
    ]
    assert "unretire" in logged_in(retired, "Trail admin", "admin").html(f"/audit?record_id={OLD}").text


@pytest.mark.parametrize(
    ("release", "told"),
    [(CURRENT, f"{CURRENT} is today's contract."), ("0.9.0", "There is no release 0.9.0.")],
)
def test_what_is_no_earlier_release_is_not_retired(crm: Crm, release: str, told: str) -> None:
    done = crm.cli("retire", release)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_webhooks_are_counted_by_release_and_key_and_shown(busy: Crm) -> None:
    before = value(scrape(busy), "crm_webhooks_total", release=OLD)
    event = repair_request()
    assert post(busy, "repair-request", event, webhook_contract=OLD).status == 202
    assert post(busy, "repair-request", event, webhook_contract=OLD).status == 202
    assert book(busy, OLD, webhook_test="true").status == 200
    assert post(busy, "repair-request", {}, webhook_contract=OLD).status == 400
    assert book(busy, "0.9.0").status == 400
    assert book(busy, authorization="Bearer wrong").status == 401
    assert value(scrape(busy), "crm_webhooks_total", release=OLD) - before == 4
    busy.restart()  # what was not written yet is written at the end
    found = listed(busy)
    assert (found["count"], found["state"]) == (7, "accepted")
    assert [(use["key"], use["count"]) for use in found["uses"]] == [(fingerprint(KEY), 7)]
    printed = busy.cli("releases").stdout.splitlines()[1]
    assert printed.startswith(OLD)
    assert printed.endswith(f"{fingerprint(KEY)} 7")
    shown = " ".join(logged_in(busy, "Release admin", "admin").html("/keys").text.split())
    assert f"{OLD} accepted 7" in shown
    assert f"{CURRENT} current 0 never" in shown


def test_a_release_that_is_given_up_is_told_in_every_answer_to_its_webhooks(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    program = (sys.executable, "-m", "tests.crm_server.giving_up")
    with start_crm(tmp_path_factory.mktemp("given-up"), program=program) as crm:
        told = {"deprecation": "@1688083200", "sunset": "Wed, 01 Jul 2099 00:00:00 GMT"}
        for answer in (book(crm, GIVEN_UP), book(crm, GIVEN_UP, authorization="Bearer wrong")):
            assert answer.status in {202, 401}
            assert told.items() <= answer.headers.items()
        for answer in (book(crm, CURRENT), send(crm, "GET", "/health", webhook_contract=GIVEN_UP)):
            assert not told.keys() & answer.headers.keys()
        given_up = {GIVEN_UP: {"since": "2023-06-30", "sunset": "2099-07-01"}}
        assert send(crm, "GET", "/health").json["contract"]["deprecated"] == given_up


@ON_BOTH
def test_the_same_days_uses_are_added_up_and_old_ones_no_longer_count(database: Database) -> None:
    for days, count in [(0, 2), (0, 3), (DAYS - 1, 5), (DAYS + 1, 7)]:
        with database.writing() as connection:
            record_uses(connection, {(OLD, "key"): count, (OLD, ""): 1}, ago(days))
    with database.reading() as connection:
        [old, *_] = list_releases(connection)
    assert [(use.key, use.count) for use in old.uses] == [("", 3), ("key", 10)]
    assert old.count == 13


def test_what_could_not_be_written_is_written_later(database: Database) -> None:
    releases = Releases(Counter(Memory(), list(RELEASES)))
    assert releases.take(OLD, "key")

    with pytest.raises(Unavailable):
        asyncio.run(releases.write(Door(None)))
    for _ in range(2):
        asyncio.run(releases.write(Door(database)))
    with database.reading() as connection:
        assert list_releases(connection)[0].count == 1


class Door:
    """Reads and writes at once, unless the database is away."""

    def __init__(self, database: Database | None) -> None:
        self._database = database

    async def read(self, question: Any) -> Any:
        return await self.write(question)

    async def write(self, job: Any) -> Any:
        if self._database is None:
            raise Unavailable("away")
        with self._database.writing() as connection:
            return job(connection)


def test_what_came_before_releases_were_counted_is_known_after_the_upgrade(tmp_path: Path) -> None:
    database = migrate_to("0009", tmp_path / "crm.sqlite3")
    columns = "id, event, natural_key, contract, payload, digest, status, received_at, received_by"
    with database.writing() as connection:
        for number, (days, key) in enumerate([(1, "'key'"), (2, "'key'"), (3, "NULL"), (DAYS + 2, "'gone'")]):
            values = (
                f"'{number}', 'repair-request', '{number}', '{OLD}', '{{}}', '{'0' * 64}', 'pending_approval'"
            )
            connection.exec_driver_sql(
                f"INSERT INTO approvals ({columns}) VALUES ({values}, '{ago(days)}', {key})"
            )
    migrate(database)
    with database.reading() as connection:
        [old, *_] = list_releases(connection)
    database.close()
    assert [(use.key, use.count) for use in old.uses] == [("", 1), ("key", 2)]
