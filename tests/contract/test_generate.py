"""`make generate`: what is committed is what the contract says, and a contradiction is told with its cure."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from generated.operations import CURRENT, RELEASES
from scripts import node
from scripts.generate import deprecations, released
from scripts.source import ContractError
from tests.contract.contracts import contract
from tests.contract.test_reading import COLLECTOR, CONTACT, FIELDS, NICKNAME, PLAIN, edited, field, of
from tests.factories import repair_request

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = "openapi/webhooks/v1.yaml"
RELEASE = "openapi/webhooks/releases/1.0.0.yaml"

ALONE = {
    "annotated_types",
    "generated",
    "pydantic",
    "pydantic_core",
    "typing_extensions",
    "typing_inspection",
}
"""Ourselves, pydantic, and what pydantic itself is made of."""

LAST = list(released())[-1]
"""The newest release, which none before it can have given up."""

IMPORT_GENERATED = """
import sys
before = set(sys.modules)
import generated.operations, generated.webhooks
for name in set(sys.modules) - before:
    if "." not in name and getattr(sys.modules[name], "__file__", None):
        print(name, sys.modules[name].__file__)
"""

SHOWN_TO_VIEWERS = """
import json, sys
from crm_server import search
from crm_server.api.masking import mask_payload
from generated.operations import CURRENT, MODELS
payload = json.load(sys.stdin)
model = MODELS["repair-request"].model_validate_json(json.dumps(payload), by_alias=True, by_name=False)
item = {"contract": CURRENT, "event": "repair-request", "payload": payload}
print(mask_payload(item)["payload"]["repair"], repr(model), search.document(1, "repair-request", CURRENT, payload).public)
"""


def give_up(tree: Path, releases: str) -> None:
    """Have these releases given up by today's contract, and no others."""
    text = (tree / CONTRACT).read_text(encoding="utf-8")
    [today] = re.findall(r"^  x-deprecated:.*\n(?: {3}.*\n)*", text, re.MULTILINE)
    edit(tree, CONTRACT, today, f"  x-deprecated: {releases}\n")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a copy of what `make generate` reads and writes."""
    for name in ("openapi", "generated", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "package.json", "package-lock.json"):
        shutil.copy(ROOT / name, tmp_path)
    node.install()
    (tmp_path / "node_modules").symlink_to(node.MODULES)
    return tmp_path


def generate(tree: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `scripts.generate` in a tree."""
    return run(tree, "generate", *options)


def run(tree: Path, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a script of a tree in it."""
    command = [sys.executable, "-m", f"scripts.{script}", *options]
    return subprocess.run(command, cwd=tree, text=True, capture_output=True, check=False)


def contents(tree: Path) -> dict[str, bytes]:
    """Return every file of `generated/`."""
    return {str(path): path.read_bytes() for path in files(tree / "generated")}


def files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder."""
    return (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def edit(tree: Path, name: str, old: str, new: str) -> None:
    """Replace text, which must be there, in a file of a tree."""
    path = tree / name
    assert old in path.read_text(encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def test_what_is_missing_is_written_again(tree: Path) -> None:
    before = contents(tree)
    shutil.rmtree(tree / "generated")
    assert generate(tree).returncode == 0
    assert contents(tree) == before


def test_generating_again_changes_nothing_but_a_file_that_the_contract_does_not_name(tree: Path) -> None:
    before = contents(tree)
    (tree / "generated" / "left_over.py").write_text("")
    assert generate(tree, "--check").returncode == 1
    done = generate(tree)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tree) == before


def test_the_check_fails_with_the_diff_and_the_cure_and_mends_nothing(tree: Path) -> None:
    edit(tree, "generated/webhooks.py", "max_length=5000", "max_length=4999")
    before = contents(tree)
    done = generate(tree, "--check")
    assert done.returncode == 1
    assert "-            max_length=4999," in done.stdout
    assert "+            max_length=5000," in done.stdout
    assert done.stdout.startswith("--- generated/webhooks.py")
    assert "make generate" in done.stderr
    assert contents(tree) == before


def test_a_changed_release_is_refused_by_name(tree: Path) -> None:
    edit(tree, RELEASE, "A customer registered", "A person registered")
    for options in ((), ("--check",)):
        done = generate(tree, *options)
        assert done.returncode == 1
        assert f"{RELEASE} is released and frozen" in done.stderr
        assert f"git checkout {RELEASE}" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_lost_release_is_refused_by_name(tree: Path) -> None:
    (tree / RELEASE).unlink()
    done = generate(tree, "--check")
    assert done.returncode == 1
    assert f"git checkout {RELEASE}" in done.stderr


def test_a_release_without_a_checksum_is_refused(tree: Path) -> None:
    shutil.copy(tree / RELEASE, tree / "openapi/webhooks/releases/1.99.0.yaml")
    done = generate(tree, "--check")
    assert done.returncode == 1
    assert "openapi/webhooks/releases/1.99.0.yaml has no checksum" in done.stderr


def test_another_document_under_a_released_number_is_refused(tree: Path) -> None:
    edit(tree, CONTRACT, f"  version: {CURRENT}\n", "  version: 1.0.0\n")
    done = generate(tree)
    assert done.returncode == 1
    assert f"{CONTRACT} differs from release 1.0.0" in done.stderr
    assert "Raise info.version" in done.stderr


def test_a_number_before_the_newest_release_is_refused(tree: Path) -> None:
    edit(tree, CONTRACT, f"  version: {CURRENT}\n", "  version: 1.0.5\n")
    done = generate(tree)
    assert done.returncode == 1
    newest = list(released())[-1]
    assert done.stderr.startswith(
        f"generate: {CONTRACT} says 1.0.5, and {newest} is released. Raise info.version"
    )


def test_a_number_writes_nothing_beside_what_is_generated(tree: Path) -> None:
    edit(tree, CONTRACT, f"  version: {CURRENT}\n", "  version: ../../x\n")
    assert generate(tree).returncode == 1
    assert not (tree / "x").exists()


@pytest.mark.parametrize("document", ["webhooks/v1.yaml", "approvals.yaml", "integration.yaml"])
def test_what_cannot_be_read_is_told_without_a_traceback(tree: Path, document: str) -> None:
    edit(tree, f"openapi/{document}", "\npaths:\n", "\npaths: [\n")
    done = generate(tree)
    assert done.returncode == 1
    assert done.stderr.startswith(f"generate: openapi/{document}:")
    assert len(done.stderr.splitlines()) == 1


def test_the_faults_of_all_documents_are_told_at_once(tree: Path) -> None:
    documents = ("webhooks/v1.yaml", "approvals.yaml", "integration.yaml")
    for document in documents:
        edit(tree, f"openapi/{document}", "      operationId: ", "      operationid: ")
    done = generate(tree)
    assert done.returncode == 1
    told = re.findall(r"openapi/(.*):[0-9]+: paths\.\S+\.operationId is missing", done.stderr)
    assert tuple(dict.fromkeys(told)) == documents


def test_a_role_that_no_server_starts_with_is_told(tree: Path) -> None:
    edit(tree, "openapi/approvals.yaml", "      x-role: admin\n", "      x-role: boss\n")
    told = generate(tree, "--check").stderr
    assert re.search(
        r"generate: openapi/approvals.yaml:[0-9]+: paths\.\S+\.x-role must say the least role", told
    )
    assert told.count("one of: viewer, approver, admin.\n") == 3


def test_a_new_release_keeps_the_old_ones_rules_beside_its_own(tree: Path) -> None:
    edit(tree, CONTRACT, f"  version: {CURRENT}\n", "  version: 1.100.0\n")
    edit(tree, CONTRACT, FIELDS, f"        testField: {{ type: boolean, description: Some. }}\n{FIELDS}")
    assert generate(tree).returncode == 0
    schemas = [
        (tree / "generated" / "contracts" / release / "repair-request.json").read_text()
        for release in ("1.0.0", "1.100.0")
    ]
    assert ["testField" in schema for schema in schemas] == [False, True]
    operations = (tree / "generated" / "operations.py").read_text()
    assert 'CURRENT = "1.100.0"' in operations
    assert operations.index('"1.0.0": {') < operations.index('"1.100.0": {')


def test_a_release_that_is_given_up_is_known_to_both_programs(tree: Path) -> None:
    edit(tree, CONTRACT, f"  version: {CURRENT}\n", "  version: 1.100.0\n")
    give_up(tree, f'{{"{LAST}": {{since: "2027-01-01", sunset: "2027-07-01"}}}}')
    asked = run(tree, "contract")
    assert (
        f"Release `{LAST}` is given up: it should not be sent from 2027-01-01 on, and may be refused from "
        "2027-07-01 on." in asked.stdout
    )
    found = re.search(r"due is (\S+)\. ", asked.stderr)
    assert found
    edit(tree, CONTRACT, "  version: 1.100.0\n", f"  version: {found[1]}\n")
    done = generate(tree)
    assert done.returncode == 0, done.stderr
    asked = run(tree, "contract")
    assert asked.returncode == 0, asked.stderr
    operations = (tree / "generated" / "operations.py").read_text()
    assert f'"{LAST}": Deprecated(datetime.date(2027, 1, 1), datetime.date(2027, 7, 1))' in operations


def test_a_personal_object_or_list_is_hidden_whole(tree: Path) -> None:
    shutil.copytree(ROOT / "crm_server", tree / "crm_server", ignore=shutil.ignore_patterns("__pycache__"))
    edits = [
        *field(COLLECTOR + NICKNAME, PLAIN),
        *field(of("TestContact", beside="x-personal-data: true, "), CONTACT),
        (f"  version: {CURRENT}\n", "  version: 1.100.0\n"),
    ]
    path = tree / CONTRACT
    path.write_text(edited(edits, path.read_text(encoding="utf-8")), encoding="utf-8")
    done = generate(tree)
    assert done.returncode == 0, done.stderr
    payload = repair_request()
    payload["repair"] |= {
        "testCollector": {"name": "Quentin"},
        "testNickname": "Quentin",
        "testSome": [{"name": "Quentin"}],
    }
    command = [sys.executable, "-c", SHOWN_TO_VIEWERS]
    done = subprocess.run(
        command,
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        input=json.dumps(payload),
        text=True,
        capture_output=True,
        check=True,
    )
    assert "'testCollector': {}, 'testNickname': '•••', 'testSome': []" in done.stdout
    assert "quentin" not in done.stdout.lower()


@pytest.mark.parametrize(
    ("given_up", "told"),
    [
        ('{"0.9.0": {since: "2027-01-01"}}', "0.9.0 is no earlier release"),
        (f'{{"{CURRENT}": {{since: "2027-01-01"}}}}', f"{CURRENT} is no earlier release"),
        ('{"1.0.0": {}}', "1.0.0 needs a day in quotes"),
        ('{"1.0.0": {since: 2027-01-01}}', "1.0.0 needs a day in quotes"),
        ('{"1.0.0": {since: "2027-01-01", sunset: "2026-12-31"}}', "1.0.0 needs a day in quotes"),
        ('{"1.0.0": {since: "2027-01-01", end: "2027-12-31"}}', "1.0.0 needs a day in quotes"),
    ],
)
def test_what_gives_up_no_release_is_refused(given_up: str, told: str) -> None:
    contracts = {release: contract(release) for release in RELEASES}
    contracts[CURRENT]["info"]["x-deprecated"] = yaml.safe_load(given_up)
    with pytest.raises(ContractError, match=told):
        list(deprecations(contracts, CURRENT))


def test_the_last_release_may_be_given_up_before_the_number_is_raised(tree: Path) -> None:
    give_up(tree, f'{{"{LAST}": {{since: "2027-01-01"}}}}')
    asked = run(tree, "contract")
    assert f"Release `{LAST}` is given up: it should not be sent from 2027-01-01 on." in asked.stdout


def test_days_that_nobody_can_read_are_told_by_the_comparison_too(tree: Path) -> None:
    give_up(tree, '{"1.0.0": {}}')
    asked = run(tree, "contract")
    assert asked.returncode == 1
    assert asked.stderr.startswith(f"contract: info.x-deprecated of {CONTRACT}: 1.0.0 needs a day in quotes")


def test_the_checksums_are_those_that_sha256sum_writes() -> None:
    releases = ROOT / "openapi" / "webhooks" / "releases"
    for line in (releases / "SHA256SUMS").read_text().splitlines():
        checksum, name = line.split("  ")
        assert hashlib.sha256((releases / name).read_bytes()).hexdigest() == checksum


def test_generated_needs_pydantic_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_GENERATED], cwd=ROOT, text=True, capture_output=True, check=True
    )
    modules = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    ours = str(ROOT / "generated")
    installed = {name for name, file in modules.items() if "site-packages" in file or file.startswith(ours)}
    assert {"generated", "pydantic"} <= installed <= ALONE
