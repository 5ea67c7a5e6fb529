"""A payload as its contract has it: every field by its label, in the contract's order."""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from crm_server.validation import load_body_rules


@dataclass(frozen=True, slots=True)
class Field:
    """A field to be shown."""

    label: str
    value: Any
    """As it was sent; for a viewer masked."""
    is_links: bool = False
    """Whether it is a list of addresses."""


@dataclass(frozen=True, slots=True)
class Block:
    """The fields of one object of a payload."""

    label: str
    fields: list[Field]


@functools.cache
def schema_of(release: str, event: str) -> Mapping[str, Any]:
    """Return the frozen schema of an event in a release."""
    return load_body_rules(release, event).schema


def blocks_of(release: str, event: str, payload: Mapping[str, Any]) -> list[Block]:
    """Return all that a payload holds."""
    properties = schema_of(release, event)["properties"]
    return [
        Block(
            label(name, properties.get(name, {})),
            [
                Field(label(field, rule), value, is_links=field == "photos")
                for field, rule, value in in_order(properties.get(name, {}), payload[name])
            ],
        )
        for name in ordered(properties, payload)
    ]


def in_order(schema: Mapping[str, Any], given: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return name, rule and value of each field of an object that is there."""
    properties = schema.get("properties", {})
    return [(name, properties.get(name, {}), given[name]) for name in ordered(properties, given)]


def ordered(properties: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the names that are there, those of the contract first, in its order."""
    return [name for name in properties if name in given] + [name for name in given if name not in properties]


def label(name: str, rule: Any) -> str:
    """Return a field's title, or its name as people write it: `websiteUserId` is "Website user id"."""
    title = rule.get("title") if isinstance(rule, Mapping) else None
    return str(title or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ").capitalize())


def is_link(text: Any) -> bool:
    """Tell whether a text is an address that a browser may be sent to."""
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname)
    except (ValueError, TypeError, AttributeError):
        return False
