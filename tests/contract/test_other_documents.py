"""The documents beside the webhooks' say everything that a reader of them needs, and their examples hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from generated.operations import MODELS
from tests.contract.contracts import package_json, resolve
from tests.contract.test_document import examples, unbounded, undescribed
from tests.crm_server.answers import schema_validator

STAFF, INTEGRATION = "approvals", "integration"
DOCUMENTS: dict[str, dict[str, Any]] = {
    name: package_json(name, "openapi.json") for name in (STAFF, INTEGRATION)
}
each_document = pytest.mark.parametrize("name", DOCUMENTS)


def media() -> Iterator[Any]:
    """Yield every documented body as a test parameter."""
    for name, document in DOCUMENTS.items():
        for path, item in document["paths"].items():
            for method, operation in item.items():
                bodies = {
                    status: resolve(document, answer) for status, answer in operation["responses"].items()
                }
                if "requestBody" in operation:
                    bodies["request"] = operation["requestBody"]
                for status, body in bodies.items():
                    yield pytest.param(name, body, id=f"{name} {method} {path} {status}")


@pytest.mark.parametrize(("name", "body"), [*media()])
def test_every_body_has_examples_and_they_hold(name: str, body: dict[str, Any]) -> None:
    assert body["description"]
    for kind, content in body["content"].items():
        found = examples(content)
        assert found
        for example in found:
            schema_validator(0, body, kind, name).validate(example)


@each_document
def test_every_field_schema_header_and_parameter_has_a_description(name: str) -> None:
    document = DOCUMENTS[name]
    assert list(undescribed(document, document)) == []
    for part in ("schemas", "headers", "parameters", "responses", "securitySchemes"):
        values = document["components"].get(part, {})
        assert [name for name, value in values.items() if not value.get("description")] == []


@each_document
def test_every_request_object_is_closed_and_every_value_bounded(name: str) -> None:
    for item in DOCUMENTS[name]["paths"].values():
        for operation in item.values():
            if "requestBody" in operation:
                assert list(unbounded(package_json(name, f"{operation['operationId']}.json"))) == []


def test_the_events_that_one_filters_by_are_the_webhooks() -> None:
    of_staff = DOCUMENTS[STAFF]["components"]["parameters"]["Event"]["schema"]["enum"]
    of_site = DOCUMENTS[INTEGRATION]["components"]["schemas"]["RetryingFailed"]["properties"]["event"]["enum"]
    assert of_staff == of_site == list(MODELS)
