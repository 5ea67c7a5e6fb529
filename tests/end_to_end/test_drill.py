"""The drill, in its short form: it keeps what it promises, and would notice when it did not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.drill import require_each_once
from scripts.processes import Broken
from tests.servers import ROOT, clean_environment


def drill(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.drill", *arguments],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.long
def test_a_lost_database_loses_nothing_that_was_undelivered_or_in_the_backup(tmp_path: Path) -> None:
    done = drill("--bookings", "3", "--folder", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "names 6 events" in done.stdout
    assert "all 9 are there, once each" in done.stdout
    assert "The second approval is lost" in done.stdout
    assert "All was as promised." in done.stdout
    assert "Traceback" not in (tmp_path / "CRM.log").read_text()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "crm.sqlite3").write_text("precious")
    done = drill("--folder", str(tmp_path))
    assert done.returncode == 1
    assert "is not empty" in done.stderr
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize(
    ("queue", "what"),
    [
        ("ab", "1 are lost"),
        ("abcc", "1 are there twice"),
        ("abcd", "1 are nobody's"),
    ],
)
def test_what_is_lost_doubled_or_strange_is_noticed(queue: str, what: str) -> None:
    require_each_once("abc", [{"natural_key": key} for key in "cab"])
    with pytest.raises(Broken, match=what):
        require_each_once("abc", [{"natural_key": key} for key in queue])
