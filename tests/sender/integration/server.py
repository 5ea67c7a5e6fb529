"""A `crm-sender dashboard` on a free port, started as a user starts it, and what one asks of it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.programs import Program
from tests.sender import engines
from tests.sender.site import sender_environment
from tests.servers import KEY, NO_TLS, STOP_SECONDS

TOKEN = "an-admin-token-of-the-tests"
PROBLEM = "application/problem+json"
JSON = {"content-type": "application/json"}
BEARER = {"authorization": f"Bearer {KEY}"}
ADMIN = {"authorization": f"Bearer {TOKEN}"}
STATUS = "/api/crm/integration"
TEST = f"{STATUS}/test"
RETRY = f"{STATUS}/retry-failed"


@dataclass
class Server:
    """A running server and its outbox."""

    address: str
    outbox_url: str
    log_file: Path
    process: Program

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(httpx.URL(self.address).port or 0)

    @property
    def log(self) -> str:
        """All that it has logged."""
        return self.log_file.read_text()

    def ask(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        /,
        *,
        source: str = "127.0.0.1",
        **headers: str,
    ) -> httpx.Response:
        """Send a request from an address of this machine; in a header's name `_` is a `-`."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        transport = httpx.HTTPTransport(local_address=source, verify=NO_TLS)
        with httpx.Client(transport=transport, trust_env=False, timeout=30) as client:
            return client.request(method, f"{self.address}{path}", content=content, headers=given)

    def post(self, event: str, payload: Any, **headers: str) -> httpx.Response:
        """Send a webhook with the right key; `payload` is a JSON value, or bytes as they are."""
        content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return self.ask("POST", f"/webhooks/{event}", content, **(BEARER | JSON | headers))

    def rows(self, statement: str = "SELECT * FROM crm_outbox ORDER BY sequence", *parameters: object) -> Any:
        """Read from the outbox, or write to it, beside the server."""
        return engines.rows(self.outbox_url, statement, *parameters)

    def stop(self) -> int:
        """End it as an operator does; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


def type_of(answer: httpx.Response) -> str:
    """Return the type of the problem that an answer is."""
    assert answer.headers["content-type"] == PROBLEM, answer.text
    return str(answer.json()["type"])


@contextmanager
def start_server(
    directory: Path, *arguments: str, outbox_url: str | None = None, **env: str
) -> Iterator[Server]:
    """Start a server for the block, with settings `env` beside key and token; an empty one is not set."""
    url = outbox_url or engines.new_outbox("sqlite", directory)
    settings = {"CRM_API_KEY": KEY, "CRM_ADMIN_TOKEN": TOKEN, "CRM_OUTBOX_URL": url, **env}
    log_file = directory / "dashboard.log"
    process = Program(
        "sender",
        ["dashboard", "--port", "0", *arguments],
        cwd=directory,
        env=sender_environment(**settings),
        stderr=log_file,
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line, log_file.read_text()
        yield Server(line.split()[-1].removesuffix("/admin"), url, log_file, process)
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=STOP_SECONDS)
