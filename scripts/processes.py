"""Start our programs, wait until they answer, and end them: by their ids, and never leaving one behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from scripts.generate import ROOT

START_SECONDS = 30.0
STOP_SECONDS = 15.0
HOST = "127.0.0.1"
PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent ends."""


class Broken(Exception):
    """Something is not as promised; the message says what, and where to look."""


class Interrupted(Exception):
    """Somebody asked us to stop."""


@dataclass
class Programs:
    """Programs of ours that run in one folder with one environment, each with a log of its own."""

    folder: Path
    logs: Path
    environment: Mapping[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, module: str, *arguments: str, **settings: str) -> None:
        """Start `python -m module` under a name of ours, with more settings; it writes to `<name>.log`."""
        with self.log_of(name).open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self.folder,
                env={**self.environment, **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is ours to hear: we end them in order.
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  # one thread
            )

    def ask(self, module: str, *arguments: str, stdin: str | None = None) -> str:
        """Run a program to its end, and give it `stdin`; return what it printed. Raises Broken when it failed."""
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=self.folder,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Broken(f"`{module} {' '.join(arguments)}` failed: {done.stderr.strip()}")
        return done.stdout

    def kill(self, name: str) -> int:
        """End a program as a power cut does, with SIGKILL; return its process id."""
        process = self.running.pop(name)
        process.kill()
        process.wait(STOP_SECONDS)
        return process.pid

    def stop(self) -> None:
        """End all with SIGTERM, the last started first; with SIGKILL who does not listen."""
        for process in reversed(self.running.values()):
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.clear()

    def require_running(self) -> None:
        """Raise Broken when one has ended by itself."""
        for name, process in self.running.items():
            if process.poll() is not None:
                lines = self.log_of(name).read_text(errors="replace").strip().splitlines()
                last = lines[-1] if lines else "it said nothing"
                raise Broken(f"The {name} has ended: {last} (all of it: {self.log_of(name)})")

    def wait_until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until something holds. Raises Broken when it does not in time, or when a program ends."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.require_running()
            if time.monotonic() > deadline:
                raise Broken(f"Not within {seconds:.0f} seconds: {what}.")
            time.sleep(0.05)

    def wait_for(self, address: str) -> None:
        """Wait until an address answers."""
        # One client: to make one reads every certificate of the system.
        with httpx.Client(timeout=2, trust_env=False) as client:
            self.wait_until(lambda: answers(client, address), START_SECONDS, f"an answer from {address}")

    def log_of(self, name: str) -> Path:
        """Return where a program's output goes."""
        return self.logs / f"{name.replace(' ', '-')}.log"


def _end_with_parent() -> None:
    """In the child: end when the parent does, however that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def answers(client: httpx.Client, address: str) -> bool:
    """Say whether an address answers 200."""
    try:
        return client.get(address).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment with none of our settings but these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CRM_", "WEBHOOK_", "RATE_LIMIT_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **settings}


def require_free(ports: Mapping[int, str], cure: str) -> None:
    """Raise Broken for the first port on which somebody listens already."""
    for port, use in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise Broken(
                    f"Port {port}, for {use}, cannot be had ({error.strerror}). "
                    f"See who has it with `ss -ltnp sport = :{port}`, end that program and start again{cure}."
                ) from None


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into Interrupted, so that what was started is ended."""

    def interrupt(*_: object) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # once is enough: now we end our children
        raise Interrupted

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


SIGNALS: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)
