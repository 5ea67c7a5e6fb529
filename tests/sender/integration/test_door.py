"""The outbox's own door: what it accepts is in the outbox before it answers, once, and byte for byte."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from generated.operations import CURRENT, RELEASES
from generated.webhooks import Outcome
from sender import CRM, Relay, SenderSettings, outbox
from sender.database import open_engine, uncovered
from sender.events import event_of
from tests.factories import FACTORIES, customer_registration, payment_status, repair_request
from tests.receiver import Receiver, Reply, Request, problem
from tests.sender.engines import ENGINES, new_outbox
from tests.sender.integration.server import ADMIN, BEARER, JSON, Server, start_server, type_of
from tests.sender.site import eventually, running
from tests.servers import KEY

NEW = "SELECT * FROM crm_outbox WHERE natural_key = ?"


@pytest.fixture(scope="module", params=ENGINES)
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on each engine."""
    directory = tmp_path_factory.mktemp("door")
    with start_server(directory, outbox_url=new_outbox(request.param, directory)) as started:
        yield started


def key_of(payload: dict[str, Any]) -> str:
    return str(payload["repair"]["websiteRepairId"])


def test_an_event_is_in_the_outbox_as_it_came_before_it_is_answered(door: Server) -> None:
    payload = repair_request(repair__notes="caf\u00e9 \U0001f98a")
    sent = json.dumps(payload, indent=3, ensure_ascii=False).encode() + b"\n"
    answer = door.post("repair-request", sent)
    [row] = door.rows(NEW.replace("?", f"'{key_of(payload)}'"))
    assert answer.status_code == 202
    assert answer.json() == {
        "id": row["id"],
        "status": "queued",
        "duplicate": False,
        "natural_key": key_of(payload),
        "digest": row["digest"],
    }
    payload_there = (uncovered(row["payload"]) or "").encode()
    assert (payload_there, row["status"], row["contract"]) == (sent, "pending", CURRENT)
    assert row["order_key"] == payload["customer"]["websiteUserId"]


@pytest.mark.parametrize("before", [" " * 600, " " * 5000 + "\n"], ids=["spaces", "spaces and a line's end"])
def test_white_space_before_an_event_is_kept_with_it(door: Server, before: str) -> None:
    payload = repair_request()
    sent = before + json.dumps(payload)
    assert door.post("repair-request", sent.encode()).status_code == 202
    engine = open_engine(door.outbox_url)
    with engine.connect() as connection:
        [row] = [row for row in outbox.contents(connection) if row.natural_key == key_of(payload)]
    engine.dispose()
    assert row.payload == sent


def test_the_same_event_again_gets_the_first_receipt_and_adds_nothing(door: Server) -> None:
    payload = repair_request()
    first = door.post("repair-request", payload, webhook_id="the-clients-own").json()
    payload["metadata"]["timestamp"] = "2026-01-01T00:00:00Z"
    for headers in ({"webhook_id": "the-clients-own"}, {"webhook_id": "another"}, {}):
        again = door.post("repair-request", payload, **headers)
        assert (again.status_code, again.json()) == (202, first | {"duplicate": True})
    assert first["id"] == "the-clients-own"
    assert len(door.rows(NEW.replace("?", f"'{key_of(payload)}'"))) == 1


def test_a_long_id_that_the_contract_allows_is_kept(door: Server) -> None:
    webhook_id = "x" * 128
    assert (
        door.post("customer-registration", customer_registration(), webhook_id=webhook_id).json()["id"]
        == webhook_id
    )


def test_the_same_identity_with_other_content_is_a_conflict_that_points_to_what_is_there(
    door: Server,
) -> None:
    payload = repair_request()
    first = door.post("repair-request", payload, webhook_id=f"id-{key_of(payload)}").json()["id"]
    answer = door.post("repair-request", payload | {"repair": payload["repair"] | {"notes": "Other"}})
    assert (answer.status_code, type_of(answer)) == (409, "conflict")
    assert answer.json()["existing"] == {"id": first, "event": "repair-request"}
    answer = door.post("repair-request", repair_request(), webhook_id=first)
    assert (answer.status_code, type_of(answer)) == (409, "webhook-id-conflict")
    assert answer.json()["existing"] == {"id": first, "event": "repair-request"}


def test_of_many_at_once_one_is_new(door: Server) -> None:
    payload = repair_request()
    with ThreadPoolExecutor(8) as pool:
        answers = [
            answer.json()
            for answer in pool.map(
                lambda _: door.post("repair-request", payload, webhook_id=f"id-{key_of(payload)}"), range(16)
            )
        ]
    assert sorted(answer["duplicate"] for answer in answers) == [False] + [True] * 15
    assert {answer["id"] for answer in answers} == {f"id-{key_of(payload)}"}
    assert len(door.rows(NEW.replace("?", f"'{key_of(payload)}'"))) == 1


def test_a_test_is_checked_and_stores_nothing(door: Server) -> None:
    payload = repair_request(repair__websiteRepairId="webhook-test")
    answer = door.post("repair-request", payload, webhook_test="true")
    assert (answer.status_code, answer.json()) == (200, {"status": "test_ok"})
    assert type_of(door.post("repair-request", payload)) == "reserved-natural-key"
    stored = repair_request()
    door.post("repair-request", stored)
    other = stored | {"repair": stored["repair"] | {"notes": "Other"}}
    assert type_of(door.post("repair-request", other, webhook_test="true")) == "conflict"
    assert not door.rows(NEW.replace("?", "'webhook-test'"))


def test_a_release_is_kept_and_an_unknown_one_refused_with_those_that_are_known(door: Server) -> None:
    oldest = next(iter(RELEASES))
    payload = repair_request()
    assert door.post("repair-request", payload, webhook_contract=oldest).status_code == 202
    [row] = door.rows(NEW.replace("?", f"'{key_of(payload)}'"))
    assert row["contract"] == oldest
    answer = door.post("repair-request", {}, webhook_contract="9.9.9")
    assert (answer.status_code, type_of(answer)) == (400, "unsupported-contract-version")
    assert answer.json()["versions"] == list(RELEASES)


def test_the_trace_of_a_request_goes_on_with_its_event(door: Server) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for given, kept in [(trace, trace), ("nonsense", None), (trace.replace("0af7", "0AF7"), None)]:
        payload = repair_request()
        door.post("repair-request", payload, traceparent=given)
        [row] = door.rows(NEW.replace("?", f"'{key_of(payload)}'"))
        assert row["traceparent"] == kept


def test_all_faults_are_named_at_once_and_no_value_is_shown_or_logged(door: Server) -> None:
    payload = repair_request(repair__priority="SENTINEL-1", customer__email="SENTINEL-2 at home")
    answer = door.post("repair-request", payload, webhook_id="not an id")
    assert (answer.status_code, type_of(answer)) == (400, "malformed-request")
    pointers = [fault["pointer"] for fault in answer.json()["errors"]]
    assert sorted(pointers) == ["#webhook-id", "/customer/email", "/repair/priority"]
    assert "SENTINEL" not in answer.text + door.log


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"repair": {"notes": "a\0b"}}, "/repair/notes"),
        ({"repair": {"photos": ["a", "\0"]}}, "/repair/photos/1"),
        ({"repair": {"a\0": 1}}, "/repair"),
        ({"repair": {"SENTINEL at home": {"photos": "\0"}}}, "/repair"),
    ],
)
def test_what_no_database_can_hold_is_refused_with_its_place_and_no_words_of_a_customer(
    door: Server, body: dict[str, Any], pointer: str
) -> None:
    answer = door.post("repair-request", body)
    assert (answer.status_code, type_of(answer)) == (400, "invalid-json")
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
    assert "SENTINEL" not in answer.text + door.log


def test_a_wrong_key_is_refused_before_the_body_and_says_how(door: Server) -> None:
    for key in ("", "Bearer wrong", ADMIN["authorization"], f"Basic {KEY}"):
        answer = door.post("repair-request", b"{", authorization=key)
        assert (answer.status_code, type_of(answer)) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_health_is_open_and_names_the_releases(door: Server) -> None:
    answer = door.ask("GET", "/webhooks/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert answer.json()["contract"] == {"versions": list(RELEASES)}


def test_a_relay_delivers_what_came_by_the_door(door: Server, receiver: Receiver) -> None:
    payload = repair_request()
    given = door.post("repair-request", payload, webhook_id=f"id-{key_of(payload)}").json()
    settings = SenderSettings(webhook_url=receiver.url, api_key=KEY, outbox_url=door.outbox_url)
    Relay(settings).run(drain=True)
    [got] = [event for event in receiver.events if event.id == given["id"]]
    assert got.json == payload
    [row] = door.rows(NEW.replace("?", f"'{key_of(payload)}'"))
    assert (row["status"], row["payload"]) == ("delivered", None)


def outcome(door: Server, event_id: str) -> dict[str, Any]:
    """Ask the door what became of an event; the answer is what the contract says."""
    answer = door.ask("GET", f"/webhooks/receipts/{event_id}", **BEARER)
    assert answer.status_code == 200, answer.text
    Outcome.model_validate_json(answer.content)
    found: dict[str, Any] = answer.json()
    assert (found["id"], found["event"]) == (event_id, "repair-request")
    return found


def test_what_was_erased_before_it_went_is_not_said_to_be_queued(door: Server) -> None:
    body = repair_request()
    event_id = door.post("repair-request", body).json()["id"]
    door.rows(
        "UPDATE crm_outbox SET status = 'erased', finished_at = 1.5, payload = NULL WHERE id = ?", event_id
    )
    answer = door.post("repair-request", body)
    assert (answer.status_code, answer.json()["type"]) == (409, "erased")
    assert answer.json()["existing"]["id"] == event_id


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("pending", "queued"),
        ("held", "queued"),
        ("failed", "failed"),
        ("closed", "failed"),
        ("erased", "failed"),
    ],
)
def test_a_receipt_says_what_became_of_an_event_before_the_crm_has_it(
    door: Server, state: str, told: str
) -> None:
    event_id = door.post("repair-request", repair_request()).json()["id"]
    payload = "payload" if state in {"pending", "held", "failed"} else "NULL"
    held_for = "'/repair-request'" if state == "held" else "NULL"
    door.rows(
        f"UPDATE crm_outbox SET status = ?, reason = 'x', finished_at = 1.5, payload = {payload}, "
        f"held_for = {held_for} WHERE id = ?",
        state,
        event_id,
    )
    found = outcome(door, event_id)
    assert found == {
        "id": event_id, "event": "repair-request", "status": told, "received_at": found["received_at"]
    }  # fmt: skip


def test_a_receipt_is_the_crms_word_once_it_has_the_event(receiver: Receiver, tmp_path: Path) -> None:
    with start_server(tmp_path, CRM_WEBHOOK_URL=receiver.url) as door:
        event_id = door.post("repair-request", repair_request(), webhook_id="mine").json()["id"]
        settings = SenderSettings(webhook_url=receiver.url, api_key=KEY, outbox_url=door.outbox_url)
        assert Relay(settings).run(drain=True).all_delivered
        found = outcome(door, event_id)
        assert found["status"] == "pending_approval"
        receiver.decides("rejected")
        decided = outcome(door, event_id)
        assert decided == found | {"status": "rejected", "decided_at": decided["decided_at"]}
        receiver.told = problem(404, "not-found")
        assert outcome(door, event_id) == found | {"status": "delivered"}
        receiver.go_away()
        assert outcome(door, event_id) == found | {"status": "delivered"}
        receiver.come()


def test_a_slow_crm_holds_up_no_event(receiver: Receiver, tmp_path: Path) -> None:
    with start_server(tmp_path, CRM_WEBHOOK_URL=receiver.url) as door:
        event_id = door.post("repair-request", repair_request()).json()["id"]
        settings = SenderSettings(webhook_url=receiver.url, api_key=KEY, outbox_url=door.outbox_url)
        Relay(settings).run(drain=True)
        asked, go_on = threading.Event(), threading.Event()
        told = receiver.tells

        def slow(request: Request) -> Reply:
            asked.set()
            go_on.wait(20)
            return told(request)

        receiver.told = slow
        with ThreadPoolExecutor(12) as pool:
            waiting = [pool.submit(outcome, door, event_id) for _ in range(12)]
            assert asked.wait(20)
            assert door.post("repair-request", repair_request()).status_code == 202
            go_on.set()
            words = Counter(each.result()["status"] for each in waiting)
        assert set(words) == {"pending_approval", "delivered"}
        assert len(receiver.questions) < 12


def test_a_receipt_needs_the_key_and_an_id_that_was_given(door: Server) -> None:
    unknown = door.ask("GET", "/webhooks/receipts/nobody", **BEARER)
    assert (unknown.status_code, type_of(unknown)) == (404, "unknown-receipt")
    assert door.ask("GET", "/webhooks/receipts/nobody").status_code == 401
    odd = door.ask("GET", "/webhooks/receipts/a%20b", **BEARER)
    assert (type_of(odd), [fault["pointer"] for fault in odd.json()["errors"]]) == (
        "malformed-request", ["#id"]
    )  # fmt: skip
    refused = door.ask("POST", "/webhooks/receipts/nobody", b"{}", **BEARER, **JSON)
    assert (refused.status_code, "GET" in refused.headers["allow"]) == (405, True)


def test_a_webhook_that_a_release_does_not_have_is_refused_with_those_that_have_it(door: Server) -> None:
    answer = door.post("payment-status", payment_status(), webhook_contract="1.0.0")
    assert (answer.status_code, type_of(answer)) == (400, "unsupported-contract-version")
    having = [release for release, webhooks in RELEASES.items() if "payment-status" in webhooks]
    assert answer.json()["versions"] == having


@pytest.mark.parametrize("event", FACTORIES)
def test_every_event_of_the_contract_is_taken(door: Server, event: str) -> None:
    answer = door.post(event, FACTORIES[event]())
    assert answer.status_code == 202
    assert [
        row["event"] for row in door.rows(f"SELECT event FROM crm_outbox WHERE id = '{answer.json()['id']}'")
    ] == [event]


def test_a_relay_that_points_at_its_own_outbox_holds_what_it_has_and_loses_nothing(
    tmp_path: Path, receiver: Receiver
) -> None:
    with start_server(tmp_path) as own:
        settings = SenderSettings(
            webhook_url=f"{own.address}/webhooks",
            api_key=KEY,
            outbox_url=own.outbox_url,
            retry_schedule=(0.01,),
        )
        by_code = CRM(settings).repair_requested(repair_request())
        by_door = own.post("repair-request", repair_request(), webhook_id="the-clients-own").json()["id"]
        with running(Relay(settings)):
            # The other, if it was not on its way by then, is not even tried.
            eventually(lambda: "held" in {row["status"] for row in own.rows()}, "one held")
            # Held by the same answer again, after a look at whether it is mended: still no fault of the event.
            tries = "SELECT count(*) FROM crm_outbox_trail WHERE verb = 'held'"
            eventually(lambda: own.log.count("409 delivery-loop") >= 4, "a probe that does not pass")
            assert {row["status"] for row in own.rows()} <= {"held", "pending"}
            assert own.rows(tries)[0][0] >= 1
        mended = SenderSettings(webhook_url=receiver.url, api_key=KEY, outbox_url=own.outbox_url)
        with running(Relay(mended)):
            eventually(lambda: {row["status"] for row in own.rows()} == {"delivered"}, "both delivered")
    assert {event.id for event in receiver.events} == {by_code, by_door}


def test_an_id_that_the_outbox_gave_comes_back_as_a_delivery_loop(door: Server) -> None:
    payload = repair_request()
    engine = open_engine(door.outbox_url)
    with engine.begin() as connection:
        event_id = outbox.enqueue(connection, event_of("repair-request", payload), time.time())
    engine.dispose()
    answer = door.post("repair-request", payload, webhook_id=event_id)
    assert (answer.status_code, type_of(answer)) == (409, "delivery-loop")
    assert door.post("repair-request", payload).json()["duplicate"] is True


def test_what_was_answered_is_there_after_a_sigkill(tmp_path: Path) -> None:
    with start_server(tmp_path) as own:
        ids = [own.post("repair-request", repair_request()).json()["id"] for _ in range(5)]
        own.process.kill()
        own.process.wait(10)
        assert [row["id"] for row in own.rows()] == ids


def test_while_the_outbox_cannot_be_written_it_says_so_and_goes_on_afterwards(tmp_path: Path) -> None:
    with start_server(tmp_path) as own:
        path = make_url(own.outbox_url).database
        assert path
        with closing(sqlite3.connect(path, isolation_level=None)) as lock:
            lock.execute("BEGIN IMMEDIATE")
            answer = own.post("repair-request", repair_request())
            assert (answer.status_code, type_of(answer)) == (503, "unavailable")
            assert answer.headers["retry-after"] == "1"
            lock.execute("ROLLBACK")
        assert own.post("repair-request", repair_request()).status_code == 202


def test_a_booking_that_stays_open_holds_up_only_its_own_event_and_that_for_some_seconds(
    tmp_path: Path,
) -> None:
    with start_server(tmp_path, outbox_url=new_outbox("postgresql", tmp_path)) as own:
        payload = repair_request()
        with closing(psycopg.connect(own.outbox_url)) as booking, ThreadPoolExecutor(8) as clients:
            CRM(SenderSettings(outbox_url=own.outbox_url)).repair_requested(payload, booking)
            waiting = [clients.submit(own.post, "repair-request", payload) for _ in range(8)]
            assert {answer.result().status_code for answer in waiting} == {503}
            assert own.post("repair-request", repair_request()).status_code == 202
            booking.execute("UPDATE crm_outbox_state SET one = one")  # as a booking does that is sent again
            assert own.ask("GET", "/webhooks/health").status_code == 503
            booking.rollback()
        assert own.ask("GET", "/webhooks/health").status_code == 200
        assert own.post("repair-request", payload).status_code == 202


def test_an_event_whose_number_another_row_has_is_not_said_to_be_queued(tmp_path: Path) -> None:
    with start_server(tmp_path, outbox_url=new_outbox("postgresql", tmp_path)) as own:
        assert own.post("repair-request", repair_request()).status_code == 202
        # As a copy of the rows leaves it.
        own.rows("SELECT setval(pg_get_serial_sequence('crm_outbox', 'sequence'), 1, false)")
        payload = repair_request()
        answer = own.post("repair-request", payload)
        assert (answer.status_code, type_of(answer)) == (503, "unavailable")
        assert own.post("repair-request", payload).status_code == 202  # each attempt takes the next number
        assert len(own.rows()) == 2


def test_a_missing_key_closes_the_door(tmp_path: Path) -> None:
    with start_server(tmp_path, CRM_API_KEY="") as own:
        answer = own.post("repair-request", repair_request())
        assert (answer.status_code, type_of(answer)) == (503, "unavailable")
        assert "CRM_API_KEY" in answer.json()["detail"]
        assert "CRM_API_KEY is not set" in own.log


def test_an_address_that_guesses_keys_is_slowed_down_and_a_right_key_never(tmp_path: Path) -> None:
    with start_server(tmp_path) as own:
        statuses = [
            own.post("repair-request", b"{}", authorization="Bearer guess").status_code for _ in range(22)
        ]
        assert statuses == [401] * 20 + [429] * 2
        answer = own.post("repair-request", b"{}", authorization="Bearer guess")
        assert 0 < int(answer.headers["retry-after"]) <= 60
        assert own.post("repair-request", repair_request()).status_code == 202
        assert own.ask("POST", "/api/crm/integration/test", **ADMIN).status_code == 200


def test_a_body_that_is_trickled_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with start_server(tmp_path) as own, socket.create_connection(("127.0.0.1", own.port), 20) as half:
        half.sendall(
            f"POST /webhooks/repair-request HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            "Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{".encode()
        )
        assert own.ask("GET", "/webhooks/health").status_code == 200
        assert own.stop() == 0


def test_it_starts_on_no_outbox_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="crm-sender migrate"),
        start_server(tmp_path, outbox_url=f"sqlite:///{tmp_path}/none.sqlite3"),
    ):
        pass
