"""A proxy before a real CRM, which does to requests and answers what a test tells it to.

It is the tests' own HTTP server, whose answers are those of the CRM behind it until a test sets others.
"""

from __future__ import annotations

import http.client
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sender.database import open_engine, uncovered
from tests.factories import repair_request
from tests.receiver import Answer, Receiver, Reply, Request, html, reply
from tests.sender.site import Site
from tests.servers import Crm

HOP_BY_HOP = {"connection", "content-length", "content-type", "transfer-encoding"}
"""Headers of an answer that the proxy writes itself."""


class Proxy(Receiver):
    """The proxy. Set `event`, `test` and `health` to answer otherwise than by `forward`."""

    def __init__(self, crm: Crm) -> None:
        self.crm = crm
        self.over = threading.Event()
        super().__init__()
        self.mend()

    def mend(self) -> None:
        """Pass everything on again."""
        self.answer_all(self.forward)

    def answer_all(self, answer: Answer) -> None:
        """Answer everything so, health too."""
        self.event = self.test = self.health = answer

    def forward(self, request: Request, pause: float = 0.0) -> Reply:
        """Return what the CRM says to a request; without a CRM a 502.

        `pause`: seconds before each tenth of the body but the first.
        """
        size = max(1, len(request.body) // 10)
        parts = [request.body[start : start + size] for start in range(0, len(request.body), size)]
        connection = http.client.HTTPConnection("127.0.0.1", self.crm.port, timeout=10)
        try:
            connection.request(request.method, request.path, slowly(parts, pause), request.headers)
            answer = connection.getresponse()
            more = {name: value for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP}
            return reply(answer.status, answer.read().decode(), answer.headers["content-type"], **more)
        except OSError:
            return html(502)(request)
        finally:
            connection.close()

    def silence(self) -> Iterator[bytes]:
        """Say nothing until the test is over."""
        self.over.wait(20)
        yield b""

    def close(self) -> None:
        """Leave nothing behind."""
        self.over.set()
        super().close()


def slowly(parts: Iterable[bytes], pause: float) -> Iterator[bytes]:
    """Yield parts with pauses between them."""
    for part in parts:
        yield part
        time.sleep(pause)


def swallowed(proxy: Proxy, request: Request) -> Reply:
    """Let the CRM take the event, and say nothing."""
    proxy.forward(request)
    return Reply(proxy.silence())


def whole(answer: Reply) -> bytes:
    """Return an answer's bytes."""
    return b"".join(answer.parts)


@contextmanager
def start_proxy(crm: Crm) -> Iterator[Proxy]:
    """Run a proxy before a CRM for the block."""
    proxy = Proxy(crm=crm)
    try:
        yield proxy
    finally:
        proxy.close()


def stored(crm: Crm, event_id: str) -> int:
    """Return how many requests the CRM's queue holds for an event."""
    return len(crm.rows("SELECT 1 FROM approvals WHERE webhook_id = ?", event_id))


def by_customer(rows: Iterable[sqlite3.Row], customer: Callable[[Any], str]) -> dict[str, list[Any]]:
    """Group rows by customer, in their order: id, digest and the bytes of each."""
    found: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        found[customer(row)].append((row["id"], row["digest"], uncovered(row["payload"])))
    return found


def assert_arrived(crm: Crm, sent: list[sqlite3.Row], *but: str) -> None:
    """Hold what the CRM's queue got against the outbox's rows before: once, unchanged, each customer's in order.

    Nothing of the events `but` arrived.
    """
    ids = {row["id"] for row in sent}
    customer = "json_extract(payload, '$.customer.websiteUserId') AS customer"
    rows = crm.rows(f"SELECT webhook_id AS id, digest, payload, {customer} FROM approvals ORDER BY sequence")
    got = by_customer((row for row in rows if row["id"] in ids), lambda row: row["customer"])
    wanted = by_customer((row for row in sent if row["id"] not in but), lambda row: row["order_key"])
    assert got == wanted


def book_backlog(site: Site, count: int, customers: int, **over: str) -> list[Any]:
    """Enqueue so many repairs of so many customers in one transaction; return their rows."""
    crm, engine = site.crm(), open_engine(site.url)
    with engine.begin() as connection:
        for number in range(count):
            event = repair_request(
                customer__websiteUserId=f"{site.directory.name}-{number % customers}", **over
            )
            crm.repair_requested(event, connection)
    engine.dispose()
    return list(site.rows())
