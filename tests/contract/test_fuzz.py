"""`make fuzz` finds out a server that breaks the contract; that ours does not is what `make fuzz` itself shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
def test_a_server_that_does_otherwise_is_found_out() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.fuzz", "--max-examples", "5"],
        cwd=ROOT,
        env=os.environ | {"WEBHOOK_MAX_BODY_BYTES": "10"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Schema-valid request rejected" in done.stdout
