"""`CRM_LOG_FORMAT=json` has the sender's programs log as the CRM's do."""

from __future__ import annotations

import json
from datetime import datetime

from tests.receiver import Receiver, problem
from tests.sender.site import SENTINEL, Site


def test_a_line_is_an_object_with_the_keys_of_the_crms_log(site: Site, receiver: Receiver) -> None:
    receiver.event = problem(400, "invalid-event")
    [event] = site.book(repair__notes=SENTINEL)
    done = site.cli("relay", "--drain", CRM_LOG_FORMAT="json")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in lines if event in line["message"]] == ["warning"]
    assert all(list(line) == ["time", "level", "logger", "message"] for line in lines)
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in lines)
    assert SENTINEL not in done.stderr


def test_people_get_lines_of_text_unless_they_ask(site: Site) -> None:
    done = site.cli("relay", "--drain")
    assert "INFO relay started: sqlite" in done.stderr
    assert site.cli("status", CRM_LOG_FORMAT="xml").returncode == 1
