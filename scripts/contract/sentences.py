"""A change of the contract in a sentence: what changed, and in which part of which operations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scripts.contract.redocly import Change
from scripts.generate import Contract

LONGEST_SHOWN = 100

NAMED = {
    "paths",
    "content",
    "headers",
    "examples",
    "responses",
    "parameters",
    "schemas",
    "securitySchemes",
    "properties",
}
"""Words of OpenAPI whose parts have names that somebody gave; `parameters` of an operation are a list all the same."""

Use = tuple[str, str]
"""A part of an operation, `body` or `answer 409` or nothing for its parameters, and the operation."""


def sentence(change: Change, old: Contract, new: Contract, others: Sequence[Change] = ()) -> str:
    """Say what changed, and where: in other operations too, where others are of them alone."""
    names = change.pointer.split("/")[1:]
    document = new if change.kind == "added" else old
    if names[:2] == ["info", "x-deprecated"]:
        return _given_up(plain(names[-1]), change.revision)
    if change.kind != "modified" and names[0] == "paths" and len(names) <= 3:
        told = "; ".join(_operations(change, names, document))
        if told:
            return f"{told} was {change.kind}{_summary(change)}."
    if change.property == "key" and not change.message:
        return f"`{change.base}` is called `{change.revision}` now."
    # What comes, goes or gets another name does so in what holds it, wherever else it stands.
    stays = change.kind == "modified" and change.property != "key"
    place = _place(names, document, names if stays else names[:-1], others)
    if "x-delivery" in (change.property, keywords(names)[-1]):
        return _delivery_sentence(names, old, new, place)
    text = change.message.removesuffix(".") if change.message else ""
    if not text or text.startswith(f"`{change.property}` changed"):
        text = _own_words(change, subject(names, document))
    return f"{text[:1].upper()}{text[1:]}{place}."


def _own_words(change: Change, thing: str) -> str:
    """Say what changed, where Redocly has no rule that does."""
    if change.kind != "modified":
        verb = "were" if thing.startswith("headers ") else "was"
        return f"{thing or 'the answer'} {verb} {change.kind}"
    subject = f"`{change.property}` of {thing}" if thing else f"`{change.property}`"
    match change.base, change.revision:
        case None, after:
            return f"{subject} was set to {brief(after)}"
        case _, None:
            return f"{subject} was removed"
        case list() as before, list() as after:
            lost = "".join(f" lost {brief(one)}" for one in before if one not in after)
            gained = "".join(f" gained {brief(one)}" for one in after if one not in before)
            return f"{subject}{' and'.join(filter(None, (lost, gained))) or ' changed its order'}"
        case before, after if max(len(_json(before)), len(_json(after))) > LONGEST_SHOWN:
            return f"{subject} changed"  # beginnings that are alike tell nothing
        case before, after:
            return f"{subject} changed from {brief(before)} to {brief(after)}"
    raise AssertionError("a change has a value before or after")


def _operations(change: Change, names: Sequence[str], document: Contract) -> Iterator[str]:
    """Yield the operations that a whole path, or one of its methods, has."""
    path = plain(names[1])
    for method in names[2:] or document["paths"].get(path, {}):
        yield f"`{method.upper()} {path}`"


def _summary(change: Change) -> str:
    """Return what an added operation, or path of one, says of itself."""
    found = change.revision if isinstance(change.revision, dict) else {}
    summaries = [part["summary"] for part in (found, *found.values()) if _has_summary(part)]
    return f": {'; '.join(summaries)}" if summaries else ""


def _has_summary(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("summary"), str)


def _delivery_sentence(names: list[str], old: Contract, new: Contract, place: str) -> str:
    """Say what an answer means for the sender, before and after: Redocly tells of a word and of a map apart."""
    before, after = (at(document, response(names)).get("x-delivery") for document in (old, new))
    return f"`x-delivery` changed from {brief(before)} to {brief(after)}{place}."


def _given_up(release: str, days: Mapping[str, str] | None) -> str:
    """Say that a release is given up, and since when, or that it is not any more."""
    if not days:
        return f"Release `{release}` is no longer given up."
    refused = f", and may be refused from {days['sunset']} on" if "sunset" in days else ""
    return f"Release `{release}` is given up: it should not be sent from {days['since']} on{refused}."


def subject(names: list[str], document: Contract) -> str:
    """Name what a pointer points to, never by its number in a list; empty where its place says all."""
    *above, last = names
    word, holder = keywords(names)[-1], ["", *keywords(above)][-1]
    if word == "info":
        return "the document"
    if word == "schema" and holder.isdigit():
        return subject(above, document)
    if word == "headers":
        return "headers " + ", ".join(f"`{name}`" for name in at(document, names))
    if word == "x-property-names":
        return f"the names of `{plain(above[-1])}`"
    if holder == "examples":
        return f"example `{plain(last)}`"
    if word.isdigit() and holder == "allOf":
        return f"`{plain(above[-2])}`"
    if word == "schema" or holder == "responses":
        return ""  # the place says it
    if names[0] == "paths" and len(names) == 3:
        return f"`{last.upper()} {plain(names[1])}`"
    if word.isdigit():
        node = at(document, names)
        node = node if isinstance(node, dict) else {}
        match holder:
            case "tags":
                return f"tag `{node.get('name')}`"
            case "parameters":
                kind = "header" if node.get("in") == "header" else "parameter"
                return f"{kind} `{node.get('name')}`"
            case "servers":
                return f"address `{node.get('url')}`"
            case "oneOf" | "anyOf":
                return f"a choice (`{node.get('type', 'any')}`)"
        return f"an entry of `{holder}`"
    return f"`{plain(last)}`"


def _place(names: list[str], document: Contract, way: list[str], others: Sequence[Change]) -> str:
    """Say in which part of which operations a pointer is, and others: of all that share the last reference on a way."""
    if names[0] != "paths" or len(names) < 4:
        return ""
    pointers = [names, *(other.pointer.split("/")[1:] for other in others)]
    used = _uses(document, _last_reference(document, way)) or [
        (_part(pointer), f"{pointer[2].upper()} {plain(pointer[1])}") for pointer in pointers
    ]
    parts = {part for part, _ in used}
    part = parts.pop() if len(parts) == 1 else "bodies and answers" if "body" in parts else "answers"
    operations = _listed(document, [operation for _, operation in used])
    return f" ({part} of {operations})" if part else f" ({operations})"


def _part(names: list[str]) -> str:
    """Return the part of its operation that a pointer is in."""
    if "requestBody" in keywords(names):
        return "body"
    return f"answer {response(names)[-1]}" if "responses" in keywords(names[:-1]) else ""


def _uses(document: Contract, reference: str | None) -> list[Use]:
    """Return what has a reference in it, at any depth."""
    return [
        (part, f"{method.upper()} {path}")
        for path, item in document["paths"].items()
        for method, operation in item.items()
        for part, node in _parts(operation)
        if reference in references(document, node)
    ]


def _parts(operation: Any) -> Iterator[tuple[str, Any]]:
    """Yield an operation's parts and what they are."""
    yield "", operation.get("parameters")
    yield "body", operation.get("requestBody")
    for status, answer in operation["responses"].items():
        yield f"answer {status}", answer


def references(document: Contract, node: Any, known: frozenset[str] = frozenset()) -> frozenset[str]:
    """Return all references that are in a node, or in what those name."""
    if isinstance(node, dict):
        target = node.get("$ref")
        if isinstance(target, str):
            return (
                known if target in known else references(document, followed(document, node), known | {target})
            )
        node = list(node.values())
    for part in node if isinstance(node, list) else ():
        known = references(document, part, known)
    return known


def _last_reference(document: Contract, names: list[str]) -> str | None:
    """Return the last reference that a pointer goes through."""
    node, last = document, None
    for name in names:
        node = node[int(name)] if isinstance(node, list) else node[plain(name)]
        if isinstance(node, dict) and "$ref" in node:
            last = node["$ref"]
        node = followed(document, node)
    return last


def _listed(document: Contract, operations: Sequence[str]) -> str:
    """List operations, the webhooks in two words where all of them are among them."""
    webhooks = {
        f"POST {path}" for path, item in document["paths"].items() if "x-natural-key" in item.get("post", {})
    }
    named = list(dict.fromkeys(operations))
    if len(webhooks) > 1 and webhooks <= set(named):
        named = ["each webhook", *(operation for operation in named if operation not in webhooks)]
    return " and ".join(filter(None, (", ".join(named[:-1]), named[-1])))


def at(contract: Contract, names: Sequence[str]) -> Any:
    """Return what stands at a pointer that goes through references."""
    node: Any = contract
    for name in names:
        node = followed(contract, node[int(name)] if isinstance(node, list) else node[plain(name)])
    return node


def followed(contract: Contract, node: Any) -> Any:
    """Return what a reference names, or the node itself."""
    if isinstance(node, dict) and "$ref" in node:
        return at(contract, node["$ref"].split("/")[1:])
    return node


def keywords(names: Sequence[str]) -> list[str]:
    """Return the steps of a pointer that are words of OpenAPI, each in its place, with nothing for the others.

    A field may be called `security`, and a field within it `schema`: what somebody named says nothing of a change.
    """
    words: list[str] = []
    for name in names:
        given = words and words[-1] in NAMED and not (words[-1] == "parameters" and name.isdigit())
        words.append("" if given else name)
    return words


def response(names: Sequence[str]) -> list[str]:
    """Return the pointer of the answer that a pointer is in."""
    return list(names[: keywords(names).index("responses") + 2])


def plain(name: str) -> str:
    """Return a name of a JSON pointer as it is (RFC 6901)."""
    return name.replace("~1", "/").replace("~0", "~")


def escaped(name: str) -> str:
    """Return a name as JSON pointers have it (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def brief(value: Any) -> str:
    """Return a value as JSON, cut where it is long."""
    text = _json(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
