"""Run both sides until Ctrl-C: the CRM's webhooks and staff pages, the website's relay and dashboard, on their usual
ports and databases.

Settings come from the environment and from `.env` (see `.env.example`). When neither names a key, one is
made for this run, and so is an admin token.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from pathlib import Path

from crm_server.errors import ConfigurationError
from crm_server.settings import load_settings
from scripts.generate import ROOT
from scripts.processes import HOST, Broken, Interrupted, Programs, interruptible, require_free
from sender import SenderSettings, SettingsError

CRM_PORT = 5001
STAFF_PORT = 3001
DASHBOARD_PORT = 3010


def main(argv: list[str] | None = None) -> int:
    """Run until stopped; return 1 when something could not start or has ended by itself."""
    parser = argparse.ArgumentParser(
        prog="run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(argv)
    try:
        with interruptible():
            ports = {CRM_PORT: "the CRM", STAFF_PORT: "its staff pages", DASHBOARD_PORT: "the dashboard"}
            require_free(ports, "")
            logs = Path("var")
            logs.mkdir(exist_ok=True)
            environment = {**os.environ, "PYTHONPATH": str(ROOT), **key_for_both(), **token()}
            programs = Programs(Path.cwd(), logs.absolute(), environment)
            try:
                run(programs)
            finally:
                programs.stop()
    except (Broken, ConfigurationError, SettingsError) as error:
        print(f"run: {error}", file=sys.stderr)
        return 1
    except Interrupted:
        print("Stopped.", flush=True)
    return 0


def run(programs: Programs) -> None:
    """Migrate both sides, start both, and watch them."""
    print(programs.ask("crm_server", "migrate"), programs.ask("sender", "migrate"), sep="", end="")
    ports = ("--port", str(CRM_PORT), "--frontend-port", str(STAFF_PORT))
    programs.start("CRM", "crm_server", "serve", *ports)
    programs.wait_for(f"http://{HOST}:{CRM_PORT}/webhooks/health")
    programs.start("relay", "sender", "relay")
    programs.start("dashboard", "sender", "dashboard", "--port", str(DASHBOARD_PORT))
    programs.wait_for(f"http://{HOST}:{DASHBOARD_PORT}/api/crm/integration")
    print(f"The CRM takes webhooks at http://{HOST}:{CRM_PORT}/webhooks, the relay runs.")
    print(f"Staff log in at http://{HOST}:{STAFF_PORT}, once there are some: crm-server staff add.")
    print(f"The dashboard is http://{HOST}:{DASHBOARD_PORT}/admin. Ctrl-C ends all.")
    print(f"They write to {', '.join(str(programs.log_of(name)) for name in programs.running)}.", flush=True)
    while True:
        programs.require_running()
        time.sleep(0.5)


def key_for_both() -> dict[str, str]:
    """Return a new key for both sides, or nothing when the settings name one."""
    if SenderSettings.read(".env").api_key or load_settings().webhook_keys:
        return {}
    print("No key is set: one is made for this run. Name yours in .env (see .env.example).", flush=True)
    key = secrets.token_urlsafe()
    return {"CRM_API_KEY": key, "WEBHOOK_API_KEY": key}


def token() -> dict[str, str]:
    """Return a new admin token, or nothing when the settings name one."""
    if SenderSettings.read(".env").admin_token:
        return {}
    made = secrets.token_urlsafe()
    print(f"No admin token is set: for this run it is {made}", flush=True)
    return {"CRM_ADMIN_TOKEN": made}


if __name__ == "__main__":
    sys.exit(main())
