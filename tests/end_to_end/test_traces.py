"""One trace from the booking to the CRM, in real processes that OpenTelemetry's own launcher sets up."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crm_server.answers import ask, post, until
from tests.crm_server.conftest import assert_nothing_private, staff_token
from tests.factories import repair_request
from tests.sender.site import Site, migrated_outbox
from tests.servers import Crm, free_port, start_crm

INSTRUMENT = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"
LAUNCHER = (sys.executable, "-c", INSTRUMENT)
"""`opentelemetry-instrument`, wherever it is installed."""
OTEL: dict[str, Any] = {
    "OTEL_TRACES_EXPORTER": "console",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_BSP_SCHEDULE_DELAY": "50",
}
BOOK = """
import json, sys
from opentelemetry import trace
from sender import CRM
with trace.get_tracer("site").start_as_current_span("booking"):
    CRM().repair_requested(json.loads(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A CRM that prints its spans."""
    program = (*LAUNCHER, sys.executable, "-m", "crm_server")
    directory = tmp_path_factory.mktemp("traced")
    with start_crm(directory, port=None, only="webhooks", program=program, **OTEL) as crm:
        yield crm
    assert_nothing_private(crm)


@pytest.fixture
def site(traced: Crm, tmp_path: Path) -> Site:
    migrated_outbox(tmp_path)
    return Site(tmp_path, traced.url)


def spans(text: str) -> list[dict[str, Any]]:
    """Return the spans that the console's exporter printed among other lines."""
    found, at = [], text.find("{\n")
    while at >= 0:
        span, end = json.JSONDecoder().raw_decode(text, at)
        found.append(span)
        at = text.find("{\n", end)
    return found


def named(crm: Crm, name: str, trace: str) -> list[dict[str, Any]]:
    return [s for s in spans(crm.log) if s["name"] == name and s["context"]["trace_id"] == trace]


def book(site: Site, **env: str) -> subprocess.CompletedProcess[str]:
    """Book a repair in a process of its own that traces."""
    command = [*LAUNCHER, sys.executable, "-c", BOOK, json.dumps(repair_request())]
    done = subprocess.run(
        command, cwd=site.directory, env=site.environment(**env), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def relay(site: Site, **env: str) -> subprocess.CompletedProcess[str]:
    """Drain the outbox in a process of its own that traces."""
    return subprocess.run(
        [*LAUNCHER, sys.executable, "-m", "sender", "relay", "--drain"],
        cwd=site.directory,
        env=site.environment(**OTEL, **env),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_crm_goes_on_with_the_trace_of_the_booking(traced: Crm, site: Site) -> None:
    [booking] = spans(book(site, **OTEL).stdout)
    assert site.drain(timeout=20.0).delivered == 1
    trace = booking["context"]["trace_id"]
    [request] = until(lambda: named(traced, "repair-request", trace))
    assert request["parent_id"] == booking["context"]["span_id"]
    assert request["kind"] == "SpanKind.SERVER"
    assert request["attributes"]["http.response.status_code"] == 202
    commits = until(lambda: [s for s in spans(traced.log) if s["name"] == "commit" and s["links"]])
    assert request["context"]["span_id"] in {
        link["context"]["span_id"] for s in commits for link in s["links"]
    }


def test_each_attempt_is_a_span_of_the_bookings_trace(traced: Crm, site: Site) -> None:
    [booking] = spans(book(site, **OTEL).stdout)
    nowhere = {"CRM_WEBHOOK_URL": f"http://127.0.0.1:{free_port()}/webhooks", "CRM_WHEN_AWAY": "fail"}
    away = relay(site, CRM_RETRY_SCHEDULE="0", **nowhere)
    assert site.cli("retry", "--all").returncode == 0
    arrived = relay(site)
    attempts = spans(away.stdout) + spans(arrived.stdout)
    trace, begun = booking["context"]["trace_id"], booking["context"]["span_id"]
    assert [span["name"] for span in attempts] == ["repair-request"] * 3
    assert {(span["context"]["trace_id"], span["parent_id"]) for span in attempts} == {(trace, begun)}
    assert [span["kind"] for span in attempts] == ["SpanKind.CLIENT"] * 3
    assert [span["attributes"].get("error.type") for span in attempts] == ["refused", "refused", None]
    assert [span["attributes"]["webhook.attempt"] for span in attempts] == [1, 2, 1]
    assert attempts[-1]["attributes"]["http.response.status_code"] == 202
    assert all(span["events"] == [] for span in attempts)
    [request] = until(lambda: named(traced, "repair-request", trace))
    assert request["parent_id"] == attempts[-1]["context"]["span_id"]
    assert "Lovelace" not in away.stdout + arrived.stdout


def test_an_attempt_of_a_booking_that_is_not_traced_begins_a_trace(traced: Crm, site: Site) -> None:
    site.book()
    [attempt] = spans(relay(site).stdout)
    assert attempt["parent_id"] is None
    [request] = until(lambda: named(traced, "repair-request", attempt["context"]["trace_id"]))
    assert request["parent_id"] == attempt["context"]["span_id"]


def test_a_refusal_is_a_span_with_the_problems_type_and_no_value(traced: Crm) -> None:
    header = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    assert traced.post("repair-request", {"Sentinel": "Lovelace"}, headers=header).status_code == 400
    [request] = until(lambda: named(traced, "repair-request", "0x0af7651916cd43dd8448eb211c80319c"))
    assert request["attributes"]["error.type"] == "invalid-event"
    assert request["events"] == []


def test_a_booking_that_is_not_traced_has_no_trace_and_imports_nothing(site: Site) -> None:
    site.book()
    [row] = site.rows()
    assert row["traceparent"] is None
    code = "import sys, sender; sender.CRM; sys.exit(any(n.startswith('opentelemetry') for n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env=site.environment(), check=False)
    assert done.returncode == 0


def test_a_booking_is_taken_by_an_outbox_that_is_not_migrated_yet(site: Site) -> None:
    with sqlite3.connect(site.database) as connection:
        connection.execute("ALTER TABLE crm_outbox DROP COLUMN traceparent")
    assert len(site.book()) == 1


def test_a_decision_is_a_span_and_so_is_its_transaction(tmp_path: Path) -> None:
    program = (*LAUNCHER, sys.executable, "-m", "crm_server")
    with start_crm(tmp_path, port=None, only=None, program=program, **OTEL) as crm:
        token = staff_token(crm, "Grace", "approver")
        assert post(crm, "repair-request", repair_request()).status == 202
        [row] = crm.rows("SELECT id FROM approvals")
        assert ask(crm, token, "POST", f"/approvals/{row['id']}/approve", {}).status == 200
        [decision] = until(lambda: [s for s in spans(crm.log) if "approve" in s["name"]])
        decided = decision["context"]["span_id"]
        writes = until(lambda: [s for s in spans(crm.log) if s["name"] == "write" and s["links"]])
        assert decided in {link["context"]["span_id"] for s in writes for link in s["links"]}
    assert_nothing_private(crm)
