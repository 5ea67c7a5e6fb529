"""Decisions that staff are sure of: on everything that matches, whose request it is, what is corrected."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create what is new."""
    create_jobs()
    create_corrections()
    op.create_index("ix_tickets_status_id", "tickets", ["status", "id"])
    op.add_column("approvals", sa.Column("received_by", sa.String(length=12), nullable=True))
    op.add_column("approvals", sa.Column("received_from", sa.String(length=64), nullable=True))


def create_jobs() -> None:
    """Create: Decisions on everything that matched a filter."""
    op.create_table(
        "bulk_jobs",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("verb", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("decided", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("origin", sa.String(length=64), nullable=True),
        sa.Column("started_at", sa.String(length=27), nullable=False),
        sa.Column("finished_at", sa.String(length=27), nullable=True),
        sa.CheckConstraint("verb IN ('approve', 'reject')", name="ck_bulk_jobs_verb"),
        sa.CheckConstraint("state IN ('running', 'done')", name="ck_bulk_jobs_state"),
        sa.CheckConstraint("(state = 'done') = (finished_at IS NOT NULL)", name="ck_bulk_jobs_finished_at"),
        sa.CheckConstraint("state = 'running' OR reason IS NULL", name="ck_bulk_jobs_reason"),
        sa.CheckConstraint("decided + refused <= total", name="ck_bulk_jobs_counts"),
        sa.CheckConstraint("state = 'running' OR decided + refused = total", name="ck_bulk_jobs_all"),
        sa.PrimaryKeyConstraint("id", name="pk_bulk_jobs"),
    )
    op.create_index("ix_bulk_jobs_state", "bulk_jobs", ["state"])
    op.create_table(
        "bulk_parts",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sequences", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["bulk_jobs.id"], name="fk_bulk_parts_job_id"),
        sa.PrimaryKeyConstraint("job_id", "number", name="pk_bulk_parts"),
    )
    op.create_table(
        "bulk_refusals",
        sa.Column("sequence", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("approval_id", sa.String(length=36), nullable=False),
        sa.Column("why", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=True),
        sa.Column("by", sa.String(length=128), nullable=True),
        sa.Column("at", sa.String(length=27), nullable=True),
        sa.CheckConstraint("(status IS NULL) = (at IS NULL)", name="ck_bulk_refusals_at"),
        sa.CheckConstraint('(status IS NULL) = ("by" IS NULL)', name="ck_bulk_refusals_by"),
        sa.ForeignKeyConstraint(["job_id"], ["bulk_jobs.id"], name="fk_bulk_refusals_job_id"),
        sa.ForeignKeyConstraint(["approval_id"], ["approvals.id"], name="fk_bulk_refusals_approval_id"),
        sa.PrimaryKeyConstraint("sequence", name="pk_bulk_refusals"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_bulk_refusals_job_id", "bulk_refusals", ["job_id"])


def create_corrections() -> None:
    """Create: Who is the same customer, and what fields said before they were corrected."""
    op.create_index("ix_customers_email", "customers", [sa.text("lower(email)")])
    op.create_table(
        "customer_website_users",
        sa.Column("website_user_id", sa.String(length=64), nullable=False),
        sa.Column("customer_id", sa.String(length=36), nullable=False),
        sa.Column("approval_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_id"], ["customers.id"], name="fk_customer_website_users_customer_id"
        ),
        sa.ForeignKeyConstraint(
            ["approval_id"], ["approvals.id"], name="fk_customer_website_users_approval_id"
        ),
        sa.PrimaryKeyConstraint("website_user_id", name="pk_customer_website_users"),
    )
    for column in ("customer_id", "approval_id"):
        op.create_index(f"ix_customer_website_users_{column}", "customer_website_users", [column])
    op.create_table(
        "corrections",
        sa.Column("sequence", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("record", sa.String(length=32), nullable=False),
        sa.Column("record_id", sa.String(length=36), nullable=False),
        sa.Column("field", sa.String(length=32), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("at", sa.String(length=27), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("approval_id", sa.String(length=36), nullable=True),
        sa.CheckConstraint("record IN ('customer', 'ticket')", name="ck_corrections_record"),
        sa.ForeignKeyConstraint(["approval_id"], ["approvals.id"], name="fk_corrections_approval_id"),
        sa.PrimaryKeyConstraint("sequence", name="pk_corrections"),
        sqlite_autoincrement=True,
    )
    for column in ("record_id", "approval_id"):
        op.create_index(f"ix_corrections_{column}", "corrections", [column])
