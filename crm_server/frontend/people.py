"""What is held of a person, for admins: found by an e-mail address, shown, taken as a file, erased for good."""

import hashlib
import json
from functools import partial
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from starlette.responses import Response

from crm_server import erasure
from crm_server.api.approvals import item
from crm_server.erasure import Held, Person
from crm_server.errors import PersonChanged
from crm_server.frontend.approvals import summary
from crm_server.frontend.rendering import PAGE_HEADERS, page
from crm_server.frontend.visits import Visit
from crm_server.retention import empty_log
from generated.approvals import PersonAddress

NO_ADDRESS = "Give one e-mail address."
NOT_SURE = "Nothing was erased. Say that you are sure."
FILENAME = "person.json"
"""Tells nothing of whose it is."""


async def ask(visit: Visit) -> Response:
    """Ask for an e-mail address, which stands in no URL."""
    return page(visit, "people.html", email="", fault="", held=None)


async def find(visit: Visit) -> Response:
    """Show what is held of a person."""
    person = await found(visit)
    return await shown(visit, person) if person else unreadable(visit)


async def export(visit: Visit) -> Response:
    """Send all that is held of a person as a file."""
    person = await found(visit)
    if person is None:
        return unreadable(visit)
    held = await visit.queue.write(partial(erasure.export, person=person, actor=visit.actor))
    headers = {**PAGE_HEADERS, "content-disposition": f'attachment; filename="{FILENAME}"'}
    text = json.dumps(held, ensure_ascii=False, indent=2)
    return Response(text, HTTPStatus.OK, headers, media_type="application/json")


async def erase(visit: Visit) -> Response:
    """Erase all that is held of a person, if that is still what was shown."""
    person = await found(visit)
    if person is None:
        return unreadable(visit)
    if not visit.field("sure"):
        return await shown(visit, person, HTTPStatus.BAD_REQUEST, fault=NOT_SURE)
    try:
        erased = await visit.queue.write(partial(erase_seen, person=person, visit=visit))
    except PersonChanged as error:
        return await shown(visit, person, HTTPStatus.CONFLICT, fault=str(error))
    return page(
        visit,
        "erased.html",
        erased=erased,
        bytes_left=not await empty_log(visit.queue, erasure.EMPTY_SECONDS),
    )


def erase_seen(connection: Any, person: Person, visit: Visit) -> Held:
    """Erase a person of whom what is held is what the page showed.

    Raises PersonChanged.
    """
    held = erasure.held(connection, person)
    if held.is_empty:
        raise PersonChanged("All that was held of this person is erased already.")
    if digest(held) != visit.field("seen"):
        raise PersonChanged("What is held of this person has changed. Nothing was erased: look again.")
    return erasure.erase(connection, person, visit.actor)


async def found(visit: Visit) -> Person | None:
    """Look for the person whose address was sent; return None for what is no address."""
    try:
        email = PersonAddress(email=visit.field("email")).email
    except ValidationError:
        return None
    return await visit.queue.work(partial(erasure.find, email=email))


def unreadable(visit: Visit) -> Response:
    """Ask once more."""
    email = visit.field("email")
    return page(visit, "people.html", HTTPStatus.BAD_REQUEST, email=email, fault=NO_ADDRESS, held=None)


async def shown(visit: Visit, person: Person, status: int = 200, *, fault: str = "") -> Response:
    """Show what is held of a person now."""
    held = await visit.queue.read(partial(erasure.held, person=person))
    requests = [summary(item(visit.staff, row)) for row in held.approvals]
    email, seen = visit.field("email"), digest(held)
    return page(
        visit, "people.html", status, email=email, fault=fault, held=held, requests=requests, seen=seen
    )


def digest(held: Held) -> str:
    """Return what stands for everything that is held of a person."""
    parts = [[row.id for row in held.notes], [row.sequence for row in held.corrections]]
    return hashlib.sha256(json.dumps([held.ids(), parts]).encode()).hexdigest()
