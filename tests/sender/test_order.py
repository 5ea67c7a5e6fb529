"""What becomes of a repair follows its registration and booking: waits behind them, and goes on when they never will."""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack

import pytest

from generated.operations import CURRENT
from sender import Relay
from sender.database import uncovered
from tests.factories import (
    Payload,
    booking_status,
    customer_profile,
    customer_registration,
    payment_status,
    repair_request,
)
from tests.receiver import Receiver, Reply, Request, first, problem, receipt, speaks
from tests.sender.site import Site, eventually, running

RELAYS, CUSTOMERS = 3, 6


def tell(site: Site, registration: Payload | None = None) -> list[str]:
    """Tell of a customer, their repair, and what became of both; return the ids in their order."""
    crm, registration = site.crm(), registration or customer_registration()
    repair = repair_request(customer__websiteUserId=registration["customer"]["websiteUserId"])
    return [
        crm.customer_registered(registration),
        crm.repair_requested(repair),
        crm.payment_changed(payment_status(repair)),
        crm.booking_changed(booking_status(repair)),
        crm.profile_changed(customer_profile(repair)),
    ]


def ids(requests: list[Request]) -> list[str]:
    return [request.id for request in requests]


@pytest.mark.parametrize("waits", ["/webhooks/customer-registration", "/webhooks/repair-request"])
def test_a_payment_waits_for_what_is_before_it_to_be_tried_again(
    site: Site, receiver: Receiver, waits: str
) -> None:
    refused = first(problem(500, "internal-error"), problem(500, "internal-error"))
    receiver.event = lambda request: (refused if request.path == waits else receipt)(request)
    told = tell(site)
    assert site.drain().all_delivered
    at = 0 if waits.endswith("registration") else 1
    assert ids(receiver.events) == [*told[:at], *[told[at]] * 2, *told[at:]]


def test_a_payment_waits_behind_a_held_booking(site: Site, receiver: Receiver) -> None:
    told = tell(site)
    site.rows("UPDATE crm_outbox SET contract = '1.9.0' WHERE id = ?", told[1])
    with running(Relay(site.settings())):
        eventually(lambda: site.status(told[1]) == "held", "the booking waits for its release")
        [other] = site.book()
        eventually(lambda: site.status(other) == "delivered", "others go on")
        assert [site.status(event) for event in told] == ["delivered", "held", *["pending"] * 3]
        receiver.health = speaks(CURRENT, "1.9.0")
        eventually(lambda: set(site.statuses()) == {"delivered"}, "all goes")
    assert [event for event in ids(receiver.events) if event != other] == told


@pytest.mark.parametrize("closed", [False, True], ids=["failed", "closed"])
def test_a_payment_goes_on_after_a_booking_that_failed(site: Site, receiver: Receiver, closed: bool) -> None:
    refused = problem(400, "invalid-event")
    receiver.event = lambda r: (refused if r.path.endswith("/repair-request") else receipt)(r)
    registration = customer_registration()
    told = tell(site, registration)
    assert site.drain().failed == 1
    assert [site.status(event) for event in told] == ["delivered", "failed", *["delivered"] * 3]
    if closed:
        assert site.cli("close", told[1]).returncode == 0
    later = payment_status(customer__websiteUserId=registration["customer"]["websiteUserId"])
    event = site.crm().payment_changed(later)
    site.drain()
    assert site.status(event) == "delivered"


@pytest.mark.engines("postgresql")
def test_several_relays_keep_what_becomes_of_a_repair_behind_it(site: Site, receiver: Receiver) -> None:
    failing = defaultdict[str, int](int)

    def often_busy(request: Request) -> Reply:
        failing[request.id] += 1
        return (problem(500, "internal-error") if failing[request.id] == 1 else receipt)(request)

    receiver.event = often_busy
    told = [tell(site) for _ in range(CUSTOMERS)]
    with ExitStack() as stack:
        for _ in range(RELAYS):
            stack.enter_context(running(Relay(site.settings())))
        eventually(lambda: set(site.statuses()) == {"delivered"}, "all goes", 40)
    arrived = ids(receiver.events)
    for events in told:
        assert [event for event in arrived if event in events] == [
            event for event in events for _ in range(2)
        ]


def test_what_an_older_release_left_is_sent_as_it_was_written_and_before_what_came_later(
    site: Site, receiver: Receiver
) -> None:
    receiver.health = speaks("1.0.0", CURRENT)
    told = tell(site)
    site.rows("UPDATE crm_outbox SET contract = '1.0.0' WHERE id IN (?, ?)", *told[:2])
    payloads = [uncovered(row["payload"]) for row in site.rows()]
    assert site.drain().all_delivered
    assert ids(receiver.events) == told
    releases = [request.headers["webhook-contract"] for request in receiver.events]
    assert releases == ["1.0.0", "1.0.0", CURRENT, CURRENT, CURRENT]
    assert [request.body.decode() for request in receiver.events] == payloads


def test_a_crm_of_the_last_release_takes_what_it_knows_and_the_rest_waits(
    site: Site, receiver: Receiver
) -> None:
    receiver.health = speaks("1.0.0")
    told = tell(site)
    site.rows("UPDATE crm_outbox SET contract = '1.0.0' WHERE id IN (?, ?)", *told[:2])
    with running(Relay(site.settings())):
        eventually(lambda: site.status(told[2]) == "held", "the payment waits")
        assert [site.status(event) for event in told] == [
            "delivered",
            "delivered",
            "held",
            "pending",
            "pending",
        ]
        assert [hold["waits_for"] for hold in site.json("status")["holds"]] == [f"contract {CURRENT}"]
        receiver.health = speaks("1.0.0", CURRENT)
        eventually(lambda: set(site.statuses()) == {"delivered"}, "the CRM is updated")
    assert ids(receiver.events) == told
