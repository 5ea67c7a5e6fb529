"""`make smoke` against a real CRM: it says what is wrong, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from generated.operations import WEBHOOKS
from tests.servers import KEY, Crm, clean_environment, free_port, start_crm

SECRET = "whsec_c21va2Utc21va2Utc21va2Utc21va2U="
STEPS = ["health", "handshake", *WEBHOOKS, "a wrong key"]


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    with start_crm(tmp_path_factory.mktemp("smoke"), WEBHOOK_SIGNING_SECRET=SECRET) as crm:
        yield crm


def smoke(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.smoke", *arguments],
        cwd=folder,
        env=clean_environment(**env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_crm_that_is_well_passes_and_stores_nothing(signing: Crm, tmp_path: Path) -> None:
    given = {"CRM_API_KEY": KEY, "CRM_SIGNING_SECRET": SECRET}
    done = smoke(tmp_path, signing.url, "--json", **given)
    assert (done.returncode, done.stderr) == (0, "")
    steps = {step["step"]: step["ok"] for step in json.loads(done.stdout)}
    assert steps == dict.fromkeys(STEPS, True)
    assert signing.rows("SELECT * FROM approvals") == []


def test_a_wrong_key_of_ours_fails_and_is_not_printed(signing: Crm, tmp_path: Path) -> None:
    given = {"CRM_API_KEY": "not-the-right-one", "CRM_SIGNING_SECRET": SECRET}
    done = smoke(tmp_path, signing.url, **given)
    assert done.returncode == 1
    assert "FAILED  repair-request          401 Unauthorized" in done.stdout
    assert "fine    a wrong key             401 Unauthorized" in done.stdout
    assert "not-the-right-one" not in done.stdout + done.stderr


def test_a_crm_that_is_away_fails_in_every_step(tmp_path: Path) -> None:
    done = smoke(tmp_path, f"http://127.0.0.1:{free_port()}/webhooks", CRM_API_KEY=KEY)
    assert done.returncode == 1
    assert done.stdout.count("FAILED") == len(STEPS)
    assert "Connection refused" in done.stdout


def test_without_a_key_it_says_what_to_set(tmp_path: Path) -> None:
    done = smoke(tmp_path, "http://127.0.0.1:1/webhooks")
    assert (done.returncode, done.stdout) == (2, "")
    assert "CRM_API_KEY" in done.stderr


def test_an_address_that_is_none_is_wrong_usage(tmp_path: Path) -> None:
    done = smoke(tmp_path, "nowhere", CRM_API_KEY=KEY)
    assert done.returncode == 2
    assert "CRM_WEBHOOK_URL" in done.stderr
