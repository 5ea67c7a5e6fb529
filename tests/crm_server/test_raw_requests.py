"""What HTTP clients do not send, over a bare socket: each way in which stock Connexion went wrong, and floods."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.crm_server.answers import chunked, head, raw, read_answer, until
from tests.factories import customer_registration, repair_request
from tests.servers import Crm

PATH = "/webhooks/repair-request"
KINDS = "Content-Type: application/json"


def with_length(crm: Crm, body: bytes, *lines: str) -> bytes:
    return head(crm, "POST", PATH, f"Content-Length: {len(body)}", *lines) + body


def event() -> bytes:
    return json.dumps(repair_request()).encode()


def test_a_media_type_in_capitals_does_not_switch_validation_off(crm: Crm) -> None:
    for body, status in [(event(), 202), (b'{"nonsense": 1}', 400)]:
        assert raw(crm, with_length(crm, body, "Content-Type: Application/JSON")).status == status


def test_a_chunked_body_is_read(crm: Crm) -> None:
    request = head(crm, "POST", PATH, KINDS, "Transfer-Encoding: chunked") + chunked(event())
    assert raw(crm, request).status == 202


def test_a_chunked_body_that_is_too_large_is_refused_while_it_is_read(crm: Crm) -> None:
    request = head(crm, "POST", PATH, KINDS, "Transfer-Encoding: chunked") + chunked(b" " * 3_000_000, 65536)
    assert raw(crm, request).type == "content-too-large"


def test_an_empty_chunked_body_is_invalid_json(crm: Crm) -> None:
    request = head(crm, "POST", PATH, KINDS, "Transfer-Encoding: chunked") + chunked(b"")
    assert raw(crm, request).type == "invalid-json"


@pytest.mark.parametrize("body", [b'"\xff"', b"[NaN]", b"[" * 100_000, b"9" * 5_000])
def test_what_breaks_a_json_reader_is_a_400(crm: Crm, body: bytes) -> None:
    assert raw(crm, with_length(crm, body, KINDS)).type == "invalid-json"


def test_a_content_encoding_is_not_ignored(crm: Crm) -> None:
    answer = raw(crm, with_length(crm, event(), KINDS, "Content-Encoding: gzip"))
    assert answer.type == "unsupported-media-type"


def test_a_wrong_key_is_refused_before_the_body_is_sent(crm: Crm) -> None:
    lines = "POST {} HTTP/1.1|Host: crm|Authorization: Bearer {}|Content-Length: 500|Expect: 100-continue||"
    with socket.create_connection(("127.0.0.1", crm.port), timeout=20) as connection:
        connection.sendall(lines.format(PATH, "wrong").replace("|", "\r\n").encode())
        answer = read_answer(connection)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_a_right_key_is_told_to_go_on(crm: Crm) -> None:
    body = event()
    with socket.create_connection(("127.0.0.1", crm.port), timeout=20) as connection:
        connection.sendall(with_length(crm, body, KINDS, "Expect: 100-continue")[: -len(body)])
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert read_answer(connection).status == 202


@pytest.mark.parametrize("size", [1_100_000, 3_000_000])
@pytest.mark.parametrize(
    ("path", "key", "status"), [(PATH, True, 413), (PATH, False, 401), ("/webhooks/nope", True, 404)]
)
def test_a_refusal_can_be_read_by_a_client_that_sends_all_first(
    crm: Crm, size: int, path: str, key: bool, status: int
) -> None:
    request = head(crm, "POST", path, KINDS, f"Content-Length: {size}") + b" " * size
    answer = raw(crm, request if key else request.replace(crm.key.encode(), b"wrong"))
    assert answer.status == status


def test_two_faults_are_both_named_and_neither_value_is_shown_or_logged(crm: Crm) -> None:
    payload = repair_request(repair__priority="SENTINEL-1", customer__email="SENTINEL-2 at home")
    answer = raw(crm, with_length(crm, json.dumps(payload).encode(), KINDS))
    assert sorted(answer.pointers) == ["/customer/email", "/repair/priority"]
    assert b"SENTINEL" not in answer.body
    assert "SENTINEL" not in crm.log


@pytest.mark.parametrize("path", ["/webhooks/openapi.json", "/webhooks/ui/", "/webhooks/swagger.json"])
def test_the_contract_and_its_pages_are_not_served(crm: Crm, path: str) -> None:
    assert raw(crm, head(crm, "GET", path)).status == 404


def test_a_trailing_slash_is_not_redirected(crm: Crm) -> None:
    assert raw(crm, with_length(crm, event(), KINDS).replace(b"request HTTP", b"request/ HTTP")).status == 404


def test_two_keys_are_no_key(crm: Crm) -> None:
    answer = raw(crm, with_length(crm, event(), KINDS, "Authorization: Bearer other"))
    assert answer.status == 401


@pytest.mark.parametrize("key", [b"", b" ", b"\xff\xfe", b"\t"])
def test_a_key_of_odd_bytes_is_unauthorized(crm: Crm, key: bytes) -> None:
    request = with_length(crm, event(), KINDS).replace(crm.key.encode(), key)
    assert raw(crm, request).status == 401


def test_a_webhook_header_twice_is_malformed(crm: Crm) -> None:
    for name in ("webhook-id", "webhook-contract", "webhook-test"):
        value = {"webhook-id": "a", "webhook-contract": "1.0.0", "webhook-test": "true"}[name]
        answer = raw(crm, with_length(crm, event(), KINDS, f"{name}: {value}", f"{name}: {value}"))
        assert (answer.type, answer.pointers) == ("malformed-request", [f"#{name}"])


def test_two_media_types_are_unsupported(crm: Crm) -> None:
    assert raw(crm, with_length(crm, event(), KINDS, "Content-Type: text/plain")).status == 415


def test_a_request_with_two_framings_is_not_taken(crm: Crm) -> None:
    body = event()
    for lines in (["Content-Length: 3", f"Content-Length: {len(body)}"], ["Content-Length: x"]):
        with socket.create_connection(("127.0.0.1", crm.port), timeout=20) as connection:
            connection.sendall(head(crm, "POST", PATH, KINDS, *lines) + body)
            assert connection.recv(65536).startswith(b"HTTP/1.1 400")


def test_a_flood_of_headers_is_cut_off(crm: Crm) -> None:
    with socket.create_connection(("127.0.0.1", crm.port), timeout=20) as connection:
        flood = b"GET /webhooks/health HTTP/1.1\r\nHost: crm\r\n" + b"x-flood: %s\r\n" % (b"y" * 1000) * 2000
        answer = b""
        try:
            connection.sendall(flood)
            answer = connection.recv(65536)
        except (BrokenPipeError, ConnectionResetError):
            return
        assert not answer or answer.split(b" ")[1] in (b"400", b"431")


def test_a_client_that_leaves_changes_nothing_for_the_others(crm: Crm) -> None:
    def leave() -> None:
        with socket.create_connection(("127.0.0.1", crm.port), timeout=20) as connection:
            connection.sendall(with_length(crm, event(), KINDS))

    leavers = [threading.Thread(target=leave) for _ in range(20)]
    for leaver in leavers:
        leaver.start()
    assert [raw(crm, with_length(crm, event(), KINDS)).status for _ in range(20)] == [202] * 20
    for leaver in leavers:
        leaver.join()


def test_requests_that_overlap_are_checked_by_their_own_rules(crm: Crm) -> None:
    body = event()
    request = with_length(crm, body, KINDS)
    with socket.create_connection(("127.0.0.1", crm.port), timeout=20) as connection:
        connection.sendall(request[:-10])
        until(lambda: raw(crm, head(crm, "GET", "/webhooks/health")).status == 200)
        registration = json.dumps(customer_registration()).encode()
        other = with_length(crm, registration, KINDS).replace(b"repair-request", b"customer-registration")
        assert raw(crm, other).status == 202
        connection.sendall(request[-10:])
        assert read_answer(connection).status == 202


def test_a_request_without_a_key_is_refused_while_open_ones_overlap(crm: Crm) -> None:
    body = event()
    request = with_length(crm, body, KINDS).replace(crm.key.encode(), b"wrong")
    with ThreadPoolExecutor(8) as pool:
        health = [pool.submit(raw, crm, head(crm, "GET", "/webhooks/health")) for _ in range(40)]
        refused = [pool.submit(raw, crm, request) for _ in range(40)]
    assert {answer.result().status for answer in health} == {200}
    assert {answer.result().status for answer in refused} == {401}


def test_one_connection_serves_many_requests(crm: Crm) -> None:
    with socket.create_connection(("127.0.0.1", crm.port), timeout=20) as connection:
        statuses = []
        for body in (event(), b"nope", event()):
            connection.sendall(with_length(crm, body, KINDS))
            statuses.append(read_answer(connection).status)
    assert statuses == [202, 400, 202]
