"""The contract document says everything that a reader of it needs, and its examples hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from generated.operations import CURRENT, MODELS, RELEASES
from tests.contract.contracts import (
    OF_THE_GUIDE,
    RELEASED_WEBHOOKS,
    body_schema,
    contract,
    guide_payload,
    oracle,
    resolve,
    validator,
)

DOCUMENT = contract()
DELIVERIES = {"delivered", "retry", "hold", "fail"}


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and operation of everything in today's contract."""
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield f"{method} {path}", operation


def answers() -> Iterator[Any]:
    """Yield every documented answer of every operation as a test parameter."""
    for name, operation in operations():
        for status, response in operation["responses"].items():
            yield pytest.param(operation, resolve(DOCUMENT, response), id=f"{name} {status}")


def media() -> Iterator[Any]:
    """Yield every media type of a documented answer or a request body as a test parameter."""
    for name, operation in operations():
        bodies = {status: resolve(DOCUMENT, response) for status, response in operation["responses"].items()}
        if "requestBody" in operation:
            bodies["request"] = operation["requestBody"]
        for status, body in bodies.items():
            for kind, content in body.get("content", {}).items():
                yield pytest.param(content, id=f"{name} {status} {kind}")


def examples(content: dict[str, Any]) -> list[Any]:
    """Return the examples of a media type."""
    named = [example["value"] for example in content.get("examples", {}).values()]
    return [*named, *([content["example"]] if "example" in content else [])]


def as_json_schema(node: Any) -> Any:
    """Return a schema of the document with its references resolved."""
    if isinstance(node, list):
        return [as_json_schema(part) for part in node]
    if not isinstance(node, dict):
        return node
    return {key: as_json_schema(part) for key, part in resolve(DOCUMENT, node).items() if key != "example"}


def undescribed(node: Any, document: dict[str, Any] = DOCUMENT, where: str = "#") -> Iterator[str]:
    """Yield where a schema of the document lacks a description."""
    if isinstance(node, list):
        for index, part in enumerate(node):
            yield from undescribed(part, document, f"{where}/{index}")
    elif isinstance(node, dict):
        for name, part in node.get("properties", {}).items():
            if not resolve(document, part).get("description"):
                yield f"{where}/properties/{name}"
        for key, part in node.items():
            yield from undescribed(part, document, f"{where}/{key}")


@pytest.mark.parametrize(
    ("release", "webhook"), [found for found in RELEASED_WEBHOOKS if found[1] in OF_THE_GUIDE]
)
def test_the_guides_payloads_are_valid_exactly_as_printed(release: str, webhook: str) -> None:
    text = guide_payload(webhook)
    schema = body_schema(release, webhook)
    assert list(oracle(schema).iter_errors(json.loads(text))) == []
    assert validator(schema).is_valid(json.loads(text))
    MODELS[webhook].model_validate_json(text, by_alias=True, by_name=False)


@pytest.mark.parametrize("webhook", OF_THE_GUIDE)
def test_the_guides_payload_is_the_contracts_own_example(webhook: str) -> None:
    [operation] = [found for _, found in operations() if found["operationId"] == webhook]
    assert json.loads(guide_payload(webhook)) in examples(
        operation["requestBody"]["content"]["application/json"]
    )


@pytest.mark.parametrize("content", [*media()])
def test_every_body_has_examples_and_they_hold(content: dict[str, Any]) -> None:
    schema = as_json_schema(content["schema"])
    found = examples(content)
    assert found
    for example in found:
        assert list(oracle(schema).iter_errors(example)) == []


@pytest.mark.parametrize(("operation", "answer"), [*answers()])
def test_every_answer_is_described_and_says_what_it_means_for_the_sender(
    operation: dict[str, Any], answer: dict[str, Any]
) -> None:
    assert answer["description"]
    if "x-natural-key" in operation:
        delivery = answer["x-delivery"]
        words = set(delivery.values()) if isinstance(delivery, dict) else {delivery}
        assert words <= DELIVERIES
        assert not isinstance(delivery, dict) or "default" in delivery


def test_every_field_and_every_schema_has_a_description() -> None:
    assert list(undescribed(DOCUMENT)) == []
    schemas = DOCUMENT["components"]["schemas"]
    assert [name for name, schema in schemas.items() if not schema.get("description")] == []


def test_every_header_and_parameter_has_a_description_and_an_example() -> None:
    parts = DOCUMENT["components"]["headers"] | DOCUMENT["components"]["parameters"]
    for name, part in parts.items():
        assert part["description"], name
        assert list(oracle(part["schema"]).iter_errors(part["example"])) == [], name


def test_every_request_object_is_closed_and_every_value_bounded() -> None:
    for webhook in RELEASES[CURRENT]:
        assert list(unbounded(body_schema(CURRENT, webhook))) == []


def unbounded(schema: dict[str, Any], where: str = "#") -> Iterator[str]:
    """Yield where a body's schema would let in something without a bound, or any sign, such as NUL."""
    kind = schema.get("type")
    bounded = {
        "object": schema.get("additionalProperties") is False or "maxProperties" in schema,
        "array": "maxItems" in schema,
        "string": "enum" in schema or ("pattern" in schema and (
            "maxLength" in schema or re.fullmatch(r"\^.*\{(\d+,)?\d+\}\$", schema["pattern"]) is not None
        )),
        "number": {"minimum", "maximum"} <= schema.keys(),
        "integer": {"minimum", "maximum"} <= schema.keys() or "enum" in schema,
    }  # fmt: skip
    if not bounded.get(str(kind), True):
        yield where
    parts = dict(schema.get("properties", {}))
    parts |= {f"oneOf/{index}": part for index, part in enumerate(schema.get("oneOf", []))}
    parts |= {
        key: schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)
    }
    for name, part in parts.items():
        yield from unbounded(part, f"{where}/{name}")


def test_natural_keys_are_required_and_never_personal() -> None:
    for release, webhooks in RELEASES.items():
        for name, webhook in webhooks.items():
            for path in filter(
                None, (webhook.natural_key, webhook.order_key, webhook.reference, webhook.about)
            ):
                schema = body_schema(release, name)
                for part in path:
                    assert part in schema["required"], path
                    schema = schema["properties"][part]
                assert path not in webhook.personal
