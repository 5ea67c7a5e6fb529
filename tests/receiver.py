"""A CRM whose answers a test writes and may change midway: real HTTP over real sockets, in a thread.

It records all that it gets. By default it is healthy, speaks today's contract and takes every event.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from crm_server.idempotency import digest
from generated.operations import CURRENT, HEALTH_PATH
from sender.testing import BASE, RECEIPTS, Reply, Request, ScriptedCRM, receipt_id, reply

__all__ = ["BASE", "Reply", "Request", "reply"]  # what tests write answers with

Answer = Callable[[Request], Reply]


def receipt(request: Request, **over: object) -> Reply:
    """Take an event as the CRM does."""
    body = {
        "id": receipt_id(request),
        "status": "pending_approval",
        "duplicate": False,
        "natural_key": request.natural_key,
        "digest": digest(request.webhook, request.json),
    }
    return reply(202, body | over)


def receipt_when(go_on: threading.Event, arrived: threading.Event) -> Answer:
    """Take an event as the CRM does, but not before it is let; `arrived` tells that one came."""

    def answer(request: Request) -> Reply:
        arrived.set()
        go_on.wait(10)
        return receipt(request)

    return answer


def always(answer: Reply) -> Answer:
    """Answer the same to everything."""
    return lambda _: answer


def problem(status: int, kind: str, **more: object) -> Answer:
    """Answer with a problem document (RFC 9457)."""
    body = {"type": kind, "title": kind, "status": status, **more}
    return always(reply(status, body, "application/problem+json"))


def html(status: int) -> Answer:
    """Answer as a proxy does."""
    return always(reply(status, "<html>It works</html>", "text/html"))


TEST_OK = always(reply(200, {"status": "test_ok"}))
"""Passes a test webhook."""


def speaks(*versions: str) -> Answer:
    """Answer a health probe well, with these contract releases."""
    return always(reply(200, {"status": "ok", "database": "ok", "contract": {"versions": versions}}))


def first(*answers: Answer, then: Answer = receipt) -> Answer:
    """Give these answers in turn, then `then`."""
    left = list(answers)
    lock = threading.Lock()

    def answer(request: Request) -> Reply:
        with lock:
            chosen = left.pop(0) if left else then
        return chosen(request)

    return answer


class Receiver(ScriptedCRM):
    """The server. Set `event`, `test`, `health` and `told` to answer otherwise, `resets` not to."""

    def __init__(self) -> None:
        self.event: Answer = receipt
        self.test: Answer = TEST_OK
        self.health: Answer = speaks(CURRENT)
        self.told: Answer = self.tells
        self.resets: Callable[[bytes], bool] = lambda _: False
        """Whether to reset a connection over which this came, with the request unread."""
        super().__init__()

    @property
    def events(self) -> list[Request]:
        """The webhooks that came, tests aside."""
        return self.received

    @property
    def tests(self) -> list[Request]:
        """The test webhooks that came."""
        return [r for r in self.requests if "webhook-test" in r.headers]

    def tells(self, request: Request) -> Reply:
        """Say what became of an event."""
        return self.outcome(request.path.removeprefix(RECEIPTS))

    @property
    def questions(self) -> list[Request]:
        """The questions what became of an event."""
        return [r for r in self.requests if r.path.startswith(RECEIPTS)]

    @property
    def probes(self) -> int:
        """How often the health was asked."""
        return sum(r.path == BASE + HEALTH_PATH for r in self.requests)

    def answer(self, request: Request) -> Reply:
        if request.path.startswith(RECEIPTS):
            return self.told(request)
        if request.method == "GET":
            return self.health(request)
        return self.test(request) if "webhook-test" in request.headers else self.event(request)

    def hangs_up(self, came: bytes) -> bool:
        return self.resets(came)


@contextmanager
def start_receiver() -> Iterator[Receiver]:
    """Run a receiver for the block."""
    with Receiver() as receiver:
        yield receiver
