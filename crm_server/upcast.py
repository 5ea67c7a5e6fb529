"""Read a body of an older contract release as today's: a chain of pure functions, one a release."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from generated.base import ContractModel
from generated.operations import CURRENT, MODELS, RELEASES

Body = dict[str, Any]
Step = Callable[[str, Body], Body]

STEPS: Mapping[str, Step] = {}
"""By release: how its bodies, of the named webhook, are read as the next release's. The newest has none."""


def upcast(release: str, webhook: str, body: Body) -> Body:
    """Return a valid body of `release` as a body of the current one."""
    releases = list(RELEASES)
    for older in releases[releases.index(release) : releases.index(CURRENT)]:
        if older in STEPS:
            body = STEPS[older](webhook, body)
    return body


def read_event(row: Any) -> ContractModel:
    """Return a stored request's payload as today's model."""
    body = upcast(row.contract, row.event, json.loads(row.payload))
    return MODELS[row.event].model_validate_json(json.dumps(body), by_alias=True, by_name=False)
