"""How the server starts and ends, as a program."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sender.integration.server import STATUS, start_server
from tests.sender.site import Site, cli, sender_environment


def test_ctrl_c_ends_it_well_and_frees_its_port(tmp_path: Path) -> None:
    with start_server(tmp_path) as own:
        port, address = own.port, own.address
        assert own.ask("GET", STATUS).status_code == 200
        own.process.send_signal(signal.SIGINT)
        assert own.process.wait(15) == 0
        assert "Traceback" not in own.log
        with start_server(tmp_path, "--port", str(port), outbox_url=own.outbox_url) as again:
            assert again.address == address
            assert again.ask("GET", STATUS).status_code == 200


def test_a_port_that_is_taken_is_named_with_the_cure(tmp_path: Path) -> None:
    with start_server(tmp_path) as own:
        done = subprocess.run(
            [sys.executable, "-m", "sender", "dashboard", "--port", str(own.port)],
            cwd=tmp_path,
            env=sender_environment(CRM_OUTBOX_URL=own.outbox_url),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert f"127.0.0.1:{own.port}" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_host_that_is_none_is_named_with_the_cure(site: Site) -> None:
    done = site.cli("dashboard", "--host", "ü..")
    assert done.returncode == 1
    assert "cannot listen on ü..:3010: this is no host's name" in done.stderr
    assert "--host" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CRM_ADMIN_TOKEN", "with space"),
        ("CRM_ADMIN_TOKEN", "with,comma"),
        ("CRM_ADMIN_TOKEN", "caf\u00e9"),
        ("CRM_TRUSTED_PROXIES", "10.0.0.0/8,SENTINEL"),
        ("CRM_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("CRM_TRUSTED_PROXIES", "10.0.0.0/8,,"),
    ],
)
def test_a_wrong_setting_stops_the_start_by_its_name_and_without_its_value(
    tmp_path: Path, name: str, value: str
) -> None:
    done = cli("status", directory=tmp_path, env=sender_environment(**{name: value}))
    assert done.returncode == 1
    assert name in done.stderr
    assert value not in done.stderr


def test_it_runs_no_relay(tmp_path: Path) -> None:
    with start_server(tmp_path) as own:
        assert own.ask("GET", STATUS).json()["relay"] == {"running": False, "relays": 0, "seen_at": None}
        assert own.rows("SELECT * FROM crm_outbox_relays") == []


def test_booking_code_loads_nothing_of_it() -> None:
    script = (
        "import sys, sender, sender.cli; print(sorted({name.partition('.')[0] for name in sys.modules}"
        " & {'connexion', 'granian', 'jinja2', 'limits', 'prometheus_client', 'starlette'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
