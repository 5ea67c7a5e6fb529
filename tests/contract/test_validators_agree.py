"""Four readers of one contract agree: jsonschema (the oracle), jsonschema-rs, and the models both ways.

What a model lets booking code build, the CRM accepts; what the schema accepts, the model can carry. A difference
is mended in `openapi/`, by a rule that cannot be read in two ways, never here.

Not in here, because both programs refuse it before any schema is asked: NaN, infinities and lone surrogates in
received JSON.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from generated.base import ContractModel
from generated.operations import CURRENT, MODELS, WEBHOOKS
from tests.contract.contracts import RELEASED_WEBHOOKS, body_schema, example, guide_payload, oracle, validator
from tests.contract.strategies import (
    JSON_VALUES,
    NASTY_TIMES,
    ODD_TIMES,
    PYTHON_VALUES,
    WHOLE_MINUTES,
    bodies,
    spoiled,
)

patient = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])

SCHEMAS = {found: body_schema(*found) for found in RELEASED_WEBHOOKS}
ORACLES = {found: oracle(schema) for found, schema in SCHEMAS.items()}
VALIDATORS = {found: validator(schema) for found, schema in SCHEMAS.items()}

RFC3339 = st.datetimes(timezones=WHOLE_MINUTES).map(lambda time: time.isoformat()) | NASTY_TIMES

_NUMBERS = """
0 -0 -0.0 300 300.0 3e2 3E+2 0.1e1 1e-7 5e-324 1e-400 1e300 1000000 1000000.0 1000000.00000000001 1000000.0000000002
1000001 -1 9007199254740991 9007199254740992 -9007199254740992 9007199254740991.4 123456789012345678901234567890
"""


def accepted(webhook: str, body: Any, release: str = CURRENT) -> bool:
    """Return whether the contract accepts a body, once both validators have said the same."""
    says = ORACLES[release, webhook].is_valid(body)
    assert VALIDATORS[release, webhook].is_valid(body) is says
    return bool(says)


def written(model: ContractModel) -> str:
    """Return a model as the sender writes it."""
    return model.model_dump_json(by_alias=True, exclude_none=True)


def build(webhook: str, arguments: Any) -> ContractModel | None:
    """Return the model that booking code gets, or None where it is refused."""
    try:
        return MODELS[webhook].model_validate(arguments)
    except ValidationError:
        return None


LINE = {"type": "string", "maxLength": 9, "pattern": "^[a-z]*$"}
KINDS: dict[str, dict[str, Any]] = {
    "whole numbers": {"type": "integer", "minimum": 1, "maximum": 5},
    "steps": {"type": "number", "minimum": 0, "maximum": 9, "multipleOf": 0.5},
    "whole steps": {"type": "integer", "minimum": 1, "maximum": 9, "multipleOf": 2},
    "a list of one or two": {"type": "array", "minItems": 1, "maxItems": 2, "items": LINE},
    "nothing required": {"type": "object", "additionalProperties": False, "properties": {"name": LINE}},
    "any names": {"type": "object", "maxProperties": 9, "additionalProperties": LINE},
}
"""Fields that a contract may have one day, and that tests must be able to draw."""


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_what_is_drawn_of_a_field_is_right_whatever_kind_it_is(kind: str, data: st.DataObject) -> None:
    assert oracle(KINDS[kind]).is_valid(data.draw(bodies(KINDS[kind], RFC3339)))


@pytest.mark.parametrize("webhook", WEBHOOKS)
@patient
@given(data=st.data())
def test_whatever_a_model_lets_one_build_the_contract_accepts(webhook: str, data: st.DataObject) -> None:
    whole = bodies(SCHEMAS[CURRENT, webhook], ODD_TIMES)
    model = build(webhook, data.draw(whole | spoiled(whole, PYTHON_VALUES)))
    if model is not None:
        assert accepted(webhook, json.loads(written(model)))


@pytest.mark.parametrize("webhook", WEBHOOKS)
@patient
@given(data=st.data())
def test_what_the_contract_has_in_mind_a_model_lets_one_build(webhook: str, data: st.DataObject) -> None:
    times = st.datetimes(timezones=WHOLE_MINUTES)
    model = build(webhook, data.draw(bodies(SCHEMAS[CURRENT, webhook], times)))
    assert model is not None
    assert accepted(webhook, json.loads(written(model)))


@pytest.mark.parametrize(("release", "webhook"), RELEASED_WEBHOOKS)
@patient
@given(data=st.data())
def test_validators_agree_and_what_they_accept_the_model_carries(
    release: str, webhook: str, data: st.DataObject
) -> None:
    whole = bodies(SCHEMAS[release, webhook], RFC3339)
    body = data.draw(whole | spoiled(whole, JSON_VALUES) | spoiled(spoiled(whole, JSON_VALUES), JSON_VALUES))
    if accepted(webhook, body, release) and release == CURRENT:
        model = MODELS[webhook].model_validate_json(json.dumps(body), by_alias=True, by_name=False)
        assert accepted(webhook, json.loads(written(model)))


@pytest.mark.parametrize("webhook", WEBHOOKS)
@given(body=JSON_VALUES)
def test_validators_agree_about_any_json(webhook: str, body: Any) -> None:
    assert not accepted(webhook, body)


@pytest.mark.parametrize("number", _NUMBERS.split())
@pytest.mark.parametrize(
    ("webhook", "place"), [("repair-request", "estimatedCost"), ("customer-registration", "preferences")]
)
def test_a_number_counts_by_its_value_however_it_is_written(webhook: str, place: str, number: str) -> None:
    old, new = {"estimatedCost": ("299.99", number), "preferences": ("{}", f'{{"size": {number}}}')}[place]
    text = guide_payload(webhook).replace(old, new)
    assert new in text
    if accepted(webhook, json.loads(text)):
        model = MODELS[webhook].model_validate_json(text, by_alias=True, by_name=False)
        assert accepted(webhook, json.loads(written(model)))


@pytest.mark.parametrize("text", ["\ud800", "\x00", "x\ud800x", "x\n"])
def test_a_model_refuses_what_no_reader_takes(text: str) -> None:
    registration = json.loads(guide_payload("customer-registration"))
    assert (
        build(
            "customer-registration",
            registration | {"customer": registration["customer"] | {"firstName": text}},
        )
        is None
    )
    assert (
        build(
            "customer-registration",
            registration | {"customer": registration["customer"] | {"preferences": {text: 1}}},
        )
        is None
    )


@pytest.mark.parametrize("offset", [timedelta(seconds=30), timedelta(days=-1, microseconds=1), None])
def test_a_model_refuses_a_time_that_rfc_3339_cannot_write(offset: timedelta | None) -> None:
    time = datetime(2024, 12, 13, 10, tzinfo=timezone(offset) if offset else None)
    registration = json.loads(guide_payload("customer-registration"))
    assert build("customer-registration", registration | {"metadata": {"timestamp": time}}) is None


@pytest.mark.parametrize("webhook", WEBHOOKS)
def test_a_model_refuses_field_names_that_the_contract_does_not_know(webhook: str) -> None:
    body = example(webhook)
    body["customer"]["website_user_id"] = body["customer"].pop("websiteUserId")
    assert not accepted(webhook, body)
    with pytest.raises(ValidationError) as error:
        MODELS[webhook].model_validate_json(json.dumps(body), by_alias=True, by_name=False)
    assert "rev_user_123" not in str(error.value)
