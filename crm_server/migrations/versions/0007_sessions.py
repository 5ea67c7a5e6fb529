"""Who is logged in on the staff pages."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None

DECIDED = sa.text("decided_at IS NOT NULL")


def upgrade() -> None:
    """Create what is new."""
    op.create_table(
        "staff_sessions",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("staff_id", sa.String(length=36), nullable=False),
        sa.Column("started_at", sa.String(length=27), nullable=False),
        sa.Column("seen_at", sa.String(length=27), nullable=False),
        sa.CheckConstraint("started_at <= seen_at", name="ck_staff_sessions_order"),
        sa.ForeignKeyConstraint(["staff_id"], ["staff.id"], name="fk_staff_sessions_staff_id"),
        sa.PrimaryKeyConstraint("digest", name="pk_staff_sessions"),
    )
    op.create_index("ix_staff_sessions_staff_id", "staff_sessions", ["staff_id"])
    # Figures by day are read from these alone, however many requests there are.
    op.create_index("ix_approvals_received_at", "approvals", ["received_at"])
    op.create_index(
        "ix_approvals_decided_at_status",
        "approvals",
        ["decided_at", "status"],
        sqlite_where=DECIDED,
        postgresql_where=DECIDED,
    )
