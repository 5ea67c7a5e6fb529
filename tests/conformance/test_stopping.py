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
import asyncio, os, signal, threading, time

async def app(scope, receive, send):
    raise AssertionError("Nobody asks.")

def stop_after(seconds):
    while signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGTERM)

for number in range(12):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # uvloop leaves its own, to which the signal would go
    stopping = threading.Thread(target=stop_after, args=[number * 0.002])
    stopping.start()
    run()
    stopping.join()
    print(len(os.listdir("/proc/self/task")) - threading.active_count())
"""


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_is_told_to_stop_leaves_no_thread_behind(name: str) -> None:
    """Such a thread aborts the process when it asks for the interpreter while that ends."""
    command = [sys.executable, "-c", SERVERS[name] + SCRIPT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0"] * 12
