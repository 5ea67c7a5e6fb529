"""Which refusal comes first: each request has every fault that a later check would find."""

import json
from collections.abc import Iterator

import pytest

from tests.crm_server.answers import Answer, head, raw
from tests.crm_server.test_signatures import OLD, signed
from tests.factories import repair_request
from tests.servers import KEY, Crm, start_crm

SPENT = "a-key-that-is-used-too-often"
INSIDE, OUTSIDE, GUESSER = "127.0.0.2", "127.0.0.1", "127.0.0.3"
HOOK = "/webhooks/repair-request"
RECEIPT, NO_RECEIPT = "/webhooks/receipts/none", "/webhooks/receipts/a,b"
JSON, TEXT = "application/json", "text/plain"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server with every protection, at which one key and one address have used up what they may."""
    with start_crm(
        tmp_path_factory.mktemp("strict"),
        WEBHOOK_API_KEY=f"{KEY},{SPENT}",
        WEBHOOK_ALLOWED_NETWORKS="127.0.0.2/31",
        WEBHOOK_RATE_LIMIT="30/hour",
        WEBHOOK_AUTH_FAILURE_LIMIT="30/hour",
        WEBHOOK_SIGNING_SECRET=OLD,
        WEBHOOK_MAX_BODY_BYTES="2000",
    ) as crm:
        for _ in range(30):
            assert ask(crm, INSIDE, "POST", HOOK, SPENT, TEXT, b"{").status == 415
            assert ask(crm, GUESSER, "POST", HOOK, "wrong", TEXT, b"{").status == 401
        yield crm


STORED = json.dumps(repair_request()).encode()
OTHER = STORED.replace(b"cracked", b"scratched")
HUGE, BAD, NEW = b"{" * 3000, b"{", json.dumps(repair_request()).encode()


@pytest.mark.parametrize(
    ("source", "method", "path", "key", "kind", "body", "is_signed", "status", "type_"),
    [
        (OUTSIDE, "DELETE", "/nope", "wrong", TEXT, HUGE, False, 403, "forbidden-network"),
        (GUESSER, "DELETE", "/webhooks/nope", "wrong", TEXT, HUGE, False, 404, "not-found"),
        (GUESSER, "DELETE", HOOK, "wrong", TEXT, HUGE, False, 405, "method-not-allowed"),
        (GUESSER, "POST", HOOK, "wrong", TEXT, HUGE, False, 429, "too-many-requests"),
        (INSIDE, "POST", HOOK, "wrong", TEXT, HUGE, False, 401, "unauthorized"),
        (GUESSER, "POST", HOOK, SPENT, TEXT, HUGE, False, 429, "too-many-requests"),
        (GUESSER, "POST", HOOK, KEY, TEXT, HUGE, False, 413, "content-too-large"),
        (GUESSER, "POST", HOOK, KEY, TEXT, BAD, False, 415, "unsupported-media-type"),
        (GUESSER, "POST", HOOK, KEY, JSON, BAD, False, 401, "invalid-signature"),
        (GUESSER, "POST", HOOK, KEY, JSON, BAD, True, 400, "invalid-json"),
        (GUESSER, "POST", HOOK, KEY, JSON, STORED, True, 202, None),
        (GUESSER, "POST", HOOK, KEY, JSON, OTHER, True, 409, "conflict"),
        (GUESSER, "POST", HOOK, KEY, JSON, NEW, True, 202, None),
        (OUTSIDE, "GET", NO_RECEIPT, "wrong", TEXT, HUGE, False, 403, "forbidden-network"),
        (GUESSER, "PUT", NO_RECEIPT, "wrong", TEXT, HUGE, False, 405, "method-not-allowed"),
        (GUESSER, "GET", NO_RECEIPT, "wrong", TEXT, HUGE, False, 429, "too-many-requests"),
        (INSIDE, "GET", NO_RECEIPT, "wrong", TEXT, HUGE, False, 401, "unauthorized"),
        (GUESSER, "GET", NO_RECEIPT, SPENT, TEXT, HUGE, False, 429, "too-many-requests"),
        (GUESSER, "GET", NO_RECEIPT, KEY, TEXT, HUGE, False, 400, "malformed-request"),
        (GUESSER, "GET", RECEIPT, KEY, TEXT, HUGE, False, 404, "unknown-receipt"),
    ],
    ids=lambda value: str(value) if isinstance(value, int) and not isinstance(value, bool) else "",
)
def test_the_first_check_that_fails_answers(
    strict: Crm,
    source: str,
    method: str,
    path: str,
    key: str,
    kind: str,
    body: bytes,
    is_signed: bool,
    status: int,
    type_: str | None,
) -> None:
    answer = ask(strict, source, method, path, key, kind, body, is_signed=is_signed)
    assert answer.status == status
    if type_ is not None:
        assert answer.type == type_
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["server"] == "crm"


def ask(
    crm: Crm,
    source: str,
    method: str,
    path: str,
    key: str,
    kind: str,
    body: bytes,
    *,
    is_signed: bool = False,
) -> Answer:
    headers = signed(body) if is_signed else {}
    lines = [f"Content-Type: {kind}", f"Content-Length: {len(body)}", *map(": ".join, headers.items())]
    request = head(crm, method, path, *lines) + body
    return raw(crm, request.replace(crm.key.encode(), key.encode(), 1), source=source)
