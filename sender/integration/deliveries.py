"""Failed and held deliveries: their list, one of them, retry, close; and where an event is.

No page shows a payload: keys, references, times, and of the CRM's answers status and JSON pointers.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from generated.operations import WEBHOOKS
from sender import outbox
from sender.errors import SenderError, UnknownEvent, WrongState
from sender.integration.rendering import page, see_other
from sender.integration.visits import ACTOR, Refusal, Visit

log = logging.getLogger("crm_sender.dashboard")

LIST = "/admin/deliveries"
PAGE_SIZE = 50
LONGEST_SEARCH = 200
MOST_WORKS = 20
"""Works on everything that matches whose end is kept."""
STATES: Mapping[str, str] = {"failed": "failed", "held": "held"}
EVENTS: Mapping[str, str] = {"": "all", **{name: name.replace("-", " ") for name in WEBHOOKS}}
AGES: Mapping[str, tuple[str, float]] = {
    "": ("at any time", 0),
    "1h": ("in the last hour", 3600),
    "1d": ("in the last day", 86_400),
    "7d": ("in the last 7 days", 7 * 86_400),
}
"""How far back a list goes: its name, and seconds."""
ANSWERS: Mapping[str, str] = {
    "": "all",
    **{str(status): str(status) for status in sorted({s for each in WEBHOOKS.values() for s in each.answers})},
}


@dataclass(frozen=True, slots=True)
class View:
    """The part of the deliveries that somebody looks at, kept by every link."""

    state: str
    event: str
    answer: str
    age: str
    search: str
    """A stored search's id."""
    words: str
    """What it searches for."""
    after: str

    @property
    def query(self) -> str:
        """Return it as a URL's query; what was searched for is not in it."""
        names = ("state", "event", "answer", "age", "search", "after")
        given = {name: getattr(self, name) for name in names}
        query = urlencode({name: value for name, value in given.items() if value})
        return f"?{query}" if query else ""

    def but(self, **changed: str) -> View:
        """Return another part, from its beginning unless told otherwise."""
        return replace(self, **{"after": "", **changed})

    def filter(self, now: float) -> outbox.Failures:
        """Return what matches."""
        span = AGES[self.age][1]
        return outbox.Failures(
            event=self.event or None,
            answer=int(self.answer) if self.answer else None,
            since=now - span if span else None,
            reference=self.words or None,
        )


def view_of(visit: Visit) -> View:
    """Return what a URL asks for; what is none is left out."""
    asked = visit.request.query_params
    search, after = asked.get("search", ""), asked.get("after", "")
    words = visit.session.searches.get(search, "")
    return View(
        visit.asked("state", STATES),
        visit.asked("event", EVENTS),
        visit.asked("answer", ANSWERS),
        visit.asked("age", AGES),
        search if words else "",
        words,
        after if re.fullmatch("[0-9]{1,18}", after) else "",
    )
