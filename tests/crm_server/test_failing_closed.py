"""What must never happen is a 500, or a refusal to start; never a pass."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from crm_server.api.webhooks import OPERATIONS
from crm_server.app import Dispatch, require_same_operations
from crm_server.middleware.problem_answers import ProblemAnswers
from crm_server.problems import TITLES
from crm_server.validation import (
    _DETAILS,
    STAFF_CONTRACT,
    ContractMismatch,
    Rules,
    load_contract,
    load_rules,
    validate,
)
from generated.operations import CURRENT
from tests.factories import repair_request


def answer_of(app: Any) -> httpx.Response:
    """Return what an ASGI app answers to a POST."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://crm") as client:
            return await client.post("/webhooks/repair-request", json=repair_request())

    return asyncio.run(ask())


def test_a_handler_that_finds_no_validated_event_answers_500(caplog: pytest.LogCaptureFixture) -> None:
    queue: Any = None

    async def routed(scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"] = {"connexion_routing": {"operation_id": "repair-request"}}
        await Dispatch(queue, OPERATIONS)(scope, receive, send)

    response = answer_of(ProblemAnswers(routed))
    assert (response.status_code, response.json()["type"]) == (500, "internal-error")
    assert "KeyError" in caplog.text


def test_an_unknown_exception_is_a_500_and_its_words_are_neither_sent_nor_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        try:
            raise ValueError("Sentinel-cause")
        except ValueError as error:
            raise RuntimeError("Sentinel-message") from error

    response = answer_of(ProblemAnswers(broken))
    assert (response.status_code, response.json()["type"]) == (500, "internal-error")
    assert "RuntimeError" in caplog.text
    assert "test_failing_closed.py" in caplog.text
    assert "Sentinel" not in caplog.text + response.text


def test_a_contract_operation_without_a_handler_stops_the_start() -> None:
    contract = load_contract()
    require_same_operations(contract, OPERATIONS)
    contract["paths"]["/payment"] = {"post": {"operationId": "payment"}}
    with pytest.raises(RuntimeError, match="payment"):
        require_same_operations(contract, OPERATIONS)


def test_a_handler_without_a_contract_operation_stops_the_start() -> None:
    contract = load_contract()
    del contract["paths"]["/health"]
    with pytest.raises(RuntimeError, match="health"):
        require_same_operations(contract, OPERATIONS)
    assert "health" in OPERATIONS


def test_schema_and_model_that_disagree_are_our_bug_told_without_values() -> None:
    (rules,) = [load_rules()[CURRENT]["repair-request"]]
    lax = Rules({}, type(rules.validator)({}), (), rules.webhook)
    body = repair_request(repair__priority="Sentinel")
    with pytest.raises(ContractMismatch) as caught:
        validate(lax, CURRENT, json.dumps(body).encode(), body)
    assert "/repair/priority" in str(caught.value)
    assert "Sentinel" not in str(caught.value)


ANNOTATIONS = {"$schema", "properties", "title", "description"}
SPECIAL = {"required", "additionalProperties", "oneOf", "propertyNames"}


def keywords(schema: Any) -> Iterator[str]:
    """Yield every keyword of a schema and of those within it."""
    for keyword, value in schema.items():
        yield keyword
        inner = value.values() if keyword == "properties" else value if isinstance(value, list) else [value]
        for part in inner:
            if isinstance(part, dict):
                yield from keywords(part)


def test_every_keyword_of_the_released_schemas_can_be_described() -> None:
    found = {
        k for webhooks in load_rules().values() for rules in webhooks.values() for k in keywords(rules.schema)
    }
    assert found - ANNOTATIONS - SPECIAL <= set(_DETAILS) | {"items"}


def test_every_type_of_problem_is_in_a_contract() -> None:
    documented = json.dumps([load_contract(), load_contract(STAFF_CONTRACT)])
    for type_ in TITLES:
        assert f"`{type_}`" in documented, type_
