"""The outbox's partial indexes: what is delivered costs the relay nothing, for they do not hold it.

Apart from the tables, because SQLAlchemy loads all of PostgreSQL's drivers for the first word about it, which
every booking process would wait for.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Index, MetaData, text

from sender import tables
from sender.tables import outbox


def _add(name: str, *columns: Column[Any], where: str) -> None:
    Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


_add("crm_outbox_undelivered", outbox.c.order_key, outbox.c.sequence, where="status IN ('pending', 'held')")
_add(
    "crm_outbox_unfinished",
    outbox.c.status,
    outbox.c.sequence,
    where="status IN ('pending', 'held', 'failed')",
)
# A booking waits for each index that holds its event.
_add("crm_outbox_finished_at", outbox.c.finished_at, where="finished_at IS NOT NULL")
_add("crm_outbox_leased", outbox.c.order_key, where="lease_until IS NOT NULL")

metadata: MetaData = tables.metadata
"""For a site that migrates by its own Alembic; see `outbox_identity`."""
