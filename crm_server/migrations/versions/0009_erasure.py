"""What erasing a person and retention need: a key, a count, when records were emptied, what is due."""

import os

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

EXPIRING = sa.text("status = 'rejected' AND erased_at IS NULL")


def upgrade() -> None:
    """Create the table with its row, the columns and the index."""
    state = op.create_table(
        "erasure_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("erasures", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("erasing_since", sa.String(length=27), nullable=True),
        sa.CheckConstraint("id = 1", name="ck_erasure_state_one"),
        sa.CheckConstraint("length(key) = 64", name="ck_erasure_state_key"),
        sa.PrimaryKeyConstraint("id", name="pk_erasure_state"),
    )
    op.bulk_insert(state, [{"id": 1, "key": os.urandom(32).hex()}])
    for table in ("customers", "tickets"):
        op.add_column(table, sa.Column("erased_at", sa.String(length=27), nullable=True))
    op.create_index(
        "ix_approvals_expiring",
        "approvals",
        ["decided_at"],
        sqlite_where=EXPIRING,
        postgresql_where=EXPIRING,
    )
