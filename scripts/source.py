"""Read YAML that JSON could say too, and know in which line each part of it stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import yaml

Contract = dict[str, Any]
Names = tuple[str | int, ...]
"""Where something stands in a document: names and numbers from the outside in."""

TAG = "tag:yaml.org,2002:"
TEXT, MERGE = f"{TAG}str", f"{TAG}merge"
WRITTEN = {
    f"{TAG}bool": ("true or false, which JSON writes so", "true|false"),
    f"{TAG}int": ("a number, which JSON writes in digits alone", "-?(0|[1-9][0-9]*)"),
    f"{TAG}float": (
        "a number, which JSON writes otherwise",
        r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?",
    ),
    f"{TAG}null": ("nothing, which JSON writes as null", "null"),
    f"{TAG}timestamp": ("a day or a time, which JSON does not have", "(?!)"),
}
"""By tag: what YAML takes a bare word for, and as what JSON writes it."""


class ContractError(Exception):
    """The contracts under `openapi/` cannot be read, or contradict each other; the message says how to mend it."""


class Fault(ContractError):
    """One thing that is wrong in a document, with its line."""

    def __init__(self, shown: str, line: int, part: str, what: str) -> None:
        super().__init__(f"{shown}:{line}: {what}")
        self.line = line
        self.part = part
        """Which part it is: one fault of each is told."""


class Faults:
    """What was found to be wrong, to be told at once."""

    def __init__(self) -> None:
        self.found: dict[str, Fault] = {}

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note a fault, for whoever can go on with the other parts."""
        try:
            yield
        except Fault as fault:
            self.found.setdefault(fault.part, fault)

    def tell(self) -> None:
        """Raise ContractError with a line for each fault, in the document's order, where there are some."""
        if self.found:
            faults: Iterable[Fault] = sorted(self.found.values(), key=lambda fault: fault.line)
            raise ContractError("\n".join(map(str, faults)))


class Source:
    """A document's content, and the line of each of its parts."""

    content: Contract

    def __init__(self, shown: str, raw: bytes | str) -> None:
        self.shown = shown
        try:
            loader = yaml.CSafeLoader(raw)  # libyaml's: Python's own takes ten times as long
            self.tree = loader.get_single_node()
            if not isinstance(self.tree, yaml.MappingNode):
                what = "is empty" if self.tree is None else "is no map of names"
                raise ContractError(f"{shown} {what}. An OpenAPI document begins with `openapi: 3.0.3`.")
            self.faults = Faults()
            self._check(self.tree, frozenset(), set())
            self.faults.tell()
            self.content = loader.construct_document(self.tree)
        except yaml.YAMLError as error:
            raise ContractError(self._told(error, raw)) from error

    def error(self, at: Names, what: str) -> Fault:
        """Return the fault of a part."""
        line = self._line(at)
        # One that stands here by an alias, or is read on the way of several webhooks, is one.
        return Fault(self.shown, line, f"{line} {at[-1]}", f"{'.'.join(map(str, at))} {what}")

    def _line(self, at: Names) -> int:
        node: Any = self.tree
        line = 1
        for name in at:
            if isinstance(name, int):
                pairs = [(node.value[name], node.value[name])]
            else:  # the last one: what is merged stands before what overrules it
                pairs = [(key, value) for key, value in node.value if key.value == name][-1:]
            for key, value in pairs:
                line, node = key.start_mark.line + 1, value
        return line

    def _check(self, node: Any, above: frozenset[int], seen: set[int]) -> None:
        """Note what YAML has and JSON has not, or what it reads otherwise than it looks."""
        if id(node) in above:
            with self.faults.noted():
                raise self._at(node, "This stands in itself, by its alias.")
        if id(node) in seen:
            return
        seen.add(id(node))
        above |= {id(node)}
        match node:
            case yaml.ScalarNode():
                with self.faults.noted():
                    self._check_scalar(node)
            case yaml.SequenceNode():
                for item in node.value:
                    self._check(item, above, seen)
            case yaml.MappingNode():
                self._check_names([key for key, _ in node.value])
                for _, value in node.value:
                    self._check(value, above, seen)

    def _check_names(self, keys: list[Any]) -> None:
        lines: dict[str, int] = {}
        for key in keys:
            with self.faults.noted():
                if not isinstance(key, yaml.ScalarNode) or key.tag not in (TEXT, MERGE):
                    shown = f"`{key.value}`" if isinstance(key, yaml.ScalarNode) else "This"
                    raise self._at(key, f"{shown} is a name, and no text to YAML. Put it in quotes.")
                if key.value in lines:
                    first = lines[key.value]
                    raise self._at(
                        key, f"`{key.value}` stands here and in line {first}. Leave one of them out."
                    )
                lines[key.value] = key.start_mark.line + 1

    def _check_scalar(self, node: yaml.ScalarNode) -> None:
        if node.tag == TEXT:
            return
        if node.tag not in WRITTEN:
            raise self._at(node, f"The tag {node.tag.removeprefix(TAG)} is not read. Take it out.")
        if not node.value:
            raise self._at(node, "Nothing stands after the name here. Write a value, or take the name out.")
        kind, written = WRITTEN[node.tag]
        if not re.fullmatch(written, node.value):
            raise self._at(node, f"`{node.value}` needs quotes: YAML takes it for {kind}.")

    def _at(self, node: Any, what: str) -> Fault:
        return Fault(self.shown, node.start_mark.line + 1, str(node.start_mark.index), what)

    def _told(self, error: yaml.YAMLError, text: bytes | str) -> str:
        """Return a fault of the YAML itself in one line."""
        raw = text.encode() if isinstance(text, str) else text
        if conflict := re.search(rb"^(<{7}|={7}|>{7})( |$)", raw, re.MULTILINE):
            line = raw.count(b"\n", 0, conflict.start())
            what = "A merge left its marks here. Decide what holds, and take them out."
        elif isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
            line = error.problem_mark.line
            what = f"This is no YAML: {error.problem}{f' ({error.context})' if error.context else ''}."
            if error.problem == "second occurrence":
                what = "The name of this anchor, the word after `&`, is taken already. Take another."
            elif error.problem == "found undefined alias":
                what = "The word after `*` is no anchor: none above is called so."
            elif "cannot start any token" in str(error.problem):
                what += " A tab does not indent, and @ and ` need quotes."
        else:
            line = raw.count(b"\n", 0, getattr(error, "position", 0))
            what = f"This is no text in UTF-8, or one that YAML forbids: {getattr(error, 'reason', error)}."
        return f"{self.shown}:{line + 1}: {what}"
