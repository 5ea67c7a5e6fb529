"""The outbox's tables. Their CHECKs state the machine of `delivery.py`, so that a bug cannot write a lie.

All times are seconds since 1970, UTC, as floating point.
"""

from __future__ import annotations

import uuid

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    Index,
    Insert,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()
"""As the relay and booking code need it; `indexes.py` has it whole."""

_Number = BigInteger().with_variant(Integer, "sqlite")

VERSION_TABLE = "crm_outbox_version"
"""Where our own migrations note how far they are."""

outbox = Table(
    "crm_outbox",
    metadata,
    Column("sequence", _Number, primary_key=True, autoincrement=True),  # the order of a customer's events
    Column("id", String(128), nullable=False, unique=True),
    Column("event", String(64), nullable=False),
    Column("contract", String(32), nullable=False),
    Column("natural_key", String(128), nullable=False),
    Column("order_key", String(128), nullable=False),
    Column("reference", String(128), nullable=False),
    Column("payload", Text),
    Column("digest", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),  # those that counted
    Column("due_at", Float, nullable=False),  # 0 for at once, by whichever clock
    Column("lease_token", String(36)),
    Column("lease_until", Float),
    Column("held_for", String(64)),  # a webhook's path, a contract release, or a webhook's name
    Column("held_by", Integer),  # the answer that holds it, or held it before the last passed probe
    Column("reason", Text),  # why it is held or failed, in words
    Column("answer", Text),  # what the CRM said: JSON of status, type, pointers, contract
    Column("enqueued_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("traceparent", String(55)),  # the trace that it belongs to (W3C Trace Context)
    Column("receipt_id", String(128)),  # the CRM's, by which it says what was decided; from a delivery on
    UniqueConstraint("event", "natural_key", name="crm_outbox_natural_key"),
    CheckConstraint(
        "status IN ('pending', 'delivered', 'failed', 'held', 'closed', 'erased')", name="crm_outbox_status"
    ),
    CheckConstraint(
        "(payload IS NULL) = (status IN ('delivered', 'closed', 'erased'))", name="crm_outbox_payload_erased"
    ),
    CheckConstraint("(held_for IS NOT NULL) = (status = 'held')", name="crm_outbox_held_for"),
    CheckConstraint("status IN ('pending', 'held') OR finished_at IS NOT NULL", name="crm_outbox_finished"),
    CheckConstraint("(lease_token IS NULL) = (lease_until IS NULL)", name="crm_outbox_lease"),
    CheckConstraint("lease_token IS NULL OR status = 'pending'", name="crm_outbox_lease_pending"),
    CheckConstraint("status NOT IN ('failed', 'held') OR reason IS NOT NULL", name="crm_outbox_reason"),
    # More of them are in `indexes.py`.
    Index("crm_outbox_reference", "reference"),
    sqlite_autoincrement=True,
)

trail = Table(
    "crm_outbox_trail",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("event_id", String(128), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("verb", String(16), nullable=False),  # attempted, delivered, failed, held, released, retried, …
    Column("detail", String(200), nullable=False),  # an answer's words; never a value of the event
    # Append-only: triggers, which the migrations make, refuse anything but INSERT.
    sqlite_autoincrement=True,
)

state = Table(
    "crm_outbox_state",
    metadata,
    Column("one", Integer, primary_key=True),
    Column("outbox_id", String(36), nullable=False),  # tells this outbox from any other
    Column("delivered", BigInteger, nullable=False),  # a count, for a million rows take long to count
    Column("erasures", BigInteger, nullable=False, server_default="0"),  # transactions that erased
    Column("erasing_since", Float),  # erased bytes wait in SQLite's write-ahead log
    CheckConstraint("one = 1", name="crm_outbox_state_is_one_row"),
)

relays = Table(
    "crm_outbox_relays",
    metadata,
    Column("relay_id", String(36), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("running", Boolean, nullable=False),  # false after a clean stop; a killed one is not seen again
    Column("seen_at", Float, nullable=False),
)

hours = Table(
    "crm_outbox_hours",
    metadata,
    Column("hour", Integer, primary_key=True, autoincrement=False),  # since 1970
    Column("verb", String(16), primary_key=True),  # the trail's
    Column("within_ms", BigInteger, primary_key=True, autoincrement=False),  # from commit to receipt, or 0
    Column("count", BigInteger, nullable=False),
)

releases = Table(
    "crm_outbox_releases",
    metadata,
    Column("contract", String(32), primary_key=True),
    Column("delivered", BigInteger, nullable=False),  # a count, for a million rows take long to count
)

alerts = Table(
    "crm_outbox_alerts",
    metadata,
    Column("condition", String(32), primary_key=True),
    Column("since", Float),  # when it was first seen; null while it is not so
    Column("told_at", Float),  # when people were last told of it; null while they were not
    Column("mark", Float, nullable=False, server_default="0"),  # how bad it was then
    Column("over_at", Float),  # when people could last be told that it is over
    Column("unposted", Text),  # a notice as JSON, which CRM_ALERT_URL has not taken yet
    Column("post_at", Float),  # when that is tried next
    Column("seen_at", Float),  # when it was last so
    Column("seen_by", String(36)),  # who saw that
    CheckConstraint("told_at IS NULL OR since IS NOT NULL", name="crm_outbox_alerts_told"),
    CheckConstraint("(unposted IS NULL) = (post_at IS NULL)", name="crm_outbox_alerts_unposted"),
)


def outbox_identity() -> Insert:
    """Return the statement that tells new tables from any other outbox, as `crm-sender migrate` does.

    For a site that makes the tables by its own Alembic: `op.execute(outbox_identity())` in that migration.
    """
    return state.insert().values(one=1, outbox_id=str(uuid.uuid4()), delivered=0)
