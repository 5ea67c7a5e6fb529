"""The vectors themselves are right, by an independent RFC 8785 library and the rules written out plainly."""

from __future__ import annotations

import copy
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import rfc8785

from generated.operations import RELEASES, Path
from tests.conformance.vectors import NAMES, VECTORS, named
from tests.contract.contracts import body_schema, oracle

FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def parent_of(body: Any, path: Path) -> Any:
    """Return the object that holds a field, or an empty one."""
    for name in path[:-1]:
        body = body.get(name, {})
    return body


def in_utc(text: str) -> str:
    """Return a time in UTC with `Z` and no trailing zeros; as given where UTC has no such year."""
    local = datetime.fromisoformat(text)
    offset = local.utcoffset() or timedelta()
    since, until = local.replace(tzinfo=UTC) - FIRST, LAST - local.replace(tzinfo=UTC)
    if offset > since or -offset > until:
        return text
    time = FIRST + (since - offset)
    fraction = f"{time.microsecond:06}".rstrip("0")
    return f"{time.year:04}-{time:%m-%dT%H:%M:%S}" + (f".{fraction}" if fraction else "") + "Z"


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_a_vector_is_what_the_rules_say(vector: dict[str, Any]) -> None:
    webhook = RELEASES[vector["release"]][vector["webhook"]]
    assert list(oracle(body_schema(vector["release"], webhook.name)).iter_errors(vector["body"])) == []
    content = copy.deepcopy(vector["body"])
    assert parent_of(content, webhook.natural_key)[webhook.natural_key[-1]] == vector["natural_key"]
    assert parent_of(content, webhook.order_key)[webhook.order_key[-1]] == vector["order_key"]
    for path in webhook.not_identity:
        parent_of(content, path).pop(path[-1], None)
    for path in webhook.times:
        fields = parent_of(content, path)
        fields |= {name: in_utc(fields[name]) for name in path[-1:] if name in fields}
    assert rfc8785.dumps(content).decode() == vector["canonical"]
    assert hashlib.sha256(vector["canonical"].encode()).hexdigest() == vector["digest"]


@pytest.mark.parametrize(
    "same",
    [
        ["the guide's registration", "another time of sending", "the same instant with an offset"],
        ["the guide's registration", "a fraction of nothing but zeros"],
        ["a fraction that ends in zeros", "the same fraction without its zeros"],
        ["a whole number", "a whole number with a fraction of zero", "a whole number with an exponent"],
        ["zero", "minus zero"],
    ],
)
def test_one_event_said_in_two_ways_has_one_digest(same: list[str]) -> None:
    assert len({named(name)["digest"] for name in same}) == 1


@pytest.mark.parametrize(
    "other",
    [
        ["the guide's repair", "photos not named", "no photos", "photos in another order are other content"],
        ["the guide's registration", "an address in capitals is other content"],
        ["a composed letter", "the same letter decomposed is other content"],
    ],
)
def test_other_content_has_another_digest(other: list[str]) -> None:
    assert len({named(name)["digest"] for name in other}) == len(other)
