"""The way back: what became of the event that a receipt was given for."""

import uuid

import pytest

from tests.crm_server.answers import JSON, head, post, raw, send
from tests.crm_server.conftest import ON_BOTH
from tests.factories import FACTORIES, repair_request
from tests.servers import Crm

OUTCOME = {"id", "event", "status", "received_at"}


def receive(crm: Crm, event: str = "repair-request") -> str:
    answer = post(crm, event, FACTORIES[event]())
    assert answer.status == 202
    return str(answer.json["id"])


@ON_BOTH
@pytest.mark.parametrize("event", list(FACTORIES))
def test_what_waits_is_pending_and_tells_nothing_of_whom_it_is_from(crm: Crm, event: str) -> None:
    receipt = receive(crm, event)
    answer = send(crm, "GET", f"/receipts/{receipt}")
    assert answer.status == 200
    assert answer.headers["content-type"] == JSON["content-type"]
    assert answer.headers["cache-control"] == "no-store"
    assert set(answer.json) == OUTCOME
    assert (answer.json["id"], answer.json["event"]) == (receipt, event)
    assert answer.json["status"] == "pending_approval"


@ON_BOTH
@pytest.mark.parametrize(
    ("decision", "status"), [(["approve"], "approved"), (["reject", "--reason", "spam"], "rejected")]
)
def test_what_is_decided_says_how_and_when(crm: Crm, decision: list[str], status: str) -> None:
    receipt = receive(crm)
    assert crm.cli("approvals", decision[0], receipt, *decision[1:]).returncode == 0
    (row,) = crm.rows("SELECT * FROM approvals WHERE id = ?", receipt)
    answer = send(crm, "GET", f"/receipts/{receipt}")
    assert set(answer.json) == OUTCOME | {"decided_at"}
    assert (answer.json["status"], answer.json["decided_at"]) == (status, row["decided_at"])


def test_what_is_erased_still_has_its_outcome(own_crm: Crm) -> None:
    receipt = receive(own_crm)
    assert own_crm.cli("erase-person", "--email", "ada@example.com", "--yes").returncode == 0
    answer = send(own_crm, "GET", f"/receipts/{receipt}")
    assert (answer.status, answer.json["status"]) == (200, "rejected")


def test_an_id_that_was_never_given_is_unknown(crm: Crm) -> None:
    answer = send(crm, "GET", f"/receipts/{uuid.uuid4()}")
    assert (answer.status, answer.type) == (404, "unknown-receipt")


def test_a_customer_s_natural_key_is_no_receipt(crm: Crm) -> None:
    payload = repair_request()
    assert post(crm, "repair-request", payload).status == 202
    answer = send(crm, "GET", f"/receipts/{payload['repair']['websiteRepairId']}")
    assert (answer.status, answer.type) == (404, "unknown-receipt")


@pytest.mark.parametrize("id_", ["a" * 129, "Sentinel%20id", "%00", "%F0%9F%A6%8A", "a,b", "%E2%80%AE"])
def test_what_can_be_no_id_is_refused_without_being_shown(crm: Crm, id_: str) -> None:
    answer = send(crm, "GET", f"/receipts/{id_}")
    assert (answer.status, answer.type, answer.pointers) == (400, "malformed-request", ["#id"])
    assert b"Sentinel" not in answer.body


@pytest.mark.parametrize("path", ["/receipts", "/receipts/", "/receipts/a/b", "/receipts/a%2fb"])
def test_a_path_beside_it_is_none(crm: Crm, path: str) -> None:
    assert send(crm, "GET", path).type == "not-found"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_receipt_can_only_be_read(crm: Crm, method: str) -> None:
    answer = send(crm, method, f"/receipts/{receive(crm)}", b"{}")
    assert (answer.status, answer.type) == (405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, HEAD"


def test_head_answers_as_get_without_a_body(crm: Crm) -> None:
    answer = send(crm, "HEAD", f"/receipts/{receive(crm)}")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("key", ["", "Bearer wrong"])
def test_it_needs_the_key(crm: Crm, key: str) -> None:
    receipt = receive(crm)
    answer = send(crm, "GET", f"/receipts/{receipt}", authorization=key)
    assert (answer.status, answer.type) == (401, "unauthorized")


def test_a_body_and_headers_of_webhooks_do_not_matter(crm: Crm) -> None:
    receipt = receive(crm)
    lines = ["Content-Length: 9", "webhook-contract: 0.1", "webhook-test: maybe", "webhook-id: /"]
    answer = raw(crm, head(crm, "GET", f"/webhooks/receipts/{receipt}?a=b", *lines) + b"{not json")
    assert (answer.status, answer.json["id"]) == (200, receipt)


def test_a_release_that_has_no_such_webhook_is_refused_with_those_that_have_it(crm: Crm) -> None:
    answer = post(crm, "payment-status", FACTORIES["payment-status"](), webhook_contract="1.0.0")
    assert (answer.status, answer.type) == (400, "unsupported-contract-version")
    assert "1.0.0" not in answer.json["versions"]
    assert answer.json["versions"]
