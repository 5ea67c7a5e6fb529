"""What a change of the contract means: who would break, by who writes and who reads, and which number is due.

A body is written by senders of every release. Who names no release is judged by today's contract; who names one
is judged by its frozen schema and then read as today's model, as staff read what was stored under every release.
An answer is written by today's CRM and read by senders of every release.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jsonschema_rs

from scripts.contract.examples import edges
from scripts.contract.redocly import Change, diff
from scripts.contract.sentences import (
    LONGEST_SHOWN,
    at,
    escaped,
    followed,
    keywords,
    plain,
    references,
    response,
    sentence,
    subject,
)
from scripts.generate import Contract, Schema, fields, inline, version_key

Part = Literal["patch", "minor", "major"]
Side = Literal["sender", "CRM", "staff"]

PARTS: tuple[Part, ...] = ("patch", "minor", "major")
WORDING = {
    "description",
    "summary",
    "example",
    "examples",
    "title",
    "tags",
    "externalDocs",
    "key",
    "name",
    "url",
    "value",
}
"""What nobody's program reads."""
CONSTRAINTS = {
    "pattern",
    "format",
    "enum",
    "type",
    "multipleOf",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
}
CONSTRAINTS |= {"minItems", "maxItems", "minProperties", "maxProperties"}
REWRITTEN = "The document is written in another way, which no message shows."
FIXED = {"x-natural-key", "x-order-key", "x-identity"}
MARKS = ("x-identity", "x-personal-data")
"""What a field may say of itself that no validator reads."""

BODY: dict[Side, str] = {
    "sender": "one that names no release gets 400; one that names its own is accepted, and cannot be read as today's",
    "staff": "requests that are stored under older releases cannot be read as today's",
}
ANSWER: dict[Side, str] = {"sender": "it reads the answer by its own release"}
REQUEST: dict[Side, str] = {"sender": "it sends what its own release says"}
EVENT: dict[Side, str] = {
    "sender": "its outbox holds events of that name for that address",
    "CRM": "its handlers and its queue know the event by that name",
    "staff": "requests of that event are stored",
}
IDENTITY: dict[Side, str] = {
    "sender": "its receipts no longer match, or its events overtake each other",
    "CRM": "it no longer knows again what it has: duplicates are queued, or become conflicts",
}
PERSONAL: dict[Side, str] = {"staff": "what is stored would be shown to all, and outlive its erasure"}
ABOUT: dict[Side, str] = {"staff": "what is stored no longer stands where it belongs"}
LOST: dict[Side, str] = {"sender": "it erases payloads that nobody has, or sends for ever what was stored"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One change in a sentence, the part of the version that it asks for, and why each side breaks that does."""

    sentence: str
    part: Part
    breaks: dict[Side, str]


@dataclass(frozen=True, slots=True)
class Proof:
    """A body or an answer that is right by the writer's contract, and that the reader's refuses."""

    where: str
    payload: Any
    fault: str

    def __str__(self) -> str:
        shown = json.dumps(_shortened(self.payload), ensure_ascii=False, indent=2)
        return f"{self.where}; refused: {self.fault}\n{shown}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that changed from one document to another."""

    findings: tuple[Finding, ...]
    proofs: tuple[Proof, ...]
    undecided: tuple[str, ...]
    """Schemas of which covering is not proved, and whose examples all passed."""

    @property
    def breaks(self) -> tuple[Finding, ...]:
        """The findings by which somebody breaks."""
        return tuple(finding for finding in self.findings if finding.breaks)

    def due(self, last: str) -> str:
        """Return the number that is due after the release `last`, were no change a break."""
        if not self.findings:
            return last
        major, minor, patch = version_key(last)
        grows = any(finding.part != "patch" for finding in self.findings)
        return f"{major}.{minor + 1}.0" if grows else f"{major}.{minor}.{patch + 1}"


def compare(pairs: Sequence[tuple[Contract, Contract]]) -> list[Comparison]:
    """Compare the older with the newer document of each pair. Raises Broken when Redocly's diff does not run."""
    aligned = [_aligned(*pair) for pair in pairs]
    differ = [_unnumbered(old) != _unnumbered(new) for old, new in pairs]
    return [
        _compare(*pair, changes, differs)
        for pair, changes, differs in zip(aligned, diff(aligned), differ, strict=True)
    ]


def _aligned(old: Contract, new: Contract) -> tuple[Contract, Contract]:
    """Return both documents with the parameters and the tags that both have first, in one order, which means nothing.

    A pointer has a number for such a thing, and would name another thing in the other document.
    """
    old, new = copy.deepcopy(old), copy.deepcopy(new)
    holders = [(old, new, "tags")]
    for path in old["paths"].keys() & new["paths"].keys():
        before, after = old["paths"][path], new["paths"][path]
        holders += [(before[method], after[method], "parameters") for method in before.keys() & after.keys()]
    for before, after, part in holders:
        older, newer = _by_name(old, before.get(part, [])), _by_name(new, after.get(part, []))
        both = sorted(older.keys() & newer.keys())
        for holder, named in ((before, older), (after, newer)):
            if named:
                first = [named.pop(name) for name in both]
                holder[part] = [*first, *named.values()]
    return old, new


def _by_name(contract: Contract, things: list[Any]) -> dict[tuple[str, str], Any]:
    """Return tags or parameters by what tells them apart."""
    found = [(followed(contract, thing), thing) for thing in things]
    return {(seen.get("in", ""), seen.get("name", "")): thing for seen, thing in found}


def _compare(old: Contract, new: Contract, changes: list[Change], differs: bool) -> Comparison:
    proofs, undecided = list(_orphans(old, new)), []
    seen: list[tuple[Schema, Schema]] = []
    for where, writer, reader in _exchanged(old, new):
        if writer != reader and (writer, reader) not in seen and not covers(reader, writer):
            seen.append((writer, reader))
            proof = counterexample(where, writer, reader)
            if proof:
                proofs.append(proof)
            else:
                undecided.append(where)
    to_tell = [
        change for change in (*changes, *_overlooked(old, new)) if not _is_told_elsewhere(change, old, new)
    ]
    findings = [_judge(change, others, old, new) for change, *others in _alike(to_tell)]
    told = {finding.sentence: finding for finding in findings}
    if proofs and not any(finding.breaks for finding in findings):
        # Redocly has no rule for it: `x-property-names`, a format.
        for proof in proofs:
            sides = BODY if proof.where.startswith("a body") else ANSWER
            refused = f"What was right is refused: {proof.where}."
            told[refused] = Finding(refused, "major", sides)
    if not told and differs:
        # Another document under the same number is refused, so that it needs one.
        told[REWRITTEN] = Finding(REWRITTEN, "patch", {})
    return Comparison(tuple(told.values()), tuple(proofs), tuple(undecided))


def _overlooked(old: Contract, new: Contract) -> Iterator[Change]:
    """Yield the changes that Redocly's diff does not look for: a release given up, and the content of an example."""
    before, after = (document["info"].get("x-deprecated", {}) for document in (old, new))
    for release in sorted(before.keys() | after.keys()):
        yield from _changed(f"/info/x-deprecated/{release}", "days", before.get(release), after.get(release))
    for pointer, older, newer in _media(old, new):
        yield from _changed(pointer, "example", older.get("example"), newer.get("example"))
        before, after = older.get("examples", {}), newer.get("examples", {})
        for name in sorted(before.keys() & after.keys()):
            values = before[name].get("value"), after[name].get("value")
            yield from _changed(f"{pointer}/examples/{escaped(name)}", "value", *values)


def _changed(pointer: str, what: str, before: Any, after: Any) -> Iterator[Change]:
    """Yield a change of something at a place, where it is one; none asks for more than another patch."""
    if before != after:
        yield Change(pointer, "modified", what, "patch", None, before, after)


def _unnumbered(document: Contract) -> Contract:
    return document | {"info": document["info"] | {"version": None}}


def _is_told_elsewhere(change: Change, old: Contract, new: Contract) -> bool:
    """Tell whether a change needs no sentence: a number that is raised, and a component that comes or goes with its use.

    Of releases that are given up, each has a sentence of its own.
    """
    if change.pointer == "/info" and change.property in {"version", "x-deprecated"}:
        return True
    if change.pointer == "/info/x-deprecated":
        return True
    if change.kind == "modified" or not change.pointer.startswith("/components/"):
        return False
    document = new if change.kind == "added" else old
    return f"#{change.pointer}" in references(document, document["paths"])


def _exchanged(old: Contract, new: Contract) -> Iterator[tuple[str, Schema, Schema]]:
    """Yield what both documents know, as its writer's and its reader's schema: bodies and answers."""
    for pointer, older, newer in _media(old, new):
        _, path, method, *way = map(plain, pointer.split("/")[1:])
        before, after = inline(old, older["schema"]), inline(new, newer["schema"])
        if way[0] == "requestBody":
            yield f"a body of {method.upper()} {path} as {old['info']['version']} has it", before, after
        else:
            yield f"an answer {way[1]} of {method.upper()} {path} as it would be today", after, before


def _orphans(old: Contract, new: Contract) -> Iterator[Proof]:
    """Yield the plainest body of every operation that is no longer there."""
    for path, item in old["paths"].items():
        for method, operation in item.items():
            if method not in new["paths"].get(path, {}) and "requestBody" in operation:
                for media in operation["requestBody"]["content"].values():
                    where = f"a body of {method.upper()} {path} as {old['info']['version']} has it"
                    for payload in itertools.islice(edges(inline(old, media["schema"]), deep=False), 1):
                        yield Proof(where, payload, "there is no such operation")


def _media(old: Contract, new: Contract) -> Iterator[tuple[str, Any, Any]]:
    """Yield each body and answer in each media type that both documents have: its pointer, the older, the newer."""
    after = dict(_contents(new))
    for pointer, before in _contents(old):
        if pointer in after:
            yield pointer, before, after[pointer]


def _contents(contract: Contract) -> Iterator[tuple[str, Any]]:
    """Yield each body and answer in each media type, with its pointer."""
    for path, item in contract["paths"].items():
        for method, operation in item.items():
            messages = {"requestBody": operation["requestBody"]} if "requestBody" in operation else {}
            messages |= {f"responses/{status}": answer for status, answer in operation["responses"].items()}
            for way, message in messages.items():
                for kind, media in followed(contract, message).get("content", {}).items():
                    yield f"/paths/{escaped(path)}/{method}/{way}/content/{escaped(kind)}", media


def covers(reader: Schema, writer: Schema) -> bool:
    """Tell whether it is proved that a reader takes all that a writer may write."""
    kept, wanted = (jsonschema_rs.canonicalize(schema, validate_formats=True) for schema in (reader, writer))
    return str(kept.covers(wanted)) == "yes"


def counterexample(where: str, writer: Schema, reader: Schema) -> Proof | None:
    """Return the plainest thing that a writer may write and a reader refuses, where one is found."""
    validator = jsonschema_rs.validator_for(reader, validate_formats=True)
    for payload in itertools.chain(edges(writer, deep=False), edges(writer)):
        for error in validator.iter_errors(payload):
            pointer = "".join(f"/{name}" for name in error.instance_path) or "the whole"
            return Proof(where, payload, f"{pointer}, by `{error.schema_path[-1]}`")
    return None


def _alike(changes: list[Change]) -> list[list[Change]]:
    """Return changes with those that are the same in other operations: YAML shares what has no reference to follow."""
    found: dict[Any, list[Change]] = {}
    for number, change in enumerate(changes):
        top, *names = change.pointer.split("/")[1:]
        key: Any = number
        if top == "paths" and len(names) == 4 and change.kind != "modified":
            name = "" if names[2] == "parameters" else names[3]  # which are a list
            key = (names[2], name, change.kind, json.dumps([change.base, change.revision], sort_keys=True))
        found.setdefault(key, []).append(change)
    return list(found.values())


def _judge(change: Change, others: Sequence[Change], old: Contract, new: Contract) -> Finding:
    """Return what one change means, which is the same in other operations."""
    names = change.pointer.split("/")[1:]
    if rewriting := _rewriting(change, names, old, new):
        return rewriting
    words = keywords(names)
    sides, told = _sides(change, names, old), sentence(change, old, new, others)
    if change.property in FIXED and change.kind == "modified":
        return Finding(told, "major", IDENTITY)
    if change.property == "x-about" and change.base:
        return Finding(told, "major", ABOUT)
    if change.property == "x-personal-data" and change.base and not change.revision:
        return Finding(told, "major", PERSONAL)
    if "x-delivery" in (change.property, words[-1]):
        lost = _delivered(old, names) != _delivered(new, names)
        return Finding(told, "major" if lost else "minor", LOST if lost else {})
    if "security" in (change.property, *words):
        return Finding(told, "major", REQUEST)
    if change.impact == "major" and not _cleared(change, names, old, new):
        return Finding(told, "major", sides)
    wording = change.kind == "modified" and (change.property in WORDING or _is_reordered(change))
    wording = wording or bool({"examples", "example", "info", "license", "contact", "tags"} & set(words))
    return Finding(told, "patch" if wording else "minor", {})


def _rewriting(change: Change, names: list[str], old: Contract, new: Contract) -> Finding | None:
    """Return what it means that a schema is named in a list of one from now on, or no longer.

    Redocly tells of every keyword that thereby stands elsewhere, and calls the list a break. It is none where the
    reader takes all that the writer may write, and no field loses or changes a mark. A limit beside such a list is not
    read by `inline`, so that the other rules judge it.
    """
    place = names if change.kind == "modified" else names[:-1]
    words = keywords(place)
    if "schema" not in words or words[-1] in {"properties", "oneOf", "allOf"} or change.property in WORDING:
        return None
    before, after = at(old, place), at(new, place)
    listed = [schema for schema in (before, after) if len(schema.get("allOf", ())) == 1]
    if (
        len(listed) != 1
        or listed[0].keys() - WORDING - set(MARKS) != {"allOf"}
        or _loses_marks(old, before, new, after)
    ):
        return None
    answered = "responses" in words
    before, after = inline(old, before), inline(new, after)
    writer, reader = (after, before) if answered else (before, after)
    if not covers(reader, writer):
        return None
    same = covers(writer, reader)
    what = "the same" if same else "more"
    told = f"{subject(place, old) or 'the schema'} is written in another way, and {'promises' if answered else 'takes'} {what}"
    change = Change("/" + "/".join(place), "modified", "allOf", change.impact, told, None, None)
    return Finding(sentence(change, old, new), "patch" if same else "minor", {})


def _loses_marks(old: Contract, before: Schema, new: Contract, after: Schema) -> bool:
    """Tell whether a field of a schema is lost, or is no longer marked as it was."""
    older, newer = (
        {path: [part.get(mark) for mark in MARKS] for path, part in fields(contract, schema)}
        for contract, schema in ((old, before), (new, after))
    )
    return any(newer.get(path) != marks for path, marks in older.items())


def _is_reordered(change: Change) -> bool:
    """Tell whether a list that is a set to its readers has the same in another order."""
    if change.property not in {"required", "enum"} or not (change.base and change.revision):
        return False
    before, after = (sorted(map(json.dumps, values)) for values in (change.base, change.revision))
    return before == after


def _sides(change: Change, names: list[str], old: Contract) -> dict[Side, str]:
    """Return who breaks by a break at a place, and why."""
    words = keywords(names)
    if "requestBody" in words:
        return BODY if "schema" in words else REQUEST
    if "responses" in words:
        return ANSWER
    if (
        names[0] == "paths"
        and (len(names) <= 3 or change.property == "operationId")
        and "parameters" not in words
    ):
        path = change.base if change.property == "key" else plain(names[1])
        return (
            EVENT if any("x-natural-key" in part for part in old["paths"].get(path, {}).values()) else REQUEST
        )
    return REQUEST


def _cleared(change: Change, names: list[str], old: Contract, new: Contract) -> bool:
    """Tell whether a limit that Redocly calls a break is none: all that the writer may write, the reader takes.

    Its rules do not read patterns, and look at one keyword at a time. Where covering is not proved, examples
    decide about patterns, and about nothing else.
    """
    words = keywords(names)
    if change.kind != "modified" or change.property not in CONSTRAINTS or "schema" not in words:
        return False
    before, after = (inline(document, at(document, names)) for document in (old, new))
    writer, reader = (after, before) if "responses" in words else (before, after)
    return covers(reader, writer) or (change.property == "pattern" and not counterexample("", writer, reader))


def _delivered(contract: Contract, names: list[str]) -> set[str]:
    """Return the problem types, or `default`, by which an answer counts as delivered."""
    meanings = at(contract, response(names)).get("x-delivery", {})
    meanings = meanings if isinstance(meanings, dict) else {"default": meanings}
    return {kind for kind, meaning in meanings.items() if meaning == "delivered"}


def _shortened(value: Any) -> Any:
    """Return a payload with its long texts and lists cut, and their lengths said."""
    match value:
        case dict():
            names = list(value)[:3] if len(value) > 30 else list(value)
            cut = {"…": f"{len(value)} names"} if len(names) < len(value) else {}
            return {_shortened(name): _shortened(value[name]) for name in names} | cut
        case list() if len(value) > 5:
            return [*(_shortened(part) for part in value[:2]), f"… {len(value)} items"]
        case list():
            return [_shortened(part) for part in value]
        case str() if len(value) > LONGEST_SHOWN:
            return f"{value[:20]}… {len(value)} characters"
    return value
