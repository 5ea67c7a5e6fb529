"""Start the demo's booking site on a free port, without relay or CRM."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.end_to_end.chaos import wait_until
from tests.servers import NO_TLS, STOP_SECONDS, clean_environment, free_port


@contextmanager
def start_booking_site(folder: Path) -> Iterator[str]:
    """Start a site with its database and log in `folder`; return its address, end it after the block."""
    port = free_port()
    environment = clean_environment(CRM_OUTBOX_URL=f"sqlite:///{folder}/site.sqlite3")
    migrate = [sys.executable, "-m", "sender", "migrate"]
    subprocess.run(migrate, cwd=folder, env=environment, capture_output=True, check=True)
    command = [sys.executable, "-m", "scripts.booking_site", "--port", str(port)]
    with (folder / "site.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, (folder / "site.log").read_text()
        try:
            return httpx.get(address, verify=NO_TLS).is_success
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, 30, "an answer of the site")
        yield address
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
