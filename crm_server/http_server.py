"""The HTTP server: granian, embedded in our process, so that its end is the end of everything."""

import asyncio
import logging
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server
from starlette.types import ASGIApp, Message

from crm_server.errors import ConfigurationError
from crm_server.middleware.bodies import Hurry

BACKLOG = 2048
"""How many connections are served at once at most; as many again wait."""
OWN_FILES = 64
"""File descriptors that are no connections."""
HEADER_SECONDS = 10
"""How long a request's headers may take, and how long a connection may idle between requests."""
HEADER_BYTES = 65536
"""How large a request's line and headers may be together: each connection may hold that much, without a key."""
STOP_SECONDS = 6
"""How long the server waits for those who still read their answers, once it is told to stop."""
END_SECONDS = 20.0
"""How long the end may take in all; one that waits for the database takes less, unless that hangs."""
THREAD_SECONDS = 1.0
"""How long the server's threads are waited for, which end at once after it has stopped."""
STATUS = Path("/proc/self/status")
"""What Linux says of this process (proc(5))."""

log = logging.getLogger(__name__)


class ExclusiveServer(Server):
    """granian on a socket that is ours alone.

    Left to itself it sets SO_REUSEPORT, under which a second server on the same port starts without a
    word and takes half the requests.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket, servers: int) -> None:
        """Serve an app on a bound socket, as one of some servers in this process."""
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
            backpressure=most_connections(servers),
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


def most_connections(servers: int) -> int:
    """Return how many connections there are file descriptors for, for each of some servers.

    Without any left, granian would try to accept as fast as it can, and SQLite could open nothing.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        BACKLOG if files == resource.RLIM_INFINITY else max(1, min(BACKLOG, (files - OWN_FILES) // servers))
    )


def listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """Return a listening socket; `option` is where the port comes from.

    Raises ConfigurationError when the address is taken, not ours, or none.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, TypeError) as error:  # the second for a name that no host can have
        listener.close()
        words = error.strerror if isinstance(error, OSError) else "this is no host's name"
        message = f"Cannot listen on {host}:{port}: {words}. Choose another with {option} or --host."
        raise ConfigurationError(message) from None
    listener.setblocking(False)
    return listener


def event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes event loops: uvloop, in which a webhook costs a fifth less, where there is one."""
    try:
        import uvloop  # noqa: PLC0415  # there is none for Windows
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


async def serve(
    apps: Sequence[tuple[ASGIApp, socket.socket]], hurry: Hurry, leash: int | None = None
) -> None:
    """Serve each app on its socket until SIGTERM or SIGINT, then answer what was accepted, and return.

    The first app's lifespan is around those of the others. A `leash` that can be read is as SIGTERM.
    """
    async with AsyncExitStack() as running:
        for app, _ in apps:
            await running.enter_async_context(lifespan(app))
        await answer(apps, hurry, leash)


@asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncIterator[None]:
    """Run an app's lifespan around a block (ASGI, Lifespan Protocol).

    granian would do it, but leaves it unended when a client that will not go holds the server up.
    """
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    outbox: asyncio.Queue[Message] = asyncio.Queue()
    running = asyncio.ensure_future(
        app({"type": "lifespan", "asgi": {"version": "3.0"}}, inbox.get, outbox.put)
    )

    async def pass_phase(phase: str) -> None:
        inbox.put_nowait({"type": f"lifespan.{phase}"})
        answered = asyncio.create_task(outbox.get())
        await asyncio.wait({answered, running}, return_when=asyncio.FIRST_COMPLETED)
        if not answered.done() or answered.result()["type"] != f"lifespan.{phase}.complete":
            answered.cancel()
            await running
            raise RuntimeError(f"The app refused its {phase}.")

    await pass_phase("startup")
    try:
        yield
    finally:
        await pass_phase("shutdown")
        await running


async def answer(apps: Sequence[tuple[ASGIApp, socket.socket]], hurry: Hurry, leash: int | None) -> None:
    """Answer requests until SIGTERM or SIGINT, and for a bounded time those that were accepted."""
    servers: list[Any] = [ExclusiveServer(app, listener, len(apps)) for app, listener in apps]

    loop, threads = asyncio.get_running_loop(), native_threads()

    def stop() -> None:
        if leash is not None:
            loop.remove_reader(leash)
        hurry.begin()
        for server in servers:
            server.stop()
        # A thread that waits for a PostgreSQL that hangs cannot be ended, and would keep the process for ever.
        overdue = threading.Timer(END_SECONDS, give_up)
        overdue.daemon = True
        overdue.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
        # A worker blocks it until now, for it may have come while there was no handler.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    if leash is not None:
        loop.add_reader(leash, stop)
    async with asyncio.TaskGroup() as answering:
        for server in servers:
            answering.create_task(answer_one(server))
    await wait_for_threads(threads)


def give_up() -> None:
    """End the process as it is; whoever waited was answered long ago."""
    log.error("Ended without waiting any longer for what still runs: does the database answer?")
    os._exit(1)


async def answer_one(server: Any) -> None:
    """Run one server until it is told to stop."""
    try:
        await server.serve()
    except TimeoutError:
        log.warning("Stopped while clients were still connected.")


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
