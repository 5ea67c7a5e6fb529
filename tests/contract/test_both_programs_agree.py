"""The real sender and the real CRM, asked: they take what the oracle takes of the contract, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generated.operations import CURRENT, MODELS, WEBHOOKS
from sender import InvalidEvent
from sender.events import event_of
from tests.contract.contracts import body_schema, oracle
from tests.contract.strategies import (
    JSON_VALUES,
    NASTY_TIMES,
    ODD_TIMES,
    PYTHON_VALUES,
    WHOLE_MINUTES,
    bodies,
    spoiled,
)
from tests.contract.test_validators_agree import build
from tests.servers import start_crm

patient = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])

RFC3339 = st.datetimes(timezones=WHOLE_MINUTES).map(lambda time: time.isoformat()) | NASTY_TIMES
SCHEMAS = {name: body_schema(CURRENT, name) for name in WEBHOOKS}


@pytest.fixture(scope="module")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Yield a client of a started CRM whose webhooks are tests, so that none conflicts with another."""
    with start_crm(tmp_path_factory.mktemp("crm")) as server:
        headers = {
            "authorization": f"Bearer {server.key}",
            "content-type": "application/json",
            "webhook-test": "true",
        }
        with httpx.Client(base_url=server.url, headers=headers) as client:
            yield client


def crm_takes(crm: httpx.Client, name: str, payload: str) -> bool:
    """Return whether the CRM would accept a body, or refuse it as the contract documents."""
    answer = crm.post(f"/{name}", content=payload)
    verdict = answer.status_code, answer.json().get("type")
    assert verdict in [(200, None), (400, "invalid-event"), (400, "invalid-json")]
    return answer.status_code == 200


def sender_takes(name: str, source: Any) -> str | None:
    """Return the body that the sender would send, or None where it refuses."""
    try:
        return event_of(name, source).payload
    except InvalidEvent:
        return None


@pytest.mark.parametrize("name", WEBHOOKS)
@patient
@given(data=st.data())
def test_sender_and_crm_take_what_the_contract_takes(
    crm: httpx.Client, name: str, data: st.DataObject
) -> None:
    whole = bodies(SCHEMAS[name], RFC3339)
    body = data.draw(whole | spoiled(whole, JSON_VALUES))
    says = oracle(SCHEMAS[name]).is_valid(body)
    assert crm_takes(crm, name, json.dumps(body)) is says
    assert (isinstance(body, dict) and sender_takes(name, body) is not None) is says


@pytest.mark.parametrize("name", MODELS)
@patient
@given(data=st.data())
def test_whatever_a_model_lets_one_build_is_sent_and_taken(
    crm: httpx.Client, name: str, data: st.DataObject
) -> None:
    whole = bodies(SCHEMAS[name], ODD_TIMES)
    model = build(name, data.draw(whole | spoiled(whole, PYTHON_VALUES)))
    if model is not None:
        payload = sender_takes(name, model)
        assert payload is not None
        assert crm_takes(crm, name, payload)
