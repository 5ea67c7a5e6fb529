"""Every command that is shown runs, and every command that there is, is shown."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from generated.operations import CURRENT
from tests import programs
from tests.contract.contracts import package_json
from tests.docs.documents import DOCUMENTS, README, blocks, spans, table
from tests.end_to_end.chaos import wait_until
from tests.postgresql import shared_postgresql
from tests.servers import NO_TLS, ROOT, STOP_SECONDS, clean_environment, free_port, new_postgresql

PROGRAMS = {"crm-sender": "sender", "crm-server": "crm_server"}
CURL = "tests.docs.curl"
"""Stands in for curl where there is none."""
LITERAL = {"status", "type", "title", "duplicate", "event"}
"""What an answer must say in the same words as the page."""
WHEEL = re.compile(r'pip install "?([\w.]+)-([\d.]+)-py3-none-any\.whl(?:\[(\w+)\])?"?')


class Terminal:
    """A shell in a folder of its own, that has our programs, as a person has who follows a page."""

    printed = ""
    """What the last line printed."""

    def __init__(
        self, folder: Path, running: ExitStack, *, has_curl: bool = bool(shutil.which("curl"))
    ) -> None:
        programs = folder / "bin"
        programs.mkdir()
        for name, module in {**PROGRAMS, **({} if has_curl else {"curl": CURL})}.items():
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
            (programs / name).chmod(0o755)
        self.folder, self.running = folder, running
        self.port, self.frontend_port = free_port(), free_port()
        self.dashboards = {port: str(free_port()) for port in ("3010", "3012", "3013")}
        self.environment = clean_environment()
        self.environment["PATH"] = f"{programs}:{self.environment['PATH']}"

    def type(self, line: str) -> str:
        """Run a line to its end; return what it printed."""
        command = ["bash", "-c", self.on_our_ports(line)]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        self.printed = done.stdout
        return done.stdout

    def leave_running(self, line: str) -> None:
        """Start a line that runs until stopped."""
        command = ["bash", "-c", f"exec {self.on_our_ports(line)}"]
        with (self.folder / "running.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        self.running.callback(process.wait, STOP_SECONDS)
        self.running.callback(process.terminate)

    def move_to_postgresql(self) -> None:
        """Have the CRM's database on PostgreSQL, and its programs at hand."""
        if "CRM_DATABASE_URL" not in self.environment:
            self.environment["CRM_DATABASE_URL"] = new_postgresql()
            self.environment["PATH"] = f"{shared_postgresql().programs}:{self.environment['PATH']}"

    def write(self, name: str, text: str) -> None:
        """Add to a file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(self.on_our_ports(text))

    def on_our_ports(self, text: str) -> str:
        """Return a page's text with ports that are free here, in the place of those that it names."""
        if text.startswith("crm-server serve"):
            text += f" --port {self.port} --frontend-port {self.frontend_port}"
        if text == "crm-sender dashboard":
            text += " --port 3010"
        ours = {"5001": str(self.port), "3001": str(self.frontend_port), **self.dashboards}
        return re.sub("|".join(ours), lambda port: ours[port[0]], text)

    def answers(self, page: str) -> bool:
        """Say whether an address of a page answers well."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.on_our_ports(page)}", verify=NO_TLS).is_success
        except httpx.TransportError:
            return False


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with ExitStack() as running:
        yield Terminal(tmp_path, running)


def follow(line: str, terminal: Terminal) -> None:
    """Do what a line of a page says."""
    if line.startswith("make"):
        dry_run(line)
    elif line.startswith(("sudo", "docker")):
        require_our_names(line)
    elif line.startswith("pip install"):
        require_our_wheel(line)
    elif line.startswith("crm-server serve"):
        terminal.leave_running(line)
        wait_until(lambda: terminal.answers("5001/webhooks/health"), 30, "an answer of the CRM")
    elif "crm-sender dashboard" in line:
        terminal.leave_running(line)
        [port] = re.findall(r"--port (\d+)", line) or ["3010"]
        wait_until(lambda: terminal.answers(f"{port}/api/crm/integration"), 30, "an answer of the dashboard")
    elif line.startswith("crm-sender relay"):
        terminal.leave_running(line)
    elif line.startswith("pg_"):
        terminal.move_to_postgresql()
        terminal.type(line)
    else:
        terminal.type(line)


def require_answer(came: str, shown: str) -> None:
    """Hold an answer with its headers, as `curl -i` prints it, against one that a page shows without them."""
    (status, body), (shown_status, shown_body) = read_answer(came), read_answer(shown)
    assert status == shown_status, came
    assert list(unlike(json.loads(body), json.loads(shown_body))) == [], came


def read_answer(text: str) -> tuple[str, str]:
    """Return an answer's status line and its body; `subprocess` has made every line's end one character."""
    head, _, body = text.partition("\n\n")
    return head.splitlines()[0].strip(), body


def unlike(came: Any, shown: Any, at: str = "") -> Iterator[str]:
    """Yield where an answer is not of the shape that a page shows; more may stand in it, and null for any value."""
    if came is None or shown is None:
        return
    if type(came) is not type(shown):
        yield f"{at} is {type(came).__name__}"
    elif isinstance(shown, dict):
        for name, value in shown.items():
            if name in came:
                yield from unlike(came[name], value, f"{at}/{name}")
            else:
                yield f"{at}/{name} is missing"
    elif isinstance(shown, list):
        if shown and came:
            yield from unlike(came[0], shown[0], f"{at}/0")
    elif at.rpartition("/")[2] in LITERAL and came != shown:
        yield f"{at} is {came}"


def dry_run(line: str) -> None:
    """Have make say what a target would do."""
    command = ["bash", "-c", line.replace("make", "make --dry-run", 1)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def require_our_names(line: str) -> None:
    """Hold a line for the whole machine, which no test may run, against the files and containers that there are."""
    if "pip install" in line:
        require_our_wheel(line[line.index("pip install") :])
    units = [Path(word).name for word in line.split() if word.endswith(".service")]
    assert [unit for unit in units if not (ROOT / "docs" / "operating" / unit).exists()] == []
    found = re.match(r"docker (?:logs|exec) (\S+)", line)
    assert not found or f"container_name: {found[1]}\n" in (ROOT / "compose.yaml").read_text()


def require_our_wheel(line: str) -> None:
    """Hold a line that installs the wheel against pyproject.toml; tests/wheel installs it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    match = WHEEL.fullmatch(line)
    assert match, line
    name, version, extra = match.groups()
    assert name.replace("_", "-") == project["name"]
    wheel = f"{name}-{version}-py3-none-any.whl"
    assert (ROOT / "openapi/webhooks/releases" / version / wheel).exists(), "no release has such a wheel"
    assert extra is None or extra in project["optional-dependencies"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_a_page_can_be_followed_from_top_to_bottom(document: Path, terminal: Terminal) -> None:
    for block in blocks(document):
        if block.file:
            terminal.write(block.file, block.text)
        elif block.language == "bash":
            for line in block.text.splitlines():
                follow(line, terminal)
        elif block.language == "http":
            require_answer(terminal.printed, block.text)
        else:
            assert block.language == "python", f"no test runs a block of {block.language}"
    if document == README:
        wait_until(lambda: "booking-1" in terminal.type("crm-server approvals list"), 20, "the request")


@pytest.mark.long  # a machine without curl follows every page so
def test_the_curl_page_is_the_same_to_a_machine_without_curl(tmp_path: Path) -> None:
    with ExitStack() as running:
        test_a_page_can_be_followed_from_top_to_bottom(
            ROOT / "docs" / "curl.md", Terminal(tmp_path, running, has_curl=False)
        )


def test_the_curl_page_calls_every_webhook_health_receipts_and_the_integration_api() -> None:
    lines = [
        line
        for block in blocks(ROOT / "docs" / "curl.md")
        if block.language == "bash"
        for line in block.text.splitlines()
    ]
    contracts = {"5001/webhooks": package_json(CURRENT, "openapi.json")}
    contracts["3010/api/crm"] = package_json("integration", "openapi.json")
    for base, document in contracts.items():
        for path in document["paths"]:
            address = f"http://localhost:{base}{path.partition('{')[0]}"
            assert [line for line in lines if line.startswith("curl -i") and address in line], path


def test_the_readme_shows_every_command_of_the_sender() -> None:
    assert first_words(table(README, "`crm-sender`")) == commands("sender")


def test_the_readme_shows_every_command_of_the_server() -> None:
    groups = {"approvals", "staff"}
    ours = commands("crm_server") - groups
    ours |= {f"{group} {name}" for group in groups for name in commands("crm_server", group)}
    assert first_words(table(README, "`crm-server`")) == ours


def first_words(rows: dict[str, list[str]]) -> set[str]:
    """Return commands without their arguments: `retry` of `retry ID`."""
    return {" ".join(re.findall(r"(?:^|(?<= ))[a-z-]*[a-z](?= |$)", row.split(" --")[0])) for row in rows}


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_options_that_the_readme_names_are_there(program: str) -> None:
    for row, cells in table(README, f"`{program}`").items():
        command = re.sub(r" [A-Z-].*", "", row).split()
        for option in re.findall(r"--[a-z-]+", f"{row} {cells[0]}"):
            assert option in help_of(PROGRAMS[program], *command), row


@pytest.mark.parametrize("document", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_commands_within_the_text_exist(document: Path) -> None:
    for span in spans(document):
        program, _, rest = span.partition(" ")
        word = rest.partition(" ")[0]
        if program == "make" and word:
            dry_run(f"make {word}")
        elif program in PROGRAMS and word:
            assert word in commands(PROGRAMS[program]), span


@cache
def commands(*words: str) -> set[str]:
    """Return the commands that a program's help lists."""
    return set(re.findall(r"^    ([a-z-]+)(?:\s|$)", help_of(*words), re.MULTILINE))


@cache
def help_of(module: str, *words: str) -> str:
    done = programs.run(module, *words, "--help", cwd=ROOT, env=clean_environment())
    assert done.returncode == 0, done.stderr
    return done.stdout
