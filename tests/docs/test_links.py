"""What the documents point to is there, and the tour leaves out no file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.docs.documents import DOCUMENTS, links, paths
from tests.servers import ROOT

each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=[str(document.relative_to(ROOT)) for document in DOCUMENTS]
)


@each_document
def test_every_link_leads_somewhere(document: Path) -> None:
    inside = [link for link in links(document) if "://" not in link]
    broken = [link for link in inside if not (document.parent / link).exists()]
    assert broken == []


@each_document
def test_every_file_that_is_named_exists(document: Path) -> None:
    missing = [path for path in paths(document) if not (ROOT / path).exists()]
    assert missing == []


def test_the_tour_opens_every_file_of_the_programs_once() -> None:
    tour = ROOT / "docs" / "tour.md"
    opened = Counter((tour.parent / link).resolve() for link in links(tour))
    assert {path: count for path, count in opened.items() if count > 1} == {}
    files = {
        path
        for package in ("sender", "crm_server", "generated")
        for path in (ROOT / package).rglob("*.py")
        if path.name not in {"__init__.py", "__main__.py", "env.py"}
    }
    left_out = sorted(str(path.relative_to(ROOT)) for path in files - set(opened))
    assert left_out == [], "give each a place in docs/tour.md"


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    pages = {path.name for path in folder.glob("[0-9]*.md")}
    assert pages == set(links(folder / "README.md"))
