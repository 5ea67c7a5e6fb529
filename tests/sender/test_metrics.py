"""What Prometheus is told of the website's side is what is so, without personal data."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from sender import CRM, Relay, SenderSettings
from sender.alerts import Watch
from sender.database import open_engine
from sender.metrics import exposition
from tests.factories import repair_request
from tests.receiver import Receiver, always, first, problem, receipt, reply
from tests.sender.engines import rows
from tests.sender.site import SENTINEL


@pytest.fixture
def engine(outbox_url: str) -> Iterator[Engine]:
    engine = open_engine(outbox_url)
    yield engine
    engine.dispose()


def scrape(engine: Engine, settings: SenderSettings) -> dict[str, float]:
    """Return every sample by its name and its labels' values."""
    page = exposition(engine, settings).decode()
    assert SENTINEL not in page
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_it_tells_what_waits_what_became_of_attempts_and_who_looks(
    settings: SenderSettings, crm: CRM, engine: Engine, receiver: Receiver
) -> None:
    def book() -> str:
        return crm.repair_requested(repair_request(repair__notes=SENTINEL))

    nothing = scrape(engine, settings)
    assert nothing["crm_sender_attempts_total delivered"] == nothing["crm_sender_oldest_seconds"] == 0
    assert nothing["crm_sender_relays"] == nothing["crm_sender_relay_seen_seconds"] == 0

    receiver.event = first(always(reply(500)))
    book()
    Relay(settings).run(drain=True)
    receiver.event = problem(400, "invalid-event")
    book()
    Relay(settings).run(drain=True)
    receiver.event = receiver.test = problem(401, "unauthorized")
    held = book()
    Relay(settings).run(drain=True)
    rows(settings.outbox_url, "UPDATE crm_outbox SET enqueued_at = ? WHERE id = ?", time.time() - 1000, held)
    watch = Watch(settings)
    watch.look()
    watch.close()

    found = scrape(engine, settings)
    for sample, value in {
        "crm_sender_outbox_readable": 1,
        "crm_sender_crm_reachable": 1,
        "crm_sender_events pending": 0,
        "crm_sender_events held": 1,
        "crm_sender_events failed": 1,
        "crm_sender_held the key": 1,
        "crm_sender_attempts_total delivered": 1,
        "crm_sender_attempts_total retry": 1,
        "crm_sender_attempts_total failed": 1,
        "crm_sender_delivery_seconds_bucket +Inf": 1,
        "crm_sender_relays": 0,
        "crm_sender_alerts failed": 1,
        "crm_sender_alerts key-refused": 1,
        "crm_sender_alerts crm-away": 0,
    }.items():
        assert found[sample] == value, sample
    assert found["crm_sender_attempts_total held"] >= 1
    assert 1000 <= found["crm_sender_oldest_seconds"] < 1100
    assert 0 < found["crm_sender_relay_seen_seconds"] < 100


def test_a_counter_never_goes_back_when_an_event_is_sent_again(
    settings: SenderSettings, crm: CRM, engine: Engine, receiver: Receiver
) -> None:
    event = repair_request()
    crm.repair_requested(event)
    Relay(settings).run(drain=True)
    crm.repair_requested(event, resend=True)
    assert scrape(engine, settings)["crm_sender_attempts_total delivered"] == 1
    receiver.event = receipt
    Relay(settings).run(drain=True)
    assert scrape(engine, settings)["crm_sender_attempts_total delivered"] == 2


def test_it_tells_of_a_crm_that_is_away_and_of_an_outbox_that_cannot_be_read(
    settings: SenderSettings, crm: CRM, engine: Engine, receiver: Receiver
) -> None:
    receiver.go_away()
    assert scrape(engine, settings)["crm_sender_crm_reachable"] == 0
    rows(settings.outbox_url, "DROP TABLE crm_outbox_hours")
    found = scrape(engine, settings)
    assert found["crm_sender_outbox_readable"] == 0
    assert "crm_sender_relays" not in found
