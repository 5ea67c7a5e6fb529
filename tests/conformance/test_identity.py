"""Sender and CRM know the same event by the same digest: each against the vectors, and against the other."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from crm_server import idempotency
from generated.operations import CURRENT, RELEASES, WEBHOOKS
from sender import events
from tests.conformance.vectors import NAMES, VECTORS
from tests.contract.contracts import body_schema, oracle
from tests.contract.strategies import NASTY_TIMES, WHOLE_MINUTES, bodies

RFC3339 = st.datetimes(timezones=WHOLE_MINUTES).map(lambda time: time.isoformat()) | NASTY_TIMES
BODIES = {name: bodies(body_schema(CURRENT, name), RFC3339) for name in WEBHOOKS}
ORACLES = {name: oracle(body_schema(CURRENT, name)) for name in WEBHOOKS}


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_both_sides_agree_with_the_vectors(vector: dict[str, Any]) -> None:
    webhook = RELEASES[vector["release"]][vector["webhook"]]
    body = vector["body"]
    as_received = json.dumps(body)
    assert events.canonical_content(body, webhook) == vector["canonical"]
    assert events.digest(vector["canonical"]) == vector["digest"]
    assert events.at(body, webhook.natural_key) == vector["natural_key"]
    assert events.at(body, webhook.order_key) == vector["order_key"]
    assert idempotency.canonical_content(webhook, body) == vector["canonical"]
    assert idempotency.digest(webhook, body) == vector["digest"]
    assert json.dumps(body) == as_received


@pytest.mark.parametrize("name", WEBHOOKS)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(data=st.data())
def test_both_sides_agree_about_any_valid_body(name: str, data: st.DataObject) -> None:
    body = data.draw(BODIES[name])
    assume(ORACLES[name].is_valid(body))
    webhook = WEBHOOKS[name]
    assert events.digest(events.canonical_content(body, webhook)) == idempotency.digest(webhook, body)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
EXACT = st.integers(-(2**53) + 1, 2**53 - 1)
NUMBERS = EXACT | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=4)


@given(OBJECTS)
@settings(max_examples=500)
def test_both_sides_write_canonical_json_as_rfc_8785_says(value: dict[str, Any]) -> None:
    expected = rfc8785.dumps(value)
    assert idempotency.canonical_json(value).encode() == expected
    assert events.canonical(value).encode() == expected


@given(OBJECTS)
def test_canonical_json_means_the_same(value: dict[str, Any]) -> None:
    read = json.JSONDecoder(parse_int=float).decode
    assert read(idempotency.canonical_json(value)) == read(events.canonical(value)) == read(json.dumps(value))
