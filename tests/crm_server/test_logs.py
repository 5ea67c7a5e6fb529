"""The log that a server writes: an answer can be found in it, and nothing of a request."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.crm_server.answers import post, raw, send, until, webhook
from tests.crm_server.conftest import assert_nothing_private
from tests.factories import repair_request
from tests.servers import Crm, start_crm


@pytest.fixture(scope="module")
def logging_crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server that logs JSON, behind a proxy that it trusts when the proxy is 127.0.0.7."""
    directory = tmp_path_factory.mktemp("logging")
    with start_crm(
        directory, CRM_LOG_FORMAT="json", CRM_LOG_LEVEL="debug", CRM_TRUSTED_PROXIES="127.0.0.7"
    ) as crm:
        yield crm
    assert_nothing_private(crm)


def lines(crm: Crm) -> list[dict[str, Any]]:
    """Return what the server has logged; what it says on its standard output stands apart."""
    return [json.loads(line) for line in crm.log.splitlines() if not line.startswith("crm-server: ")]


def lines_of(crm: Crm, request_id: str) -> list[dict[str, Any]]:
    return [line for line in lines(crm) if line.get("request_id") == request_id]


def test_every_answer_is_found_in_the_log_by_its_id(logging_crm: Crm) -> None:
    accepted = post(logging_crm, "repair-request", repair_request())
    refused = send(logging_crm, "POST", "/repair-request", b"{}")
    [first] = until(lambda: lines_of(logging_crm, accepted.headers["x-request-id"]))
    [second] = until(lambda: lines_of(logging_crm, refused.headers["x-request-id"]))
    assert first["time"].endswith("Z")
    assert (first["level"], first["operation"], first["status"]) == ("debug", "repair-request", 202)
    assert "problem" not in first
    assert (second["operation"], second["status"], second["problem"]) == (
        "repair-request",
        400,
        "invalid-event",
    )


def test_no_two_answers_have_the_same_id(logging_crm: Crm) -> None:
    ids = {send(logging_crm, "GET", "/health").headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


def test_an_id_is_taken_from_a_trusted_proxy_and_from_nobody_else(logging_crm: Crm) -> None:
    request = webhook(logging_crm, repair_request(), "X-Request-Id: of-the-proxy")
    assert raw(logging_crm, request, source="127.0.0.7").headers["x-request-id"] == "of-the-proxy"
    assert raw(logging_crm, request).headers["x-request-id"] != "of-the-proxy"


@pytest.mark.parametrize("given", ["a b", "Ada\u00e9", "x" * 65, ""])
def test_an_id_that_is_none_is_not_taken_from_a_proxy_either(logging_crm: Crm, given: str) -> None:
    request = webhook(logging_crm, repair_request(), f"X-Request-Id: {given}")
    assert len(raw(logging_crm, request, source="127.0.0.7").headers["x-request-id"]) == 16


def test_neither_path_nor_query_nor_method_of_a_stranger_is_logged(logging_crm: Crm) -> None:
    answer = httpx.request(
        "SENTINEL", f"http://127.0.0.1:{logging_crm.port}/Lovelace?email=ada@example.com", timeout=10
    )
    [line] = until(lambda: lines_of(logging_crm, answer.headers["x-request-id"]))
    assert (line["operation"], line["status"], line["problem"]) == ("unknown", 404, "not-found")
    assert "SENTINEL" not in logging_crm.log


def test_a_probe_that_finds_all_well_leaves_no_line(logging_crm: Crm) -> None:
    probe = send(logging_crm, "GET", "/health")
    later = post(logging_crm, "repair-request", repair_request())
    until(lambda: lines_of(logging_crm, later.headers["x-request-id"]))
    assert lines_of(logging_crm, probe.headers["x-request-id"]) == []


def test_a_warning_at_the_start_is_json_too(tmp_path: Path) -> None:
    with start_crm(tmp_path, CRM_LOG_FORMAT="json", WEBHOOK_API_KEY="short") as crm:
        assert [line["level"] for line in lines(crm) if "WEBHOOK_API_KEY" in line["message"]] == ["warning"]


def test_people_find_the_id_at_the_end_of_the_line(crm: Crm) -> None:
    accepted, answer = (
        post(crm, "repair-request", repair_request()),
        send(crm, "POST", "/repair-request", b"{}"),
    )
    ending = "INFO crm_server.access: repair-request 400 invalid-event in "
    request_id = answer.headers["x-request-id"]
    [line] = until(lambda: [line for line in crm.log.splitlines() if request_id in line])
    assert ending in line
    assert line.endswith(f"ms [{request_id}]")
    assert accepted.headers["x-request-id"] not in crm.log


def test_a_log_format_that_is_none_stops_the_start(crm: Crm) -> None:
    done = Crm(crm.directory, {**crm.env, "CRM_LOG_FORMAT": "xml"}).cli("keys")
    assert done.returncode == 1
    assert "CRM_LOG_FORMAT" in done.stderr
    assert "xml" not in done.stderr
