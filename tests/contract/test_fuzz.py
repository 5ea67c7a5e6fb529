"""Schemathesis against a real server, briefly: `make fuzz` searches longer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def fuzz(**environment: str) -> subprocess.CompletedProcess[str]:
    """Run a short `make fuzz`, with settings of the server."""
    command = [sys.executable, "-m", "scripts.fuzz", "--max-examples", "10", "--seed", "2"]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, text=True, capture_output=True, check=False
    )


def test_the_server_does_what_the_contract_says() -> None:
    done = fuzz()
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_server_that_does_otherwise_is_found_out() -> None:
    done = fuzz(WEBHOOK_MAX_BODY_BYTES="10")
    assert done.returncode == 1
    assert "Schema-valid request rejected" in done.stdout
