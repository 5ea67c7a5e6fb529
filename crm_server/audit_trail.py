"""The audit trail: who did what to which record, and when. Rows are only ever added."""

import csv
import heapq
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, func, insert, literal, select

from crm_server.pages import MOST_COUNTED, Page, Window, count
from crm_server.tables import approvals, audit_trail

Notation = Literal["csv", "jsonl"]

FIELDS = ("at", "actor", "origin", "verb", "record", "record_id")
RECEIVED = "receive"
HIGHEST = 10**18 - 1
"""Beyond every sequence."""

c = approvals.c
RECEIPT = (
    c.sequence,
    c.received_at.label("at"),
    func.coalesce("webhook:" + c.received_by, literal("webhook")).label("actor"),
    literal(RECEIVED).label("verb"),
    literal("approval").label("record"),
    c.id.label("record_id"),
    literal("[]").label("pointers"),
    c.received_from.label("origin"),
)
"""A request's receipt, as a row of the trail."""
KEYS = (audit_trail.c.sequence, c.sequence)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, and from which address."""

    name: str
    """`staff:`, `cli:` or `server:` and a name, or `website`."""
    origin: str | None = None
    """None on the command line, and for what the server does by itself."""


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


def has_happened_since(connection: Connection, record_id: str, verb: str) -> bool:
    """Tell whether something was done, to whatever record, since the last that was done to one."""
    c = audit_trail.c
    last = select(func.max(c.sequence)).where(c.record_id == record_id).scalar_subquery()
    later = select(c.sequence).where(c.sequence > last, c.verb == verb).limit(1)
    return connection.execute(later).first() is not None


def page(connection: Connection, window: Window, record_id: str | None = None) -> Page:
    """Read a page of what was done and received, in order of time, of everything or of one record.

    A receipt is no row of the trail: the request that it brought says all of it, and never goes, so that to
    receive costs nothing more. A page's key holds how far it has come in both.
    """
    limit, newest_first = window.limit + 1, window.newest_first
    done, received = select(audit_trail), select(*RECEIPT)
    if record_id is not None:
        done, received = done.where(audit_trail.c.record_id == record_id), received.where(c.id == record_id)
    start = HIGHEST if newest_first else 0
    positions = [int(part) for part in str(window.after).split("-")] if window.after else [start, start]
    streams = []
    for stream, key, position in zip((done, received), KEYS, positions, strict=True):
        beyond = stream.where(key < position if newest_first else key > position)
        streams.append(
            connection.execute(beyond.order_by(key.desc() if newest_first else key.asc()).limit(limit))
        )
    merged = heapq.merge(*streams, key=lambda row: (row.at, row.verb != RECEIVED), reverse=newest_first)
    found = list(merged)[:limit]
    rows = found[: window.limit]
    for row in rows:
        positions[row.verb == RECEIVED] = row.sequence
    following = "-".join(map(str, positions)) if len(found) > window.limit else None
    total = connection.execute(count([done, received])).scalar_one()
    return Page(rows, following, min(total, MOST_COUNTED), total <= MOST_COUNTED)


def as_json(row: Row[Any]) -> dict[str, Any]:
    """Return an entry as the command line and the staff API show it."""
    return {**{name: getattr(row, name) for name in FIELDS}, "pointers": json.loads(row.pointers)}


def as_lines(rows: Iterable[Row[Any]], notation: Notation) -> str:
    """Return entries as JSON lines, or as lines of CSV (RFC 4180)."""
    if notation == "jsonl":
        return "".join(f"{json.dumps(as_json(row), ensure_ascii=False)}\n" for row in rows)
    return csv_lines([*(as_json(row)[name] for name in FIELDS), *json.loads(row.pointers)] for row in rows)


def head_of(notation: Notation) -> str:
    """Return what stands before the first entry."""
    return csv_lines([(*FIELDS, "pointers")]) if notation == "csv" else ""


def csv_lines(rows: Iterable[Sequence[str | None]]) -> str:
    """Return lines of CSV in which no cell is a formula to a spreadsheet."""
    text = io.StringIO()
    csv.writer(text).writerows([harmless(cell or "") for cell in row] for row in rows)
    return text.getvalue()


def harmless(cell: str) -> str:
    """Return a cell that a spreadsheet takes for text."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else cell
