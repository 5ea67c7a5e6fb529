"""The HTTP server: granian, embedded in our process, so that its end is the end of everything."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server
from starlette.types import ASGIApp

from sender.errors import SettingsError

BACKLOG = 512
"""How many connections are served at once at most; as many again wait."""
OWN_FILES = 64
"""File descriptors that are no connections."""
HEADER_SECONDS = 10
"""How long a request's headers may take, and how long a connection may idle between requests."""
HEADER_BYTES = 65536
"""How large a request's line and headers may be together: each connection may hold that much, without a key."""
STOP_SECONDS = 6
"""How long the server waits for those who still send or read, once it is told to stop."""
THREAD_SECONDS = 1.0
"""How long the server's threads are waited for, which end at once after it has stopped."""
STATUS = Path("/proc/self/status")
"""What Linux says of this process (proc(5))."""

log = logging.getLogger("crm_sender.integration")


class ExclusiveServer(Server):
    """granian on a socket that is ours alone.

    Left to itself it sets SO_REUSEPORT, under which a second server on the same port starts without a
    word and takes half the requests.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        """Serve an app on a bound socket."""
        host, port = listener.getsockname()[:2]
        super().__init__(
            app,
            address=host,
            port=port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(
                header_read_timeout=HEADER_SECONDS * 1000, max_buffer_size=HEADER_BYTES
            ),
            websockets=False,
            backlog=BACKLOG,
            backpressure=most_connections(),
            log_access=False,
            # Its warning that embedding is experimental is known: the tests hold what we rely on.
            log_level=LogLevels.error,
            log_dictconfig={"handlers": {}, "loggers": {"_granian": {"propagate": True}}},
        )
        self.workers_kill_timeout = STOP_SECONDS
        self._listener = listener

    def _init_shared_socket(self) -> None:
        # granian's own stubs lack the arguments; it is how it passes sockets on where there is no SO_REUSEPORT.
        holder: Any = SocketHolder
        self._shd = holder(self._listener.detach(), False, BACKLOG)


def most_connections() -> int:
    """Return how many connections there are file descriptors for: without any left, SQLite could open nothing."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return BACKLOG if files == resource.RLIM_INFINITY else max(1, min(BACKLOG, files - OWN_FILES))


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises SettingsError when the address is taken, not ours, or none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, TypeError) as error:  # the second for a name that no host can have
        listener.close()
        words = error.strerror if isinstance(error, OSError) else "this is no host's name"
        message = f"cannot listen on {host}:{port}: {words}. Choose another with --port or --host"
        raise SettingsError(message) from None
    listener.setblocking(False)
    return listener


async def serve(app: ASGIApp, listener: socket.socket, say: Callable[[], None]) -> None:
    """Serve an app until SIGTERM or SIGINT, then answer what was accepted, for a bounded time.

    `say` is called once it can be told to stop.
    """
    server: Any = ExclusiveServer(app, listener)
    loop, threads = asyncio.get_running_loop(), native_threads()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    say()
    try:
        await server.serve()
    except TimeoutError:
        log.warning("Stopped while clients were still connected.")
    await wait_for_threads(threads)


def native_threads() -> int:
    """Return how many threads of this process are not Python's; none where the system does not say.

    The kernel's own count: a list of them lacks some that live when others end while it is read.
    """
    try:
        status = STATUS.read_text()
    except FileNotFoundError:
        return 0
    count = next(line for line in status.splitlines() if line.startswith("Threads:"))
    return int(count.split()[1]) - threading.active_count()


async def wait_for_threads(before: int) -> None:
    """Wait until there are no more native threads than there were before.

    granian says that it has stopped before its threads have. One that asks for the interpreter while that
    ends, as one does that was just starting, aborts the process.
    """
    deadline = time.monotonic() + THREAD_SECONDS
    while native_threads() > before and time.monotonic() < deadline:
        await asyncio.sleep(0.001)
