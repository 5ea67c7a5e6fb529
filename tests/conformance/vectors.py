"""Vectors of an event's identity: what both sides must make of the same body."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VECTORS: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("identity_vectors.json").read_text(encoding="utf-8")
)
"""By the rules of `release` for `webhook`, `body` has these keys, this canonical content and this digest."""

NAMES = [vector["name"] for vector in VECTORS]


def named(name: str) -> dict[str, Any]:
    """Return the vector of a name."""
    return VECTORS[NAMES.index(name)]
