"""`make contract` and `make release` as a person runs them, in a copy of the project."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from generated.operations import CURRENT
from scripts import node
from scripts.contract.__main__ import fault_of, report
from scripts.contract.comparison import Comparison, compare
from scripts.contract.examples import edges
from scripts.source import Source
from tests.docs.documents import blocks, prose
from tests.factories import repair_request
from tests.servers import ROOT

pytestmark = pytest.mark.long  # the generator, its compiler and a wheel, many times over

CONTRACT = Path("openapi", "webhooks", "v1.yaml")
RELEASES = Path("openapi", "webhooks", "releases")
PAGE = ROOT / "docs" / "changing-the-contract.md"
NEXT = "        issueDescription:\n"
"""Before what the page's field goes."""
MAJOR, MINOR, _ = map(int, CURRENT.split("."))
DUE = f"{MAJOR}.{MINOR + 1}.0"
"""The number that is due when today's is released and a field is added."""


class Project:
    """A copy of the project in a git repository of its own."""

    def __init__(self, folder: Path) -> None:
        for name in ("openapi", "generated", "scripts", "docs", "sender", "crm_server"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "package.json", "package-lock.json", ".gitignore"):
            shutil.copy(ROOT / name, folder)
        node.install()
        (folder / "node_modules").symlink_to(node.MODULES)
        self.folder = folder
        self.have_todays_released()
        self.git("init", "--quiet")
        (folder / ".git" / "info" / "exclude").write_text("node_modules\n")
        self.commit()

    def have_todays_released(self) -> None:
        """Have today's contract released already, also while it is not."""
        frozen = self.folder / RELEASES / f"{CURRENT}.yaml"
        if not frozen.exists():
            shutil.copy(self.folder / CONTRACT, frozen)
            with (frozen.parent / "SHA256SUMS").open("a") as sums:
                sums.write(f"{hashlib.sha256(frozen.read_bytes()).hexdigest()}  {frozen.name}\n")
        self.name(CURRENT)

    def git(self, *arguments: str) -> str:
        """Run git; return what it prints."""
        author = ["-c", "user.name=A Person", "-c", "user.email=person@example.com"]
        command = ["git", *author, *arguments]
        return subprocess.run(command, cwd=self.folder, text=True, capture_output=True, check=True).stdout

    def commit(self) -> None:
        """Commit all that there is."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "A change")

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the project's scripts."""
        command = [sys.executable, "-m", f"scripts.{script}", *arguments]
        return subprocess.run(command, cwd=self.folder, text=True, capture_output=True, check=False)

    def edit(self, name: Path | str, old: str, new: str) -> None:
        """Replace text, which must be there once at least, in a file."""
        path = self.folder / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def number(self, version: str) -> None:
        """Set `info.version`."""
        self.edit(CONTRACT, f"  version: {CURRENT}\n", f"  version: {version}\n")

    def name(self, version: str) -> None:
        """Name a version in the integration guide."""
        guide = self.folder / "docs" / "integration-guide.md"
        named = re.sub(
            r"(\*\*Contract version\*\*: ).*", rf"\g<1>{version}", guide.read_text(encoding="utf-8")
        )
        guide.write_text(named, encoding="utf-8")

    def add_the_pages_field(self) -> str:
        """Add the page's field where the page says, by a name that is free; return the name."""
        field, _ = (block.text for block in blocks(PAGE) if block.language == "yaml")
        name = field.split(":")[0].strip()
        free = name
        while f" {free}:" in (self.folder / CONTRACT).read_text(encoding="utf-8"):
            free += "Too"
        self.edit(CONTRACT, NEXT, field.replace(name, free) + NEXT)
        return free

    def grow(self) -> str:
        """Add the page's field and its number, and generate; return the field's name."""
        name = self.add_the_pages_field()
        self.number(DUE)
        assert self.run("generate").returncode == 0
        return name


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_page_is_walked_and_nothing_else_is_touched(project: Project) -> None:
    _, number = (block.text for block in blocks(PAGE) if block.language == "yaml")
    name = project.add_the_pages_field()
    asked = project.run("contract")
    assert asked.returncode == 1
    assert f"`{name}` was added (body of POST /repair-request)" in asked.stdout
    assert f"due is {DUE}. Set info.version to {DUE}." in asked.stderr
    # The page shows the number of its day.
    project.edit(CONTRACT, f"  version: {CURRENT}\n", re.sub(r"\d+\.\d+\.\d+", DUE, number))
    assert project.run("generate").returncode == 0
    asked = project.run("contract")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert "Nobody breaks" in asked.stdout
    assert project.run("generate", "--check").returncode == 0
    touched = {
        line.split()[-1].partition("/")[0] for line in project.git("status", "--porcelain").splitlines()
    }
    assert touched == {"openapi", "generated"}
    assert "device_colour" in (project.folder / "generated" / "webhooks.py").read_text()


WORDS = """\
        testDeposit: { type: number, description: It., minimum: 0, maximum: 9, multipleOf: 0.5 }
        testStars: { type: integer, description: It., enum: [1, 2] }
        testAgreed: { type: boolean, description: It., enum: [true] }
        testSome: { description: It., enum: [a, 1, true] }
        testTags: { type: array, description: It., minItems: 1, maxItems: 9, items: { type: boolean } }
        testChoice: { description: It., oneOf: [{ enum: [a], type: string }, { oneOf: [{ type: integer, minimum: 0, maximum: 1 }] }] }
"""
"""Fields that say what no field says today."""
JUDGED = """
import json, sys
from crm_server.validation import describe_faults, load_rules
from generated.operations import CURRENT, WEBHOOKS
from sender.validation import find_faults
body, name = json.loads(sys.argv[1]), "repair-request"
ours, theirs = find_faults(body, WEBHOOKS[name], CURRENT), describe_faults(load_rules()[CURRENT][name], body).faults
for faults in (ours, theirs):
    print(json.dumps([[fault.pointer, fault.detail, fault.expected] for fault in faults]))
"""
"""Says what either side tells of a body."""


def test_a_wrong_value_is_told_by_whatever_word_a_new_field_says(project: Project) -> None:
    project.edit(CONTRACT, NEXT, WORDS + NEXT)
    project.number(DUE)
    assert project.run("generate").returncode == 0
    wrong = {
        "testDeposit": 0.7,
        "testStars": 3,
        "testAgreed": False,
        "testSome": "b",
        "testTags": [],
        "testChoice": "c",
    }
    body = repair_request(**{f"repair__{name}": value for name, value in wrong.items()})
    command = [sys.executable, "-c", JUDGED, json.dumps(body)]
    done = subprocess.run(command, cwd=project.folder, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    ours, theirs = map(json.loads, done.stdout.splitlines())
    assert ours == theirs
    assert sorted(ours) == [
        ["/repair/testAgreed", "is not one of the known values", "true"],
        ["/repair/testChoice", "is none of what is allowed", "string or a value"],
        ["/repair/testDeposit", "is between two steps", "a multiple of 0.5"],
        ["/repair/testSome", "is not one of the known values", "a or 1 or true"],
        ["/repair/testStars", "is not one of the known values", "1 or 2"],
        ["/repair/testTags", "has too few items", "at least 1"],
    ]


MONEY = "          type: number\n          description: The estimate"
BREAKS = {
    "a field removed": (
        ["        notes:\n", "        remarks:\n"],
        "Property `notes` of `Repair` was removed (body of POST /repair-request).",
        '"notes": ""',
    ),
    "an enum narrowed": (
        ["[low, normal, high, urgent]", "[low, normal, high]"],
        "Enum of `priority` lost values: 'urgent' (body of POST /repair-request).",
        '"priority": "urgent"',
    ),
    "a length shortened": (
        ["maxLength: 400", "maxLength: 40"],
        "`maxLength` of `customerName` changed from '400' to '40' (body of POST /repair-request).",
        "400 characters",
    ),
    "a required field added": (
        ["deviceType, issueDescription, createdAt]", "deviceType, issueDescription, createdAt, address]"],
        "Properties of `Repair` became required: `address` (body of POST /repair-request).",
        '"issueDescription": ',
    ),
    "a pattern changed": (
        ["^[A-Z][A-Z0-9_]{0,63}$", "^[a-z][a-z0-9_]{0,63}$"],
        "`pattern` of `serviceType` changed from",
        '"serviceType": "X"',
    ),
    "a type changed": (
        [MONEY, MONEY.replace("number", "integer")],
        "Type of `estimatedCost` narrowed from 'number' to 'integer' (body of POST /repair-request).",
        '"estimatedCost": 0.01',
    ),
    "a path removed": (
        ["  /repair-request:\n", "  /repair-booking:\n"],
        "Path `/repair-request` was renamed to `/repair-booking`",
        '"websiteRepairId": ',
    ),
}  # fmt: skip
WIDER = "maxLength: 5000", "maxLength: 6000"
BETTER_WORDS = "Postal address. May", "The postal address. May"
SAME = "", ""


@pytest.fixture(scope="module")
def comparisons() -> dict[tuple[str, str], Comparison]:
    """Return what is said of each edit of the first release, asked at once."""
    text = (ROOT / RELEASES / "1.0.0.yaml").read_text(encoding="utf-8")
    edits = [(old, new) for (old, new), *_ in BREAKS.values()] + [WIDER, BETTER_WORDS, SAME]
    assert all(old in text for old, _ in edits)
    documents = [Source("1.0.0.yaml", text.replace(*edit)).content for edit in [SAME, *edits]]
    compared = compare([(documents[0], edited) for edited in documents[1:]])
    return dict(zip(edits, compared, strict=True))


@pytest.mark.parametrize("change", BREAKS)
def test_a_break_is_stopped_with_the_sentence_and_the_payload(
    change: str, comparisons: dict[tuple[str, str], Comparison], capsys: pytest.CaptureFixture[str]
) -> None:
    (old, new), sentence, payload = BREAKS[change]
    assert report("1.1.0", {"1.0.0": comparisons[old, new]}) == 1
    printed = capsys.readouterr()
    assert f"BREAK  {sentence}" in printed.out
    assert "sender: " in printed.out
    assert "staff: " in printed.out
    assert payload in printed.out
    if change == "an enum narrowed":  # which the page shows
        _, found, rest = prose(PAGE).partition("\n      BREAK ")
        shown = [line[4:] for line in f"{found}{rest}".splitlines() if line.startswith("    ")]
        samples = [line for line in shown if ":" in line]
        assert len(samples) == 5
        assert [line for line in samples if line not in printed.out] == []
    assert "v1 only grows: no number makes this fine" in printed.err


@pytest.mark.parametrize(
    ("edit", "due"),
    [(WIDER, "1.1.0"), (BETTER_WORDS, "1.0.1"), (SAME, "1.0.0")],
    ids=["minor", "patch", "none"],
)
@pytest.mark.parametrize("version", ["1.0.0", "1.0.1", "1.1.0", "1.2.0", "2.0.0", "1.1"])
def test_one_number_is_right_and_the_others_are_told_it(
    version: str, edit: tuple[str, str], due: str, comparisons: dict[tuple[str, str], Comparison]
) -> None:
    fault = fault_of(version, {"1.0.0": comparisons[edit]})
    assert fault is None if version == due else f"says {version}; due is {due}." in str(fault)


def test_what_is_no_yaml_is_said_without_a_traceback(project: Project) -> None:
    project.edit(CONTRACT, "paths:\n", "paths: [\n")
    asked = project.run("contract")
    assert asked.returncode == 1
    assert asked.stderr.startswith("contract: ")
    assert "Traceback" not in asked.stderr


SUNSET = """\
        sunset:
          type: string
          format: date
          description: The day from which on the CRM may refuse it, where that is known.
"""


def test_what_no_example_is_found_of_is_judged_without_a_traceback(project: Project) -> None:
    project.edit(CONTRACT, SUNSET, "")  # beside a day that an answer must have
    asked = project.run("contract")
    assert asked.returncode == 1
    assert "BREAK  Property `sunset` of `Deprecated` was removed (answers of GET /health)." in asked.stdout
    assert "Traceback" not in asked.stderr


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        ({"type": "string", "format": "date"}, "2024-12-13"),
        ({"type": "integer", "minimum": 1, "maximum": 10, "multipleOf": 7}, 7),
        ({"type": "string", "maxLength": 2, "pattern": "^aaa$"}, None),
    ],
    ids=["a day", "a step", "nothing"],
)
def test_an_example_is_found_of_what_must_be_there_or_none(schema: dict[str, Any], found: Any) -> None:
    whole = {"type": "object", "required": ["it"], "properties": {"it": schema}}
    examples = list(edges(whole, deep=False))
    assert {"it": found} in examples if found else examples == []
    of_any_name = {"type": "object", "maxProperties": 2, "additionalProperties": schema}
    assert {} in list(edges(of_any_name, deep=False))


def test_wrong_usage_is_told_from_a_refusal(project: Project) -> None:
    assert project.run("contract", "v2.yaml").returncode == 2
    assert project.run("release", "1.1.0").returncode == 2


def test_a_release_is_refused_until_all_is_right_and_then_frozen(project: Project) -> None:
    def refused() -> str:
        done = project.run("release")
        assert done.returncode == 1
        return done.stderr

    assert f"{CURRENT} is released already" in refused()
    name = project.grow()
    assert "there are uncommitted changes" in refused()
    project.commit()
    assert f"docs/integration-guide.md does not name {DUE}" in refused()
    project.name(DUE)
    project.edit("generated/webhooks.py", "max_length=40,", "max_length=41,")
    project.commit()
    assert "run `make generate` and commit" in refused()
    project.edit("generated/webhooks.py", "max_length=41,", "max_length=40,")
    project.commit()

    done = project.run("release")
    assert (done.returncode, done.stderr) == (0, "")
    frozen = project.folder / RELEASES / f"{DUE}.yaml"
    assert frozen.read_bytes() == (project.folder / CONTRACT).read_bytes()
    [wheel] = (project.folder / RELEASES / DUE).iterdir()
    with zipfile.ZipFile(wheel) as archive:
        kept = json.loads(archive.read(f"generated/contracts/{DUE}/openapi.json"))
    assert kept["info"]["version"] == DUE
    command = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    subprocess.run(command, cwd=project.folder / RELEASES, check=True)
    log = (project.folder / RELEASES.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    assert log.index(f"## {DUE} — ") < log.index(f"- `{name}` was added") < log.index("## 1.0.0")

    project.commit()
    asked = project.run("contract")
    assert asked.returncode == 0
    assert f"Nothing changed since {DUE}." in asked.stdout
    assert f"{DUE} is released already" in refused()

    wheel.write_bytes(wheel.read_bytes() + b" ")
    for script, *arguments in (["generate", "--check"], ["contract"]):
        done = project.run(script, *arguments)
        assert done.returncode == 1
        assert f"{wheel.relative_to(project.folder)} is released and frozen" in done.stderr


KILLER = """
import os, signal
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
class Killer(BuildHookInterface):
    def finalize(self, version, build_data, artifact_path):
        os.kill(os.getppid(), signal.SIGKILL)
"""
"""Kills whoever builds a wheel, once it is written."""


def test_a_release_that_is_killed_leaves_nothing(project: Project) -> None:
    project.grow()
    project.name(DUE)
    (project.folder / "hatch_build.py").write_text(KILLER)
    project.edit(
        "pyproject.toml", "[tool.hatch.build]\n", "[tool.hatch.build.hooks.custom]\n\n[tool.hatch.build]\n"
    )
    project.commit()
    assert project.run("release").returncode == -signal.SIGKILL
    assert project.git("status", "--porcelain") == ""


KILLED = """
import os, signal, sys
from datetime import date
from scripts.contract.comparison import Comparison
from scripts.release import freeze

moment, version = int(sys.argv[1]), sys.argv[2]
moments = 0

def kill(event, arguments):
    global moments
    changes = event in ("os.mkdir", "os.rename", "shutil.copyfile") or (event == "open" and "r" not in str(arguments[1]))
    if changes and "openapi/webhooks" in str(arguments):
        moments += 1
        if moments == moment:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
freeze(version, Comparison((), (), ()), date(2027, 1, 1))
"""
"""Writes a release, and is killed at the moment, of those in which it changes a file, that it is told."""


def test_a_release_that_is_killed_while_it_writes_is_made_by_running_it_again(project: Project) -> None:
    name = project.grow()
    project.name(DUE)
    project.commit()
    moment = 0
    while True:
        moment += 1
        command = [sys.executable, "-c", KILLED, str(moment), DUE]
        if subprocess.run(command, cwd=project.folder, check=False).returncode == 0:
            break
        left = project.git("status", "--porcelain")
        undone = project.run("release", "--undo")
        assert (undone.returncode, undone.stderr) == (0, ""), (moment, left)
        assert project.git("status", "--porcelain") == "", (moment, left)
    assert moment > 6
    made = project.git("status", "--porcelain")
    assert made
    project.run("release", "--undo")
    assert project.git("status", "--porcelain") == made

    project.git("reset", "--quiet", "--hard")  # which leaves contract and wheel, without their checksums
    done = project.run("release")
    assert (done.returncode, done.stderr) == (0, "")
    log = (project.folder / RELEASES.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    assert log.count(f"## {DUE} — ") == 1
    assert f"- `{name}` was added" in log


def test_what_an_interrupted_release_left_is_told_by_every_command(project: Project) -> None:
    folder = RELEASES / DUE
    (project.folder / folder).mkdir()
    (project.folder / folder / "a.whl").write_bytes(b"left")
    for script in ("contract", "generate", "release"):
        done = project.run(script)
        assert done.returncode == 1
        assert f"or delete it: rm -r {folder}\n" in done.stderr


def test_a_release_that_would_break_somebody_is_refused(project: Project) -> None:
    project.edit(CONTRACT, "[low, normal, high, ", "[normal, high, ")
    project.number(DUE)
    project.commit()
    for script in ("contract", "release"):
        done = project.run(script)
        assert done.returncode == 1
        assert "v1 only grows" in done.stderr
