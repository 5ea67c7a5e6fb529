"""How a server starts and ends: what was accepted is answered, what was answered is there."""

import contextlib
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.crm_server.answers import head, post, read_answer, until
from tests.factories import repair_request
from tests.servers import Crm, start_serve


def test_what_was_answered_with_202_survives_a_sigkill(own_crm: Crm) -> None:
    answered: list[str] = []
    stop = threading.Event()

    def keep_posting() -> None:
        while not stop.is_set():
            try:
                answer = own_crm.post("repair-request", repair_request())
            except httpx.TransportError:
                return
            answered.append(answer.json()["id"])

    with ThreadPoolExecutor(6) as pool:
        posting = [pool.submit(keep_posting) for _ in range(6)]
        until(lambda: len(answered) >= 60)
        own_crm.kill()
        stop.set()
    for one in posting:
        one.result()
    own_crm.restart()
    stored = {row["id"] for row in own_crm.rows("SELECT id FROM approvals")}
    assert set(answered) <= stored
    assert post(own_crm, "repair-request", repair_request()).status == 202


def test_sigterm_answers_what_was_accepted_and_exits_0(own_crm: Crm) -> None:
    lock = sqlite3.connect(own_crm.database, isolation_level=None)
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", own_crm.port), timeout=20))
            for _ in range(10)
        ]
        lock.execute("BEGIN IMMEDIATE")
        for connection in connections:
            connection.sendall(whole_request(own_crm))
        until(lambda: unread_bytes(own_crm.port) == 0)
        own_crm.process.terminate()
        until(lambda: not accepts(own_crm))
        lock.rollback()
        assert [read_answer(connection).status for connection in connections] == [202] * 10
    lock.close()
    assert own_crm.process.wait(15) == 0
    assert len(own_crm.rows("SELECT 1 FROM approvals")) == 10


def whole_request(crm: Crm) -> bytes:
    body = json.dumps(repair_request()).encode()
    lines = ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return head(crm, "POST", "/webhooks/repair-request", *lines) + body


def unread_bytes(port: int) -> int:
    """Return how much the server has been sent on a port and has not read (proc(5), /proc/net/tcp)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(int(row[4].split(":")[1], 16) for row in rows if row[1].endswith(f":{port:04X}"))


def accepts(crm: Crm) -> bool:
    try:
        socket.create_connection(("127.0.0.1", crm.port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_sigterm_ends_in_time_although_a_client_trickles_its_body(own_crm: Crm) -> None:
    with (
        socket.create_connection(("127.0.0.1", own_crm.port), timeout=20) as half,
        socket.create_connection(("127.0.0.1", own_crm.port), timeout=20) as idle,
        socket.create_connection(("127.0.0.1", own_crm.port), timeout=20) as slow_head,
    ):
        path, kind = "/webhooks/repair-request", "Content-Type: application/json"
        half.sendall(head(own_crm, "POST", path, kind, "Content-Length: 500") + b"{")
        idle.sendall(head(own_crm, "GET", "/webhooks/health"))
        assert read_answer(idle).status == 200
        slow_head.sendall(b"POST /webhooks/repair-request HTTP/1.1\r\nHost:")
        assert own_crm.stop() == 0
        assert read_answer(half).type == "request-timeout"


def test_a_stopped_server_frees_its_port_at_once(own_crm: Crm) -> None:
    for end in (own_crm.stop, own_crm.kill):
        assert post(own_crm, "repair-request", repair_request()).status == 202
        end()
        own_crm.start()


def test_a_port_that_is_taken_is_named_and_nothing_is_served_twice(own_crm: Crm) -> None:
    log = own_crm.directory / "second.log"
    second = start_serve(own_crm.directory, own_crm.env, own_crm.port, log)
    assert second.wait(20) == 1
    message = log.read_text()
    assert f"127.0.0.1:{own_crm.port}" in message
    assert "--port" in message
    assert "Traceback" not in message


def test_two_servers_that_start_at_once_on_one_port_are_one(own_crm: Crm) -> None:
    own_crm.stop()
    log = own_crm.directory / "race.log"
    racers = [start_serve(own_crm.directory, own_crm.env, own_crm.port, log) for _ in range(2)]
    try:
        until(lambda: any(racer.poll() is not None for racer in racers))
        (loser,) = [racer for racer in racers if racer.poll() is not None]
        assert loser.returncode == 1
        until(lambda: answers(own_crm))
    finally:
        for racer in racers:
            racer.terminate()
            racer.wait(15)


def answers(crm: Crm) -> bool:
    try:
        return httpx.get(f"{crm.url}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def test_the_server_says_where_it_listens_once_it_does(own_crm: Crm) -> None:
    own_crm.stop()
    ports = ["--port", str(own_crm.port), "--frontend-port", str(own_crm.frontend_port)]
    command = [sys.executable, "-m", "crm_server", "serve", *ports]
    process = subprocess.Popen(
        command,
        cwd=own_crm.directory,
        env=own_crm.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert own_crm.url in process.stdout.readline()
    assert own_crm.staff_url.removesuffix("api") in process.stdout.readline()
    assert answers(own_crm)
    assert httpx.get(f"{own_crm.staff_url}/approvals").status_code == 401
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=15)
    of_others = [line for line in errors.splitlines() if " crm_server.access: " not in line]
    assert (output, of_others, process.returncode) == ("", [], 0)


def test_an_event_sent_in_two_halves_is_taken(own_crm: Crm) -> None:
    request = whole_request(own_crm)
    with socket.create_connection(("127.0.0.1", own_crm.port), timeout=20) as connection:
        connection.sendall(request[:-100])
        until(lambda: unread_bytes(own_crm.port) == 0)
        connection.sendall(request[-100:])
        assert read_answer(connection).status == 202
