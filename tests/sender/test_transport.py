"""One attempt over a real socket: one deadline, bounded answers, connections that die."""

from __future__ import annotations

import base64
import json
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from sender.delivery import Answer, Delivery, Fault
from sender.relay import THREADS
from sender.transport import MAX_ANSWER, Transport
from tests.receiver import Receiver, Reply, Request, always, first, receipt, reply
from tests.sender.site import Site, eventually
from tests.servers import KEY


def delivery(site: Site) -> Delivery:
    """Return an event as a relay has it."""
    [event] = site.book()
    row = site.row(event)
    names = ("id", "event", "contract", "natural_key", "order_key", "payload", "digest")
    values: dict[str, Any] = {name: row[name] for name in names}
    return Delivery(**values, attempts=0, held_by=None, lease_token="")


@pytest.fixture
def hurried(site: Site) -> Iterator[Transport]:
    """A transport whose attempts may take half a second."""
    with Transport(site.settings(timeout=0.5)) as transport:
        yield transport


@pytest.fixture
def patient(site: Site) -> Iterator[Transport]:
    """A transport whose attempts end otherwise, however slow the machine is."""
    with Transport(site.settings(timeout=10.0)) as transport:
        yield transport


def trickle(part: bytes, forever: bytes) -> Iterator[bytes]:
    yield part
    while True:
        time.sleep(0.05)
        yield forever


@pytest.mark.parametrize(
    "parts",
    [
        (b"HTTP/1.1 202 Accepted\r\ncontent-length: 9999999\r\n\r\n", b" "),
        (b"HTTP/1.1 202 Accepted\r\n", b"x-slow: 1\r\n"),
        (b"HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    ],
    ids=["body", "headers", "chunks", "1xx"],
)
def test_an_answer_that_trickles_ends_by_one_deadline(
    site: Site, receiver: Receiver, hurried: Transport, parts: tuple[bytes, bytes]
) -> None:
    receiver.event = lambda _: Reply(trickle(*parts))
    assert hurried.send(delivery(site)) == Fault("timeout", "timeout")


def test_a_silent_crm_is_a_timeout(site: Site, receiver: Receiver, hurried: Transport) -> None:
    receiver.event = lambda _: Reply(trickle(b"", b""))
    assert hurried.send(delivery(site)) == Fault("timeout", "timeout")
    assert len(receiver.events) == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_peer_that_neither_reads_nor_shakes_hands_is_a_timeout(site: Site, scheme: str) -> None:
    one = delivery(site)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/webhooks"
        with Transport(site.settings(timeout=0.3, webhook_url=url)) as transport:
            assert transport.send(one) == Fault("timeout", "timeout")


def test_a_refused_connection_is_named_as_the_guide_does(
    site: Site, receiver: Receiver, patient: Transport
) -> None:
    receiver.go_away()
    assert patient.send(delivery(site)) == Fault("refused", "Connection refused")


@pytest.mark.parametrize(
    "head",
    [b"content-length: 50000000\r\n", b"transfer-encoding: chunked\r\n", b""],
    ids=["length", "chunks", "until it closes"],
)
def test_a_huge_answer_is_read_to_a_bound(
    site: Site, receiver: Receiver, patient: Transport, head: bytes
) -> None:
    sent = 0

    def flood(_: Request) -> Reply:
        def parts() -> Iterator[bytes]:
            nonlocal sent
            yield b"HTTP/1.1 200 OK\r\n" + head + b"\r\n"
            part = b"x" * 10_000
            while sent < 50_000_000:
                yield b"2710\r\n" + part + b"\r\n" if b"chunked" in head else part
                sent += len(part)

        return Reply(parts(), then="close")

    receiver.event = flood
    answer = patient.send(delivery(site))
    assert isinstance(answer, Answer)
    assert len(answer.body) == MAX_ANSWER
    assert sent < 50_000_000


def test_a_header_flood_is_a_fault(site: Site, receiver: Receiver, patient: Transport) -> None:
    receiver.event = lambda _: Reply(
        (b"HTTP/1.1 200 OK\r\n", *(b"x: " + b"y" * 9_000 + b"\r\n" for _ in range(99)))
    )
    assert isinstance(patient.send(delivery(site)), Fault)


def test_a_kept_connection_that_died_is_tried_again_at_once_and_not_counted(
    site: Site, receiver: Receiver
) -> None:
    with Transport(site.settings()) as transport:
        transport.health()
        assert receiver.connections == 1
        receiver.event = first(always(Reply([], then="reset")))
        answer = transport.send(delivery(site))
    assert isinstance(answer, Answer)
    assert answer.status == 202
    assert [request.id for request in receiver.events] == [receiver.events[0].id] * 2
    assert receiver.connections == 2


def test_a_fresh_connection_that_dies_is_not_tried_again(
    site: Site, receiver: Receiver, patient: Transport
) -> None:
    receiver.event = always(Reply([], then="reset"))
    assert patient.send(delivery(site)) == Fault("network", "Connection reset")
    assert len(receiver.events) == 1


def test_a_kept_connection_that_dies_within_an_answer_is_not_tried_again(
    site: Site, receiver: Receiver
) -> None:
    with Transport(site.settings()) as transport:
        transport.health()
        receiver.event = always(Reply([b"HTTP/1.1 202 Acc"], then="close"))
        assert isinstance(transport.send(delivery(site)), Fault)
    assert len(receiver.events) == 1


def test_connections_are_kept(site: Site, receiver: Receiver) -> None:
    site.book(40)
    assert site.drain().delivered == 40
    assert receiver.connections <= THREADS + 1


def test_idle_connections_that_the_crm_closed_cost_no_attempt(site: Site, receiver: Receiver) -> None:
    with Transport(site.settings()) as transport:
        for _ in range(3):
            receiver.drop_connections()
            assert isinstance(transport.send(delivery(site)), Answer)


def test_interim_answers_are_passed_over(site: Site, receiver: Receiver, patient: Transport) -> None:
    def interim(request: Request) -> Reply:
        return Reply((b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", *receipt(request).parts))

    receiver.event = interim
    answer = patient.send(delivery(site))
    assert isinstance(answer, Answer)
    assert answer.status == 202


def test_the_key_follows_no_redirect(site: Site, receiver: Receiver, patient: Transport) -> None:
    receiver.event = always(reply(307, location=f"{receiver.url}/health"))
    answer = patient.send(delivery(site))
    assert isinstance(answer, Answer)
    assert answer.status == 307
    assert len(receiver.requests) == 1


def test_neither_proxy_nor_netrc_of_the_environment_sees_the_key(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = site.directory / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Transport(site.settings()) as transport:
        assert isinstance(transport.send(delivery(site)), Answer)
    assert receiver.events[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "body", ["", "[]", "null", '{"contract": 7}', '{"contract": {"versions": 7}}', "[" * 60_000]
)
def test_a_health_answer_that_makes_no_sense_breaks_nothing(
    site: Site, receiver: Receiver, body: str
) -> None:
    receiver.health = always(reply(200, body))
    with Transport(site.settings()) as transport:
        assert transport.health().versions is None


def test_no_payload_is_logged_at_any_level(
    site: Site, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("httpcore", "httpx", "sqlalchemy.engine"):
        caplog.set_level(logging.DEBUG, name)
    site.book(repair__notes="sentinel-of-a-customer")
    receiver.event = first(always(reply(500)))
    assert site.drain().all_delivered
    assert "sentinel-of-a-customer" not in caplog.text
    assert json.loads(receiver.events[0].body)["repair"]["notes"] == "sentinel-of-a-customer"


SECRET = "whsec_" + base64.b64encode("a secret of the tests, with ümlauts".encode()).decode()


def test_every_attempt_and_every_probe_is_signed(site: Site, receiver: Receiver) -> None:
    event = delivery(site)
    with Transport(site.settings(signing_secret=SECRET)) as transport:
        transport.send(event)
        transport.probe("/repair-request")
        transport.probe("/customer-registration")
    assert len(receiver.requests) == 3
    for request in receiver.requests:
        Webhook(SECRET).verify(request.body, request.headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(request.body + b" ", request.headers)


def test_each_attempt_is_signed_anew_under_the_same_id(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = delivery(site)
    with Transport(site.settings(signing_secret=SECRET)) as transport:
        transport.send(event)
        monkeypatch.setenv("TZ", "Asia/Kathmandu")  # the library drops time zones
        time.tzset()
        eventually(
            lambda: transport.send(event) and timestamps(receiver)[-1] > timestamps(receiver)[0],
            "a later second",
        )
        monkeypatch.undo()
        time.tzset()
    assert {request.id for request in receiver.requests} == {event.id}
    Webhook(SECRET).verify(receiver.requests[-1].body, receiver.requests[-1].headers)
    assert abs(timestamps(receiver)[-1] - time.time()) < 60


def timestamps(receiver: Receiver) -> list[int]:
    return [int(request.headers["webhook-timestamp"]) for request in receiver.requests]


def test_without_a_secret_nothing_is_signed(site: Site, receiver: Receiver) -> None:
    with Transport(site.settings()) as transport:
        transport.send(delivery(site))
    assert not {"webhook-signature", "webhook-timestamp"} & receiver.requests[0].headers.keys()
