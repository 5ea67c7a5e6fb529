"""The integration guide's own payloads, from the contract's examples."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from generated.operations import CURRENT, WEBHOOKS


def example(name: str) -> dict[str, Any]:
    """Return the first example of a webhook's body."""
    contract = json.loads(
        files("generated").joinpath("contracts", CURRENT, "openapi.json").read_text("utf-8")
    )
    content = contract["paths"][WEBHOOKS[name].path]["post"]["requestBody"]["content"]["application/json"]
    [first, *_] = content["examples"].values()
    body: dict[str, Any] = first["value"]
    return body


REPAIR = example("repair-request")
REGISTRATION = example("customer-registration")
