"""The CRM behind TLS: whom the sender trusts, what it says when it does not, and that nothing is lost meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sender.delivery import Answer, Fault
from sender.relay import THREADS
from sender.transport import Transport
from tests.receiver import Receiver, first, receipt, receipt_when
from tests.sender.site import Site, eventually
from tests.sender.test_transport import delivery
from tests.servers import ROOT, Crm, start_crm
from tests.tls import Authority, TlsProxy, start_tls

PASTED = f"-----BEGIN PRIVATE KEY-----\n{'A' * 5000}\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    with start_crm(tmp_path_factory.mktemp("crm")) as crm:
        yield crm


@pytest.fixture
def proxy(authority: Authority, receiver: Receiver) -> Iterator[TlsProxy]:
    """A proxy before the scripted CRM, with a certificate that is right."""
    with start_tls(receiver.port, authority.certify()) as proxy:
        yield proxy


def test_events_reach_a_real_crm_behind_tls_by_a_private_authority(
    site: Site, authority: Authority, crm: Crm
) -> None:
    with start_tls(crm.port, authority.certify()) as proxy:
        there = {"CRM_WEBHOOK_URL": proxy.url, "CRM_CA_FILE": str(authority.file), "CRM_API_KEY": crm.key}
        assert site.cli("test", **there).returncode == 0
        doctor = site.cli("doctor", **there)
        assert f"localhost:{proxy.port} is reached" in doctor.stdout
        assert "broken" not in doctor.stdout
        before = proxy.connections
        events = site.book(100)
        done = site.cli("relay", "--drain", **there)
        assert done.returncode == 0, done.stderr
        assert {row["webhook_id"] for row in crm.rows("SELECT webhook_id FROM approvals")} == set(events)
        # A handshake costs more than an event: connections are kept, one for each thread and one for the probes.
        assert proxy.connections - before <= THREADS + 1


def test_an_unknown_authority_gets_nothing_and_no_event_fails(
    site: Site, receiver: Receiver, proxy: TlsProxy, authority: Authority
) -> None:
    [event] = site.book()
    words = "Certificate not accepted: unable to get local issuer certificate"
    with site.relaying(CRM_WEBHOOK_URL=proxy.url) as (_, lines):
        eventually(lambda: any(words in line for line in lines), "the relay says so")
    row = site.row(event)
    assert (row["status"], row["attempts"]) == ("pending", 0)
    assert site.json("status", CRM_WEBHOOK_URL=proxy.url)["crm"]["answer"] == words
    assert receiver.requests == []
    assert proxy.connections == 0
    doctor = site.cli("doctor", CRM_WEBHOOK_URL=proxy.url)
    assert doctor.returncode == 1
    assert words in doctor.stdout
    assert "name its authority: CRM_CA_FILE" in doctor.stdout
    site.drain(webhook_url=proxy.url, ca_file=str(authority.file))
    assert site.status(event) == "delivered"


@pytest.mark.parametrize(
    ("host", "days", "words"),
    [
        ("other.example", 1, "Certificate not accepted: Hostname mismatch"),
        ("localhost", -1, "Certificate not accepted: certificate has expired"),
    ],
)
def test_a_wrong_certificate_is_told_by_what_is_wrong_with_it(
    site: Site, receiver: Receiver, authority: Authority, host: str, days: int, words: str
) -> None:
    with start_tls(receiver.port, authority.certify(host, days=days)) as proxy:
        settings = site.settings(webhook_url=proxy.url, ca_file=str(authority.file))
        with Transport(settings) as transport:
            assert transport.send(delivery(site)) == Fault("network", words)
    assert receiver.requests == []


def test_a_port_without_tls_is_told(site: Site, crm: Crm) -> None:
    url = crm.url.replace("http:", "https:")
    with Transport(site.settings(webhook_url=url)) as transport:
        assert transport.send(delivery(site)) == Fault("network", "No TLS: wrong version number")
    doctor = site.cli("doctor", CRM_WEBHOOK_URL=url)
    assert "check scheme and port of CRM_WEBHOOK_URL" in doctor.stdout


def test_plain_http_to_a_port_with_tls_loses_nothing(site: Site, receiver: Receiver, proxy: TlsProxy) -> None:
    with Transport(site.settings(webhook_url=proxy.url.replace("https:", "http:"))) as transport:
        assert isinstance(transport.send(delivery(site)), Fault)
    assert receiver.requests == []


def test_a_connection_that_is_cut_under_an_event_brings_it_twice_and_counts_it_once(
    site: Site, receiver: Receiver, proxy: TlsProxy, authority: Authority
) -> None:
    go_on, arrived = threading.Event(), threading.Event()
    receiver.event = first(receipt_when(go_on, arrived), then=receipt)
    [event] = site.book()
    relay = site.start_relay(
        "--drain", CRM_WEBHOOK_URL=proxy.url, CRM_CA_FILE=str(authority.file), CRM_TIMEOUT="10"
    )
    assert arrived.wait(30)
    proxy.cut()
    go_on.set()
    relay.communicate(30)
    assert relay.returncode == 0
    assert site.status(event) == "delivered"
    assert [request.id for request in receiver.events] == [event] * 2


def test_a_kept_connection_that_ended_is_made_anew_and_the_event_not_counted(
    site: Site, receiver: Receiver, proxy: TlsProxy, authority: Authority
) -> None:
    with Transport(site.settings(webhook_url=proxy.url, ca_file=str(authority.file))) as transport:
        for _ in range(3):
            answer = transport.send(delivery(site))
            assert isinstance(answer, Answer)
            assert answer.status == 202
            proxy.cut()
    assert proxy.connections == 3
    assert len(receiver.events) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "CRM_CA_FILE: names no file"),
        ("", "CRM_CA_FILE: holds no certificate in PEM"),
        ((ROOT / "README.md").read_text(encoding="utf-8"), "CRM_CA_FILE: holds no certificate in PEM"),
        (PASTED, "CRM_CA_FILE: names no file"),
    ],
    ids=["missing", "empty", "something else", "itself"],
)
def test_a_file_of_no_authority_is_a_wrong_setting(
    site: Site, tmp_path: Path, content: str | None, words: str
) -> None:
    file = tmp_path / "authority.pem"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    given = content if content == PASTED else str(file)
    for command in (("test",), ("relay", "--drain"), ("status",), ("dashboard", "--port", "0")):
        done = site.cli(*command, CRM_CA_FILE=given)
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert "PRIVATE" not in done.stderr
