"""What clients can make the server hold, measured: its peak while they try, beside what it had before.

The bounds are generous: they stand for "not with what clients send", and leave room for how memory is handed out.
"""

import contextlib
import json
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crm_server.answers import head, post, read_answer, until
from tests.crm_server.conftest import assert_nothing_private
from tests.factories import customer_registration, repair_request
from tests.servers import Crm, start_crm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PATH = "/webhooks/repair-request"
MEGABYTE = 1_000_000
MANY = 200


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server for those who attack it one after the other."""
    with start_crm(tmp_path_factory.mktemp("attacked")) as crm:
        yield crm
    assert_nothing_private(crm)


def memory(crm: Crm, name: str) -> float:
    """Return a figure of the server process, `VmRSS` or its peak `VmHWM`, in MB."""
    status = Path(f"/proc/{crm.process.pid}/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024


def with_length(crm: Crm, length: int, body: bytes, path: str = PATH) -> bytes:
    return head(crm, "POST", path, "Content-Type: application/json", f"Content-Length: {length}") + body


def send(connection: socket.socket, *parts: bytes) -> None:
    """Send as much as the server takes."""
    connection.settimeout(2)
    with contextlib.suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
        for part in parts:
            connection.sendall(part)


def endless_headers(crm: Crm) -> list[bytes]:
    return [b"GET / HTTP/1.1\r\nHost: crm\r\n", *[b"x: " + b"y" * MEGABYTE] * 5]


def half_a_header(crm: Crm) -> list[bytes]:
    return [b"GET / HTTP/1.1\r\nHost: crm\r\nx: " + b"y" * 390_000]


def an_endless_line(crm: Crm) -> list[bytes]:
    return [b"GET /" + b"y" * 60_000]


def too_large_a_body(crm: Crm) -> list[bytes]:
    return [with_length(crm, 5 * MEGABYTE, b" " * MEGABYTE), *[b" " * MEGABYTE] * 4]


def endless_chunks(crm: Crm) -> list[bytes]:
    start = head(crm, "POST", PATH, "Content-Type: application/json", "Transfer-Encoding: chunked")
    return [start, *[b"10000\r\n" + b" " * 65536 + b"\r\n"] * 60]


def a_body_with_a_wrong_key(crm: Crm) -> list[bytes]:
    return [with_length(crm, MEGABYTE, b" " * (MEGABYTE - 1)).replace(crm.key.encode(), b"wrong")]


def requests_whose_answers_are_never_read(crm: Crm) -> list[bytes]:
    return [head(crm, "GET", "/webhooks/health") * 5000]


def nothing(crm: Crm) -> list[bytes]:
    return []


@pytest.mark.parametrize(
    ("attack", "connections", "bound"),
    [
        (nothing, 1000, 32),
        (endless_headers, 50, 32),
        (half_a_header, MANY, 48),
        (an_endless_line, MANY, 48),
        (too_large_a_body, 50, 64),
        (endless_chunks, 20, 96),
        (a_body_with_a_wrong_key, MANY, 128),
        (requests_whose_answers_are_never_read, 10, 48),
    ],
)
def test_what_clients_send_is_not_kept(
    attacked: Crm, attack: Callable[[Crm], list[bytes]], connections: int, bound: int
) -> None:
    with attackers(attacked, connections, attack(attacked), bound):
        assert post(attacked, "repair-request", repair_request()).status == 202


@contextlib.contextmanager
def attackers(crm: Crm, connections: int, parts: list[bytes], bound: int) -> Iterator[list[socket.socket]]:
    """Have clients send all the parts, each, and stay while the block runs; hold the server to its bound, in MB."""
    before = memory(crm, "VmRSS")
    Path(f"/proc/{crm.process.pid}/clear_refs").write_text("5")
    with ExitStack() as stack, ThreadPoolExecutor(20) as pool:
        address = ("127.0.0.1", crm.port)
        clients = [stack.enter_context(socket.create_connection(address, 20)) for _ in range(connections)]
        for sending in [pool.submit(send, client, *parts) for client in clients]:
            sending.result()
        yield clients
        assert memory(crm, "VmHWM") - before < bound
    assert crm.process.poll() is None


def test_bodies_that_do_not_end_are_held_to_a_bound_and_the_rest_told_to_come_again(attacked: Crm) -> None:
    parts = [with_length(attacked, 1_048_576, b" " * MEGABYTE)]
    with attackers(attacked, MANY, parts, 256) as clients:
        refused = read_answer(select.select(clients, [], [], 20)[0][0])
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    until(lambda: attacked.post("repair-request", repair_request()).status_code == 202)


def test_large_bodies_at_once_are_stored_or_told_to_come_again(attacked: Crm) -> None:
    def store(_: int) -> int:
        body = json.dumps(repair_request()).encode()
        return post(attacked, "repair-request", body + b" " * (MEGABYTE - len(body))).status

    with attackers(attacked, 0, [], 256), ThreadPoolExecutor(40) as pool:
        assert set(pool.map(store, range(80))) <= {202, 503}
    assert post(attacked, "repair-request", repair_request()).status == 202


@pytest.mark.parametrize(
    "preferences",
    [{f"\n{number}": "v" * 300 for number in range(3000)}, {str(number): [] for number in range(80_000)}],
)
def test_a_body_that_is_full_of_faults_is_refused_in_bounded_memory(
    attacked: Crm, preferences: dict[str, object]
) -> None:
    payload = customer_registration(customer__preferences=preferences)
    with attackers(attacked, 0, [], 128):
        answer = post(attacked, "customer-registration", payload)
    assert set(answer.pointers) == {"/customer/preferences"}


def test_with_few_file_descriptors_connections_wait_and_the_database_does_not(own_crm: Crm) -> None:
    own_crm.stop()
    few = 160
    serve = 'ulimit -n "$0" && exec "$@"'
    command = [sys.executable, "-m", "crm_server", "serve", "--only", "webhooks", "--port", str(own_crm.port)]
    with (own_crm.directory / f"server-{own_crm.port}.log").open("ab") as log:
        own_crm.process = subprocess.Popen(
            ["sh", "-c", serve, str(few), *command],
            cwd=own_crm.directory,
            env=own_crm.env,
            stdout=log,
            stderr=log,
        )
    until(lambda: own_crm.log.count("receiving webhooks") == 2)
    files = Path(f"/proc/{own_crm.process.pid}/fd")
    with attackers(own_crm, MANY, [], 32):
        until(lambda: len(list(files.iterdir())) > few // 2)
        assert len(list(files.iterdir())) < few - 32
    assert post(own_crm, "repair-request", repair_request()).status == 202
