"""The HTTP servers of both sides, told to stop while they are just starting: they end, and end well."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.servers import ROOT

SERVERS = {
    "the website's": """
from sender.integration.http_server import listen, serve

def run():
    asyncio.run(serve(app, listen("127.0.0.1", 0), lambda: None))
""",
    "the CRM's": """
from crm_server.http_server import answer, event_loop, listen
from crm_server.middleware.bodies import Hurry

def run():
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        runner.run(answer([(app, listen("127.0.0.1", 0)), (app, listen("127.0.0.1", 0))], Hurry(), None))
""",
}

SCRIPT = """
import asyncio, os, pathlib, signal, threading, time

async def app(scope, receive, send):
    raise AssertionError("Nobody asks.")

def stop_each():
    for number in range(12):
        listening.acquire()
        while signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            time.sleep(0.001)
        time.sleep(number * 0.002)
        os.kill(os.getpid(), signal.SIGTERM)
    listening.acquire()  # to the end: a thread that has been joined is counted for a moment more

def threads():
    return int(pathlib.Path("/proc/self/status").read_text().partition("Threads:")[2].split()[0])

listening = threading.Semaphore(0)
threading.Thread(target=stop_each, daemon=True).start()
for number in range(12):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # uvloop leaves its own, to which the signal would go
    listening.release()
    run()
    print(threads() - threading.active_count())
"""


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_is_told_to_stop_leaves_no_thread_behind(name: str) -> None:
    """Such a thread aborts the process when it asks for the interpreter while that ends."""
    command = [sys.executable, "-c", SERVERS[name] + SCRIPT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0"] * 12


COUNTING = """
import _thread, threading, time

deadline = time.monotonic() + 2
while time.monotonic() < deadline:
    over = threading.Event()
    _thread.start_new_thread(time.sleep, (0.0005,))
    _thread.start_new_thread(over.wait, ())
    assert min(native_threads() for _ in range(40)) > 0
    over.set()
    while native_threads() > 0:
        time.sleep(0.0001)
"""


@pytest.mark.parametrize("module", ["crm_server.http_server", "sender.integration.http_server"])
def test_a_living_thread_is_counted_while_others_end(module: str) -> None:
    """A list of them ended at times where another thread did, and the one behind was not waited for."""
    command = [sys.executable, "-c", f"from {module} import native_threads\n{COUNTING}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
