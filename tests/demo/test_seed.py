"""The made-up people: believable, valid by the contract, and nobody."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from crm_server.validation import load_rules
from generated.operations import CURRENT
from tests.factories import repair_request
from tests.servers import Crm, clean_environment, start_crm

OF_DRAMA = re.compile(r"(020 7946 0|07700 900|0117 496 0|0161 496 0|\+44 7700 900)[0-9]{3}")


def run_seed(crm: Crm, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.seed", *arguments],
        cwd=crm.directory,
        env=crm.env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Crm:
    """A database with four hundred requests of ten days, without a server."""
    crm = Crm(tmp_path_factory.mktemp("seed"), clean_environment())
    done = run_seed(crm, "400", "--days", "10", "--seed", "tests")
    assert done.returncode == 0, done.stderr
    return crm


def payloads(crm: Crm) -> list[tuple[str, Any]]:
    rows = crm.rows("SELECT event, payload FROM approvals")
    return [(row["event"], json.loads(row["payload"])) for row in rows]


def test_every_request_is_what_the_contract_says(seeded: Crm) -> None:
    validators = {name: rules.validator for name, rules in load_rules()[CURRENT].items()}
    assert len(payloads(seeded)) == 400
    assert [
        fault.message for event, body in payloads(seeded) for fault in validators[event].iter_errors(body)
    ] == []


def test_nobody_could_be_written_to_or_called(seeded: Crm) -> None:
    customers = [body["customer"] for _, body in payloads(seeded)]
    assert {customer["email"].split("@")[1] for customer in customers if "email" in customer} == {
        "example.com",
        "example.net",
        "example.org",
    }
    assert [c["phone"] for c in customers if "phone" in c and not OF_DRAMA.fullmatch(c["phone"])] == []


def test_days_have_passed_and_staff_have_worked(seeded: Crm) -> None:
    [days] = seeded.rows(
        "SELECT count(DISTINCT substr(received_at, 1, 10)), min(received_at), max(received_at) FROM approvals"
    )
    assert days[0] >= 10
    assert days[2] <= datetime.now(UTC).isoformat()
    statuses = dict(
        tuple(row) for row in seeded.rows("SELECT status, count(*) FROM approvals GROUP BY status")
    )
    assert statuses.keys() == {"pending_approval", "approved", "rejected"}
    assert statuses["approved"] > 200
    assert not seeded.rows("SELECT 1 FROM approvals WHERE decided_at < received_at")
    told = seeded.rows("SELECT event, status, decided_by FROM approvals WHERE about IS NOT NULL")
    assert {row["event"] for row in told} == {"payment-status", "booking-status"}
    assert {row["decided_by"] for row in told if row["status"] == "approved"} == {"website"}
    assert seeded.rows("SELECT 1 FROM approvals WHERE event = 'customer-profile' AND status = 'approved'")
    [decided] = seeded.rows("SELECT count(DISTINCT substr(decided_at, 1, 10)) FROM approvals")
    assert decided[0] >= 10
    tickets = {row["status"] for row in seeded.rows("SELECT DISTINCT status FROM tickets")}
    assert tickets == {"open", "in_repair", "ready", "closed"}
    assert seeded.rows("SELECT 1 FROM ticket_notes")
    assert not seeded.rows(
        "SELECT 1 FROM approvals a LEFT JOIN search_documents d USING (sequence) WHERE d.sequence IS NULL"
    )


def test_made_up_people_never_stand_among_real_ones(tmp_path: Path) -> None:
    with start_crm(tmp_path) as crm:
        crm.post("repair-request", repair_request())
        done = run_seed(crm, "10")
        assert done.returncode == 1
        assert done.stderr == "seed: The database holds requests: name a new one in CRM_DATABASE_URL.\n"
        assert len(crm.rows("SELECT 1 FROM approvals")) == 1
