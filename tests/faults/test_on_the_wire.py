"""What a network and a proxy do to requests and answers, before a real CRM: each ends as the delivery table says.

Whatever it was, once it is over the CRM's queue holds every event once, unchanged, each customer's in order.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

from sender import Relay
from sender.doctor import examine
from sender.transport import MAX_ANSWER, Transport
from tests.faults.proxy import Proxy, assert_arrived, slowly, stored, swallowed, whole
from tests.receiver import Answer, Reply, Request, always, html, problem, reply, start_receiver
from tests.sender.site import SENTINEL, Site, eventually, running
from tests.servers import KEY, Crm, free_port

SCHEDULE = (0.02,) * 4
TIMEOUT = 0.5
CLOSED, RESET = "Connection closed before the whole answer", "Connection reset"
NO_RECEIPT = "202 Accepted, but not this event's receipt"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a webhook, whether the CRM has it all the same, and how the relay's log names it."""

    words: str
    stored: bool
    answer: Callable[[Proxy, Request], Reply]


def after(words: str, change: Callable[[bytes], Reply]) -> Fault:
    """Let the CRM take the event, and change its answer."""
    return Fault(words, True, lambda proxy, request: change(whole(proxy.forward(request))))


def instead(words: str, answer: Reply) -> Fault:
    """Let the CRM see nothing."""
    return Fault(words, False, lambda proxy, request: answer)


def page(status: int) -> Reply:
    """Return a proxy's page."""
    return reply(status, "<html>It works</html>", "text/html")


def receipt(**over: object) -> Callable[[bytes], Reply]:
    """Change fields of a receipt."""
    return lambda answer: reply(202, json.loads(answer.partition(b"\r\n\r\n")[2]) | over)


def with_length(answer: bytes, more: int) -> bytes:
    """Change an answer's Content-Length."""
    body = answer.partition(b"\r\n\r\n")[2]
    return answer.replace(b"length: %d" % len(body), b"length: %d" % (len(body) + more))


def in_chunks(answer: bytes, size: bytes = b"") -> bytes:
    """Write an answer in chunks of the right size, or in one that says another."""
    head, _, body = with_length(answer, 0).partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"content-length")]
    chunk = (size or b"%x" % len(body)) + b"\r\n" + body + b"\r\n0\r\n\r\n"
    return b"\r\n".join([*lines, b"transfer-encoding: chunked", b"", b""]) + chunk


def receipt_of_another(proxy: Proxy, request: Request) -> Reply:
    """Answer with the genuine receipt of an event that is like it in all but its identity."""
    other = request.json
    other["repair"]["websiteRepairId"] += ".another"
    return proxy.forward(
        Request(
            request.method,
            request.path,
            request.headers
            | {"webhook-id": f"{request.id}.another", "content-length": str(len(json.dumps(other)))},
            json.dumps(other).encode(),
        )
    )


def bytes_apart(seconds: float) -> Callable[[bytes], Reply]:
    """Send an answer byte by byte."""
    return lambda answer: Reply(slowly((bytes([byte]) for byte in answer), seconds))


FAULTS = {
    "lost before its first byte": after(CLOSED, lambda _: Reply([], "close")),
    "cut in the status line": after(CLOSED, lambda answer: Reply([answer[:11]], "close")),
    "cut in the headers": after(CLOSED, lambda answer: Reply([answer[:40]], "close")),
    "cut before the body": after(CLOSED, lambda answer: Reply([answer.partition(b"{")[0]], "close")),
    "cut in the body": after(CLOSED, lambda answer: Reply([answer[:-20]], "close")),
    "reset before its first byte": after(RESET, lambda _: Reply([], "reset")),
    "reset in the headers": after(RESET, lambda answer: Reply([answer[:40]], "reset")),
    "reset in the body": after(RESET, lambda answer: Reply([answer[:-20]], "reset")),
    "reset, and the CRM never asked": instead(RESET, Reply([], "reset")),
    "closed, and the CRM never asked": instead(CLOSED, Reply([], "close")),
    "request swallowed": Fault("timeout", False, lambda proxy, _: Reply(proxy.silence())),
    "answer swallowed": Fault("timeout", True, swallowed),
    "an answer that trickles": after("timeout", bytes_apart(0.01)),
    "a proxy's page with 200": after("200 OK", lambda _: page(200)),
    "a proxy's page with 202": after(NO_RECEIPT, lambda _: page(202)),
    "202 with nothing": after(NO_RECEIPT, lambda _: reply(202)),
    "202 with foreign JSON": after(NO_RECEIPT, lambda _: reply(202, {"status": "accepted", "id": 7})),
    "a receipt that says queued": after(NO_RECEIPT, receipt(status="queued")),
    "a receipt of other content": after(NO_RECEIPT, receipt(digest="0" * 64)),
    "the receipt of another event": Fault(NO_RECEIPT, False, receipt_of_another),
    "201": after("201 Created", lambda answer: Reply([answer.replace(b"202 Accepted", b"201 Created")])),
    "204": after("204 No Content", lambda _: reply(204)),
    "a body under a 204": after("204 No Content", lambda answer: Reply([answer.replace(b"202", b"204", 1)])),
    "a length too long": after(CLOSED, lambda answer: Reply([with_length(answer, 9)], "close")),
    "a length too long, and it stays open": after("timeout", lambda answer: Reply([with_length(answer, 9)])),
    "a length too short": after(NO_RECEIPT, lambda answer: Reply([with_length(answer, -9)])),
    "two lengths": after(CLOSED, lambda answer: Reply([answer.replace(b"content-", b"content-length: 1\r\ncontent-", 1)])),
    "a chunk of no size": after(CLOSED, lambda answer: Reply([in_chunks(answer, b"garbage")])),
    "a chunk too short": after(CLOSED, lambda answer: Reply([in_chunks(answer, b"9")])),
    "a receipt beyond the bound": after(NO_RECEIPT, receipt(padding="x" * 2 * MAX_ANSWER)),
    "headers beyond the bound": after(CLOSED, lambda answer: Reply([answer.replace(b"\r\n", b"\r\nx: " + b"y" * 200_000 + b"\r\n", 1)])),
    "no HTTP": after(CLOSED, lambda _: Reply([b"SSH-2.0-OpenSSH_9.2\r\n"], "close")),
    "a 500 of a proxy": after("500 Internal Server Error", lambda _: page(500)),
    "a 502 of a proxy": instead("502 Bad Gateway", page(502)),
    "a 503 of a proxy": instead("503 Service Unavailable", page(503)),
    "a 504 of a proxy": after("504 Gateway Timeout", lambda _: page(504)),
}  # fmt: skip


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    """Return the lines of the relay's log about an event, without a time at the end."""
    lines = (record.getMessage() for record in caplog.records)
    return [re.sub(r" at \S+$", "", line) for line in lines if event in line]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_while_the_crm_is_well_counts_against_its_event_and_harms_none(
    crm: Crm, proxy: Proxy, site: Site, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    caplog.set_level(logging.INFO, "crm_sender.relay")
    [event, later] = site.book(
        2, customer__websiteUserId=f"{site.directory.name}-ada", repair__notes=SENTINEL
    )
    [other] = site.book()
    sent, found = site.rows(), set()

    def answer(request: Request) -> Reply:
        attempts = site.row(request.id)["attempts"]
        if request.id != event or attempts == 2:
            return proxy.forward(request)
        if attempts == 1:
            found.add(stored(crm, event))
        return fault.answer(proxy, request)

    proxy.event = answer
    assert (
        site.drain(retry_schedule=SCHEDULE, timeout=TIMEOUT if fault.words == "timeout" else 5.0).delivered
        == 3
    )
    assert site.verbs(event) == ["attempted", "attempted", "delivered"]
    assert [site.row(of)["attempts"] for of in (event, later, other)] == [3, 1, 1]
    line = f"{fault.words}: repair-request {event} {sent[0]['natural_key']}, attempt"
    assert told(caplog, event) == [f"{line} {number} of 5, next" for number in (1, 2)]
    assert found == {int(fault.stored)}
    assert_arrived(crm, sent)
    assert SENTINEL not in caplog.text
    assert KEY not in caplog.text


def test_a_connection_that_is_reset_before_the_request_is_read_counts_one_attempt(
    crm: Crm, proxy: Proxy, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    [event] = site.book()
    sent = site.rows()
    proxy.resets = lambda came: event.encode() in came and site.row(event)["attempts"] == 0
    assert site.drain().delivered == 1
    assert site.verbs(event) == ["attempted", "delivered"]
    [line] = told(caplog, event)
    assert line.startswith(
        (f"{RESET}: ", f"{CLOSED}: ")
    )  # the second when the reset met the rest of the request
    assert len(proxy.events) == 1
    assert_arrived(crm, sent)


def test_an_answer_that_came_twice_is_not_taken_for_that_to_the_next_event(
    crm: Crm, proxy: Proxy, site: Site
) -> None:
    [refused, *others] = site.book(3)
    sent = site.rows()
    refusal = whole(problem(400, "invalid-event")(Request("", "", {}, b"")))
    proxy.event = lambda request: Reply([refusal * 2]) if request.id == refused else proxy.forward(request)
    assert Relay(site.settings(), threads=1).run(drain=True).failed == 1
    assert [site.status(event) for event in (refused, *others)] == ["failed", "delivered", "delivered"]
    assert_arrived(crm, sent, refused)


AWAY: dict[str, tuple[str, Callable[[Proxy], Answer]]] = {
    "a proxy's 502": ("502 Bad Gateway", lambda _: html(502)),
    "a proxy's 503": ("503 Service Unavailable", lambda _: html(503)),
    "a proxy's 504": ("504 Gateway Timeout", lambda _: html(504)),
    "a proxy's page with 200": ("200 OK", lambda _: html(200)),
    "a proxy's page with 202": (NO_RECEIPT, lambda _: html(202)),
    "a 200 with nothing": ("200 OK", lambda _: always(reply(200))),
    "a 200 with foreign JSON": ("200 OK", lambda _: always(reply(200, {"service": "billing"}))),
    "a reset": (RESET, lambda _: always(Reply([], "reset"))),
    "an end": (CLOSED, lambda _: always(Reply([], "close"))),
    "silence, and a 504 for its health": (
        "timeout",
        lambda proxy: (
            lambda request: html(504)(request) if request.method == "GET" else Reply(proxy.silence())
        ),
    ),
}
"""What answers all requests while the CRM is away, and the relay's words for it."""


@pytest.mark.parametrize(("words", "answer"), AWAY.values(), ids=AWAY)
def test_while_something_else_answers_for_the_crm_nothing_fails_and_nothing_counts(
    crm: Crm,
    proxy: Proxy,
    site: Site,
    caplog: pytest.LogCaptureFixture,
    words: str,
    answer: Callable[[Proxy], Answer],
) -> None:
    caplog.set_level(logging.INFO, "crm_sender.relay")
    ids = [*site.book(3, customer__websiteUserId=f"{site.directory.name}-ada"), *site.book(3)]
    sent = site.rows()
    proxy.answer_all(answer(proxy))
    with running(Relay(site.settings(retry_schedule=(), timeout=0.5), threads=1)):
        eventually(lambda: "the CRM is away" in caplog.text, "it is noticed")
        probed = proxy.probes
        eventually(lambda: proxy.probes >= probed + 2, "health is probed")
        assert len(proxy.events) == 1
        assert set(site.statuses()) == {"pending"}
        shown = site.json("status")
        assert (shown["pending"], shown["failed"], shown["crm"]["reachable"]) == (6, 0, False)
        proxy.mend()
        eventually(lambda: set(site.statuses()) == {"delivered"}, "all goes when it is back")
    assert {site.row(event)["attempts"] for event in ids} == {1}
    first, *_ = told(caplog, proxy.events[0].id)
    assert first.startswith(f"{words}: repair-request ")
    assert_arrived(crm, sent)


REDIRECTS = {
    301: "301 Moved Permanently",
    302: "302 Found",
    303: "303 See Other",
    307: "307 Temporary Redirect",
    308: "308 Permanent Redirect",
}


@pytest.mark.parametrize("status", REDIRECTS)
def test_a_redirect_is_waited_out_and_its_target_sees_nothing(
    crm: Crm, proxy: Proxy, site: Site, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.INFO, "crm_sender.relay")
    held, later = site.book(2, customer__websiteUserId=f"{site.directory.name}-ada")
    sent = site.rows()
    with start_receiver() as target:
        proxy.answer_all(
            lambda request: reply(status, location=f"http://127.0.0.1:{target.port}{request.path}")
        )
        with running(Relay(site.settings())):
            eventually(lambda: len(proxy.tests) >= 2, "the path is tried again")
            shown = site.json("status")
            assert [site.status(event) for event in (held, later)] == ["held", "pending"]
            assert (shown["held"], shown["outbox"]["held_for"]) == (1, ["/repair-request"])
            assert shown["crm"]["answer"] == REDIRECTS[status]
            assert site.cli("test").returncode == 1
            assert len(proxy.events) == 1
            proxy.mend()
            eventually(lambda: set(site.statuses()) == {"delivered"}, "all goes when it is mended")
        assert target.connections == 0
    assert site.verbs(held) == ["held", "released", "delivered"]
    assert {site.row(event)["attempts"] for event in (held, later)} == {1}
    assert f"{REDIRECTS[status]}: repair-request {held}" in caplog.text
    assert KEY not in caplog.text
    assert_arrived(crm, sent)


GENTLE: dict[str, Callable[[bytes], Reply]] = {
    "100 before it": lambda answer: Reply([b"HTTP/1.1 100 Continue\r\n\r\n", answer]),
    "102 and 103 before it": lambda answer: Reply(
        [b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + answer]
    ),
    "byte by byte": bytes_apart(0.0005),
    "in chunks": lambda answer: Reply([in_chunks(answer)]),
    "until it closes": lambda answer: Reply([answer.replace(b"content-length", b"x-length")], "close"),
    "Connection: close": lambda answer: Reply(
        [answer.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)], "close"
    ),
    "a close that was not announced": lambda answer: Reply([answer], "close"),
    "HTTP/1.0": lambda answer: Reply([answer.replace(b"HTTP/1.1", b"HTTP/1.0")], "close"),
    "more than its length": lambda answer: Reply([answer + b"HTTP/1.1 500 Internal Server Error\r\n\r\n"]),
    "no reason": lambda answer: Reply([answer.replace(b"202 Accepted", b"202 ")]),
}


@pytest.mark.parametrize("change", GENTLE.values(), ids=GENTLE)
def test_a_receipt_that_comes_in_an_unusual_way_is_one(
    crm: Crm, proxy: Proxy, site: Site, change: Callable[[bytes], Reply]
) -> None:
    site.book(6, customer__websiteUserId=f"{site.directory.name}-ada")
    sent = site.rows()
    proxy.event = lambda request: change(whole(proxy.forward(request)))
    assert site.drain().delivered == 6
    assert len(proxy.events) == 6
    assert {row["attempts"] for row in site.rows()} == {1}
    assert_arrived(crm, sent)


def without_an_answer(proxy: Proxy, request: Request) -> Reply:
    """Let the CRM take the event, and lose the answer."""
    proxy.forward(request)
    return Reply([])


DIES: dict[str, Callable[[Proxy, Request], Reply]] = {
    "unasked": lambda proxy, request: Reply([]),
    "after the commit": without_an_answer,
}


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("answer", DIES.values(), ids=DIES)
def test_a_kept_connection_that_dies_under_a_request_costs_no_attempt(
    crm: Crm,
    proxy: Proxy,
    site: Site,
    answer: Callable[[Proxy, Request], Reply],
    then: Literal["close", "reset"],
) -> None:
    first, event = site.book(2, customer__websiteUserId=f"{site.directory.name}-ada")
    sent = site.rows()

    def die_once(request: Request) -> Reply:
        dies = [request.id for request in proxy.events] == [first, event]
        return replace(answer(proxy, request), then=then) if dies else proxy.forward(request)

    proxy.event = die_once
    assert Relay(site.settings(retry_schedule=()), threads=1).run(drain=True).delivered == 2
    assert [request.id for request in proxy.events] == [first, event, event]
    assert site.verbs(event) == ["delivered"]
    assert site.row(event)["attempts"] == 1
    assert_arrived(crm, sent)


def test_a_request_that_trickles_past_the_deadline_and_arrives_after_the_next_is_queued_once(
    crm: Crm, proxy: Proxy, site: Site
) -> None:
    [event] = site.book()
    sent, late = site.rows(), []

    def answer(request: Request) -> Reply:
        if len(proxy.events) > 1:
            return proxy.forward(request)
        late.append(whole(proxy.forward(request, pause=0.1)))
        return Reply([], "close")

    proxy.event = answer
    assert site.drain(timeout=0.5).delivered == 1
    assert site.row(event)["attempts"] == 2
    eventually(lambda: late, "the first request has arrived whole")
    assert b'"duplicate": true' in late[0]
    assert_arrived(crm, sent)


@contextmanager
def silent_address(port: int) -> Iterator[str]:
    """Hold an address of this machine at which connections are neither taken nor refused."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.2", port))
        listener.listen(0)
        for _ in range(8):  # more than wait for it to accept: the next is not answered
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.2", port))
        yield "127.0.0.2"


def resolves_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> str:
    """Give a name these addresses, or none; return it."""
    real = socket.getaddrinfo

    def resolve(host: str, *arguments: Any, **more: Any) -> list[Any]:
        if host == "crm.example" and not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        hosts = addresses if host == "crm.example" else (host,)
        return [found for one in hosts for found in real(one, *arguments, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return "crm.example"


def test_an_address_that_is_silent_leaves_time_for_the_next_of_the_name(
    crm: Crm, proxy: Proxy, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    [event] = site.book()
    sent = site.rows()
    with silent_address(proxy.port) as silent:
        name = resolves_to(monkeypatch, silent, "127.0.0.1")
        assert site.drain(webhook_url=f"http://{name}:{proxy.port}/webhooks", timeout=1.5).delivered == 1
    assert site.row(event)["attempts"] == 1
    assert_arrived(crm, sent)


def test_a_name_whose_addresses_are_all_silent_is_tried_for_one_deadline(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    with silent_address(port) as silent:
        name = resolves_to(monkeypatch, *[silent] * 40)
        url = f"http://{name}:{port}/webhooks"
        with Transport(site.settings(webhook_url=url)) as transport:
            started = time.monotonic()
            assert transport.health(timeout=0.5).words == "timeout"
        assert time.monotonic() - started < 10  # and not 40 times as long


def test_a_resolver_that_hangs_is_waited_for_until_the_deadline(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    real = socket.getaddrinfo

    def hang(host: str, *arguments: Any, **more: Any) -> list[Any]:
        if host == "crm.example":
            go_on.wait(60)
        return list(real("127.0.0.1", *arguments, **more))

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    settings = site.settings(webhook_url="http://crm.example/webhooks")
    monkeypatch.setenv("CRM_WEBHOOK_URL", settings.webhook_url)
    monkeypatch.setenv("CRM_OUTBOX_URL", settings.outbox_url)
    started = time.monotonic()
    try:
        with Transport(settings) as transport:
            assert transport.health(timeout=0.5).words == "timeout"
        assert [each.found for each in examine() if each.subject == "network"] == ["timeout"]
        assert time.monotonic() - started < 30  # it hangs twice as long
    finally:
        go_on.set()


@pytest.mark.parametrize("name", ["crm.example", f"{'a' * 64}.example"], ids=["unknown", "no name"])
def test_a_name_without_an_address_is_an_outage(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    caplog.set_level(logging.INFO, "crm_sender.relay")
    resolves_to(monkeypatch)
    [event] = site.book()
    assert site.drain(webhook_url=f"http://{name}/webhooks").pending == 1
    assert site.row(event)["attempts"] == 0
    assert "Cannot connect: the CRM is away" in caplog.text
