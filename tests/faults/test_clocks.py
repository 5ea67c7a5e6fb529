"""A CRM whose clock jumps: its queue keeps the order of receipt, and it stays well."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.crm_server.answers import post, send
from tests.factories import repair_request
from tests.servers import start_crm

YEAR = 365 * 86_400


def test_a_crm_whose_clock_jumps_keeps_its_order_and_stays_well(tmp_path: Path) -> None:
    seconds = tmp_path / "seconds"
    seconds.write_text("0")
    program = [sys.executable, "-m", "tests.faults.shifted_server", str(seconds)]
    with start_crm(tmp_path, program=program) as crm:
        received = []
        for jump in (0, 10 * YEAR, -20 * YEAR, 3600, 0):
            seconds.write_text(str(jump))
            payload = repair_request()
            answer = post(crm, "repair-request", payload)
            again = post(crm, "repair-request", payload)
            assert (answer.status, again.json["id"]) == (202, answer.json["id"])
            assert send(crm, "GET", "/health").status == 200
            received.append(answer.json["id"])
        rows = crm.rows("SELECT id, received_at FROM approvals ORDER BY sequence")
        times = [row["received_at"] for row in rows]
        assert [row["id"] for row in rows] == received
        assert times == sorted(times)
        assert int(times[1][:4]) - int(times[0][:4]) in {9, 10}, "the clock did jump"
        done = crm.cli("approvals", "approve", received[-1], "--json")
        assert done.returncode == 0, done.stderr
        assert "ERROR" not in crm.log
