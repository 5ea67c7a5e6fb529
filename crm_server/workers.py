"""Several processes that serve the same ports. The end of one is the end of all, as it is with one."""

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable

STOP_SECONDS = 25.0
"""How long the others may take to end; one process, when told to, gives itself less (`http_server.END_SECONDS`)."""
AWAITED = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)

log = logging.getLogger(__name__)


def run(count: int, work: Callable[[int, int], None]) -> int:
    """Run some processes until SIGTERM or SIGINT, or until one ends; return the exit code.

    `work` is given a number from 0, and a file descriptor that can be read once this process is gone,
    however it ended. It must end on SIGTERM too, and unblock it and SIGINT once it can: before, they would kill.
    """
    leash, held = os.pipe()

    def begin(number: int) -> None:
        os.close(held)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        work(number, leash)

    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=begin, args=(number,)) for number in range(count)]
    for worker in workers:
        worker.start()
    while signal.sigwait(AWAITED) == signal.SIGCHLD:
        if ended := [worker for worker in workers if not worker.is_alive()]:
            log.error("A worker ended (%s), so all do: start again.", how(ended[0].exitcode))
            break
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        worker.kill()
        worker.join()
    return int(any(worker.exitcode for worker in workers))


def how(code: int | None) -> str:
    """Say how a process ended."""
    return signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
