"""Reading one body: JSON, schema, model."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from time import perf_counter
from typing import Any

import jsonschema

from crm_server.validation import load_rules, parse_json, validate
from generated.operations import CURRENT
from scripts.bench.payloads import REPAIR
from scripts.bench.peers.by_hand_models import RepairRequest
from scripts.bench.report import Measurement

WORK = "parse, schema, model"
REPEAT = 2_000


def measure(rounds: int, seconds: float) -> list[Measurement]:
    """Measure each reader in turn, round by round."""
    raw = json.dumps(REPAIR).encode()
    schema = json.loads(
        files("generated").joinpath("contracts", CURRENT, "repair-request.json").read_text("utf-8")
    )
    rules = load_rules()[CURRENT]["repair-request"]
    stock = jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )

    def ours() -> Any:
        _, value = parse_json(raw)
        return validate(rules, CURRENT, raw, value)

    def by_jsonschema() -> Any:
        return stock.validate(json.loads(raw))

    readers: dict[str, Callable[[], Any]] = {
        "ours": ours,
        "json + jsonschema": by_jsonschema,
        "pydantic with EmailStr": lambda: RepairRequest.model_validate_json(raw),
    }
    return [
        Measurement(WORK, name, "µs", time_one(reader), number)
        for number in range(rounds)
        for name, reader in readers.items()
    ]


def time_one(work: Callable[[], Any]) -> float:
    """Return the microseconds of one call."""
    started = perf_counter()
    for _ in range(REPEAT):
        work()
    return (perf_counter() - started) / REPEAT * 1e6
