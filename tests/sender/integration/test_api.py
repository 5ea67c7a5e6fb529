"""The integration API, over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from sender.integration.contract import INTEGRATION
from tests.contract.contracts import package_json
from tests.crm_server.answers import Answer, checked
from tests.factories import repair_request
from tests.receiver import Receiver
from tests.sender.integration.server import ADMIN, JSON, RETRY, STATUS, TEST, Server, start_server, type_of
from tests.sender.site import Site
from tests.servers import KEY

DOCUMENT: dict[str, Any] = package_json(INTEGRATION, "openapi.json")


def documented(answer: httpx.Response) -> httpx.Response:
    """Return an answer when the contract has it."""
    path = answer.request.url.path.removeprefix("/api/crm")
    seen = Answer(answer.status_code, dict(answer.headers), answer.content)
    checked(answer.request.method, path, seen, INTEGRATION, "/integration/test")
    return answer


def test_the_status_is_what_the_program_says_and_open_to_all(site: Site, receiver: Receiver) -> None:
    site.book(2)
    with start_server(site.directory, outbox_url=site.url, CRM_WEBHOOK_URL=receiver.url) as own:
        answer = documented(own.ask("GET", STATUS))
        assert answer.status_code == 200
        told = site.json("status")
        del told["crm"]["url"], told["outbox"]["url"]
        assert answer.json() == told
        assert str(site.directory) not in answer.text
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert own.ask("HEAD", STATUS).status_code == 200


def test_all_who_ask_at_once_cost_the_crm_one_probe(tmp_path: Path, receiver: Receiver) -> None:
    with start_server(tmp_path, CRM_WEBHOOK_URL=receiver.url) as own:
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: own.ask("GET", STATUS).status_code, range(24)))
        assert statuses == [200] * 24
        assert receiver.probes == 1


@pytest.mark.parametrize("content", [None, b"", b"{}", b" {} "])
def test_a_test_takes_no_body_or_an_empty_object(server: Server, content: bytes | None) -> None:
    kind = JSON if content else {}
    answer = documented(server.ask("POST", TEST, content, **ADMIN, **kind))
    assert answer.status_code == 200
    assert answer.json()["ok"] is True
    assert [step["step"] for step in answer.json()["steps"]][:2] == ["health", "handshake"]


def test_a_test_answers_200_while_the_crm_is_away(tmp_path: Path) -> None:
    with start_server(tmp_path, CRM_WEBHOOK_URL="http://127.0.0.1:9/webhooks") as own:
        answer = documented(own.ask("POST", TEST, **ADMIN))
    assert (answer.status_code, answer.json()["ok"]) == (200, False)
    assert answer.json()["steps"][0] == {"step": "health", "ok": False, "answer": "Connection refused"}


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with three failed deliveries: two that were answered 400, one 413."""
    with start_server(tmp_path_factory.mktemp("failing")) as started:
        for number in range(3):
            assert started.post("repair-request", repair_request(), webhook_id=f"event-{number}").is_success
        yield started


@pytest.fixture
def failures(failing: Server) -> Server:
    """The same, all of them failed again."""
    for number, status in enumerate((400, 400, 413)):
        failing.rows(
            "UPDATE crm_outbox SET status = 'failed', reason = 'as it was', answer = ?, finished_at = ? WHERE id = ?",
            json.dumps({"status": status, "contract": "1.0.0"}),
            time.time(),
            f"event-{number}",
        )
    return failing


@pytest.mark.parametrize(
    ("body", "retried", "refused"),
    [
        (None, 3, 0),
        ({}, 3, 0),
        ({"answer": 400}, 2, 0),
        ({"answer": 400.0}, 2, 0),
        ({"event": "customer-registration"}, 0, 0),
        ({"since": "2020-01-01T00:00:00Z", "event": "repair-request"}, 3, 0),
        ({"since": "2999-01-01T00:00:00+01:00"}, 0, 0),
        ({"ids": ["nobody"]}, 0, 1),
    ],
)
def test_failed_deliveries_that_match_are_sent_again(
    failures: Server, body: dict[str, Any] | None, retried: int, refused: int
) -> None:
    content = None if body is None else json.dumps(body).encode()
    answer = documented(failures.ask("PATCH", RETRY, content, **ADMIN, **(JSON if content else {})))
    assert (answer.status_code, answer.json()) == (200, {"retried": retried, "refused": refused})
    pending = [row["id"] for row in failures.rows() if row["status"] == "pending"]
    assert len(pending) == retried
    trail = "SELECT actor FROM crm_outbox_trail WHERE event_id = ? AND verb = 'retried'"
    assert all(failures.rows(trail, event_id)[0]["actor"] == "api" for event_id in pending)


def test_what_its_contract_refuses_is_not_sent_again_and_the_others_are(failures: Server) -> None:
    failures.rows("UPDATE crm_outbox SET payload = '{}' WHERE id = 'event-0'")
    answer = documented(failures.ask("PATCH", RETRY, **ADMIN))
    assert answer.json() == {"retried": 2, "refused": 1}


@pytest.mark.parametrize(
    ("body", "type_", "pointers"),
    [
        (b"{", "invalid-json", [""]),
        (b'{"answer": 1, "answer": 2}', "invalid-json", [""]),
        (b"[]", "invalid-request", [""]),
        (b'{"answer": 7, "colour": "red"}', "invalid-request", ["/answer", "/colour"]),
        (b'{"since": "yesterday"}', "invalid-request", ["/since"]),
        (b'{"ids": ["a b"]}', "invalid-request", ["/ids/0"]),
        (
            json.dumps({"ids": [f"id-{number}" for number in range(1001)]}).encode(),
            "invalid-request",
            ["/ids"],
        ),
    ],
)
def test_a_filter_that_the_contract_does_not_have_is_refused_with_all_faults(
    server: Server, body: bytes, type_: str, pointers: list[str]
) -> None:
    answer = documented(server.ask("PATCH", RETRY, body, **ADMIN, **JSON))
    assert (answer.status_code, type_of(answer)) == (400, type_)
    assert sorted({fault["pointer"] for fault in answer.json()["errors"]}) == pointers


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("DELETE", STATUS, 405, "GET, HEAD"),
        ("GET", TEST, 405, "POST"),
        ("POST", RETRY, 405, "PATCH"),
        ("GET", f"{STATUS}/", 404, None),
        ("GET", "/api/crm/openapi.json", 404, None),
        ("GET", "/api/crm/ui/", 404, None),
        ("GET", "/api", 404, None),
        ("GET", "/", 404, None),
        ("POST", "/metrics", 405, "GET, HEAD"),
    ],
)
def test_what_is_not_there_is_404_and_a_wrong_method_405(
    server: Server, method: str, path: str, status: int, allow: str | None
) -> None:
    answer = server.ask(method, path)
    assert (answer.status_code, answer.headers.get("allow")) == (status, allow)
    assert type_of(answer) in {"not-found", "method-not-allowed"}


def test_a_body_of_another_kind_or_size_is_refused(server: Server) -> None:
    given = ADMIN | {"content-type": "text/plain"}
    assert server.ask("PATCH", RETRY, b"{}", **given).status_code == 415
    answer = server.ask("PATCH", RETRY, b" " * (1 << 21), **ADMIN, **JSON)
    assert (answer.status_code, type_of(answer)) == (413, "content-too-large")


def test_metrics_are_counts_that_prometheus_reads(server: Server) -> None:
    answer = server.ask("GET", "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'crm_sender_events{status="failed"}' in answer.text


def test_without_an_admin_token_only_the_status_is_answered(tmp_path: Path) -> None:
    with start_server(tmp_path, CRM_ADMIN_TOKEN="") as own:
        assert own.ask("GET", STATUS).status_code == 200
        closed = [
            ("POST", TEST),
            ("PATCH", RETRY),
            ("POST", STATUS),
            ("GET", "/metrics"),
            ("GET", "/webhooks/health"),
            ("POST", "/webhooks/repair-request"),
            ("GET", "/nope"),
        ]
        for method, path in closed:
            answer = own.ask(method, path, authorization=f"Bearer {KEY}")
            assert (answer.status_code, type_of(answer)) == (503, "admin-token-not-set"), path
        page = own.ask("GET", "/admin")
        assert (page.status_code, page.headers["content-type"]) == (503, "text/html; charset=utf-8")
        assert "admin-token-not-set" in page.text
        assert "CRM_ADMIN_TOKEN is not set" in own.log


def test_every_answer_has_an_id_by_which_a_refused_request_is_found_in_the_log(server: Server) -> None:
    answer = server.ask("GET", "/api/crm/nope?email=ada@example.com")
    assert answer.headers["x-request-id"] in server.log
    assert "ada@example.com" not in server.log
    assert server.ask("GET", STATUS, x_request_id="mine").headers["x-request-id"] != "mine"


def test_a_weak_token_and_a_listener_beyond_this_machine_are_warned_of(tmp_path: Path) -> None:
    with start_server(tmp_path, "--host", "0.0.0.0", CRM_ADMIN_TOKEN="short") as own:
        assert "CRM_ADMIN_TOKEN has fewer than 16 characters" in own.log
        assert "beyond this machine" in own.log
