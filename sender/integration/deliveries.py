"""Failed and held deliveries: their list, one of them, retry, close; and where an event is.

No page shows a payload: keys, references, times, and of the CRM's answers status and JSON pointers.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from generated.operations import WEBHOOKS
from sender import outbox
from sender.deliveries import Retried, close_matching, retry_matching, story, unfinished
from sender.errors import InvalidEvent, PreviewChanged, SenderError, UnknownEvent
from sender.integration.problems import Problem
from sender.integration.rendering import page, see_other
from sender.integration.visits import ACTOR, Visit
from sender.outbox import Failures
from sender.transport import REFUSED
from sender.troubles import trouble_of

LIST = "/admin/deliveries"
PAGE_SIZE = 50
LONGEST_SEARCH = 200
MOST_WORKS = 20
"""Works on everything that matches whose end is kept."""
STATES = {"failed": "failed", "held": "held"}
EVENTS: Mapping[str, str] = {"": "all", **{name: name.replace("-", " ") for name in WEBHOOKS}}
AGES: Mapping[str, tuple[str, float]] = {
    "": ("at any time", 0),
    "1h": ("in the last hour", 3600),
    "1d": ("in the last day", 86_400),
    "7d": ("in the last 7 days", 7 * 86_400),
}
"""How far back a list goes: its name, and seconds."""
STATUSES = {status for webhook in WEBHOOKS.values() for status in webhook.answers if status >= 400}
ANSWERS: Mapping[str, int | str] = {
    **{str(status): status for status in sorted(STATUSES)},
    **{words: words for words in ("timeout", REFUSED)},
}
"""What the CRM may have said, or why it said nothing, by how it stands in a URL."""


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


def view_of(visit: Visit) -> View:
    """Return what a URL asks for; what is none is left out."""
    asked = visit.request.query_params
    search, after = asked.get("search", ""), asked.get("after", "")
    words = visit.session.searches.get(search, "")
    return View(
        visit.asked("state", STATES),
        visit.asked("event", EVENTS),
        visit.asked("answer", {"": "", **ANSWERS}),
        visit.asked("age", AGES),
        search if words else "",
        words,
        after if re.fullmatch("[0-9]{1,18}", after) else "",
    )


async def matching(visit: Visit, view: View, now: float) -> Failures:
    """Return the deliveries that a view shows."""
    ids = None
    if view.words:
        ids = [row["id"] for row in await found(visit, view.words)]
    seconds = AGES[view.age][1]
    return Failures(
        status="held" if view.state == "held" else "failed",
        event=view.event or None,
        answer=ANSWERS.get(view.answer),
        since=now - seconds if seconds else None,
        ids=ids,
    )


async def found(visit: Visit, key: str) -> list[dict[str, Any]]:
    """Return the events with this id, natural key or ticket number, each with its trail."""
    try:
        return await visit.read(lambda connection: story(connection, key))
    except UnknownEvent:
        return []


async def show_list(visit: Visit) -> Response:
    """Show a page of what failed or is held."""
    view = view_of(visit)
    return await listed(visit, view, told(visit.request.query_params.get("retried", "")))


async def listed(
    visit: Visit, view: View, done: str = "", refused: Mapping[str, SenderError] | None = None
) -> Response:
    """Show a page of a part, with word of what was done."""
    wanted, after = await matching(visit, view, time.time()), int(view.after or 0)
    rows = await visit.read(lambda connection: unfinished(connection, wanted, after, PAGE_SIZE + 1))
    return page(
        visit,
        "deliveries.html",
        view=view,
        rows=rows[:PAGE_SIZE],
        next=str(rows[PAGE_SIZE - 1]["sequence"]) if len(rows) > PAGE_SIZE else "",
        done=done,
        refused=refused or {},
        states=STATES,
        events=EVENTS,
        answers=ANSWERS,
        ages=AGES,
    )


async def search(visit: Visit) -> Response:
    """Keep what is searched for, and show what it finds."""
    words = visit.field("text")[:LONGEST_SEARCH]
    return see_other(
        visit, LIST + view_of(visit).but(search=visit.session.keep(words) if words else "").query
    )


async def retry_selected(visit: Visit) -> Response:
    """Retry what is selected."""
    view, ids = view_of(visit), visit.form.get("id", [])
    if not ids:
        return await listed(visit, view, "Nothing was selected.")
    result = await retry(visit, Failures(ids=ids))
    if result.refused:
        return await listed(visit, view, told(str(result.retried)), result.refused)
    return see_other(visit, LIST + view.query + ("&" if view.query else "?") + f"retried={result.retried}")


async def retry(visit: Visit, wanted: Failures, seen: str | None = None) -> Retried:
    """Retry what matches, beside the event loop."""
    return await asyncio.to_thread(retry_matching, visit.site.engine, wanted, ACTOR, seen)


def told(retried: str) -> str:
    """Return word of how many were retried, from a URL's number."""
    return f"{retried} back to pending." if re.fullmatch("[0-9]{1,9}", retried) else ""


async def show_all(visit: Visit) -> Response:
    """Show what a retry of everything that matches would retry."""
    return await previewed(visit)


async def previewed(visit: Visit, status: int = 200, fault: str = "") -> Response:
    """Show what matches now, with the moment and the digest that a decision on it must name."""
    view, as_of = view_of(visit).but(state="failed"), time.time()
    wanted = await matching(visit, view, as_of)
    preview = await visit.read(lambda connection: outbox.preview(connection, wanted))
    return page(
        visit,
        "all.html",
        status,
        view=view,
        preview=preview,
        as_of=as_of,
        fault=fault,
        events=EVENTS,
        ages=AGES,
    )


async def retry_all(visit: Visit) -> Response:
    """Begin to retry everything that matches, if that is still what was seen; show how it goes."""
    view, seen = view_of(visit).but(state="failed"), visit.field("digest")
    try:
        as_of = float(visit.field("as_of"))
    except ValueError:
        raise Problem("malformed-request", "Choose what the page showed.") from None
    wanted = await matching(visit, view, as_of)
    preview = await visit.read(lambda connection: outbox.preview(connection, wanted))
    works = visit.memory.works
    # From a second tab, or sent twice: what was seen is retried already, or it would match still.
    if seen in works and not (works[seen].done() and preview.digest == seen):
        return see_other(visit, f"{LIST}/all/{seen}")
    if preview.digest != seen:
        fault = "What matches has changed since you saw it. This is what matches now."
        return await previewed(visit, HTTPStatus.CONFLICT, fault)
    for old in [key for key, task in works.items() if task.done()][: max(0, len(works) - MOST_WORKS)]:
        del works[old]
    works[seen] = asyncio.create_task(retry(visit, wanted, seen))
    return see_other(visit, f"{LIST}/all/{seen}")


async def show_work(visit: Visit) -> Response:
    """Show what became of a retry of everything that matched."""
    task = visit.memory.works.get(visit.request.path_params["id"])
    if task is None:
        raise Problem("not-found", "There is no such retry here: this dashboard was started since.")
    outcome, fault = None, ""
    if task.done():
        try:
            outcome = task.result()
        except PreviewChanged:
            fault = "Nothing was retried: what matched had changed."
    return page(visit, "work.html", is_running=not task.done(), outcome=outcome, fault=fault)


def event_id_of(visit: Visit) -> str:
    """Return the id in the path; raise the 404 for what none can be."""
    event_id = str(visit.request.path_params["id"])
    if "\0" in event_id:  # PostgreSQL compares nothing with it
        raise Problem("not-found", "There is no event with this id.")
    return event_id


async def show_one(visit: Visit) -> Response:
    """Show one delivery, whatever its state."""
    return await shown_one(visit, done=told(visit.request.query_params.get("retried", "")))


async def shown_one(
    visit: Visit, status: int = 200, done: str = "", fault: SenderError | None = None
) -> Response:
    """Show one delivery, with word of what was done or why it was not."""
    event_id = event_id_of(visit)
    row = next((each for each in await found(visit, event_id) if each["id"] == event_id), None)
    if row is None:
        raise Problem("not-found", "There is no event with this id.")
    [row] = await visit.site.questions.ask([row])
    faults = fault.faults if isinstance(fault, InvalidEvent) else ()
    trouble = trouble_of(row["reason"] or "")
    return page(
        visit, "delivery.html", status, row=row, done=done, fault=fault, faults=faults, trouble=trouble
    )


async def retry_one(visit: Visit) -> Response:
    """Retry one delivery, or show why it cannot be."""
    event_id = event_id_of(visit)
    result = await retry(visit, Failures(ids=[event_id]))
    if event_id in result.refused:
        return await shown_one(visit, HTTPStatus.CONFLICT, fault=result.refused[event_id])
    return see_other(visit, f"{LIST}/{event_id}?retried=1")


async def close_one(visit: Visit) -> Response:
    """Give one delivery up, when that is confirmed."""
    event_id = event_id_of(visit)
    if visit.field("sure") != "yes":
        raise Problem("malformed-request", "Confirm that the payload is erased. Nothing was changed.")
    wanted = Failures(ids=[event_id])
    result = await asyncio.to_thread(close_matching, visit.site.engine, wanted, ACTOR)
    if event_id in result.refused:
        return await shown_one(visit, HTTPStatus.CONFLICT, fault=result.refused[event_id])
    return see_other(visit, f"{LIST}/{event_id}")


async def ask(visit: Visit) -> Response:
    """Ask which event is looked for."""
    return page(visit, "find.html", key="", rows=None)


async def find(visit: Visit) -> Response:
    """Show where an event is; what was asked for stands in no URL."""
    key = visit.field("key")[:LONGEST_SEARCH]
    rows = await found(visit, key)
    if len(rows) == 1:
        return see_other(visit, f"{LIST}/{rows[0]['id']}")
    return page(visit, "find.html", key=key, rows=await visit.site.questions.ask(rows))
