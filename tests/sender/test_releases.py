"""How many events of each release of the contract there are, and what the CRM says of one that it gives up."""

from __future__ import annotations

import json

import pytest

from generated.operations import CURRENT, RELEASES
from sender.delivery import read_given_up
from tests.crm_server.conftest import ON_BOTH
from tests.factories import repair_request
from tests.receiver import Receiver, always, receipt, reply, speaks
from tests.sender.integration.admins import logged_in, start_dashboard
from tests.sender.site import Site

OLD = next(iter(RELEASES))
AGED = f"UPDATE crm_outbox SET contract = '{OLD}' WHERE id = ?"
"""Makes an event one that an older sender left."""


@ON_BOTH
def test_events_are_counted_by_release(site: Site, receiver: Receiver) -> None:
    receiver.health = speaks(*RELEASES)
    events = site.book(5)
    for event in events[:2]:
        site.rows(AGED, event)
    waiting = {OLD: {"undelivered": 2, "delivered": 0}, CURRENT: {"undelivered": 3, "delivered": 0}}
    assert site.json("status")["releases"] == waiting
    site.drain()
    site.book()
    assert site.json("status")["releases"] == {
        OLD: {"undelivered": 0, "delivered": 2},
        CURRENT: {"undelivered": 1, "delivered": 3},
    }
    assert f"contract  {OLD}: 0 undelivered, 2 delivered\n" in site.cli("status").stdout


@ON_BOTH
def test_an_event_that_is_sent_again_counts_for_the_release_that_it_then_has(
    site: Site, receiver: Receiver
) -> None:
    receiver.health = speaks(*RELEASES)
    body = repair_request()
    event = site.crm().repair_requested(body)
    site.rows(AGED, event)
    site.drain()
    assert site.crm().repair_requested(body, resend=True) == event
    site.drain()
    assert site.json("status")["releases"] == {
        OLD: {"undelivered": 0, "delivered": 0},
        CURRENT: {"undelivered": 0, "delivered": 1},
    }


def test_a_release_that_the_crm_gives_up_is_logged_once_and_shown(
    site: Site, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    given_up = {
        "versions": list(RELEASES),
        "deprecated": {CURRENT: {"since": "2027-01-01", "sunset": "2027-07-01"}},
    }
    receiver.health = always(reply(200, {"status": "ok", "database": "ok", "contract": given_up}))
    dates = {"deprecation": "@1798761600", "sunset": "Thu, 01 Jul 2027 00:00:00 GMT"}
    receiver.event = lambda request: reply(
        202, json.loads(b"".join(receipt(request).parts).split(b"\r\n\r\n")[1]), **dates
    )
    site.book(3)
    site.drain()
    until = "should no longer be sent from 2027-01-01 on, and may be refused from 2027-07-01"
    said = [record.getMessage() for record in caplog.records if "no longer be sent" in record.getMessage()]
    assert said == [f"the CRM says: contract {CURRENT} {until}; update what sends it"]
    assert site.json("status")["crm"]["deprecated"] == {CURRENT: "2027-07-01"}
    words = f"{CURRENT} should no longer be sent, the CRM says, and may be refused from 2027-07-01"
    assert f"contract  {words}\n" in site.cli("status").stdout
    with start_dashboard(site) as address:
        assert words in " ".join(logged_in(address).html("/admin").text.split())


def test_events_of_a_retired_release_are_held_with_what_frees_them(site: Site, receiver: Receiver) -> None:
    receiver.health = speaks("1.900.0")
    site.book()
    site.drain()
    cure = f"crm-server unretire {CURRENT}"
    [hold] = site.json("status")["holds"]
    assert cure in hold["cure"]
    assert cure in site.cli("held").stdout
    with start_dashboard(site) as address:
        assert cure in logged_in(address).html("/admin").text


@pytest.mark.parametrize(
    ("deprecation", "sunset", "words"),
    [
        (None, None, None),
        (None, "Thu, 01 Jul 2027 00:00:00 GMT", None),
        ("true", None, None),
        ("@99999999999999999999", None, None),
        ("@1798761600", None, "should no longer be sent from 2027-01-01 on"),
        ("@1798761600", "soon", "should no longer be sent from 2027-01-01 on"),
    ],
)
def test_what_is_no_date_is_not_believed(
    deprecation: str | None, sunset: str | None, words: str | None
) -> None:
    assert read_given_up(deprecation, sunset) == words
