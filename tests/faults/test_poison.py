"""Events that can never be delivered, before a CRM that is well: they fail, visibly, and stop nobody else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sender import Relay
from tests.faults.proxy import Proxy, assert_arrived, stored
from tests.receiver import Reply, Request, html, reply
from tests.sender.site import Site, eventually, running
from tests.servers import Crm

SCHEDULE = (0.5, 0.5)


def taken_but_not_said(proxy: Proxy, request: Request) -> Reply:
    proxy.forward(request)
    return reply(500)


POISONS: dict[str, tuple[int, Callable[[Proxy, Request], Reply]]] = {
    "500 for one customer": (1, lambda _, request: reply(500)),
    "500 for more customers than are in flight": (40, lambda _, request: reply(500)),
    "500 after the commit": (3, taken_but_not_said),
    "502 of a proxy": (3, lambda _, request: html(502)(request)),
    "a reset": (3, lambda _, request: Reply([], "reset")),
}
"""How many customers have such an event, and what becomes of it."""


@pytest.mark.parametrize(("customers", "answer"), POISONS.values(), ids=POISONS)
def test_poison_fails_after_the_last_delay_and_all_others_go_on_meanwhile(
    crm: Crm, proxy: Proxy, site: Site, customers: int, answer: Callable[[Proxy, Request], Reply]
) -> None:
    names = [f"{site.directory.name}-{number}" for number in range(customers)]
    poisons = [site.book(customer__websiteUserId=name)[0] for name in names]
    later = [site.book(customer__websiteUserId=name)[0] for name in names]
    others = site.book(20)
    sent = site.rows()
    proxy.event = lambda request: answer(proxy, request) if request.id in poisons else proxy.forward(request)
    summary = site.drain(retry_schedule=SCHEDULE)
    assert (summary.failed, summary.delivered, summary.pending) == (customers, customers + 20, 0)
    assert {(site.status(event), site.row(event)["attempts"]) for event in poisons} == {("failed", 3)}
    assert {site.row(event)["attempts"] for event in (*later, *others)} == {1}
    order = [request.id for request in proxy.events]
    last_tries = [len(order) - 1 - order[::-1].index(event) for event in poisons]
    assert max(order.index(event) for event in others) < min(last_tries)
    assert_arrived(crm, sent, *(event for event in poisons if not stored(crm, event)))
    assert len(site.json("failed")) == customers


@pytest.mark.parametrize("status", [429, 503])
def test_events_for_which_the_crm_always_asks_for_patience_stop_nobody_else(
    crm: Crm, proxy: Proxy, site: Site, status: int
) -> None:
    poisons = site.book(2)
    later = site.book(customer__websiteUserId=site.row(poisons[0])["order_key"])
    others = site.book(20)
    sent = site.rows()
    asks = reply(status, retry_after="0")
    proxy.event = lambda request: asks if request.id in poisons else proxy.forward(request)
    with running(Relay(site.settings())):
        eventually(lambda: {site.status(event) for event in others} == {"delivered"}, "the others")
        assert {(site.status(event), site.row(event)["attempts"]) for event in (*poisons, *later)} == {
            ("pending", 0)
        }
        proxy.mend()
        eventually(lambda: set(site.statuses()) == {"delivered"}, "all")
    assert_arrived(crm, sent)
