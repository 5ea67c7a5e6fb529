"""The documents that people read, cut into what a test can hold against the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers import ROOT

README = ROOT / "README.md"
DOCUMENTS = (README, *sorted((ROOT / "docs").rglob("*.md")))

_FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(?<![\w/:*<])(?:[\w.-]+/)+[\w.-]+\.\w+")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, and the file that it is the content of, if any."""

    language: str
    file: str | None
    text: str


def blocks(document: Path) -> list[Block]:
    """Return a document's fenced blocks, in order."""
    return [Block(*match.groups()) for match in _FENCE.finditer(document.read_text())]


def links(document: Path) -> list[str]:
    """Return what a document links to, in order."""
    return _LINK.findall(prose(document))


def spans(document: Path) -> list[str]:
    """Return what a document shows as code within its text."""
    return _CODE.findall(prose(document))


def paths(document: Path) -> Iterator[str]:
    """Yield the files of the project that a document names as code."""
    for span in spans(document):
        yield from _PATH.findall(span)


def prose(document: Path) -> str:
    """Return a document without its fenced blocks."""
    return _FENCE.sub("", document.read_text())


def table(document: Path, header: str) -> dict[str, list[str]]:
    """Return a table's rows by the code in their first cell; `header` is the text of its first heading."""
    _, found, rest = document.read_text().partition(f"| {header} |")
    assert found, f"{document.name} has no table headed {header!r}"
    rows = {}
    for line in rest.splitlines()[2:]:
        if not line.startswith("|"):
            break
        first, *others = (cell.strip() for cell in line.strip("|").split("|"))
        rows[first.strip("`")] = others
    return rows
