"""A CRM whose answers a test writes and may change midway: real HTTP over real sockets, in a thread.

It records all that it gets. By default it is healthy, speaks today's contract and takes every event.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

from crm_server.idempotency import digest
from generated.operations import CURRENT, HEALTH_PATH, WEBHOOKS, Webhook

BASE = "/webhooks"


@dataclass(frozen=True)
class Request:
    """What came over the wire; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The `webhook-id`."""
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def webhook(self) -> Webhook:
        """Which webhook it is for."""
        return next(w for w in WEBHOOKS.values() if BASE + w.path == self.path)

    @property
    def natural_key(self) -> str:
        """The body's natural key."""
        value = self.json
        for name in self.webhook.natural_key:
            value = value[name]
        return str(value)

    @property
    def customer(self) -> str:
        """The customer in whose order events are delivered."""
        return str(self.json["customer"]["websiteUserId"])


@dataclass(frozen=True)
class Reply:
    """What goes over the wire, and what becomes of the connection."""

    parts: Iterable[bytes]
    then: Literal["keep", "close", "reset"] = "keep"


Answer = Callable[[Request], Reply]


def reply(status: int, body: object = "", content_type: str = "application/json", **headers: str) -> Reply:
    """Return a whole HTTP answer; a header's `_` is a `-`."""
    content = body if isinstance(body, str) else json.dumps(body)
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}", f"content-length: {len(content.encode())}"]
    lines += [f"content-type: {content_type}"] if content else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return Reply([("\r\n".join(lines) + "\r\n\r\n" + content).encode()])


def receipt(request: Request, **over: object) -> Reply:
    """Take an event as the CRM does."""
    body = {
        "id": "0193bf5a-7c01-7000-8000-000000000002",
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


@dataclass
class Receiver:
    """The server. Set `event`, `test` and `health` to answer otherwise, `resets` not to."""

    event: Answer = receipt
    test: Answer = TEST_OK
    health: Answer = field(default_factory=lambda: speaks(CURRENT))
    resets: Callable[[bytes], bool] = lambda _: False
    """Whether to reset a connection over which this came, with the request unread."""
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self.port = 0
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self.come()

    @property
    def url(self) -> str:
        """What `CRM_WEBHOOK_URL` would be."""
        return f"http://127.0.0.1:{self.port}{BASE}"

    @property
    def events(self) -> list[Request]:
        """The webhooks that came, tests aside."""
        return [r for r in self.requests if r.method == "POST" and "webhook-test" not in r.headers]

    @property
    def tests(self) -> list[Request]:
        """The test webhooks that came."""
        return [r for r in self.requests if "webhook-test" in r.headers]

    @property
    def probes(self) -> int:
        """How often the health was asked."""
        return sum(r.path == BASE + HEALTH_PATH for r in self.requests)

    def come(self) -> None:
        """Listen, on the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def go_away(self) -> None:
        """Refuse connections, and end those that there are."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()

    def drop_connections(self) -> None:
        """End the open connections, as a server does with idle ones."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Leave nothing behind."""
        self.go_away()
        for thread in self._threads:
            thread.join(10)

    def _start(self, work: Callable[[socket.socket], None], of: socket.socket) -> None:
        thread = threading.Thread(target=work, args=(of,))
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError):
            while not self.resets(connection.recv(65_536, socket.MSG_PEEK)):
                if (request := self._read(stream)) is None:
                    break
                answer = self._answer(request)
                for part in answer.parts:
                    connection.sendall(part)
                if answer.then == "reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if answer.then != "keep":
                    break
        self._open.discard(connection)

    def _read(self, stream: Any) -> Request | None:
        line = stream.readline()
        if not line:
            return None
        method, path, _ = line.decode().split()
        headers = {}
        while (line := stream.readline()) not in {b"\r\n", b""}:
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", 0)))
        request = Request(method, path, headers, body)
        self.requests.append(request)
        return request

    def _answer(self, request: Request) -> Reply:
        if request.method == "GET":
            return self.health(request)
        return self.test(request) if "webhook-test" in request.headers else self.event(request)


@contextmanager
def start_receiver() -> Iterator[Receiver]:
    """Run a receiver for the block."""
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.close()
