"""The tricks that HTTP servers are known to fall for, over a bare socket: none is a 500, a hang or an event.

Each case stands with the statuses that it is answered with on one connection. Behind it, on the same
connection, comes an honest request, whose 200 is the last where the connection goes on.
"""

import json
import socket
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.crm_server.answers import Answer, checked, chunked, exchange, post, until
from tests.factories import repair_request
from tests.servers import KEY, Crm

PATH = "/webhooks/repair-request"
SENTINEL = "Sentinel-9c1d"
HEALTH = b"GET /webhooks/health HTTP/1.1\r\nHost: crm\r\nConnection: close\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked"
H11 = "HTTP/1.1"


def request(
    *lines: str,
    body: bytes = b"",
    start: str = f"POST {PATH} {H11}",
    end: str = "\r\n",
    key: str = KEY,
) -> bytes:
    fields = ["Host: crm", f"Authorization: Bearer {key}", "Content-Type: application/json", *lines]
    return end.join([start, *fields, "", ""]).encode("latin-1") + body


def sized(body: bytes, *lines: str, start: str = f"POST {PATH} {H11}", key: str = KEY) -> bytes:
    return request(f"Content-Length: {len(body)}", *lines, body=body, start=start, key=key)


EVENT = json.dumps(repair_request()).encode()
"""One event for all: it is new once and a duplicate from then on."""
SIZE = f"{len(EVENT):x}".encode()
SMUGGLED = sized(json.dumps(repair_request(repair__websiteRepairId="smuggled")).encode())
"""A request that is only ever a part of another: were it run, its natural key would be in the queue."""


def with_length(value: str) -> bytes:
    return request(f"Content-Length: {value}", body=EVENT)


def in_chunks(body: bytes) -> bytes:
    return request(CHUNKED, body=body)


def first_chunk(size: bytes) -> bytes:
    return in_chunks(size + b"\r\n" + EVENT + b"\r\n0\r\n\r\n")


def with_coding(coding: str) -> bytes:
    return request(f"Transfer-Encoding: {coding}", body=chunked(EVENT))


def to(target: str) -> bytes:
    return sized(EVENT, start=f"POST {target} {H11}")


def by(method: str) -> bytes:
    return sized(EVENT, start=f"{method} {PATH} {H11}")


FRAMING: dict[str, tuple[bytes, list[int]]] = {
    # A length and chunks: the chunks count, and the connection ends (RFC 9112, section 6.1).
    "CL.TE": (request("Content-Length: 9", CHUNKED, body=b"0\r\n\r\n" + SMUGGLED), [400]),
    "CL.TE the whole": (
        request(f"Content-Length: {5 + len(SMUGGLED)}", CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
        [400],
    ),
    "TE.CL": (request(CHUNKED, "Content-Length: 4", body=chunked(SMUGGLED)), [400]),
    "TE.CL valid": (request(CHUNKED, "Content-Length: 4", body=chunked(EVENT) + SMUGGLED), [202]),
    "TE.TE": (request(CHUNKED, "Transfer-Encoding: x", body=b"0\r\n\r\n" + SMUGGLED), [400]),
    "two lengths": (request("Content-Length: 5", f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED), [400]),
    "one length twice": (sized(EVENT, f"Content-Length: {len(EVENT)}"), [202, 200]),
    "too long a body": (sized(b" " * 2_000_000 + SMUGGLED), [413, 200]),
    "far too long a body": (sized(b" " * 6_000_000 + SMUGGLED + b" " * 1_000_000), [413]),
    "chunks without an end": (in_chunks(chunked(b" " * 6_000_000, 65536)[:-5] + SMUGGLED), [413]),
    "the body of a refused key": (sized(SMUGGLED, key="wrong"), [401, 200]),
    "the body of another type": (sized(SMUGGLED).replace(b"application/json", b"text/plain", 1), [415, 200]),
    "the body of no path": (sized(SMUGGLED, start=f"POST /nope {H11}"), [404, 200]),
    "the body of another method": (sized(SMUGGLED, start=f"PUT {PATH} {H11}"), [405, 200]),
    "the body of health": (sized(SMUGGLED, start=f"GET /webhooks/health {H11}"), [200, 200]),
    "the body of CONNECT": (sized(SMUGGLED, start=f"CONNECT crm:80 {H11}"), [404, 200]),
    "the body of an upgrade": (sized(SMUGGLED, "Connection: Upgrade", "Upgrade: h2c"), [400, 200]),
    "the body of a websocket": (sized(SMUGGLED, "Connection: upgrade", "Upgrade: websocket"), [400, 200]),
    "chunks in HTTP/1.0": (
        request(CHUNKED, start=f"POST {PATH} HTTP/1.0", body=b"0\r\n\r\n" + SMUGGLED),
        [400],
    ),
    "no length": (request(), [400, 200]),
}
CODINGS: dict[str, tuple[bytes, list[int]]] = {
    coding: (with_coding(coding), statuses)
    for statuses, codings in [
        ([202, 200], ["CHUNKED", " chunked", "\tchunked "]),
        ([415, 200], ["gzip, chunked", "identity, chunked", "chunked, chunked", "xchunked, chunked"]),
        ([400], ["xchunked", "chunked, identity", "identity", "gzip", "chunked;q=1", '"chunked"', ""]),
        ([400], ["\x0bchunked", "chunk", "chunked,", "chunked\x00", "chu\r\n nked"]),
    ]
    for coding in codings
} | {
    "two headers, the last is chunked": (
        request("Transfer-Encoding: identity", CHUNKED, body=chunked(EVENT)),
        [415, 200],
    ),
    "chunked twice": (request(CHUNKED, CHUNKED, body=chunked(EVENT)), [415, 200]),
    "a space before the colon": (request("Transfer-Encoding : chunked", body=b"0\r\n\r\n" + SMUGGLED), [400]),
}
N = len(EVENT)
LENGTHS: dict[str, tuple[bytes, list[int]]] = {
    value: (with_length(value), statuses)
    for statuses, values in [
        ([202, 200], [f" {N}", f"{N} ", f"00{N}"]),
        (
            [400],
            [f"+{N}", f"-{N}", f"0x{N:x}", f"{N}.0", f"{N}, {N}", f"{N},{N}", f"{N} {N}", "1_0", "1e3", ""],
        ),
        ([400], [f"{N}\x00", f"{N}\x0b", "9" * 23, str(2**64), "\xb2"]),
        ([431], [str(2**64 - 1)]),
        ([413], [str(2**63)]),
    ]
    for value in values
}
CHUNKS: dict[str, tuple[bytes, list[int]]] = {
    **{
        f"size {size[:20]!r}": (first_chunk(size), statuses)
        for statuses, sizes in [
            (
                [202, 200],
                [SIZE.upper(), b"000" + SIZE, SIZE + b" ", SIZE + b";a=b", SIZE + b";" + b"x" * 5000],
            ),
            ([408], [b"+" + SIZE, b"-1", b" " + SIZE, b"0x" + SIZE, b"", b"g", b"\xff", b"f" * 17]),
            ([408], [SIZE + b";" + b"x" * 100_000, SIZE + b';a="\n"', SIZE + b";\r"]),
        ]
        for size in sizes
    },
    "bare line feeds": (in_chunks(SIZE + b"\n" + EVENT + b"\n0\n\n"), [408]),
    "shorter than said": (in_chunks(b"%x\r\n" % (N + 1) + EVENT + b"\r\n0\r\n\r\n" + SMUGGLED), [408]),
    "longer than said": (in_chunks(b"%x\r\n" % (N - 1) + EVENT + b"\r\n0\r\n\r\n" + SMUGGLED), [408]),
    "trailers": (
        in_chunks(
            chunked(EVENT)[:-2] + b"authorization: Bearer x\r\ncontent-length: 3\r\nwebhook-id: /\r\n\r\n"
        ),
        [202, 200],
    ),
    "5,000 trailers": (in_chunks(chunked(EVENT)[:-2] + b"x: y\r\n" * 5000 + b"\r\n"), [408]),
    "no trailer": (in_chunks(chunked(EVENT)[:-2] + b"nonsense\r\n\r\n"), [408]),
    "a key in the trailers alone": (
        request(
            CHUNKED, key="wrong", body=chunked(EVENT)[:-2] + f"authorization: Bearer {KEY}\r\n\r\n".encode()
        ),
        [401, 200],
    ),
}
TARGETS: dict[str, tuple[bytes, list[int]]] = {
    target[:40] or "nothing": (to(target), statuses)
    for statuses, targets in [
        # Equal by RFC 3986 and 9112: absolute form, query, unreserved characters encoded.
        ([202, 200], [f"http://crm{PATH}", f"http://{SENTINEL}{PATH}", f"{PATH}?{SENTINEL}=1", f"{PATH}?"]),
        ([202, 200], [f"{PATH}?{'a' * 20_000}", "/webhooks/%72epair-request", "/webhooks%2frepair-request"]),
        (
            [404, 200],
            ["*", "crm:5001", f"/{PATH}", "/webhooks//repair-request", "/webhooks/./repair-request"],
        ),
        ([404, 200], [f"/{SENTINEL}/..{PATH}", f"/webhooks/%2e%2e{PATH}", "/webhooks/%2572epair-request"]),
        (
            [404, 200],
            [f"{PATH};{SENTINEL}", f"{PATH}%00", f"{PATH}%ff", f"{PATH}%", f"{PATH}%zz", f"{PATH}/.."],
        ),
        ([404, 200], ["/WEBHOOKS/repair-request", "/webhooks\\repair-request", "/" + "a" * 20_000]),
        ([400], [f"{PATH}\x00", f"{PATH}\xff", f"{PATH} x", "webhooks/repair-request", "http://", "?", ""]),
        ([414], ["/" + "b" * 65_535]),
        ([431], ["/" + "c" * 700_000]),
    ]
    for target in targets
}
RECEIPTS: dict[str, tuple[bytes, list[int]]] = {
    target[:40]: (request(start=f"GET /webhooks/receipts/{target} {H11}"), [status, 200])
    for status, targets in [
        (
            404,
            [
                SENTINEL,
                "%61",
                f"a?{SENTINEL}=1",
                "",
                ".",
                "..",
                "%2e%2e",
                "a/../b",
                "a%2fb",
                "%0d%0a",
                "a" * 128,
            ],
        ),
        (400, [f"{SENTINEL}%20", "a" * 129, "b" * 20_000, "%00", "%252f", "%ff", "%", "%zz", "a;b", "a'--"]),
    ]
    for target in targets
} | {
    "with a body": (sized(SMUGGLED, start=f"GET /webhooks/receipts/a {H11}"), [404, 200]),
    "a key in the path": (request(start=f"GET /webhooks/receipts/{KEY} {H11}", key="wrong"), [401, 200]),
}
METHODS: dict[str, tuple[bytes, list[int]]] = {
    method[:20] or "nothing": (by(method), statuses)
    for statuses, methods in [
        ([405, 200], ["post", "PoSt", "GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PRI"]),
        ([405, 200], [SENTINEL, "A" * 1000, "B" * 30_000]),
        ([400], ["PO ST", "P\x00ST", "POST\t", "P\xd6ST", ""]),
    ]
    for method in methods
} | {
    "OPTIONS *": (request(start=f"OPTIONS * {H11}"), [404, 200]),
    "CONNECT a host": (request(start=f"CONNECT {SENTINEL}:443 {H11}"), [404, 200]),
}
HEADERS: dict[str, tuple[bytes, list[int]]] = {
    **{
        f"{line[:40]!r} of {len(line)}": (sized(EVENT, line), statuses)
        for statuses, lines in [
            (
                [202, 200],
                [f"x: {SENTINEL}\xff\xfe", "x: 1\ny: 2", "Expect: 200-ok", "Expect:"],
            ),
            ([202, 200], ["x: " + "y" * 30_000, "Content-Encoding: identity", f"Cookie: a={SENTINEL}"]),
            (
                [400],
                [
                    "x: 1\ry: 2",
                    "x: 1\r\n 2",
                    "x : 1",
                    " x: 1",
                    "x: \x00",
                    "x\x00: 1",
                    SENTINEL,
                    ": 1",
                    "\xff: 1",
                ],
            ),
            ([400], ["x: \x01", "x: \x7f", "x(: 1"]),
            ([431], ["x: " + "y" * 200_000, "\r\n".join(f"x-{number}: 1" for number in range(200))]),
            ([431], ["\r\n".join(f"x: {SENTINEL}" for _ in range(5000))]),
        ]
        for line in lines
    },
    "a second host": (sized(EVENT, f"Host: {SENTINEL}"), [400, 200]),
    "no host": (sized(EVENT).replace(b"Host: crm\r\n", b""), [400, 200]),
    "no host, before HTTP/1.1": (
        sized(EVENT, start=f"POST {PATH} HTTP/1.0").replace(b"Host: crm\r\n", b""),
        [202],
    ),
    "bare line feeds": (request(f"Content-Length: {N}", body=EVENT, end="\n"), [202, 200]),
    "bare carriage returns": (request(f"Content-Length: {N}", body=EVENT, end="\r"), [400]),
    "a byte order mark": (b"\xef\xbb\xbf" + sized(EVENT), [400]),
    "line ends before": (b"\r\n\r\n" + sized(EVENT), [202, 200]),
}
VERSIONS: dict[str, tuple[bytes, list[int]]] = {
    **{
        version or "none": (sized(EVENT, start=f"POST {PATH} {version}"), [400])
        for version in [
            "HTTP/0.9",
            "HTTP/1.2",
            "HTTP/2.0",
            "http/1.1",
            "HTTP/11",
            "HTTP/1.1x",
            "HTTP/1.1 ",
            "",
        ]
    },
    "HTTP/1.0": (sized(EVENT, start=f"POST {PATH} HTTP/1.0"), [202]),
    "HTTP/1.0, kept alive": (
        sized(EVENT, "Connection: keep-alive", start=f"POST {PATH} HTTP/1.0"),
        [202, 200],
    ),
    "HTTP/0.9 alone": (b"GET /webhooks/health\r\n", [400]),
    "HTTP/2 by prior knowledge": (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]),
        [],
    ),
    "TLS": (bytes.fromhex("16030100c4010000c00303") + b"\x11" * 190, [400]),
    "every byte": (bytes(range(256)), [400]),
}
PIPELINES: dict[str, tuple[bytes, list[int]]] = {
    "three": (sized(EVENT) * 3, [202, 202, 202, 200]),
    "a refused one between": (sized(EVENT) + sized(b"{") + sized(EVENT), [202, 400, 202, 200]),
    "a broken one between": (sized(EVENT) + b"BAD\r\n\r\n" + SMUGGLED, [202, 400]),
    "after one that is too large": (sized(b" " * 2_000_000) + sized(EVENT), [413, 202, 200]),
    "after a wrong key": (sized(EVENT, key="wrong") + sized(EVENT), [401, 202, 200]),
    "after the last": (sized(EVENT, "Connection: close") + SMUGGLED, [202]),
}

CASES = {
    f"{table}: {name}": case
    for table, cases in {
        "framing": FRAMING,
        "coding": CODINGS,
        "length": LENGTHS,
        "chunks": CHUNKS,
        "target": TARGETS,
        "receipt": RECEIPTS,
        "method": METHODS,
        "headers": HEADERS,
        "version": VERSIONS,
        "pipeline": PIPELINES,
    }.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize("name", CASES)
def test_a_trick_is_answered_as_documented_and_runs_nothing(crm: Crm, name: str) -> None:
    sent, statuses = CASES[name]
    answers = exchange(crm, sent + HEALTH)
    assert [answer.status for answer in answers] == statuses
    for answer in answers:
        assert_is_documented(answer)
    assert not crm.rows("SELECT 1 FROM approvals WHERE natural_key = 'smuggled'")
    assert crm.process.poll() is None


def assert_is_documented(answer: Answer) -> None:
    """Hold an answer of ours against the contract; the HTTP server's own are empty."""
    if answer.body:
        path, method = ("/health", "get") if answer.status == 200 else ("/repair-request", "post")
        checked(method, path, answer)
    else:
        assert answer.status in (400, 414, 431)
    assert SENTINEL.encode() not in answer.body + repr(answer.headers).encode()


CUT_OFF: dict[str, tuple[bytes, list[int]]] = {
    "nothing": (b"", []),
    "in the line": (sized(EVENT)[:9], []),
    "in the headers": (sized(EVENT)[:60], []),
    "before the body": (sized(EVENT)[: -len(EVENT)], [408]),
    "in the body": (sized(EVENT)[:-5], [408]),
    "before the first chunk": (in_chunks(b""), [408]),
    "in a chunk's size": (in_chunks(SIZE), [408]),
    "in a chunk": (in_chunks(chunked(EVENT)[:100]), [408]),
    "before the last chunk": (in_chunks(chunked(EVENT)[:-5]), [408]),
    "before the last line end": (in_chunks(chunked(EVENT)[:-2]), [408]),
}


@pytest.mark.parametrize("place", CUT_OFF)
def test_a_request_that_is_cut_off_is_not_run(crm: Crm, place: str) -> None:
    fresh = json.dumps(repair_request(repair__websiteRepairId=f"cut-{len(place)}")).encode()
    sent, statuses = CUT_OFF[place]
    answers = exchange(crm, sent.replace(EVENT[:100], fresh[:100]), half_close=True)
    assert [answer.status for answer in answers] == statuses
    assert {answer.type for answer in answers} <= {"request-timeout"}
    assert not crm.rows("SELECT 1 FROM approvals WHERE natural_key LIKE 'cut-%'")


def test_a_client_that_stops_sending_after_its_request_has_run_it_once_or_not_at_all(crm: Crm) -> None:
    payload = repair_request()
    body = json.dumps(payload).encode()
    for _ in range(5):
        assert [answer.status for answer in exchange(crm, sized(body), half_close=True)] in ([], [202])
    assert post(crm, "repair-request", payload).status == 202
    rows = crm.rows(
        "SELECT payload FROM approvals WHERE natural_key = ?", payload["repair"]["websiteRepairId"]
    )
    assert [json.loads(row["payload"]) for row in rows] == [payload]


@pytest.mark.parametrize("part", [0.01, 0.5, 0.9, 0.999, 1])
def test_clients_that_disappear_at_any_moment_leave_the_server_well(crm: Crm, part: float) -> None:
    sent = sized(EVENT) * 3
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", crm.port), timeout=20) as connection:
            # A reset instead of an end: what was sent and what is to be read are both thrown away.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(sent[: int(len(sent) * part)])
    assert post(crm, "repair-request", repair_request()).status == 202


SLOW: dict[str, tuple[bytes, list[int]]] = {
    "silence": (b"", []),
    "half a header": (sized(EVENT)[:60], []),
    "half a body": (sized(EVENT)[:-5], [408]),
    "half a body of another release": (sized(EVENT, "webhook-contract: 9.9.9")[:-5], [408]),
    "half a chunk": (in_chunks(chunked(EVENT)[:100]), [408]),
    "a chunk of 2^63 bytes": (first_chunk(b"7fffffffffffffff"), [408]),
    "a chunk of 2^64 bytes": (first_chunk(b"ffffffffffffffff"), [408]),
    "half a body with a wrong key": (sized(EVENT, key="wrong")[:-5], [401]),
    "half a body to nowhere": (sized(EVENT, start=f"POST /nope {H11}")[:-5], [404]),
    "an answer, then silence": (sized(EVENT), [202]),
}


@pytest.mark.long
def test_who_sends_slowly_or_not_at_all_is_let_go(crm: Crm) -> None:
    with ThreadPoolExecutor(len(SLOW) + 1) as pool:
        running = {name: pool.submit(exchange, crm, sent, seconds=30) for name, (sent, _) in SLOW.items()}
        trickle = pool.submit(send_byte_by_byte, crm, sized(EVENT))
        assert post(crm, "repair-request", repair_request()).status == 202
        answered = {name: [answer.status for answer in future.result()] for name, future in running.items()}
    assert answered == {name: statuses for name, (_, statuses) in SLOW.items()}
    trickle.result()


def send_byte_by_byte(crm: Crm, sent: bytes) -> None:
    """Send a byte now and then until the server lets go."""
    with socket.create_connection(("127.0.0.1", crm.port), timeout=0.2) as connection:
        rest = iter(sent)

        def is_let_go() -> bool:
            try:
                connection.sendall(bytes([next(rest)]))
                return not connection.recv(1)
            except TimeoutError:
                return False
            except OSError:
                return True

        until(is_let_go, 25)


def test_a_key_is_never_logged(own_crm: Crm) -> None:
    wrong = [f"{SENTINEL}{number}" for number in range(3)]
    for key in wrong:
        exchange(own_crm, sized(EVENT, f"X-Api-Key: {key}", f"Cookie: {key}", key=key) + HEALTH)
        exchange(own_crm, sized(b"{", f"webhook-id: {key} /", f"webhook-test: {key}") + HEALTH)
        exchange(own_crm, sized(EVENT, start=f"POST {PATH}?key={key} {H11}") + HEALTH)
        exchange(own_crm, sized(EVENT, f"broken {key}") + HEALTH)
    assert not [word for word in [*wrong, KEY] if word in own_crm.log]
