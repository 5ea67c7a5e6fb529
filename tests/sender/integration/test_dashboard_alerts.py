"""A dashboard tells people what a relay that is down cannot tell them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sender.alerts import LOOK
from tests.factories import repair_request
from tests.receiver import always, reply, start_receiver
from tests.sender.integration.server import start_server
from tests.sender.site import SENTINEL, eventually


@pytest.mark.long
def test_without_a_relay_the_dashboard_tells_what_waits_too_long(tmp_path: Path) -> None:
    with start_receiver() as crm, start_receiver() as people:
        people.event = always(reply(200))
        settings = {"CRM_ALERT_URL": people.url, "CRM_ALERT_PENDING_SECONDS": "1"}
        with start_server(tmp_path, CRM_WEBHOOK_URL=crm.url, **settings) as server:
            assert server.post("repair-request", repair_request(repair__notes=SENTINEL)).status_code == 202
            eventually(lambda: people.events, "people are told", 3 * LOOK)
            assert server.stop() == 0
    [request] = people.events
    told = json.loads(request.body)
    assert (told["condition"], told["state"], told["count"]) == ("pending-too-old", "new", 1)
    assert told["text"].endswith("No relay runs: start crm-sender relay")
    assert SENTINEL not in request.body.decode() + server.log
    assert people.url not in server.log
