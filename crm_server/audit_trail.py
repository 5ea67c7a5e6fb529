"""The audit trail: who did what to which record, and when. Rows are only ever added."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from crm_server.pages import Page, Window, read_page
from crm_server.tables import audit_trail


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, and from which address."""

    name: str
    """`staff:`, `cli:` or `server:` and a name."""
    origin: str | None = None
    """None on the command line."""


def append(
    connection: Connection,
    *,
    at: str,
    actor: Actor,
    verb: str,
    record: str,
    record_id: str,
    pointers: Iterable[str] = (),
) -> None:
    """Add what was just done, in the transaction that does it; `pointers` name the fields, never a value."""
    row = {"at": at, "actor": actor.name, "origin": actor.origin, "verb": verb}
    row |= {"record": record, "record_id": record_id, "pointers": json.dumps(list(pointers))}
    connection.execute(insert(audit_trail), row)


def history(connection: Connection, record_id: str) -> Iterator[Row[Any]]:
    """Read what was done to a record, oldest first."""
    mine = audit_trail.c.record_id == record_id
    yield from connection.execute(select(audit_trail).where(mine).order_by(audit_trail.c.sequence))


def page(connection: Connection, window: Window, record_id: str | None = None) -> Page:
    """Read a page of the trail, of everything or of one record."""
    entries = select(audit_trail)
    if record_id is not None:
        entries = entries.where(audit_trail.c.record_id == record_id)
    return read_page(connection, [entries], audit_trail.c.sequence, window)
