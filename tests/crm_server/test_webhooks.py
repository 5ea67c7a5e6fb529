"""What the webhook endpoints answer, row by row of the contract, over HTTP from a started server."""

import json
import uuid

import pytest

from generated.operations import CURRENT, RELEASES, WEBHOOKS
from tests.crm_server.answers import post, send
from tests.crm_server.conftest import ON_BOTH
from tests.factories import FACTORIES, customer_registration, repair_request
from tests.servers import Crm

EACH = pytest.mark.parametrize("event", list(FACTORIES))
PERSONAL = pytest.mark.parametrize("event", [event for event in FACTORIES if not event.endswith("-status")])
"""Those that hold a name."""


def key_of(event: str, payload: dict[str, dict[str, str]]) -> str:
    block, name = WEBHOOKS[event].natural_key
    return payload[block][name]


@ON_BOTH
@EACH
def test_a_valid_event_is_accepted_with_a_receipt_once_its_row_is_there(crm: Crm, event: str) -> None:
    payload = FACTORIES[event]()
    answer = post(crm, event, payload)
    assert answer.status == 202
    receipt = answer.json
    (row,) = crm.rows("SELECT * FROM approvals WHERE id = ?", receipt["id"])
    assert (row["event"], row["natural_key"], row["digest"]) == (
        event,
        receipt["natural_key"],
        receipt["digest"],
    )
    assert receipt["natural_key"] == key_of(event, payload)
    assert (receipt["status"], receipt["duplicate"]) == ("pending_approval", False)


@ON_BOTH
@EACH
def test_the_same_webhook_id_and_content_get_the_same_receipt(crm: Crm, event: str) -> None:
    payload, webhook_id = FACTORIES[event](), str(uuid.uuid4())
    first = post(crm, event, payload, webhook_id=webhook_id)
    second = post(crm, event, payload, webhook_id=webhook_id)
    assert second.status == 202
    assert second.json == {**first.json, "duplicate": True}


@ON_BOTH
@EACH
@pytest.mark.parametrize("webhook_id", ["", "another-id"])
def test_the_natural_key_counts_whatever_the_webhook_id(crm: Crm, event: str, webhook_id: str) -> None:
    payload = FACTORIES[event]()
    first = post(crm, event, payload, webhook_id=str(uuid.uuid4()))
    second = post(crm, event, payload, webhook_id=webhook_id and f"{webhook_id}-{event}")
    assert second.status == 202
    assert second.json == {**first.json, "duplicate": True}


@ON_BOTH
@EACH
def test_a_double_click_a_moment_later_is_a_duplicate(crm: Crm, event: str) -> None:
    payload = FACTORIES[event]()
    first = post(crm, event, payload)
    payload["metadata"]["timestamp"] = "2024-12-13T10:00:07.5+01:00"
    assert post(crm, event, payload).json == {**first.json, "duplicate": True}


@ON_BOTH
def test_the_same_moment_written_in_another_zone_is_a_duplicate(crm: Crm) -> None:
    payload = repair_request(repair__createdAt="2024-12-13T10:00:00.500Z")
    first = post(crm, "repair-request", payload)
    payload["repair"]["createdAt"] = "2024-12-13T11:00:00.5+01:00"
    assert post(crm, "repair-request", payload).json == {**first.json, "duplicate": True}


@ON_BOTH
@EACH
def test_other_content_under_one_natural_key_is_a_conflict_that_names_what_is_there(
    crm: Crm, event: str
) -> None:
    payload = FACTORIES[event]()
    first = post(crm, event, payload)
    block, name = WEBHOOKS[event].times[0]
    payload[block][name] = "2024-12-13T10:00:01Z"
    answer = post(crm, event, payload)
    assert (answer.status, answer.type) == (409, "conflict")
    assert answer.json["existing"] == {"id": first.json["id"], "event": event}
    assert len(crm.rows("SELECT 1 FROM approvals WHERE natural_key = ?", first.json["natural_key"])) == 1


@ON_BOTH
def test_a_webhook_id_of_another_event_is_a_conflict(crm: Crm) -> None:
    webhook_id = str(uuid.uuid4())
    first = post(crm, "repair-request", repair_request(), webhook_id=webhook_id)
    for event, payload in [
        ("repair-request", repair_request()),
        ("customer-registration", customer_registration()),
    ]:
        answer = post(crm, event, payload, webhook_id=webhook_id)
        assert (answer.status, answer.type) == (409, "webhook-id-conflict")
        assert answer.json["existing"] == {"id": first.json["id"], "event": "repair-request"}


@ON_BOTH
def test_one_natural_key_may_name_a_customer_and_a_repair(crm: Crm) -> None:
    key = f"shared-{uuid.uuid4()}"
    repair = post(crm, "repair-request", repair_request(repair__websiteRepairId=key))
    customer = post(crm, "customer-registration", customer_registration(customer__websiteUserId=key))
    assert (repair.status, customer.status) == (202, 202)
    assert customer.json["duplicate"] is False


@ON_BOTH
@PERSONAL
def test_the_payload_is_stored_character_for_character(crm: Crm, event: str) -> None:
    payload = FACTORIES[event](customer__firstName="Zoë 🦊")
    text = json.dumps(payload, ensure_ascii=False, indent=3).replace("Ada", "\\u0041da")
    answer = post(crm, event, text.encode())
    (row,) = crm.rows("SELECT payload FROM approvals WHERE id = ?", answer.json["id"])
    assert row["payload"] == text


@ON_BOTH
@EACH
def test_a_test_webhook_checks_everything_and_stores_nothing(crm: Crm, event: str) -> None:
    payload = FACTORIES[event]()
    answer = post(crm, event, payload, webhook_test="true")
    assert (answer.status, answer.json) == (200, {"status": "test_ok"})
    assert not crm.rows("SELECT 1 FROM approvals WHERE natural_key = ?", key_of(event, payload))


@ON_BOTH
def test_a_test_webhook_gets_the_refusal_that_a_real_one_would(crm: Crm) -> None:
    payload = repair_request()
    post(crm, "repair-request", payload)
    assert post(crm, "repair-request", payload, webhook_test="true").json == {"status": "test_ok"}
    payload["repair"]["notes"] = "Other"
    assert post(crm, "repair-request", payload, webhook_test="true").type == "conflict"
    assert post(crm, "repair-request", {}, webhook_test="true").type == "invalid-event"
    assert post(crm, "repair-request", payload, webhook_test="true", authorization="").status == 401


def test_the_reserved_natural_key_needs_the_header_of_a_test(crm: Crm) -> None:
    for event, payload in [
        ("repair-request", repair_request(repair__websiteRepairId="webhook-test")),
        ("customer-registration", customer_registration(customer__websiteUserId="webhook-test")),
    ]:
        assert post(crm, event, payload).type == "reserved-natural-key"
        assert post(crm, event, payload, webhook_test="true").status == 200


@pytest.mark.parametrize("value", ["false", "TRUE", "1", "true, true"])
def test_any_other_value_of_webhook_test_is_malformed(crm: Crm, value: str) -> None:
    answer = post(crm, "repair-request", repair_request(), webhook_test=value)
    assert (answer.status, answer.type, answer.pointers) == (400, "malformed-request", ["#webhook-test"])


def test_every_faulty_header_is_named_at_once(crm: Crm) -> None:
    answer = post(
        crm,
        "repair-request",
        repair_request(),
        webhook_id="not/an id",
        webhook_test="maybe",
        webhook_timestamp="now",
    )
    assert answer.status == 400
    assert sorted(answer.pointers) == ["#webhook-id", "#webhook-test", "#webhook-timestamp"]
    assert b"not/an id" not in answer.body


def test_the_newest_release_may_be_named(crm: Crm) -> None:
    assert post(crm, "repair-request", repair_request(), webhook_contract=CURRENT).status == 202


@pytest.mark.parametrize("release", ["9.9.9", "1", "1.0", "v1.0.0"])
def test_an_unknown_release_is_refused_with_those_that_are_known(crm: Crm, release: str) -> None:
    answer = post(crm, "repair-request", repair_request(), webhook_contract=release)
    assert (answer.status, answer.type) == (400, "unsupported-contract-version")
    assert answer.json["versions"] == list(RELEASES)


@pytest.mark.parametrize(
    "authorization", ["", "Bearer wrong", "Bearer", "Basic YTpi", "Bearer KEY x", "KEY", "Bearer KEYx"]
)
def test_no_key_and_wrong_keys_are_unauthorized(crm: Crm, authorization: str) -> None:
    answer = post(
        crm, "repair-request", repair_request(), authorization=authorization.replace("KEY", crm.key)
    )
    assert (answer.status, answer.type) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_the_scheme_of_the_key_is_read_in_any_case(crm: Crm) -> None:
    answer = post(crm, "repair-request", repair_request(), authorization=f"bEARER  {crm.key}")
    assert answer.status == 202


@pytest.mark.parametrize(
    "path", ["", "/", "/nope", "/repair-request/", "/health/", "//health", "/openapi.json", "/ui/", "/Health"]
)
def test_an_unknown_path_is_not_found(crm: Crm, path: str) -> None:
    answer = send(crm, "GET", path, authorization="")
    assert (answer.status, answer.type) == (404, "not-found")


@EACH
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_wrong_method_is_told_the_right_one_before_the_key_is_looked_at(
    crm: Crm, event: str, method: str
) -> None:
    answer = send(crm, method, f"/{event}", authorization="")
    assert (answer.status, answer.type, answer.headers["allow"]) == (405, "method-not-allowed", "POST")


def test_health_answers_get_and_head_alone(crm: Crm) -> None:
    assert send(crm, "HEAD", "/health", authorization="").status == 200
    answer = send(crm, "POST", "/health", b"{}")
    assert answer.status == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_health_needs_no_key_and_names_the_releases(crm: Crm) -> None:
    answer = send(crm, "GET", "/health", authorization="")
    assert answer.status == 200
    assert (answer.json["status"], answer.json["database"]) == ("ok", "ok")
    assert answer.json["contract"] == {"versions": list(RELEASES)}


def test_a_body_that_is_too_large_is_refused(crm: Crm) -> None:
    answer = post(crm, "repair-request", b" " * 1_048_577)
    assert (answer.status, answer.type) == (413, "content-too-large")


def test_a_body_of_the_largest_size_is_read(crm: Crm) -> None:
    body = json.dumps(repair_request()).encode()
    assert post(crm, "repair-request", body + b" " * (1_048_576 - len(body))).status == 202


@pytest.mark.parametrize(
    "media_type",
    [
        "Application/JSON",
        "application/json;charset=UTF-8",
        'application/json; charset="utf-8"',
        "application/json; v=1",
    ],
)
def test_json_may_be_called_json_in_any_case_and_with_parameters(crm: Crm, media_type: str) -> None:
    assert post(crm, "repair-request", repair_request(), content_type=media_type).status == 202
    assert post(crm, "repair-request", {"nonsense": 1}, content_type=media_type).type == "invalid-event"


@pytest.mark.parametrize(
    "media_type",
    [
        "",
        "text/plain",
        "application/json; charset=latin-1",
        "application/merge-patch+json",
        "*/*",
        "application/*",
    ],
)
def test_other_media_types_are_unsupported(crm: Crm, media_type: str) -> None:
    answer = post(crm, "repair-request", repair_request(), content_type=media_type)
    assert (answer.status, answer.type) == (415, "unsupported-media-type")


def test_a_compressed_body_is_unsupported(crm: Crm) -> None:
    assert post(crm, "repair-request", repair_request(), content_encoding="gzip").status == 415
    assert post(crm, "repair-request", repair_request(), content_encoding="identity").status == 202


def test_checks_come_in_the_order_that_is_documented(crm: Crm) -> None:
    faulty = {"content_type": "text/plain", "webhook_id": "not an id"}
    large = b" " * 1_048_577
    assert send(crm, "POST", "/nope", large, **faulty, authorization="x").status == 404
    assert send(crm, "PUT", "/repair-request", large, **faulty, authorization="x").status == 405
    assert post(crm, "repair-request", large, **faulty, authorization="x").status == 401
    assert post(crm, "repair-request", large, **faulty).status == 413
    assert post(crm, "repair-request", b"{}", **faulty).status == 415
    assert post(crm, "repair-request", b"{}", webhook_id="not an id").type == "malformed-request"
    assert post(crm, "repair-request", b"{").type == "invalid-json"
    assert post(crm, "repair-request", b"{}").type == "invalid-event"
