"""A backlog before what is wrong and is not the events' fault: it waits, is seen to wait, and goes by itself.

`make faults` runs this with a thousand events.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from sender import Relay
from tests.faults.proxy import Proxy, assert_arrived, book_backlog, whole
from tests.receiver import Answer, always, html, problem, reply
from tests.sender.site import Site, eventually, running
from tests.servers import KEY, Crm, start_crm

BACKLOG, CUSTOMERS = int(os.environ.get("BACKLOG_EVENTS", "300")), 60
THREADS = 4

WRONG: dict[str, tuple[str, Answer]] = {
    "a proxy's page with 404": ("404 Not Found", html(404)),
    "a 301": ("301 Moved Permanently", always(reply(301, location="http://127.0.0.1:9/webhooks"))),
    "a 403": ("403 Forbidden", problem(403, "forbidden-network")),
}
"""The answer's words, and the answer."""


@pytest.mark.parametrize(("words", "answer"), WRONG.values(), ids=WRONG)
def test_a_backlog_behind_a_wrong_answer_waits_whole_and_goes_by_itself_when_it_is_mended(
    crm: Crm, proxy: Proxy, site: Site, words: str, answer: Answer
) -> None:
    sent = book_backlog(site, BACKLOG, CUSTOMERS)
    proxy.answer_all(answer)
    with running(Relay(site.settings(), threads=THREADS)):
        assert_waits(proxy, site, words)
        proxy.mend()
        eventually(lambda: is_delivered(site), "all goes", 60)
    assert_delivered(proxy, site, sent)


def test_a_backlog_behind_a_wrong_key_goes_when_the_crm_has_the_right_one(
    proxy: Proxy, site: Site, tmp_path: Path
) -> None:
    sent = book_backlog(site, BACKLOG, CUSTOMERS)
    with start_crm(tmp_path / "crm", WEBHOOK_API_KEY="another-key-0123456789") as crm:
        proxy.crm = crm
        with running(Relay(site.settings(), threads=THREADS)):
            assert_waits(proxy, site, "401 Unauthorized")
            crm.env["WEBHOOK_API_KEY"] = KEY
            crm.restart()
            eventually(lambda: is_delivered(site), "all goes", 60)
        assert_delivered(proxy, site, sent)
        assert KEY not in crm.log


def test_a_backlog_behind_a_wrong_address_goes_with_the_relay_that_has_the_right_one(
    proxy: Proxy, site: Site
) -> None:
    sent = book_backlog(site, BACKLOG, CUSTOMERS)
    wrong = site.settings(webhook_url=f"http://127.0.0.1:{proxy.port}/crm/webhooks")
    with running(Relay(wrong, threads=THREADS)):
        assert_waits(proxy, site, "404 Not Found")
    assert site.drain().all_delivered
    assert_delivered(proxy, site, sent)


def is_delivered(site: Site) -> bool:
    """Say whether all is, without reading it all."""
    return not site.rows("SELECT 1 FROM crm_outbox WHERE status <> 'delivered' LIMIT 1")


def assert_waits(proxy: Proxy, site: Site, words: str) -> None:
    """Look at a relay that meets a wrong answer: it asks by tests alone, and says what it waits for."""
    eventually(lambda: len(proxy.tests) >= 3, "the path is tried again")
    shown = site.json("status")
    assert (shown["held"] + shown["pending"], shown["delivered"], shown["failed"]) == (BACKLOG, 0, 0)
    assert shown["outbox"]["held_for"] == ["/repair-request"]
    held = [row for row in site.rows() if row["status"] == "held"]
    assert {row["reason"].partition(": ")[0] for row in held} == {words}
    assert len(held) == len(proxy.events) <= THREADS


def assert_delivered(proxy: Proxy, site: Site, sent: list[sqlite3.Row]) -> None:
    """Look at what became of a backlog: all of it in the queue once, nothing counted, few requests for nothing."""
    assert {row["attempts"] for row in site.rows()} == {1}
    assert len(proxy.events) <= BACKLOG + THREADS
    assert_arrived(proxy.crm, sent)


@dataclass
class Bucket:
    """A rate limit that is kept: a bucket of tokens, which a request without one does not change."""

    rate: float
    size: float

    def __post_init__(self) -> None:
        self.tokens, self.filled_at, self.lock = self.size, time.monotonic(), threading.Lock()
        self.refused = 0

    def take(self) -> bool:
        """Take a token if there is one."""
        with self.lock:
            now = time.monotonic()
            self.tokens = min(self.size, self.tokens + (now - self.filled_at) * self.rate)
            self.filled_at = now
            taken = self.tokens >= 1
            self.tokens -= taken
            self.refused += not taken
            return taken


def test_a_backlog_behind_a_rate_limit_goes_at_its_rate_and_nothing_counts(
    crm: Crm, proxy: Proxy, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sender.delivery.SHORTEST_WAIT", 1.0)
    sent = book_backlog(site, BACKLOG, CUSTOMERS)
    bucket = Bucket(rate=100, size=100)
    proxy.event = lambda request: proxy.forward(request) if bucket.take() else reply(429, retry_after="1")
    with running(Relay(site.settings())):
        eventually(lambda: is_delivered(site), "all goes", 90)
    assert {row["attempts"] for row in site.rows()} == {1}
    assert bucket.refused <= BACKLOG / 10
    assert_arrived(crm, sent)


def test_one_genuine_receipt_for_every_event_erases_nothing_and_delivers_none(
    crm: Crm, proxy: Proxy, site: Site
) -> None:
    [genuine] = site.book()
    assert site.drain().delivered == 1
    body = json.loads(whole(proxy.forward(proxy.events[0])).partition(b"\r\n\r\n")[2])
    sent = book_backlog(site, 60, 20)[1:]
    proxy.event = always(reply(202, body))
    assert site.drain().failed == 60
    after = site.rows()[1:]
    assert {row["status"] for row in after} == {"failed"}
    assert {row["reason"] for row in after} == {"202 Accepted, but not this event's receipt"}
    assert [row["payload"] for row in after] == [row["payload"] for row in sent]
    assert site.status(genuine) == "delivered"
    assert_arrived(crm, sent, *(row["id"] for row in sent))
    proxy.mend()
    assert site.cli("retry", "--all").returncode == 0
    assert site.drain().all_delivered
    assert_arrived(crm, sent)
