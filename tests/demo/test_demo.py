"""The demo, run as a person runs it: it keeps what it promises, or says what it could not have."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.chaos import wait_until
from tests.servers import ROOT, clean_environment, free_port

ADAS = re.compile(r"Lovelace|ada@example|7946|cracked")
"""What Ada writes into the forms."""


class Run:
    """A demo on free ports, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output = folder, folder.with_suffix(".out")
        self.crm_port, self.staff_port, self.site_port, self.dashboard_port = (free_port() for _ in range(4))

    @property
    def command(self) -> list[str]:
        ports = {
            "crm": self.crm_port,
            "staff": self.staff_port,
            "site": self.site_port,
            "dashboard": self.dashboard_port,
        }
        options = [f"--{name}-port={port}" for name, port in ports.items()]
        return [sys.executable, "-m", "scripts.demo", *options, "--folder", str(self.folder)]

    def once(self) -> subprocess.CompletedProcess[str]:
        """Tell the story and end."""
        environment = clean_environment(ONCE="1")
        return subprocess.run(
            self.command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False
        )

    @contextmanager
    def until(self, words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Tell the story until it has said these words, and go on."""
        environment = clean_environment()
        environment.pop("ONCE", None)
        with (
            self.output.open("wb") as output,
            subprocess.Popen(
                self.command, cwd=ROOT, env=environment, stdout=output, stderr=output
            ) as process,
        ):
            try:
                wait_until(lambda: words in self.said or process.poll() is not None, 180, "the story")
                yield process
            finally:
                process.kill()

    @property
    def said(self) -> str:
        return self.output.read_text()

    def ports_are_free(self) -> bool:
        ports = (self.crm_port, self.staff_port, self.site_port, self.dashboard_port)
        return not any(map(is_taken, ports))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a demo whose folder is used again and again."""
    return Run(tmp_path_factory.mktemp("demo") / "demo")


def is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_taken_port_is_named_before_anything_starts(demo: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", demo.site_port))
        taken.listen()
        done = demo.once()
    assert done.returncode == 1
    assert f"Port {demo.site_port}, for the booking site, cannot be had" in done.stderr
    assert "end that program and start again" in done.stderr
    assert not demo.folder.exists()


def test_the_demo_tells_its_story_and_ends_well(demo: Run) -> None:
    done = demo.once()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 20 are in the approval queue: once each, in order, unchanged." in done.stdout
    assert re.search(r"refused, beside the field: “E-mail has the wrong form", done.stdout)
    assert "The dashboard shows the outage: Connection refused" in done.stdout
    assert "Retried on the dashboard, it is in the approval queue." in done.stdout
    assert re.search(r"ticket REV-\w+ is open", done.stdout)
    assert demo.ports_are_free()
    logs = "".join(path.read_text() for path in demo.folder.glob("*.log"))
    assert "relay started" in logs
    assert not ADAS.search(logs)


@pytest.mark.long
def test_the_next_demo_starts_afresh_and_goes_on_until_it_is_interrupted(demo: Run) -> None:
    with demo.until("Ctrl-C ends it") as process:
        second = demo.once()
        assert (second.returncode, process.poll()) == (1, None), demo.said
        assert f"http://127.0.0.1:{demo.site_port}" in demo.said
        log_in = re.search(r"Staff pages +(\S+), as (\w+) with the password (\S+)", demo.said)
        assert log_in
        address, name, password = log_in.groups()
        answer = httpx.post(
            f"{address}/login", data={"name": name, "password": password}, headers={"origin": address}
        )
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        shown = re.search(r"Dashboard +(\S+)/admin, with the admin token (\S+)", demo.said)
        assert shown
        address, token = shown.groups()
        answer = httpx.post(f"{address}/admin/login", data={"token": token}, headers={"origin": address})
        assert (answer.status_code, answer.headers["location"]) == (303, "/admin")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, demo.said
        assert demo.ports_are_free()


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has ended")
def test_a_killed_demo_leaves_no_program_behind(demo: Run) -> None:
    with demo.until("Ada has registered") as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) >= 3
        process.kill()
        wait_until(lambda: not any(map(is_alive, children)), 30, "the end of the demo's programs")
    assert demo.ports_are_free()


def is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
