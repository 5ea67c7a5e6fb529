"""For a site's own tests: what is in the outbox, and a CRM that answers as a test says.

```python
assert_enqueued(session, "repair-request", repair__ticketNumber="REV-1")

with ScriptedCRM() as crm:
    crm.answers(503)
    Relay(crm.settings()).run(drain=True)
    assert [event.natural_key for event in crm.received] == ["booking-1", "booking-1"]
```
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Literal, Self

from generated.operations import CURRENT, RECEIPT_PATH, WEBHOOKS, Webhook
from sender import outbox
from sender.crm import CRM
from sender.database import glancing
from sender.events import at, canonical_content, digest
from sender.settings import SenderSettings
from sender.transactions import Transaction, joined
from sender.validation import has_place

__all__ = [
    "Enqueued",
    "Reply",
    "Request",
    "ScriptedCRM",
    "any_outbox",
    "assert_enqueued",
    "assert_nothing_enqueued",
    "enqueued",
    "reply",
]

BASE = "/webhooks"


# What is in the outbox


@contextmanager
def any_outbox() -> Iterator[None]:
    """Let events into the outbox of whatever database a session is of, which a test's database is.

    Otherwise `WrongDatabase` is raised where it is not that of `CRM_OUTBOX_URL`, for no relay looks
    there. An event without a session, which would go to that of `CRM_OUTBOX_URL`, is refused meanwhile.
    """
    before, CRM._in_any_outbox = CRM._in_any_outbox, True
    try:
        yield
    finally:
        CRM._in_any_outbox = before


@dataclass(frozen=True, slots=True)
class Enqueued:
    """An event in the outbox."""

    id: str
    event: str
    """The webhook, such as `repair-request`."""
    natural_key: str
    status: str
    """`pending`, `delivered`, `failed`, `held`, `closed`."""
    payload: dict[str, Any] | None
    """The body as it is sent; None once it is delivered, for then it is erased."""

    def differs_in(self, fields: Mapping[str, object]) -> list[str]:
        """Return the fields, named by block and name (`repair__notes`), that are not as expected."""
        return [name for name, value in fields.items() if _at(self.payload, name) != value]


def enqueued(session: Transaction | CRM) -> list[Enqueued]:
    """Return the events in the outbox, oldest first, as a session sees them; from a CRM: those committed."""
    where = glancing(session._settings.outbox_url) if isinstance(session, CRM) else joined(session)
    with where as found:
        rows = outbox.contents(found if not isinstance(found, tuple) else found[0])
    return [
        Enqueued(row.id, row.event, row.natural_key, row.status, json.loads(row.payload or "null"))
        for row in rows
    ]


def assert_enqueued(session: Transaction | CRM, event: str, **fields: object) -> Enqueued:
    """Fail unless an event with these fields, named as `repair__notes`, is in the outbox; return it.

    A field that is None is one that the event does not have; one that the contract does not have is a mistake.
    The message names what differs, and shows no other values than those that were given.
    """
    assert event in WEBHOOKS, f"there is no event {event!r}; there are {', '.join(WEBHOOKS)}"  # noqa: S101
    for name in fields:
        assert has_place(event, tuple(name.split("__"))), f"the contract's {event} has no {name}"  # noqa: S101
    there = enqueued(session)
    for found in there:
        if found.event == event and not found.differs_in(fields):
            return found
    wanted = " and ".join(f"{name}={value!r}" for name, value in fields.items())
    raise AssertionError(
        f"no {event}{wanted and f' with {wanted}'} is in the outbox{_listed(there, event, fields)}"
    )


def assert_nothing_enqueued(session: Transaction | CRM) -> None:
    """Fail when an event is in the outbox."""
    there = enqueued(session)
    if there:
        raise AssertionError(f"there are events in the outbox{_listed(there, '', {})}")


def _listed(there: Iterable[Enqueued], event: str, fields: Mapping[str, object]) -> str:
    lines = []
    for found in there:
        names = found.differs_in(fields) if found.event == event else []
        differs = (
            ": its payload is erased" if names and found.payload is None else f": other {', '.join(names)}"
        )
        lines.append(f"\n  {found.event} {found.natural_key}, {found.status}{differs if names else ''}")
    return "; it has" + "".join(lines) if lines else ", which is empty"


def _at(payload: Any, name: str) -> object:
    for part in name.split("__"):
        payload = payload.get(part) if isinstance(payload, dict) else None
    return payload


# A CRM that answers as a test says


@dataclass(frozen=True)
class Request:
    """What came over the wire; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The `webhook-id`: the event's id."""
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
        return at(self.json, self.webhook.natural_key)

    @property
    def customer(self) -> str:
        """The customer in whose order events are delivered."""
        return at(self.json, self.webhook.order_key)


@dataclass(frozen=True)
class Reply:
    """What goes over the wire, and what becomes of the connection."""

    parts: Iterable[bytes]
    then: Literal["keep", "close", "reset"] = "keep"


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


RECEIPTS = BASE + RECEIPT_PATH.format(id="")


def receipt_id(event: Request) -> str:
    """Return the id of the receipt that an event gets, the same each time."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{event.path}/{event.natural_key}"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class ScriptedCRM:
    """A CRM on a free port of this machine, with real HTTP and answers that a test writes.

    It runs in threads, from `with ScriptedCRM() as crm:` to the end of the block. It is healthy, speaks
    today's contract, takes test webhooks and gives every event its receipt, until it is told otherwise;
    what came waits for approval.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        """All that came: events, tests, and questions for the health."""
        self.connections = 0
        self.port = 0
        self._script: list[int | Mapping[str, Any]] = []
        self._decided: dict[str, dict[str, str]] = {}
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self.come()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """What `CRM_WEBHOOK_URL` would be."""
        return f"http://127.0.0.1:{self.port}{BASE}"

    def settings(self, **over: Any) -> SenderSettings:
        """Return settings to send to it, with retries that follow at once; the outbox is that of `CRM_OUTBOX_URL`."""
        given = {"webhook_url": self.url, "api_key": "scripted", "retry_schedule": (0.0, 0.0, 0.0)}
        return SenderSettings(**given | over)

    @property
    def received(self) -> list[Request]:
        """The events that came, each as often as it came."""
        return [r for r in self.requests if r.method == "POST" and "webhook-test" not in r.headers]

    def answers(self, *answers: int | Mapping[str, Any]) -> None:
        """Answer the next events so, one each; those after them get their receipts.

        A number is a problem of that status, but 202 the receipt; a mapping is a problem document
        (RFC 9457), which has a `status`.
        """
        self._script += answers

    def decides(self, status: Literal["approved", "rejected"]) -> None:
        """Have staff decide so all that has come until now; the CRM tells it by the receipts."""
        decided = {"status": status, "decided_at": _now()}
        self._decided.update((receipt_id(event), decided) for event in self.received)

    def answer(self, request: Request) -> Reply:
        """Return what is answered; a subclass may say otherwise."""
        if request.path.startswith(RECEIPTS):
            return self.outcome(request.path.removeprefix(RECEIPTS))
        if request.method == "GET":
            return reply(200, {"status": "ok", "database": "ok", "contract": {"versions": [CURRENT]}})
        if "webhook-test" in request.headers:
            return reply(200, {"status": "test_ok"})
        scripted = self._script.pop(0) if self._script else 202
        if scripted == 202:
            return reply(202, self._receipt(request))
        problem: Mapping[str, Any] = {"type": f"scripted-{scripted}", "title": "Scripted", "status": scripted}
        if isinstance(scripted, Mapping):
            problem = scripted
        return reply(int(problem["status"]), problem, "application/problem+json")

    def outcome(self, asked: str) -> Reply:
        """Return what became of the event that a receipt of this id was given for."""
        event = next((event for event in self.received if receipt_id(event) == asked), None)
        if event is None:
            unknown = {"type": "unknown-receipt", "title": "Unknown receipt", "status": 404}
            return reply(404, unknown, "application/problem+json")
        waits = {
            "id": asked,
            "event": event.webhook.name,
            "status": "pending_approval",
            "received_at": _now(),
        }
        return reply(200, {**waits, **self._decided.get(asked, {})})

    def _receipt(self, request: Request) -> dict[str, Any]:
        key = (request.path, request.natural_key)
        return {
            "id": receipt_id(request),
            "status": "pending_approval",
            "duplicate": [(event.path, event.natural_key) for event in self.received].count(key) > 1,
            "natural_key": request.natural_key,
            "digest": digest(canonical_content(request.json, request.webhook)),
        }

    def come(self) -> None:
        """Listen; after `go_away` on the same port as before."""
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

    def hangs_up(self, _: bytes) -> bool:
        """Say whether to reset a connection over which this came, with the request unread; a subclass may."""
        return False

    def _start(self, work: Callable[[socket.socket], None], of: socket.socket) -> None:
        thread = threading.Thread(target=work, args=(of,), daemon=True)
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
            while not self.hangs_up(connection.recv(65_536, socket.MSG_PEEK)):
                if (request := self._read(stream)) is None:
                    break
                answer = self.answer(request)
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
