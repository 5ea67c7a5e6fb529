"""The client against the real CRM, the outbox's own door, and CRMs that fail in every way.

Real: Node, HTTP, the CRM, the outbox. The clock of the waits between attempts is a double: they are noted.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from generated.operations import CURRENT, RELEASES, WEBHOOKS
from scripts import node
from sender.delivery import Answer, Delivery, judge, read_retry_after
from sender.events import event_of
from tests.conformance.vectors import VECTORS
from tests.contract.contracts import example
from tests.factories import customer_registration, repair_request
from tests.faults.proxy import start_proxy, stored, whole
from tests.receiver import (
    Receiver,
    Reply,
    Request,
    always,
    first,
    html,
    problem,
    receipt,
    reply,
    start_receiver,
)
from tests.sender.integration.server import TOKEN, Server, start_server
from tests.servers import KEY, Crm, free_port, start_crm
from tests.typescript.site import Site

SECRET = "whsec_c2VjcmV0LW9mLXRoZS10ZXN0cy0wMTIzNDU2Nzg5"
UUID7 = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
PERSONAL = ("Ada", "Lovelace", "ada@example.com", "7946", "cracked", "St James")
BUSY = problem(503, "unavailable")


METHODS = {
    "customer-registration": "customerRegistered",
    "repair-request": "repairRequested",
    "payment-status": "paymentChanged",
    "booking-status": "bookingChanged",
    "customer-profile": "profileChanged",
}


def fresh(webhook: str) -> dict[str, Any]:
    """Return the contract's example of an event, as another event each time."""
    event = example(webhook)
    *blocks, name = WEBHOOKS[webhook].natural_key
    block = event
    for block_name in blocks:
        block = block[block_name]
    block[name] = f"{block[name]}-{os.urandom(4).hex()}"
    return event


def key_of(webhook: str, event: Any) -> Any:
    """Return an event's natural key."""
    for name in WEBHOOKS[webhook].natural_key:
        event = event[name]
    return event


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The website's server, whose relay does not run."""
    with (
        start_receiver() as crm,
        start_server(tmp_path_factory.mktemp("door"), CRM_WEBHOOK_URL=crm.url) as started,
    ):
        yield started


def test_the_crm_queues_an_event_once_and_gives_its_receipt(site: Site, crm: Crm) -> None:
    registration, repair = customer_registration(), repair_request(repair__notes="café 🦊")
    came = site.send(
        crm.url,
        ["customerRegistered", registration],
        ["repairRequested", repair],
        ["repairRequested", repair, {"webhookId": "the-bookings-own"}],
    )
    one, two, again = came.answers
    assert [answer["status"] for answer in came.answers] == ["pending_approval"] * 3
    assert [answer["duplicate"] for answer in came.answers] == [False, False, True]
    assert one["natural_key"] == registration["customer"]["websiteUserId"]
    assert again["webhookId"] == "the-bookings-own"
    assert (again["id"], again["digest"]) == (two["id"], two["digest"])
    assert UUID7.fullmatch(two["webhookId"])
    [row] = crm.rows("SELECT * FROM approvals WHERE webhook_id = ?", two["webhookId"])
    assert (json.loads(row["payload"]), row["contract"]) == (repair, CURRENT)


def test_every_webhook_has_a_method_and_is_queued(site: Site, crm: Crm) -> None:
    events = {webhook: fresh(webhook) for webhook in WEBHOOKS}
    came = site.send(crm.url, *([METHODS[webhook], event] for webhook, event in events.items()))
    found = [(answer["status"], answer["natural_key"]) for answer in came.answers]
    assert found == [("pending_approval", key_of(webhook, event)) for webhook, event in events.items()]


def test_what_became_of_an_event_is_told_by_its_receipt(site: Site, crm: Crm) -> None:
    [registered, booked] = site.send(
        crm.url, ["customerRegistered", customer_registration()], ["repairRequested", repair_request()]
    ).answers
    assert crm.cli("approvals", "reject", booked["id"], "--reason", "No parts").returncode == 0
    calls = [["receipt", id] for id in (registered["id"], booked["id"], "nobodys", "..", "two\nlines")]
    waits, decided, unknown, no_path, no_id = site.send(crm.url, *calls).answers
    assert (waits["told"], waits["outcome"]["status"]) == ("outcome", "pending_approval")
    assert (decided["outcome"]["status"], decided["outcome"]["event"]) == ("rejected", "repair-request")
    assert (unknown, no_path) == ({"told": "unknown"}, {"told": "unknown"})
    assert no_id["error"] == "SettingsError"
    refused = site.send(crm.url, ["receipt", booked["id"]], apiKey="another-key-of-the-tests-0123456789")
    assert (refused.answer["told"], refused.answer["answer"]) == ("misconfigured", "401 Unauthorized")
    away = site.send(f"http://127.0.0.1:{free_port()}/webhooks", ["receipt", booked["id"]])
    assert away.answer == {"told": "away", "answer": "Connection refused"}


def test_the_outboxs_own_door_tells_what_became_of_an_event(site: Site, door: Server) -> None:
    url = f"{door.address}/webhooks"
    taken = site.send(url, ["repairRequested", repair_request()]).answer
    told, unknown = site.send(url, ["receipt", taken["id"]], ["receipt", "nobodys"]).answers
    assert (told["told"], told["outcome"]["status"]) == ("outcome", "queued")
    assert unknown == {"told": "unknown"}


TOLD: dict[str, tuple[int, dict[str, Any] | None]] = {
    "outcome": (200, {"id": "id", "event": "repair-request", "status": "approved", "later": 1}),
    "misconfigured": (200, {"id": "another", "event": "repair-request", "status": "approved"}),
    "unknown": (404, {"type": "unknown-receipt"}),
    "too-old": (404, {"type": "not-found"}),
    "too-old, by its method": (405, {"type": "method-not-allowed"}),
    "misconfigured, a proxy": (404, None),
    "misconfigured, a key": (401, {"type": "unauthorized"}),
    "misconfigured, moved": (307, None),
    "away": (503, {"type": "unavailable"}),
    "away, a proxy": (502, None),
    "away, too many": (429, {"type": "too-many-requests"}),
}


def test_an_answer_about_a_receipt_is_believed_where_it_is_the_crms(site: Site) -> None:
    asked = [
        {
            "status": status,
            "contentType": "text/html"
            if body is None
            else f"application/{'' if status == 200 else 'problem+'}json",
            "body": "<html>" if body is None else json.dumps({"status": status, **body}),
        }
        for status, body in TOLD.values()
    ]
    told = json.loads(site.run("judge.mjs", json.dumps({"receipts": asked})))["told"]
    assert [found["told"] for found in told] == [name.partition(",")[0] for name in TOLD]


def test_the_outboxs_own_door_takes_an_event_for_the_relay_to_deliver(site: Site, door: Server) -> None:
    repair = repair_request()
    came = site.send(f"{door.address}/webhooks", ["repairRequested", repair], ["repairRequested", repair])
    assert [(answer["status"], answer["duplicate"]) for answer in came.answers] == [
        ("queued", False),
        ("queued", True),
    ]
    [row] = door.rows(f"SELECT * FROM crm_outbox WHERE natural_key = '{repair['repair']['websiteRepairId']}'")
    assert (row["id"], row["status"], json.loads(row["payload"])) == (
        came.answers[0]["webhookId"],
        "pending",
        repair,
    )


def test_a_lost_answer_does_not_queue_twice(site: Site, crm: Crm) -> None:
    with start_proxy(crm) as proxy:

        def lose(request: Request) -> Reply:
            proxy.forward(request)
            return Reply([], "reset")

        proxy.event = first(lose, lose, then=proxy.forward)
        came = site.send(proxy.url, ["repairRequested", repair_request()])
        ids = [request.id for request in proxy.events]
    assert (came.answer["status"], came.answer["duplicate"]) == ("pending_approval", True)
    assert ids == [came.answer["webhookId"]] * 3
    assert stored(crm, ids[0]) == 1


def test_a_refused_payload_is_told_by_its_pointers_and_not_sent_again(site: Site, crm: Crm) -> None:
    payload = repair_request(customer__email="not an address", repair__priority="yesterday")
    came = site.send(crm.url, ["repairRequested", payload])
    assert came.answer["error"] == "EventRefused"
    assert came.answer["isOurs"]
    assert (came.answer["status"], came.answer["type"], came.answer["attempts"]) == (400, "invalid-event", 1)
    assert sorted(came.answer["pointers"]) == ["/customer/email", "/repair/priority"]
    assert "/customer/email" in came.answer["message"]
    assert not came.waits
    assert not [word for word in (KEY, "not an address", "yesterday", *PERSONAL) if word in came.shown]


def test_a_conflict_points_to_what_is_there(site: Site, crm: Crm) -> None:
    payload = repair_request()
    other = payload | {"repair": payload["repair"] | {"notes": "Other"}}
    taken, refused = site.send(crm.url, ["repairRequested", payload], ["repairRequested", other]).answers
    assert (refused["error"], refused["status"], refused["type"]) == ("EventRefused", 409, "conflict")
    assert refused["existing"] == {"id": taken["id"], "event": "repair-request"}


@pytest.mark.parametrize("at", ["crm", "door"])
def test_a_wrong_key_is_no_fault_of_the_event(site: Site, crm: Crm, door: Server, at: str) -> None:
    url = crm.url if at == "crm" else f"{door.address}/webhooks"
    key = "another-key-of-the-tests-0123456789"
    came = site.send(url, ["repairRequested", repair_request()], apiKey=key)
    assert (came.answer["error"], came.answer["answer"]) == ("LinkMisconfigured", "401 Unauthorized")
    assert "CRM_API_KEY" in came.answer["message"]
    assert not came.waits
    assert not [word for word in (key, *PERSONAL) if word in came.shown]


def test_a_signature_is_what_the_crm_asks_for(site: Site, tmp_path: Path) -> None:
    with start_crm(tmp_path, WEBHOOK_SIGNING_SECRET=SECRET) as crm:
        signed = site.send(
            crm.url, ["repairRequested", repair_request(repair__notes="café")], signingSecret=SECRET
        )
        unsigned = site.send(crm.url, ["repairRequested", repair_request()])
    assert signed.answer["status"] == "pending_approval"
    assert (unsigned.answer["error"], unsigned.answer["type"]) == ("LinkMisconfigured", "invalid-signature")
    assert SECRET.removeprefix("whsec_") not in signed.shown


def test_the_same_bytes_are_sent_under_the_same_id_until_they_are_taken(
    site: Site, receiver: Receiver
) -> None:
    receiver.event = first(BUSY, html(502), always(reply(202, "{}")))
    came = site.send(receiver.url, ["repairRequested", repair_request()])
    assert came.answer["status"] == "pending_approval"
    assert len(receiver.events) == 4
    assert len({(request.id, request.body) for request in receiver.events}) == 1
    assert {request.headers["webhook-contract"] for request in receiver.events} == {CURRENT}
    assert all(least <= wait <= least * 1.1 for wait, least in zip(came.waits, (1, 2, 3), strict=True))


def test_an_event_that_nobody_takes_is_given_back_with_its_id(site: Site, receiver: Receiver) -> None:
    receiver.event = BUSY
    came = site.send(receiver.url, ["repairRequested", repair_request()], retrySchedule=[4, 5])
    assert (came.answer["error"], came.answer["attempts"]) == ("CRMUnavailable", 3)
    assert came.answer["answer"] == "503 Service Unavailable"
    assert [request.id for request in receiver.events] == [came.answer["webhookId"]] * 3
    assert len(came.waits) == 2
    assert not [word for word in (KEY, *PERSONAL) if word in came.shown]


def test_a_crm_that_asks_to_wait_is_waited_for_within_reason(site: Site, receiver: Receiver) -> None:
    def busy(seconds: int) -> Any:
        body = {"type": "too-many-requests", "title": "", "status": 429, "detail": ""}
        return always(reply(429, body, "application/problem+json", retry_after=str(seconds)))

    receiver.event = first(busy(7))
    came = site.send(receiver.url, ["repairRequested", repair_request()])
    assert (came.answer["status"], came.waits) == ("pending_approval", [7])
    receiver.event = busy(11)
    came = site.send(receiver.url, ["repairRequested", repair_request()])
    assert (came.answer["error"], came.answer["retryAfter"], came.answer["attempts"]) == (
        "CRMUnavailable",
        11,
        1,
    )


def test_a_redirect_does_not_carry_key_and_payload_elsewhere(site: Site, receiver: Receiver) -> None:
    with start_receiver() as elsewhere:
        receiver.event = always(reply(307, location=f"{elsewhere.url}/repair-request"))
        came = site.send(receiver.url, ["repairRequested", repair_request()])
        assert not elsewhere.requests
    assert (came.answer["error"], came.answer["answer"]) == ("LinkMisconfigured", "307 Temporary Redirect")
    assert "CRM_WEBHOOK_URL" in came.answer["message"]


def test_an_attempt_ends_by_its_deadline_also_while_the_answer_trickles(
    site: Site, receiver: Receiver
) -> None:
    ended = False

    def trickle(request: Request) -> Reply:
        def parts() -> Iterator[bytes]:
            yield b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n"
            for _ in range(100):
                yield b" "
                if ended:
                    return
                time.sleep(0.05)  # as slow as the test wants the CRM to be

        return Reply(parts(), "close")

    receiver.event = trickle
    came = site.send(receiver.url, ["repairRequested", repair_request()], timeout=0.3, retrySchedule=[])
    ended = True
    assert (came.answer["error"], came.answer["answer"]) == ("CRMUnavailable", "timeout")


def test_an_answer_is_read_to_a_bound(site: Site, receiver: Receiver) -> None:
    def at_length(request: Request) -> Reply:
        _, _, body = whole(receipt(request)).partition(b"\r\n\r\n")
        head = b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\n\r\n"
        return Reply([head, b" " * 10_000_000, body], "close")

    receiver.event = first(at_length)
    came = site.send(receiver.url, ["repairRequested", repair_request()])
    assert (came.answer["status"], len(receiver.events)) == ("pending_approval", 2)


def test_a_receipt_of_another_event_is_none(site: Site, receiver: Receiver) -> None:
    receiver.event = first(
        lambda request: receipt(request, digest="0" * 64),
        lambda request: receipt(request, natural_key="another"),
        lambda request: receipt(request, status="test_ok"),
    )
    came = site.send(receiver.url, ["repairRequested", repair_request()])
    assert came.answer["status"] == "pending_approval"
    assert len(receiver.events) == 4


def test_a_refused_connection_and_health_are_told_in_the_guides_words(
    site: Site, crm: Crm, receiver: Receiver
) -> None:
    away = f"http://127.0.0.1:{free_port()}/webhooks"
    refused, health = site.send(away, ["repairRequested", repair_request()], ["health"]).answers
    assert (refused["error"], refused["answer"], refused["attempts"]) == (
        "CRMUnavailable",
        "Connection refused",
        4,
    )
    assert health == {"ok": False, "answer": "Connection refused", "speaksOurs": False}
    assert site.send(crm.url, ["health"]).answer == {
        "ok": True,
        "answer": "200 OK",
        "versions": list(RELEASES),
        "speaksOurs": True,
    }
    receiver.health = html(200)
    assert site.send(receiver.url, ["health"]).answer["ok"] is False
    assert "authorization" not in receiver.requests[-1].headers


def test_who_calls_may_end_it_and_name_the_event(site: Site, receiver: Receiver) -> None:
    ended, misnamed = site.send(
        receiver.url,
        ["repairRequested", repair_request(), {"signal": "aborted"}],
        ["repairRequested", repair_request(), {"webhookId": "two\nlines"}],
    ).answers
    assert (ended["error"], misnamed["error"]) == ("AbortError", "SettingsError")
    assert not receiver.requests


def test_the_environment_says_what_options_do_not(site: Site, receiver: Receiver) -> None:
    receiver.event = BUSY
    environment = {
        "CRM_WEBHOOK_URL": receiver.url,
        "CRM_API_KEY": KEY,
        "CRM_RETRY_SCHEDULE": "0.5",
        "CRM_TIMEOUT": "",
    }
    came = site.call("CRM", {}, [["repairRequested", repair_request()]], **environment)
    assert (came.answer["attempts"], len(came.waits)) == (2, 1)
    assert receiver.events[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CRM_WEBHOOK_URL", {"url": "ftp://crm.example/webhooks"}),
        ("CRM_WEBHOOK_URL", {"url": "http://user:hidden@crm.example/webhooks"}),
        ("CRM_API_KEY", {"apiKey": "hidden hidden"}),
        ("CRM_TIMEOUT", {"timeout": 0}),
        ("CRM_RETRY_SCHEDULE", {"retrySchedule": [-1]}),
        ("CRM_SIGNING_SECRET", {"signingSecret": "hidden!"}),
    ],
)
def test_a_wrong_setting_is_named_without_its_value(site: Site, name: str, options: dict[str, Any]) -> None:
    came = site.call("CRM", options, [])
    assert came.answer["error"] == "SettingsError"
    assert name in came.answer["message"]
    assert "hidden" not in came.answer["message"]


def test_a_time_out_may_be_any_part_of_a_second(site: Site, door: Server) -> None:
    taken = site.send(f"{door.address}/webhooks", ["repairRequested", repair_request()], timeout=4.03)
    assert taken.answer["status"] == "queued"
    variable = {"CRM_TIMEOUT": "2.0005"}
    by_variable = site.send(f"{door.address}/webhooks", ["health"], environment=variable)
    assert by_variable.answer["ok"] is True
    options = {"url": f"{door.address}/api/crm", "timeout": 8.03}
    assert "pending" in site.call("IntegrationAPI", options, [["status"]]).answer


def test_a_time_out_that_is_none_is_a_wrong_setting_of_the_integration_api_too(site: Site) -> None:
    for timeout in (0, -1, 1e9):
        came = site.call("IntegrationAPI", {"timeout": timeout}, [["status"]])
        assert came.answer["error"] == "SettingsError"
        assert "timeout" in came.answer["message"]


def test_a_variable_that_is_no_number_is_a_wrong_setting(site: Site) -> None:
    for schedule in ("1,two", "1,,3", "1,2,"):
        assert site.call("CRM", {}, [], CRM_RETRY_SCHEDULE=schedule).answer["error"] == "SettingsError"
    assert site.call("CRM", {}, [], CRM_TIMEOUT="long").answer["error"] == "SettingsError"


def test_every_answer_means_what_it_means_to_the_relay(site: Site) -> None:
    types = sorted(
        {type_ for webhook in WEBHOOKS.values() for a in webhook.answers.values() for type_ in a.by_type}
    )
    bodies = [("text/html", "<html>"), ("application/json", '{"type": "conflict"}')]
    asked, expected = [], []
    for status in [*range(200, 206), *range(300, 309), *range(400, 432), 451, *range(500, 512), 599]:
        problems = [{"type": type_, "status": status} for type_ in (*types, "conflict", "about:blank")]
        problems += [{"type": "conflict", "status": 299}, {"status": status}]
        found = [("application/problem+json; charset=utf-8", json.dumps(body)) for body in problems]
        for webhook, (kind, body) in itertools.product(WEBHOOKS, bodies + found):
            delivery = Delivery("id", webhook, CURRENT, "key", "key", "", "digest", 0, None, "token")
            outcome = Answer(status, kind, body.encode())
            asked.append(
                {"webhook": webhook, "answer": {"status": status, "contentType": kind, "body": body}}
            )
            expected.append(judge(outcome, delivery, WEBHOOKS[webhook]).meaning)
    assert json.loads(site.run("judge.mjs", json.dumps({"answers": asked})))["meanings"] == expected
    assert set(expected) == {"retry", "hold", "fail"}


def test_events_have_the_identity_that_both_other_sides_give_them(site: Site) -> None:
    # The rules of identity are the same in all of v1, so that vectors of every release hold.
    vectors = VECTORS
    events = [{"webhook": vector["webhook"], "text": json.dumps(vector["body"])} for vector in vectors]
    written = json.loads(site.run("judge.mjs", json.dumps({"events": events})))["written"]
    expected = [(v["name"], v["natural_key"], v["canonical"], v["digest"]) for v in vectors]
    found = [(w["naturalKey"], w["canonical"], w["digest"]) for w in written]
    assert [(v["name"], *f) for v, f in zip(vectors, found, strict=True)] == expected


def test_every_webhooks_event_has_the_identity_that_the_website_gives_it(site: Site) -> None:
    bodies = {webhook: fresh(webhook) for webhook in WEBHOOKS}
    events = [{"webhook": webhook, "text": json.dumps(body)} for webhook, body in bodies.items()]
    written = json.loads(site.run("judge.mjs", json.dumps({"events": events})))["written"]
    expected = [event_of(webhook, body) for webhook, body in bodies.items()]
    assert [(found["naturalKey"], found["digest"]) for found in written] == [
        (event.natural_key, event.digest) for event in expected
    ]


def test_patience_is_read_as_the_relay_reads_it(site: Site) -> None:
    now = 1_734_084_000
    date = "Fri, 13 Dec 2024 10:00:30 GMT"
    values = [None, "0", "7", "99999", "soon", "", "-1", "1.5", date, "Fri, 13 Dec 2024 09:00:00 GMT"]
    asked = [{"value": value, "now": now} for value in values]
    found = json.loads(site.run("judge.mjs", json.dumps({"waits": asked})))["asked"]
    assert found == [read_retry_after(value, now) for value in values]


def test_the_integration_api_is_asked_by_its_types(site: Site, door: Server) -> None:
    options = {"url": f"{door.address}/api/crm", "token": TOKEN}
    status, tested, retried = site.call(
        "IntegrationAPI", options, [["status"], ["test"], ["retryFailed"]]
    ).answers
    assert {"pending", "delivered", "failed", "held", "crm", "relay"} <= status.keys()
    assert [step["step"] for step in tested["steps"]][:2] == ["health", "handshake"]
    assert retried == {"retried": 0, "refused": 0}
    came = site.call("IntegrationAPI", options | {"token": "another"}, [["status"], ["test"]])
    assert came.answers[0]["crm"]["reachable"] is True
    assert (came.answers[1]["error"], came.answers[1]["status"]) == ("IntegrationError", 401)
    assert TOKEN not in came.shown


@pytest.mark.parametrize(("token", "said"), [(TOKEN, "health: well"), ("another", "The test was not made")])
def test_the_example_page_says_what_came_of_a_test(site: Site, door: Server, token: str, said: str) -> None:
    compiler = str(node.MODULES / "typescript" / "lib" / "typescript.js")
    asked = {"compiler": compiler, "url": f"{door.address}/api/crm", "token": token}
    assert said in json.loads(site.run("render.mjs", json.dumps(asked)))
