"""Pages of long lists: by a key that never changes, so that nothing is skipped or shown twice.

A page costs the same wherever it lies, and a list the same however long it is: no OFFSET, and no count
beyond a bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, literal, select, union_all

MOST_COUNTED = 10_000
"""So far a total is exact."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which page is wanted."""

    limit: int
    newest_first: bool = True
    after: int | str | None = None
    """The key of the last row of the page before."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a list, in order."""

    rows: Sequence[Row[Any]]
    next: str | None
    """The key after which there is more."""
    total: int
    total_exact: bool


def read_page(
    connection: Connection, streams: Sequence[Select[Any]], key: ColumnElement[Any], window: Window
) -> Page:
    """Read a page of rows from streams that have no row in common, each of which an index gives in order."""
    found = connection.execute(merged(streams, key, window)).all()
    rows = found[: window.limit]
    following = str(getattr(rows[-1], str(key.key))) if len(found) > window.limit else None
    total = connection.execute(count(streams)).scalar_one()
    return Page(rows, following, min(total, MOST_COUNTED), total <= MOST_COUNTED)


def merged(streams: Sequence[Select[Any]], key: ColumnElement[Any], window: Window) -> Select[Any]:
    """Return the statement for a page and one row more, of which each stream gives its first."""
    most = window.limit + 1
    parts = []
    for stream in streams:
        rows = stream.order_by(key.desc() if window.newest_first else key.asc()).limit(most)
        if window.after is not None:
            rows = rows.where(key < window.after if window.newest_first else key > window.after)
        parts.append(rows.subquery().select())
    firsts = union_all(*parts).subquery()
    order = firsts.c[str(key.key)]
    return firsts.select().order_by(order.desc() if window.newest_first else order.asc()).limit(most)


def count(streams: Sequence[Select[Any]]) -> Select[Any]:
    """Return the statement that counts the rows of all streams, of each a few more than are told at most."""
    counts = [
        select(func.count()).select_from(
            stream.with_only_columns(literal(1), maintain_column_froms=True)
            .limit(MOST_COUNTED + 1)
            .subquery()
        )
        for stream in streams
    ]
    total: ColumnElement[Any] = counts[0].scalar_subquery()
    for other in counts[1:]:
        total = total + other.scalar_subquery()
    return select(total)
