"""The accepted contracts as tests read them, and an independent oracle for their bodies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema_rs
from jsonschema import Draft202012Validator, ValidationError, validators

from generated.operations import CURRENT, RELEASES

GUIDE = Path(__file__).parent / "guide"
"""The guide's two payloads, byte for byte as it prints them."""

OF_THE_GUIDE = sorted(path.stem for path in GUIDE.iterdir())
"""The webhooks that the guide has a payload of."""

RELEASED_WEBHOOKS = [(release, webhook) for release, webhooks in RELEASES.items() for webhook in webhooks]


def package_json(*names: str) -> Any:
    """Return a JSON document of the package data `generated/contracts`."""
    return json.loads(resources.files("generated").joinpath("contracts", *names).read_text(encoding="utf-8"))


def contract(release: str = CURRENT) -> dict[str, Any]:
    """Return a release's OpenAPI document."""
    document: dict[str, Any] = package_json(release, "openapi.json")
    return document


def body_schema(release: str, webhook: str) -> dict[str, Any]:
    """Return the JSON Schema of a webhook's body."""
    schema: dict[str, Any] = package_json(release, f"{webhook}.json")
    return schema


def guide_payload(webhook: str) -> str:
    """Return the guide's payload as text; of a webhook that came after it, the contract's example."""
    if webhook not in OF_THE_GUIDE:
        return json.dumps(example(webhook))
    return (GUIDE / f"{webhook}.json").read_text(encoding="utf-8")


def example(webhook: str) -> dict[str, Any]:
    """Return the first example that today's contract has of a webhook's body."""
    document = contract()
    [operation] = [
        operation
        for item in document["paths"].values()
        for operation in item.values()
        if operation["operationId"] == webhook
    ]
    first, *_ = operation["requestBody"]["content"]["application/json"]["examples"].values()
    found: dict[str, Any] = first["value"]
    return found


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    """Hold JSON Schema's `pattern` as ECMAScript does: Python's `$` alone lets a trailing newline pass."""
    if isinstance(instance, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), instance):
        yield ValidationError(f"does not match {pattern}")


_Oracle = validators.extend(Draft202012Validator, {"pattern": _pattern})  # type: ignore[no-untyped-call]


def oracle(schema: dict[str, Any]) -> Any:
    """Return a jsonschema validator that asserts formats."""
    return _Oracle(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def validator(schema: dict[str, Any]) -> Any:
    """Return the validator that both programs use."""
    return jsonschema_rs.validator_for(schema, validate_formats=True)


def resolve(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Return what a reference within a contract names, or the node itself."""
    while "$ref" in node:
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = target
    return node
