"""The outbox: events, what happened to them, and the relays that look at it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
UNDELIVERED = sa.text("status IN ('pending', 'held')")
UNFINISHED = sa.text("status IN ('pending', 'held', 'failed')")
NEW_ID = {"sqlite": "lower(hex(randomblob(16)))", "postgresql": "gen_random_uuid()"}


def upgrade() -> None:
    op.create_table(
        "crm_outbox",
        sa.Column("sequence", Number, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(36), nullable=False, unique=True),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("contract", sa.String(32), nullable=False),
        sa.Column("natural_key", sa.String(128), nullable=False),
        sa.Column("order_key", sa.String(128), nullable=False),
        sa.Column("reference", sa.String(128), nullable=False),
        sa.Column("payload", sa.Text),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("due_at", sa.Float, nullable=False),
        sa.Column("lease_token", sa.String(36)),
        sa.Column("lease_until", sa.Float),
        sa.Column("held_for", sa.String(64)),
        sa.Column("held_by", sa.Integer),
        sa.Column("reason", sa.Text),
        sa.Column("answer", sa.Text),
        sa.Column("enqueued_at", sa.Float, nullable=False),
        sa.Column("finished_at", sa.Float),
        sa.UniqueConstraint("event", "natural_key", name="crm_outbox_natural_key"),
        sa.CheckConstraint(
            "status IN ('pending', 'delivered', 'failed', 'held', 'closed', 'erased')",
            name="crm_outbox_status",
        ),
        sa.CheckConstraint(
            "(payload IS NULL) = (status IN ('delivered', 'closed', 'erased'))",
            name="crm_outbox_payload_erased",
        ),
        sa.CheckConstraint("(held_for IS NOT NULL) = (status = 'held')", name="crm_outbox_held_for"),
        sa.CheckConstraint(
            "status IN ('pending', 'held') OR finished_at IS NOT NULL", name="crm_outbox_finished"
        ),
        sa.CheckConstraint("(lease_token IS NULL) = (lease_until IS NULL)", name="crm_outbox_lease"),
        sa.CheckConstraint("lease_token IS NULL OR status = 'pending'", name="crm_outbox_lease_pending"),
        sa.CheckConstraint(
            "status NOT IN ('failed', 'held') OR reason IS NOT NULL", name="crm_outbox_reason"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "crm_outbox_undelivered",
        "crm_outbox",
        ["order_key", "sequence"],
        sqlite_where=UNDELIVERED,
        postgresql_where=UNDELIVERED,
    )
    op.create_index(
        "crm_outbox_unfinished",
        "crm_outbox",
        ["status", "sequence"],
        sqlite_where=UNFINISHED,
        postgresql_where=UNFINISHED,
    )
    op.create_index("crm_outbox_reference", "crm_outbox", ["reference"])
    op.create_index("crm_outbox_finished_at", "crm_outbox", ["finished_at"])
    op.create_table(
        "crm_outbox_trail",
        sa.Column("number", Number, primary_key=True, autoincrement=True),
        sa.Column("event_id", sa.String(36), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("verb", sa.String(16), nullable=False),
        sa.Column("detail", sa.String(200), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_crm_outbox_trail_event_id", "crm_outbox_trail", ["event_id"])
    op.create_table(
        "crm_outbox_state",
        sa.Column("one", sa.Integer, primary_key=True),
        sa.Column("outbox_id", sa.String(36), nullable=False),
        sa.Column("delivered", sa.BigInteger, nullable=False),
        sa.Column("erasures", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("erasing_since", sa.Float),
        sa.CheckConstraint("one = 1", name="crm_outbox_state_is_one_row"),
    )
    # By the database, so that SQL that was printed once makes another identity wherever it is run.
    new_id = NEW_ID[op.get_context().dialect.name]
    op.execute(f"INSERT INTO crm_outbox_state (one, outbox_id, delivered) VALUES (1, {new_id}, 0)")  # noqa: S608
    op.create_table(
        "crm_outbox_relays",
        sa.Column("relay_id", sa.String(36), primary_key=True),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("running", sa.Boolean, nullable=False),
        sa.Column("seen_at", sa.Float, nullable=False),
    )
