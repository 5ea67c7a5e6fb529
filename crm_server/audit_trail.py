"""The audit trail: who did what to which record, and when. Rows are only ever added."""

import json
from collections.abc import Iterable

from sqlalchemy import Connection, insert

from crm_server.tables import audit_trail


def append(
    connection: Connection,
    *,
    at: str,
    actor: str,
    verb: str,
    record: str,
    record_id: str,
    pointers: Iterable[str] = (),
) -> None:
    """Add what was just done, in the transaction that does it; `pointers` name the fields, never a value."""
    row = {"at": at, "actor": actor, "verb": verb, "record": record, "record_id": record_id}
    connection.execute(insert(audit_trail), {**row, "pointers": json.dumps(list(pointers))})
