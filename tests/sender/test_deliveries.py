"""Failed and held deliveries as an operator meets them: what is said of each, and what mends it.

A relay and a scripted CRM are real; what asks the outbox new questions runs on both databases.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.event
from sqlalchemy import Connection, create_engine

from generated.operations import CURRENT, WEBHOOKS
from sender import CRM, ConflictingEvent, PreviewChanged, Relay, WrongState, outbox
from sender.database import open_engine, reading
from sender.deliveries import close_matching, retry_matching
from sender.events import canonical_content, digest
from sender.outbox import Failures
from tests.factories import repair_request
from tests.receiver import (
    TEST_OK,
    Answer,
    Receiver,
    Reply,
    Request,
    always,
    first,
    html,
    problem,
    receipt,
    reply,
    speaks,
)
from tests.sender.engines import rows
from tests.sender.site import SENTINEL, Site, eventually, running
from tests.servers import ROOT

FAULTS = [{"pointer": "/repair/priority", "detail": "is not allowed", "expected": "normal"}]
REFUSED = problem(400, "invalid-event", errors=FAULTS)
THERE = {"id": "0193bf5a-7c01-7000-8000-000000000009", "event": "repair-request"}


@dataclass
class Shop(Site):
    """A booking site whose database may be either."""

    outbox_url: str = ""

    def crm(self) -> CRM:
        """Return the one CRM of this site."""
        return self._crm

    @cached_property
    def _crm(self) -> CRM:
        return CRM(self.settings())

    @property
    def url(self) -> str:
        """The outbox's address."""
        return self.outbox_url

    def rows(self, statement: str = "SELECT * FROM crm_outbox ORDER BY sequence", *parameters: object) -> Any:
        """Read from the outbox, or write to it."""
        return rows(self.outbox_url, statement, *parameters)

    def book_all(self, count: int, customers: int) -> list[str]:
        """Enqueue repairs of some customers in one transaction; return their ids."""
        engine, ids = open_engine(self.url), []
        with engine.begin() as connection:
            for number in range(count):
                event = repair_request(customer__websiteUserId=f"customer-{number % customers}")
                ids.append(self.crm().repair_requested(event, connection))
        engine.dispose()
        return ids

    def close(self) -> None:
        """Leave no connection open."""
        self.crm()._engine.dispose()


@pytest.fixture
def shop(tmp_path: Path, outbox_url: str, receiver: Receiver) -> Iterator[Shop]:
    shop = Shop(tmp_path, receiver.url, outbox_url)
    yield shop
    shop.close()


def fail(site: Site, receiver: Receiver, answer: Answer = REFUSED, **over: Any) -> str:
    """Return an event that failed by an answer of the CRM."""
    receiver.event = answer
    [event] = site.book(**over)
    site.drain()
    receiver.event = receipt
    return event


# failed


def test_failed_and_show_say_at_what_the_crm_took_offence(site: Site, receiver: Receiver) -> None:
    event = fail(site, receiver, repair__notes=SENTINEL)
    [line] = site.cli("failed").stdout.splitlines()
    assert line.startswith(f"{event}  repair-request")
    assert line.endswith("  400 Bad Request; /repair/priority")
    told = site.cli("show", event).stdout
    for words in (
        f"contract    {CURRENT}",
        "attempts    1",
        "at fault    /repair/priority",
        "400 Bad Request",
    ):
        assert words in told
    assert SENTINEL not in line + told


def test_a_conflict_shows_the_crms_pointer_to_what_is_there(site: Site, receiver: Receiver) -> None:
    event = fail(site, receiver, problem(409, "conflict", existing=THERE))
    assert site.json("failed")[0]["answer"]["existing"] == THERE
    assert site.json("show", event)[0]["answer"]["existing"] == THERE
    for command in (["failed"], ["show", event]):
        assert f"{THERE['event']} {THERE['id']}" in site.cli(*command).stdout


def test_of_what_an_older_release_kept_only_pointers_are_shown(site: Site, receiver: Receiver) -> None:
    event = fail(site, receiver)
    kept = {
        "status": 400,
        "contract": CURRENT,
        "errors": [FAULTS[0] | {"detail": SENTINEL}, {"pointer": SENTINEL}],
    }
    with create_engine(site.url).begin() as connection:
        connection.exec_driver_sql("UPDATE crm_outbox SET answer = ?", (json.dumps(kept),))
    for command in (["failed"], ["failed", "--json"], ["show", event], ["show", event, "--json"]):
        told = site.cli(*command).stdout
        assert "/repair/priority" in told
        assert SENTINEL not in told


def reset(request: Request) -> Reply:
    """End the connection without an answer."""
    return Reply([], then="reset")


@pytest.fixture
def failures(shop: Shop, receiver: Receiver) -> dict[str, str]:
    """Events that failed by different answers, by the answer as a filter names it."""
    answers = {"400": REFUSED, "409": problem(409, "conflict", existing=THERE), "Connection reset": reset}
    return {name: fail(shop, receiver, answer) for name, answer in answers.items()}


def test_failed_can_be_asked_for_an_answer_a_webhook_or_a_time(shop: Shop, failures: dict[str, str]) -> None:
    for answer, event in failures.items():
        assert [row["id"] for row in shop.json("failed", "--answer", answer)] == [event]
    assert shop.json("failed", "--answer", "40") == []
    assert shop.json("failed", "--event", "customer-registration") == []
    assert len(shop.json("failed", "--event", "repair-request")) == 3
    last = shop.json("failed")[-1]
    assert [row["id"] for row in shop.json("failed", "--since", last["failed_at"])][-1:] == [last["id"]]
    assert shop.json("failed", "--since", "2999-01-01T00:00Z") == []


# retry


def test_retry_takes_what_a_filter_says_and_leaves_the_rest(shop: Shop, failures: dict[str, str]) -> None:
    assert shop.cli("retry", "--answer", "409").stdout == "1 retried, 0 refused\n"
    assert {name: shop.status(event) for name, event in failures.items()} == {
        "400": "failed", "409": "pending", "Connection reset": "failed",
    }  # fmt: skip
    assert shop.json("retry", "--event", "repair-request") == {"retried": 2, "refused": 0}
    assert shop.drain().delivered == 3
    assert shop.verbs(failures["409"]) == ["failed", "retried", "delivered"]


@pytest.mark.parametrize(
    "arguments", [["--all", "--answer", "400"], ["x", "--event", "repair-request"], ["--answer", "400", "x"]]
)
def test_ids_a_filter_and_all_are_three_different_wishes(site: Site, arguments: list[str]) -> None:
    assert site.cli("retry", *arguments).returncode == 2


def test_what_the_contract_refuses_is_not_sent_again_and_the_others_are(
    site: Site, receiver: Receiver
) -> None:
    good, bad, other = (fail(site, receiver) for _ in range(3))
    with create_engine(site.url).begin() as connection:
        connection.exec_driver_sql(
            "UPDATE crm_outbox SET payload = json_set(payload, '$.repair.priority', ?) WHERE id = ?",
            (SENTINEL, bad),
        )
    done = site.cli("retry", "--all")
    assert (done.returncode, done.stdout) == (1, "2 retried, 1 refused\n")
    assert f"{bad}: repair-request is not what the contract says: /repair/priority" in done.stderr
    assert SENTINEL not in done.stderr
    assert [site.status(event) for event in (good, bad, other)] == ["pending", "failed", "pending"]
    assert json.loads(site.cli("retry", bad, "--json").stdout) == {"retried": 0, "refused": 1}


def test_a_damaged_payload_is_not_sent_again(site: Site, receiver: Receiver) -> None:
    event = fail(site, receiver)
    with create_engine(site.url).begin() as connection:
        connection.exec_driver_sql("UPDATE crm_outbox SET payload = json_set(payload, '$.repair.notes', 'x')")
    done = site.cli("retry", event)
    assert (done.returncode, "is damaged" in done.stderr) == (1, True)
    assert site.status(event) == "failed"


OLDER = {
    "is refused by its own release": (
        {"repair__deviceType": "a name that 0.9.0 had no room for"}, 1,
        ["not what contract 0.9.0 says: /repair/deviceType is too long", f"contract {CURRENT}, today's, takes it"],
    ),
    "is refused by today's alone": (
        {"repair__deviceType": "iPad", "repair__priority": "whenever"}, 0,
        [f"contract {CURRENT}, today's, refuses it: /repair/priority is not one of the known values"],
    ),
    "is refused by both": (
        {"repair__deviceType": "a name that 0.9.0 had no room for", "repair__priority": "whenever"}, 1,
        ["contract 0.9.0 says: /repair/deviceType is too long", "today's, refuses it: /repair/priority"],
    ),
    "is allowed by both": ({"repair__deviceType": "iPad"}, 0, []),
}  # fmt: skip


@pytest.mark.parametrize(("over", "code", "words"), OLDER.values(), ids=OLDER)
def test_an_event_of_an_older_release_is_judged_by_that_release_and_both_views_are_told(
    site: Site, receiver: Receiver, tmp_path: Path, over: dict[str, Any], code: int, words: list[str]
) -> None:
    event = fail(site, receiver)
    payload = repair_request(**over)
    with create_engine(site.url).begin() as connection:
        connection.exec_driver_sql(
            "UPDATE crm_outbox SET contract = '0.9.0', payload = ?, digest = ?",
            (json.dumps(payload), digest(canonical_content(payload, WEBHOOKS["repair-request"]))),
        )
    before = dict(site.row(event))
    env = site.environment() | {"PYTHONPATH": f"{with_an_older_release(tmp_path)}:{ROOT}"}
    done = run_cli(["retry", event], site.directory, env)
    assert done.returncode == code, done.stderr
    assert [part for part in words if part not in done.stderr] == []
    assert (done.stderr == "") == (words == [])
    kept = ("id", "contract", "payload", "digest", "natural_key", "sequence", "enqueued_at")
    assert {name: site.row(event)[name] for name in kept} == {name: before[name] for name in kept}
    assert site.status(event) == ("failed" if code else "pending")


def with_an_older_release(tmp_path: Path) -> Path:
    """Return a folder with our generated code and one release more: short device names, another priority."""
    shutil.copytree(ROOT / "generated", tmp_path / "older" / "generated")
    contracts = tmp_path / "older" / "generated" / "contracts"
    shutil.copytree(contracts / CURRENT, contracts / "0.9.0")
    path = contracts / "0.9.0" / "repair-request.json"
    schema = json.loads(path.read_text())
    repair = schema["properties"]["repair"]["properties"]
    repair["deviceType"]["maxLength"] = 10
    repair["priority"]["enum"].append("whenever")
    path.write_text(json.dumps(schema))
    operations = tmp_path / "older" / "generated" / "operations.py"
    with operations.open("a") as file:
        file.write('\nRELEASES = {"0.9.0": RELEASES[CURRENT], **RELEASES}\n')
    return tmp_path / "older"


def run_cli(arguments: list[str], directory: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `crm-sender` in a process of its own, with other code."""
    command = [sys.executable, "-m", "sender", *arguments]
    return subprocess.run(
        command, cwd=directory, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_ids_that_are_unknown_or_not_failed_are_named_and_the_others_go(
    shop: Shop, receiver: Receiver
) -> None:
    event = fail(shop, receiver)
    [pending] = shop.book()
    done = shop.cli("retry", "nobody", pending, event)
    assert (done.returncode, done.stdout) == (1, "1 retried, 2 refused\n")
    assert "crm-sender: nobody: no event has this id" in done.stderr
    assert f"crm-sender: {pending}: is pending; this can be done only when it is failed" in done.stderr
    assert shop.status(event) == "pending"


def test_many_go_again_in_small_transactions_and_in_each_customers_order(
    shop: Shop, receiver: Receiver
) -> None:
    receiver.event = REFUSED
    ids = shop.book_all(250, customers=5)
    shop.drain()
    assert set(shop.statuses()) == {"failed"}
    receiver.event, refused = receipt, len(receiver.events)
    with running(Relay(shop.settings())):
        assert shop.json("retry", "--all") == {"retried": 250, "refused": 0}
        eventually(lambda: set(shop.statuses()) == {"delivered"}, "all goes", 40)
    order: dict[str, list[str]] = defaultdict(list)
    for request in receiver.events[refused:]:
        order[request.customer].append(request.id)
    assert all(order[f"customer-{number}"] == ids[number::5] for number in range(5))
    [transactions] = shop.rows("SELECT count(DISTINCT at) FROM crm_outbox_trail WHERE verb = 'retried'")
    assert transactions[0] == 3


@pytest.mark.parametrize("act", [retry_matching, close_matching])
def test_nobody_acts_on_what_they_have_not_seen(
    shop: Shop, receiver: Receiver, act: Callable[..., Any]
) -> None:
    fail(shop, receiver)
    engine = open_engine(shop.url)
    with reading(engine) as connection:
        seen = outbox.preview(connection, Failures())
    assert seen.count == 1
    later = fail(shop, receiver)
    with pytest.raises(PreviewChanged):
        act(engine, Failures(), "admin", seen.digest)
    assert shop.statuses() == ["failed", "failed"]
    with reading(engine) as connection:
        seen = outbox.preview(connection, Failures(ids=[later]))
    assert not act(engine, Failures(ids=[later]), "admin", seen.digest).refused
    engine.dispose()
    assert "failed" not in shop.status(later)


def test_one_that_failed_again_since_is_not_what_was_seen(site: Site, receiver: Receiver) -> None:
    event = fail(site, receiver)
    engine = open_engine(site.url)
    with reading(engine) as connection:
        seen = outbox.preview(connection, Failures())
    assert retry_matching(engine, Failures(ids=[event]), "admin").retried == 1
    receiver.event = problem(409, "conflict")
    site.drain()
    with pytest.raises(PreviewChanged):
        retry_matching(engine, Failures(), "admin", seen.digest)
    engine.dispose()


# close


def test_close_gives_several_up_names_who_did_it_and_refuses_the_rest(shop: Shop, receiver: Receiver) -> None:
    events = [fail(shop, receiver), fail(shop, receiver)]
    [pending] = shop.book()
    done = shop.cli("close", *events, pending, "nobody")
    assert (done.returncode, done.stdout) == (1, "2 closed, 2 refused\n")
    assert "nobody: no event has this id" in done.stderr
    assert f"{pending}: is pending" in done.stderr
    for event in events:
        assert (shop.row(event)["status"], shop.row(event)["payload"]) == ("closed", None)
        [_, step] = shop.rows(
            "SELECT verb, actor FROM crm_outbox_trail WHERE event_id = ? ORDER BY number", event
        )
        assert (step["verb"], step["actor"].startswith("cli:")) == ("closed", True)
    assert shop.json("failed") == []


def test_what_was_refused_and_closed_is_corrected_by_the_site_under_its_id(
    shop: Shop, receiver: Receiver
) -> None:
    crm, refused = shop.crm(), repair_request()
    receiver.event = first(REFUSED)
    event = crm.repair_requested(refused)
    assert shop.drain().failed == 1
    corrected = json.loads(json.dumps(refused))
    corrected["repair"]["issueDescription"] = "Corrected"
    corrected["customer"]["websiteUserId"] = "the-right-one"
    with pytest.raises(ConflictingEvent):
        crm.repair_requested(corrected, resend=True)
    assert shop.cli("close", event).returncode == 0
    with pytest.raises(ConflictingEvent):
        crm.repair_requested(corrected)
    assert crm.repair_requested(corrected, resend=True) == event
    assert shop.row(event)["order_key"] == "the-right-one"
    assert shop.drain().delivered == 1
    assert [request.id for request in receiver.events] == [event] * 2
    assert json.loads(receiver.events[-1].body) == corrected
    [resent] = shop.rows("SELECT detail FROM crm_outbox_trail WHERE event_id = ? AND verb = 'resent'", event)
    assert resent["detail"] == "was closed, with other content"


def test_what_was_erased_is_not_sent_again(shop: Shop, receiver: Receiver) -> None:
    receiver.event = first(REFUSED)
    body = repair_request()
    event = shop.crm().repair_requested(body)
    shop.drain()
    done = shop.cli("erase-person", "--email", "-", "--yes", stdin=body["customer"]["email"])
    assert done.returncode == 0, done.stderr
    assert shop.crm().repair_requested(body) == event
    with pytest.raises(WrongState, match=f"{event} was erased, and is not sent again"):
        shop.crm().repair_requested(body, resend=True)
    assert shop.status(event) == "erased"


# held

WAITS: dict[str, tuple[Answer, str]] = {
    "401": (problem(401, "unauthorized"), "the key"),
    "401 of a signature": (problem(401, "invalid-signature"), "the signature"),
    "403": (problem(403, "forbidden-network"), "the network"),
    "302": (always(reply(302, location="/login")), "the path"),
    "404": (html(404), "the path"),
    "405": (problem(405, "method-not-allowed"), "the path"),
    "the outbox's own door": (problem(409, "delivery-loop"), "the path"),
    "409 of a proxy": (html(409), "the CRM's own answer"),
}


@pytest.mark.parametrize(("answer", "waits_for"), WAITS.values(), ids=WAITS)
def test_a_held_event_says_what_it_waits_for_wherever_one_asks(
    site: Site, receiver: Receiver, answer: Answer, waits_for: str
) -> None:
    receiver.event = receiver.test = answer
    [event] = site.book()
    site.drain()
    [hold] = site.json("status")["holds"]
    [held] = site.json("held")
    [shown] = site.json("show", event)
    assert (hold["waits_for"], hold["held_for"], hold["held"]) == (waits_for, "/repair-request", 1)
    assert (held["id"], held["waits_for"]) == (event, waits_for)
    assert (shown["status"], shown["waits_for"]) == ("held", waits_for)
    assert hold["since"] == held["held_at"] == shown["trail"][-1]["at"]
    assert hold["reason"] == held["reason"] == shown["reason"]
    assert hold["reason"].endswith(f"{hold['cause']}; {hold['cure']}")
    assert f"1 for {waits_for} since {hold['since']}: {hold['reason']}" in site.cli("status").stdout
    assert f"waits for   {waits_for}" in site.cli("show", event).stdout
    assert event in site.cli("held").stdout


def test_several_things_that_are_waited_for_are_each_told_and_mended_apart(
    shop: Shop, receiver: Receiver
) -> None:
    [new, other, locked] = shop.book(3)
    shop.rows("UPDATE crm_outbox SET contract = '1.9.0' WHERE id IN (?, ?) RETURNING id", new, other)
    receiver.event = receiver.test = problem(401, "unauthorized")
    shop.drain()
    assert {hold["waits_for"]: hold["held"] for hold in shop.json("status")["holds"]} == {
        "contract 1.9.0": 2, "the key": 1,
    }  # fmt: skip
    told = shop.cli("status").stdout
    assert "2 for contract 1.9.0 since " in told
    assert "1 for the key since " in told
    with running(Relay(shop.settings())):
        receiver.event, receiver.test = receipt, TEST_OK
        eventually(lambda: shop.status(locked) == "delivered", "the key is mended")
        assert [hold["waits_for"] for hold in shop.json("status")["holds"]] == ["contract 1.9.0"]
        receiver.health = speaks(CURRENT, "1.9.0")
        eventually(lambda: set(shop.statuses()) == {"delivered"}, "the CRM is updated")
    assert shop.json("status")["holds"] == shop.json("held") == []


# where is it?


def test_show_tells_all_of_a_ticket_from_the_first_attempt_to_the_receipt(
    shop: Shop, receiver: Receiver
) -> None:
    receiver.event = first(always(reply(500)), then=receipt)
    ids = shop.book(2, repair__ticketNumber="REV-77", customer__websiteUserId="ada")
    shop.drain()
    stories = shop.json("show", "REV-77")
    assert [story["id"] for story in stories] == ids
    assert [step["what"] for step in stories[0]["trail"]] == ["enqueued", "attempted", "delivered"]
    assert [step["detail"] for step in stories[0]["trail"][1:]] == [
        "500 Internal Server Error",
        "202 Accepted",
    ]
    for story in stories:
        assert story["received_at"] == story["trail"][-1]["at"]
        assert (story["status"], story["failed_at"]) == ("delivered", None)
        assert story["decided"] == {
            "status": "pending_approval", "at": None, "words": "waits for the CRM's staff"
        }  # fmt: skip
        assert shop.json("show", story["natural_key"]) == [story]
    told = shop.cli("show", "REV-77").stdout
    assert told.count("received    20") == 2
    assert told.count("decided     waits for the CRM's staff") == 2


def test_show_says_when_an_event_is_tried_again(site: Site, receiver: Receiver) -> None:
    receiver.event = always(reply(500))
    [event] = site.book()
    assert site.json("show", event)[0]["next_at"] is None
    with running(Relay(site.settings(retry_schedule=(600.0,)))):
        eventually(lambda: site.row(event)["attempts"], "the first attempt")
    [shown] = site.json("show", event)
    assert (shown["status"], shown["trail"][-1]["detail"]) == ("pending", "500 Internal Server Error")
    assert shown["next_at"] > shown["trail"][-1]["at"]
    assert f"next        {shown['next_at']}" in site.cli("show", event).stdout


def plan_of(site: Site, ask: Callable[[Connection], object]) -> list[str]:
    """Return how SQLite finds what is asked for."""
    engine, asked = open_engine(site.url), []
    sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *given: asked.append(given[2:4]))
    with reading(engine) as connection:
        ask(connection)
    engine.dispose()
    selects = [(words, given) for words, given in asked if words.startswith("SELECT")]
    return [
        row["detail"] for words, given in selects for row in site.rows(f"EXPLAIN QUERY PLAN {words}", *given)
    ]


def test_a_search_by_key_uses_indexes_alone(site: Site) -> None:
    site.book()
    key = site.rows()[0]["natural_key"]
    plan = plan_of(site, lambda connection: outbox.find(connection, key))
    assert [line for line in plan if line.startswith("SCAN")] == []
    assert any("crm_outbox_natural_key" in line or "sqlite_autoindex" in line for line in plan)


def test_a_look_for_trouble_reads_nothing_that_was_delivered(site: Site) -> None:
    plan = plan_of(site, lambda connection: outbox.trouble(connection, time.time()))
    reads = [line for line in plan if "crm_outbox" in line]
    assert len(reads) == 3
    assert [line for line in reads if "crm_outbox_unfinished" not in line] == []
