"""`make run`: both sides with all their pages, until Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.servers import NO_TLS, ROOT, clean_environment, free_port

PROGRAM = """
import signal, sys
from scripts import run
signal.signal(signal.SIGINT, signal.default_int_handler)
run.CRM_PORT, run.STAFF_PORT, run.DASHBOARD_PORT = map(int, sys.argv[1:])
sys.exit(run.main([]))
"""
"""The usual ports may be somebody's."""


def test_webhooks_staff_pages_and_dashboard_run_until_ctrl_c(tmp_path: Path) -> None:
    crm, staff, dashboard = (free_port() for _ in range(3))
    pages = (f"127.0.0.1:{crm}/webhooks", f"127.0.0.1:{staff}", f"127.0.0.1:{dashboard}/admin")
    command = [sys.executable, "-c", PROGRAM, *map(str, (crm, staff, dashboard))]
    environment = clean_environment(PYTHONPATH=str(ROOT), CRM_WEBHOOK_URL=f"http://{pages[0]}")
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout
        try:
            printed = ""
            while "Ctrl-C ends all" not in printed:
                line = program.stdout.readline()
                assert line, f"it ended by itself: {printed}"
                printed += line
            assert [page for page in pages if page not in printed] == []
            for page in (f"{pages[0]}/health", *pages[1:]):
                assert answers(page), page
            program.send_signal(signal.SIGINT)
            last, _ = program.communicate(timeout=30)
        finally:
            program.kill()
    assert (program.returncode, last.endswith("Stopped.\n")) == (0, True)
    assert not answers(pages[1])


def answers(page: str) -> bool:
    """Say whether an address of this machine answers well."""
    try:
        return httpx.get(f"http://{page}", verify=NO_TLS, follow_redirects=True).is_success
    except httpx.TransportError:
        return False
