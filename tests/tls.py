"""A proxy that ends TLS before a server, as nginx does before the CRM; its authority is the tests' own."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


class Authority:
    """Who vouches for servers. Its certificate is in `file`, as PEM."""

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA()
        self.file = directory / "authority.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def certify(self, host: str = "localhost", *, days: int = 1) -> ssl.SSLContext:
        """Return a server's side of TLS, with a certificate for a host that ends in so many days."""
        now = datetime.now(UTC)
        issued = self._ca.issue_cert(
            host, not_before=now - timedelta(days=30), not_after=now + timedelta(days=days)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        return context


class TlsProxy:
    """Passes on what comes over TLS to a port of this machine, and what that answers."""

    def __init__(self, backend: int, context: ssl.SSLContext) -> None:
        self._backend, self._context = backend, context
        self.connections = 0
        """Those whose handshake was done."""
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda loop, context: None)  # a handshake that fails is the client's
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        """Where the webhooks are behind it."""
        return f"https://localhost:{self.port}/webhooks"

    def start(self) -> None:
        """Listen."""
        started = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self._server = self._loop.run_until_complete(started)
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread.start()

    def cut(self) -> None:
        """End every connection now, without a word of TLS."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result()

    def close(self) -> None:
        """Listen no longer, and end every connection."""
        self._loop.call_soon_threadsafe(self._server.close)
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_forever()

    async def _cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        await asyncio.sleep(0.05)  # for those who serve them to see it

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        answers, requests = await asyncio.open_connection("127.0.0.1", self._backend)
        self._open |= {writer, requests}
        try:
            await asyncio.gather(_pump(reader, requests), _pump(answers, writer))
        finally:
            self._open -= {writer, requests}


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass on bytes until one side ends, then end the other."""
    with suppress(OSError):
        while part := await source.read(65_536):
            sink.write(part)
            await sink.drain()
    sink.close()


@contextmanager
def start_tls(backend: int, context: ssl.SSLContext) -> Iterator[TlsProxy]:
    """Run a proxy before a port for the block."""
    proxy = TlsProxy(backend, context)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.close()
