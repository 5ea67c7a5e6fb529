"""The staff API's document says everything that a reader of it needs, and its examples hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from generated.operations import MODELS
from tests.contract.contracts import package_json, resolve
from tests.contract.test_document import examples, unbounded, undescribed
from tests.crm_server.answers import schema_validator

STAFF = "approvals"
DOCUMENT: dict[str, Any] = package_json(STAFF, "openapi.json")
PARTS = DOCUMENT["components"]


def media() -> Iterator[Any]:
    """Yield every documented body as a test parameter."""
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            bodies = {status: resolve(DOCUMENT, answer) for status, answer in operation["responses"].items()}
            if "requestBody" in operation:
                bodies["request"] = operation["requestBody"]
            for status, body in bodies.items():
                yield pytest.param(body, id=f"{method} {path} {status}")


@pytest.mark.parametrize("body", [*media()])
def test_every_body_has_examples_and_they_hold(body: dict[str, Any]) -> None:
    assert body["description"]
    for kind, content in body["content"].items():
        found = examples(content)
        assert found
        for example in found:
            schema_validator(0, body, kind, STAFF).validate(example)


def test_every_field_schema_header_and_parameter_has_a_description() -> None:
    assert list(undescribed(DOCUMENT, DOCUMENT)) == []
    for part in ("schemas", "headers", "parameters", "responses", "securitySchemes"):
        assert [name for name, value in PARTS[part].items() if not value.get("description")] == []


def test_every_request_object_is_closed_and_every_value_bounded() -> None:
    for item in DOCUMENT["paths"].values():
        for operation in item.values():
            if "requestBody" in operation:
                assert list(unbounded(package_json(STAFF, f"{operation['operationId']}.json"))) == []


def test_the_events_that_a_list_is_filtered_by_are_the_webhooks() -> None:
    assert PARTS["parameters"]["Event"]["schema"]["enum"] == list(MODELS)
