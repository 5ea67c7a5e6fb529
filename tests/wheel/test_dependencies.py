"""What is imported is declared, what is declared is explained, and nothing else is."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OURS = {"crm_server", "generated", "sender"}


def names(requirements: list[str]) -> set[str]:
    """Return the packages that requirements name."""
    return {re.split(r"[<>=!~\[; ]", requirement)[0].lower() for requirement in requirements}


BASE = names(PROJECT["project"]["dependencies"]) | {"pydantic-core"}  # pydantic's other half, pinned by it
EXTRAS = {name: names(found) for name, found in PROJECT["project"]["optional-dependencies"].items()}
DECLARED = BASE.union(*EXTRAS.values())
DEV = names(PROJECT["dependency-groups"]["dev"])
BENCH = names(PROJECT["dependency-groups"]["bench"])


def imported(package: str) -> Iterator[str]:
    """Yield the distributions that a package of ours imports."""
    providers = packages_distributions()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for top in {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - OURS:
                found = {name.lower().replace("_", "-") for name in providers[top]}
                yield from found & DECLARED or found  # several share the name `opentelemetry`


@pytest.mark.parametrize(
    ("package", "declared"),
    [
        ("generated", BASE),
        ("sender", BASE | EXTRAS["dashboard"] | EXTRAS["otel"]),
        ("crm_server", BASE | EXTRAS["server"] | EXTRAS["otel"]),
    ],
)
def test_what_a_package_imports_is_declared(package: str, declared: set[str]) -> None:
    assert set(imported(package)) <= declared


def test_every_dependency_is_explained_and_nothing_else() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    explained = {
        name.strip() for cell in re.findall(r"^\| ([a-z0-9, -]+) \|", text, re.M) for name in cell.split(",")
    } - {"package", "---"}
    assert explained == (BASE | DEV | BENCH).union(*EXTRAS.values()) - {"pydantic-core"}


@pytest.mark.parametrize(
    ("name", "declared"),
    [("requirements.lock", (BASE | DEV).union(*EXTRAS.values())), ("requirements-bench.lock", BENCH)],
)
def test_the_lock_pins_every_dependency_by_hash_and_names_no_address(name: str, declared: set[str]) -> None:
    lock = (ROOT / name).read_text(encoding="utf-8")
    locked = {line.split("==")[0] for line in lock.splitlines() if re.match(r"[a-z0-9]", line)}
    assert declared <= locked
    entries = re.split(r"\n(?=[a-z0-9])", lock)[1:]
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in lock


def test_what_npm_brings_is_pinned_by_hash_explained_and_named_without_an_address() -> None:
    lock = (ROOT / "package-lock.json").read_text(encoding="utf-8")
    packages = {name: entry for name, entry in json.loads(lock)["packages"].items() if name}
    assert [name for name, entry in packages.items() if not entry.get("integrity")] == []
    assert "://" not in lock
    declared = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    assert [name for name in declared if f"| `{name}` |" not in text] == []
