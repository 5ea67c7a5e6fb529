"""The same cases against a stock Connexion app on the same contract: where we differ, and why.

Stock is Connexion as its tutorial shows it: `AsyncApp`, the contract, a handler an operation. Ours
is a started server. A difference that is not explained here is a surprise, and so is an explained
one that is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import yaml
from connexion.apps.asynchronous import AsyncApp
from connexion.resolver import Resolver
from starlette.testclient import TestClient

from generated.operations import WEBHOOKS
from tests.factories import repair_request
from tests.servers import KEY, NO_TLS, ROOT, Crm, start_crm

PATH = "/webhooks/repair-request"
JSON = {"content-type": "application/json"}
BEARER = {"authorization": f"Bearer {KEY}"}


@dataclass(frozen=True)
class Case:
    """A request, what either side answers, and why they differ."""

    name: str
    ours: int
    stock: int
    why: str = ""
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: JSON | BEARER)
    method: str = "POST"
    path: str = PATH


def body(**over: Any) -> bytes:
    return json.dumps(repair_request(**over)).encode()


CASES = [
    Case("valid", 202, 202, body=body()),
    Case("a field is missing", 400, 400, body=body(repair__ticketNumber=...)),
    Case("a field has the wrong type", 400, 400, body=body(repair__estimatedCost="cheap")),
    Case("an unknown field", 400, 400, body=body(repair__colour="red")),
    Case("no key", 401, 401, body=body(), headers=JSON),
    Case("a wrong key", 401, 401, body=body(), headers=JSON | {"authorization": "Bearer wrong"}),
    Case("an unknown path", 404, 404, body=body(), path="/webhooks/refund"),
    Case("a wrong method", 405, 405, method="PUT", body=body()),
    Case("a wrong media type", 415, 415, body=body(), headers=BEARER | {"content-type": "text/plain"}),
    Case("not JSON", 400, 400, body=b"{"),
    Case("the 30th of February", 400, 400, body=body(repair__createdAt="2024-02-30T10:00:00Z")),
    Case("health", 200, 200, method="GET", path="/webhooks/health", headers={}),
    Case(
        "a media type in upper case", 400, 202,
        "media types ignore case (RFC 9110): stock skips validation of what it does not recognise",
        body=body(repair__ticketNumber=...), headers=BEARER | {"content-type": "Application/JSON"},
    ),
    Case(
        "bytes that are not UTF-8", 400, 500,
        "what a client sends is never a fault of the server",
        body=b'{"repair": "\xff"}',
    ),
    Case(
        "nested too deep", 400, 500,
        "stock runs into Python's recursion limit",
        body=b"[" * 100_000,
    ),
    Case(
        "a number of 5,000 digits", 400, 500,
        "stock runs into Python's limit for integers",
        body=b'{"repair": ' + b"9" * 5_000 + b"}",
    ),
    Case(
        "NaN", 400, 202,
        "NaN is no JSON (RFC 8259); stock reads it, and no bound stops what is not comparable",
        body=body().replace(b"299.99", b"NaN"),
    ),
    Case(
        "a name twice", 400, 202,
        "two readers would see two values (RFC 8259, section 4)",
        body=body().replace(b'"priority"', b'"priority": "low", "priority"'),
    ),
    Case(
        "an encoded body", 415, 202,
        "stock ignores Content-Encoding and reads the bytes as they are",
        body=body(), headers=JSON | BEARER | {"content-encoding": "gzip"},
    ),
    Case(
        "a trailing slash", 404, 307,
        "a redirect would carry the key to an address that the sender did not choose",
        body=body(), path=PATH + "/",
    ),
]  # fmt: skip


async def answer(**_: Any) -> tuple[dict[str, Any], int, dict[str, str]]:
    receipt = {"id": "1", "status": "pending_approval", "duplicate": False}
    return receipt | {"natural_key": "key", "digest": "0" * 64}, 202, JSON


async def health() -> tuple[dict[str, Any], int, dict[str, str]]:
    known = {"status": "ok", "database": "ok", "time": "2024-12-13T10:00:00Z", "contract": {"versions": []}}
    return known, 200, JSON


def check_key(token: str, **_: Any) -> dict[str, str] | None:
    return {"sub": "webhook"} if token == KEY else None


@pytest.fixture(scope="module")
def stock() -> Iterator[TestClient]:
    contract = yaml.safe_load((ROOT / "openapi" / "webhooks" / "v1.yaml").read_text())
    contract["components"]["securitySchemes"]["webhookKey"]["x-bearerInfoFunc"] = f"{__name__}.check_key"
    app = AsyncApp(__name__)
    handlers = {**dict.fromkeys(WEBHOOKS, answer), "receipt": answer, "health": health}
    app.add_api(contract, resolver=Resolver(handlers.__getitem__))
    with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as client:
        yield client


@pytest.fixture(scope="module")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    with start_crm(tmp_path_factory.mktemp("crm")) as started:
        yield started


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_where_we_differ_from_stock_connexion_is_explained(case: Case, crm: Crm, stock: TestClient) -> None:
    url = f"http://127.0.0.1:{crm.port}{case.path}"
    ours = httpx.request(case.method, url, headers=case.headers, content=case.body, verify=NO_TLS)
    theirs = stock.request(case.method, case.path, headers=case.headers, content=case.body)
    assert (ours.status_code, theirs.status_code) == (case.ours, case.stock)
    assert bool(case.why) == (case.ours != case.stock)
