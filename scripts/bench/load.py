"""A load of webhooks: raw sockets, a closed loop a connection, every request another event.

Run as a program in a process of its own, on a core of its own; it prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from datetime import UTC, datetime
from functools import partial
from typing import cast

from standardwebhooks import Webhook

from scripts.bench.payloads import REPAIR
from sender.events import uuid7

HOST = "127.0.0.1"
KEY, ID = b"@" * 32, b"#" * 36
"""Stand for an event's natural key and id in the template; as long as these, so that lengths do not change."""


class Requests:
    """Requests that are alike but for the event; signed (Standard Webhooks) where there is a secret."""

    def __init__(self, host: str, path: str, key: str, secret: str | None) -> None:
        # The ticket's number too: staff would have to choose another for a second request with the same.
        repair = REPAIR["repair"] | dict.fromkeys(["websiteRepairId", "ticketNumber"], KEY.decode())
        self._body = json.dumps(REPAIR | {"repair": repair}).encode()
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\nContent-Type: "
            f"application/json\r\nContent-Length: {len(self._body)}\r\nwebhook-id: {ID.decode()}\r\n"
        ).encode()
        self._signer = Webhook(secret) if secret else None

    def new(self) -> bytes:
        """Return a request of a new event."""
        natural_key, event_id = os.urandom(16).hex().encode(), str(uuid7()).encode()
        head, body = self._head.replace(ID, event_id), self._body.replace(KEY, natural_key)
        return b"%b%b\r\n%b" % (head, self._signature(event_id, body), body)

    def _signature(self, event_id: bytes, body: bytes) -> bytes:
        if self._signer is None:
            return b""
        now = datetime.now(UTC)
        signature = self._signer.sign(event_id.decode(), now, body.decode())
        return f"webhook-timestamp: {int(now.timestamp())}\r\nwebhook-signature: {signature}\r\n".encode()


class Connection(asyncio.Protocol):
    """One connection that sends the next request when it has the answer to the last."""

    def __init__(
        self, requests: Requests, end: float, times: list[float], done: asyncio.Future[None]
    ) -> None:
        self._requests, self._end, self._times, self._done = requests, end, times, done
        self._buffer = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        request = self._requests.new()
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Take an answer; count it when it is the one we came for."""
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        if not head.startswith(b"HTTP/1.1 202"):
            self._done.set_exception(RuntimeError(self._buffer.decode(errors="replace")))
            self._transport.close()
            return
        now = time.perf_counter()
        self._times.append(now - self._sent)
        self._buffer = b""
        if now < self._end:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Say that it is over."""
        if not self._done.done():
            self._done.set_result(None)


async def load(requests: Requests, port: int, connections: int, seconds: float) -> dict[str, float]:
    """Send for so many seconds; return requests/s and the percentiles of the answers' times, in ms."""
    loop = asyncio.get_running_loop()
    times: list[float] = []
    start = time.perf_counter()
    waits = []
    for _ in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        await loop.create_connection(partial(Connection, requests, start + seconds, times, done), HOST, port)
        waits.append(done)
    await asyncio.gather(*waits)
    took = time.perf_counter() - start
    times.sort()
    return {
        "rate": len(times) / took,
        "p50": times[len(times) // 2] * 1000,
        "p99": times[len(times) * 99 // 100] * 1000,
    }


def main() -> int:
    """Run one load and print what it measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--path", default="/webhooks/repair-request")
    parser.add_argument("--key", required=True)
    parser.add_argument("--secret", help="sign by this")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    requests = Requests(f"{HOST}:{options.port}", options.path, options.key, options.secret)
    print(json.dumps(asyncio.run(load(requests, options.port, options.connections, options.seconds))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
