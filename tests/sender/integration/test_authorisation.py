"""Who may do what: every operation of both contracts, and every path beside them, by everybody there is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from generated.operations import CURRENT
from sender.integration.app import BASE_PATHS
from sender.integration.contract import load_contract
from tests.factories import repair_request
from tests.sender.integration.server import JSON, TOKEN, Server, type_of
from tests.servers import KEY

EVERYBODY = {
    "nobody": "",
    "a wrong token": "Bearer wrong",
    "an empty token": "Bearer",
    "another scheme": f"Basic {TOKEN}",
    "the API key": f"Bearer {KEY}",
    "the admin token": f"Bearer {TOKEN}",
}
OPENS = {"webhookKey": "the API key", "adminToken": "the admin token", "adminSession": "a session"}


def matrix() -> Iterator[Any]:
    """Yield everybody with every operation of the contracts."""
    for name, base in BASE_PATHS.items():
        contract = load_contract(name)
        for path, item in contract["paths"].items():
            for method, operation in item.items():
                schemes = operation.get("security", contract["security"])
                openers = {OPENS[scheme] for scheme_set in schemes for scheme in scheme_set}
                for who in EVERYBODY:
                    may = not openers or who in openers
                    case = (who, method.upper(), base + path, operation, may)
                    yield pytest.param(*case, id=f"{operation['operationId']} by {who}")


def receipt_of(server: Server) -> str:
    """Have the door take an event; return its receipt's id."""
    content = json.dumps(repair_request()).encode()
    key = EVERYBODY["the API key"]
    answer = server.ask("POST", "/webhooks/repair-request", content, authorization=key, **JSON)
    receipt_id: str = answer.json()["id"]
    return receipt_id


@pytest.mark.parametrize(("who", "method", "path", "operation", "may"), [*matrix()])
def test_everybody_may_do_what_the_contract_says_and_nothing_else(
    server: Server, who: str, method: str, path: str, operation: dict[str, Any], may: bool
) -> None:
    content, kind = None, {}
    if "requestBody" in operation:
        media = operation["requestBody"]["content"]["application/json"]
        examples = [example["value"] for example in media.get("examples", {}).values()]
        content, kind = json.dumps([*examples, media.get("example")][0]).encode(), JSON
    given = {"authorization": EVERYBODY[who]} if EVERYBODY[who] else {}
    # From an address of their own each: who fails too often is answered 429.
    source = f"127.0.1.{list(EVERYBODY).index(who) + 1}"
    path = path.replace("{id}", receipt_of(server)) if "{id}" in path else path
    answer = server.ask(method, path, content, source=source, **given, **kind, webhook_test="true")
    if may:
        assert answer.status_code == 200, answer.text
    else:
        assert (answer.status_code, type_of(answer)) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("who", EVERYBODY)
def test_a_bearer_token_opens_no_page(server: Server, who: str) -> None:
    given = {"authorization": EVERYBODY[who]} if EVERYBODY[who] else {}
    assert server.ask("POST", "/admin", **given).status_code >= 400


@pytest.mark.parametrize("who", EVERYBODY)
def test_metrics_are_open_to_whoever_reaches_the_port(server: Server, who: str) -> None:
    assert server.ask("GET", "/metrics", authorization=EVERYBODY[who] or "-").status_code == 200


def test_each_contract_names_how_every_operation_is_opened() -> None:
    for name in BASE_PATHS:
        contract = load_contract(name)
        assert contract["security"], name
        known = set(contract["components"]["securitySchemes"])
        assert known <= set(OPENS)
    assert {op["operationId"] for op in open_operations()} == {"health", "get-status"}


def open_operations() -> Iterator[dict[str, Any]]:
    """Yield the operations that need nothing."""
    for name in (CURRENT, "integration"):
        for item in load_contract(name)["paths"].values():
            yield from (operation for operation in item.values() if operation.get("security") == [])
