"""Release today's webhook contract: freeze it, keep its wheel, and write its line in the changelog.

python -m scripts.release           release
python -m scripts.release --undo    take back what an interrupted release left, should there be any

Everything that CI runs must have passed: `make release` runs it first, and undoes before that. Exit code 0 when it
was released, 1 when it cannot be, 2 when this was used wrongly.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path

from scripts import documents, generate
from scripts.contract.__main__ import against_releases, fault_of
from scripts.contract.comparison import Comparison
from scripts.generate import CONTRACT, RELEASES, ROOT, SUMS, released
from scripts.processes import Broken
from scripts.source import ContractError

CHANGELOG = CONTRACT.with_name("CHANGELOG.md")
GUIDE = ROOT / "docs" / "integration-guide.md"


class NotReleased(Exception):
    """Something keeps the contract from being released; the message says what to do."""


def main(argv: list[str] | None = None) -> int:
    """Release, or say why not; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="release", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--undo", action="store_true", help="take back what an interrupted release left")
    options = parser.parse_args(argv)
    try:
        version: str = documents.read(CONTRACT)["info"]["version"]
        undo(version)
        if options.undo:
            return 0
        comparison = require_fine(version)
        files = freeze(version, comparison, datetime.now(UTC).date())
    except (NotReleased, ContractError, Broken) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    print(
        f"Released {version}. Commit, with a tag:",
        *(f"  {path.relative_to(ROOT)}" for path in files),
        sep="\n",
    )
    return 0


def require_fine(version: str) -> Comparison:
    """Return what changed since the last release. Raises NotReleased, ContractError or Broken."""
    released()  # before what an interrupted release left is told as something to commit
    if run("git", "status", "--porcelain"):
        raise NotReleased("there are uncommitted changes; commit them first (git status)")
    comparisons = against_releases(documents.read(CONTRACT))
    if version in comparisons:
        raise NotReleased(f"{version} is released already, and nothing changed since that is due for another")
    if fault := fault_of(version, comparisons):
        raise NotReleased(f"{fault} `make contract` says more.")
    if f"**Contract version**: {version}\n" not in GUIDE.read_text(encoding="utf-8"):
        raise NotReleased(
            f"{GUIDE.relative_to(ROOT)} does not name {version}; bring it up to date, with the line "
            f"'**Contract version**: {version}', and commit"
        )
    if generate.main(["--check"]):
        raise NotReleased("generated/ is out of date; run `make generate` and commit")
    return comparisons[list(comparisons)[-1]]


def freeze(version: str, comparison: Comparison, today: date) -> list[Path]:
    """Write wheel, contract, changelog and checksums of a release; return the files.

    It is released by its checksums, which come last and at once: `undo` takes back what was written without them.
    """
    contract = RELEASES / f"{version}.yaml"
    with tempfile.TemporaryDirectory() as folder:  # for the build takes long, and may be interrupted
        built = build_wheel(Path(folder))
        wheel = RELEASES / version / built.name
        wheel.parent.mkdir()
        shutil.move(built, wheel)
    contract.write_bytes(CONTRACT.read_bytes())
    replace(CHANGELOG, with_entry(CHANGELOG.read_text(encoding="utf-8"), version, comparison, today))
    added = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(RELEASES)}\n"
        for path in (contract, wheel)
    )
    replace(SUMS, SUMS.read_text(encoding="utf-8") + added)
    return [contract, wheel, SUMS, CHANGELOG]


def undo(version: str) -> None:
    """Take back what an interrupted release of a number left; nothing once it is released."""
    contract, folder = RELEASES / f"{version}.yaml", RELEASES / version
    if any(line.endswith(f" {contract.name}") for line in SUMS.read_text(encoding="utf-8").splitlines()):
        return
    if contract.exists():  # before its changelog is written
        replace(CHANGELOG, without_entry(CHANGELOG.read_text(encoding="utf-8"), version))
    for part in (beside(CHANGELOG), beside(SUMS), contract):
        part.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def replace(path: Path, text: str) -> None:
    """Write a file anew, at once: whoever is killed leaves the old one whole."""
    beside(path).write_text(text, encoding="utf-8")
    beside(path).replace(path)


def beside(path: Path) -> Path:
    """Return where a file is written before it takes the other's place."""
    return path.with_name(f"{path.name}.new")


def build_wheel(folder: Path) -> Path:
    """Build today's wheel into a folder; return its path."""
    run(
        str(Path(sys.executable).with_name("hatchling")),
        "build",
        "--target",
        "wheel",
        "--directory",
        str(folder),
    )
    [wheel] = folder.iterdir()
    return wheel


def with_entry(changelog: str, version: str, comparison: Comparison, today: date) -> str:
    """Return the changelog with a release's entry above the others."""
    head, first, rest = changelog.partition("\n## ")
    lines = "\n".join(f"- {finding.sentence}" for finding in comparison.findings)
    return f"{head}\n## {version} — {today.isoformat()}\n\n{lines}\n{first}{rest}"


def without_entry(changelog: str, version: str) -> str:
    """Return the changelog as it was before a release's entry."""
    head, _, entry = changelog.partition(f"\n## {version} — ")
    _, first, rest = entry.partition("\n## ")
    return f"{head}{first}{rest}"


def run(*command: str) -> str:
    """Run a program in the project's root; return what it prints. Raises NotReleased when it fails."""
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    if done.returncode:
        raise NotReleased(f"{Path(command[0]).name} {command[1]} failed:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
