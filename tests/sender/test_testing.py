"""What a site's own tests get: messages that say what is wrong and show no one's data, and a CRM that answers as told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from sender import CRM, NotMigrated, Relay, SenderSettings, WrongDatabase
from sender.testing import ScriptedCRM, any_outbox, assert_enqueued, assert_nothing_enqueued, enqueued
from tests.factories import customer_registration, repair_request
from tests.sender.engines import new_outbox
from tests.sender.site import SENTINEL, Site


@pytest.fixture
def engine(site: Site) -> Iterator[Engine]:
    made = create_engine(site.url)
    yield made
    made.dispose()


def test_an_event_is_found_by_its_fields_as_its_session_sees_it(site: Site, engine: Engine) -> None:
    crm = site.crm()
    with Session(engine) as session:
        event_id = crm.repair_requested(repair_request(repair__notes="Mind the dog"), session)
        found = assert_enqueued(
            session, "repair-request", repair__notes="Mind the dog", repair__priority="normal"
        )
        assert (found.id, found.status) == (event_id, "pending")
        assert_nothing_enqueued(crm)
        session.commit()
    assert enqueued(crm) == [found]


def test_what_is_not_found_is_said_with_the_fields_that_differ_and_no_other_values(
    site: Site, engine: Engine
) -> None:
    body = repair_request(repair__notes=SENTINEL)
    site.crm().repair_requested(body)
    site.crm().customer_registered(customer_registration())
    with pytest.raises(AssertionError) as caught:
        assert_enqueued(site.crm(), "repair-request", repair__notes="mine", repair__priority="normal")
    message = str(caught.value)
    assert message.startswith(
        "no repair-request with repair__notes='mine' and repair__priority='normal' is in the"
    )
    assert f"repair-request {body['repair']['websiteRepairId']}, pending: other repair__notes\n" in message
    assert "customer-registration user-" in message
    assert SENTINEL not in message
    with pytest.raises(AssertionError, match="there are events in the outbox; it has\n"):
        assert_nothing_enqueued(site.crm())


def test_an_empty_outbox_and_a_wrong_name_are_said(site: Site) -> None:
    with pytest.raises(AssertionError, match="no repair-request is in the outbox, which is empty"):
        assert_enqueued(site.crm(), "repair-request")
    with pytest.raises(
        AssertionError, match="there are customer-registration, repair-request, payment-status"
    ):
        assert_enqueued(site.crm(), "repair_request")


def test_a_misspelt_field_is_said_and_is_not_taken_for_one_that_is_missing(site: Site) -> None:
    crm = site.crm()
    crm.repair_requested(repair_request(repair__notes=...))
    crm.customer_registered(customer_registration(customer__preferences={"newsletter": True}))
    assert_enqueued(crm, "repair-request", repair__notes=None)
    assert_enqueued(crm, "customer-registration", customer__preferences__newsletter=True)
    for event, field in (("repair-request", "repair__note"), ("customer-registration", "firstName")):
        with pytest.raises(AssertionError, match=f"the contract's {event} has no {field}"):
            assert_enqueued(crm, event, **{field: None})


def test_a_delivered_payload_is_said_to_be_erased(site: Site) -> None:
    site.book()
    site.drain()
    assert assert_enqueued(site.crm(), "repair-request").status == "delivered"
    with pytest.raises(AssertionError, match="delivered: its payload is erased"):
        assert_enqueued(site.crm(), "repair-request", repair__priority="normal")


def test_any_outbox_takes_that_of_the_session_and_no_event_without_one(site: Site, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    engine = create_engine(new_outbox("sqlite", tmp_path / "tests"))
    crm = site.crm()
    with Session(engine) as session:
        with any_outbox():
            crm.repair_requested(repair_request(), session)
            assert_enqueued(session, "repair-request")
            with pytest.raises(WrongDatabase, match="needs a session"):
                crm.repair_requested(repair_request())
        with pytest.raises(WrongDatabase):
            crm.repair_requested(repair_request(), session)
    engine.dispose()
    assert site.rows() == []


def test_any_outbox_still_needs_an_outbox(site: Site) -> None:
    engine = create_engine("sqlite://")
    with any_outbox(), Session(engine) as session, pytest.raises(NotMigrated, match="crm-sender migrate"):
        site.crm().repair_requested(repair_request(), session)
    engine.dispose()


def test_a_scripted_crm_answers_as_told_and_then_as_a_crm(site: Site) -> None:
    with ScriptedCRM() as crm:
        crm.answers(503, {"status": 400, "type": "invalid"}, 202)
        first, second = site.book(2, customer__websiteUserId="ada")
        summary = Relay(crm.settings(outbox_url=site.url)).run(drain=True)
        assert (summary.delivered, summary.failed) == (1, 1)
        assert [request.id for request in crm.received] == [first, first, second]
        assert {request.customer for request in crm.received} == {"ada"}


def test_a_scripted_crm_may_be_away(site: Site) -> None:
    with ScriptedCRM() as crm:
        crm.go_away()
        site.book()
        settings = crm.settings(outbox_url=site.url)
        assert not Relay(settings).run(drain=True).all_delivered
        crm.come()
        assert Relay(settings).run(drain=True).all_delivered


def test_a_scripted_crm_gives_the_contracts_receipt() -> None:
    body = repair_request()
    with ScriptedCRM() as crm:
        answers = [
            httpx.post(f"{crm.url}/repair-request", content=json.dumps(body), headers={"webhook-id": "one"})
            for _ in range(2)
        ]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert [answer.json()["duplicate"] for answer in answers] == [False, True]
    assert answers[0].json()["natural_key"] == body["repair"]["websiteRepairId"]


def test_it_loads_no_web_framework_and_nothing_that_sends() -> None:
    code = "import sys; import sender.testing; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {
        "httpx",
        "connexion",
        "starlette",
        "django",
        "sqlalchemy.orm",
        "psycopg",
    }


def test_settings_for_a_scripted_crm_may_say_otherwise() -> None:
    with ScriptedCRM() as crm:
        assert crm.settings(timeout=1.0) == SenderSettings(
            webhook_url=crm.url, api_key="scripted", retry_schedule=(0.0, 0.0, 0.0), timeout=1.0
        )


def test_a_crm_is_asked_for_what_is_committed(site: Site) -> None:
    assert enqueued(CRM(site.settings())) == []
