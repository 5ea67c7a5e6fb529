"""Signed webhooks (Standard Webhooks), with the library of that project as an independent client."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.crm_server.answers import JSON, Answer, post, raw, send, webhook
from tests.factories import repair_request
from tests.servers import Crm, start_crm

OLD = "whsec_" + base64.b64encode(b"the old secret of the tests.....").decode()
NEW = base64.b64encode(b"the new secret of the tests.....").decode()
OTHER = "whsec_" + base64.b64encode(b"a secret that the CRM has not...").decode()


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server that has an old and a new secret, while they rotate."""
    with start_crm(tmp_path_factory.mktemp("signing"), WEBHOOK_SIGNING_SECRET=f"{OLD},{NEW}") as crm:
        yield crm
    assert NEW not in crm.log


def signed(
    body: bytes, secret: str = OLD, *, seconds: int = 0, webhook_id: str | None = None
) -> dict[str, str]:
    """Return the headers of a body that was signed some seconds ago."""
    at = datetime.now(UTC) - timedelta(seconds=seconds)
    name = webhook_id or f"id-{at.timestamp()}"
    return {
        "webhook-id": name,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(name, at, body.decode()),
    }


def send_signed(crm: Crm, body: bytes, headers: dict[str, str]) -> Answer:
    return send(crm, "POST", "/repair-request", body, **headers)


def event(**over: Any) -> bytes:
    return json.dumps(repair_request(**over)).encode()


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_each_secret_vouches_while_they_rotate(signing: Crm, secret: str) -> None:
    body = event()
    assert send_signed(signing, body, signed(body, secret)).status == 202


def test_one_of_several_signatures_is_enough(signing: Crm) -> None:
    body = event()
    headers = signed(body)
    other = Webhook(OTHER).sign(headers["webhook-id"], datetime.now(UTC), body.decode())
    headers["webhook-signature"] = f"{other} v2,AAAA {headers['webhook-signature']}"
    assert send_signed(signing, body, headers).status == 202


@pytest.mark.parametrize("seconds", [280, -280])
def test_a_clock_may_differ_by_nearly_five_minutes(signing: Crm, seconds: int) -> None:
    body = event()
    assert send_signed(signing, body, signed(body, seconds=seconds)).status == 202


REFUSED: dict[str, dict[str, str]] = {
    "another secret": {"secret": OTHER},
    "no id": {"webhook-id": ""},
    "no time": {"webhook-timestamp": ""},
    "no signature": {"webhook-signature": ""},
    "another id": {"webhook-id": "another"},
    "another time": {"webhook-timestamp": str(int(datetime.now(UTC).timestamp()) + 60)},
    "a time that is none": {"webhook-timestamp": "nan"},
    "a signature that is none": {"webhook-signature": "nonsense"},
    "no base64": {"webhook-signature": "v1,A"},
    "another version": {"webhook-signature": "v2,AAAA"},
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_rightly_signed_is_refused(signing: Crm, what: str) -> None:
    body, over = event(), dict(REFUSED[what])
    headers = signed(body, over.pop("secret", OLD)) | over
    headers = {name: value for name, value in headers.items() if value}
    answer = send_signed(signing, body, headers)
    assert (answer.status, answer.type) == (401, "invalid-signature")


def test_odd_characters_and_a_header_twice_are_refused(signing: Crm) -> None:
    payload = repair_request()
    headers = signed(json.dumps(payload).encode())
    lines = [f"{name}: {value}" for name, value in headers.items()]
    odd = [*lines[:2], "webhook-signature: v1,\xe9"]
    for wrong in (odd, [*lines, lines[0]], [*lines, lines[2]]):
        assert raw(signing, webhook(signing, payload, *wrong)).type == "invalid-signature"
    assert raw(signing, webhook(signing, payload, *lines)).status == 202


def test_a_thousand_signatures_are_not_looked_through(signing: Crm) -> None:
    body = event()
    headers = signed(body)
    headers["webhook-signature"] = "v1,AAAA " * 1000 + headers["webhook-signature"]
    assert send_signed(signing, body, headers).type == "invalid-signature"


@pytest.mark.parametrize("seconds", [310, -310])
def test_an_old_signature_and_one_of_the_future_are_refused(signing: Crm, seconds: int) -> None:
    body = event()
    assert send_signed(signing, body, signed(body, seconds=seconds)).type == "invalid-signature"


def test_a_body_that_was_changed_on_the_way_is_refused(signing: Crm) -> None:
    assert send_signed(signing, event(), signed(event())).type == "invalid-signature"


def test_a_body_that_is_no_utf8_is_refused(signing: Crm) -> None:
    assert send_signed(signing, b'"\xff"', signed(b"{}")).type == "invalid-signature"


def test_a_body_that_breaks_json_readers_is_a_400_when_it_is_signed(signing: Crm) -> None:
    for body in (b"[NaN]", b"[" * 100_000, b"9" * 5_000, b""):
        assert send_signed(signing, body, signed(body)).type == "invalid-json"


def test_a_test_webhook_is_signed_too(signing: Crm) -> None:
    body = event()
    assert post(signing, "repair-request", body, **{"webhook-test": "true"}).type == "invalid-signature"
    assert send_signed(signing, body, {**signed(body), "webhook-test": "true"}).json == {"status": "test_ok"}


def test_health_needs_no_signature(signing: Crm) -> None:
    assert send(signing, "GET", "/health").status == 200


def test_a_second_sending_is_a_duplicate_under_a_new_signature(signing: Crm) -> None:
    body = event()
    first, second = (
        send_signed(signing, body, signed(body, seconds=seconds, webhook_id=f"again-{id(body)}"))
        for seconds in (30, 0)
    )
    assert (first.json["duplicate"], second.json["duplicate"]) == (False, True)


def test_without_a_secret_signatures_are_not_looked_at(crm: Crm) -> None:
    body = event()
    assert send(crm, "POST", "/repair-request", body, **JSON, **signed(event(), OTHER)).status == 202
