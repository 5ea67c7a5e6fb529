"""The queue, the records and the trail."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = {
    "sqlite": (
        """
        CREATE TRIGGER audit_trail_no_update BEFORE UPDATE ON audit_trail
        BEGIN SELECT RAISE(ABORT, 'audit_trail is append-only'); END
        """,
        """
        CREATE TRIGGER audit_trail_no_delete BEFORE DELETE ON audit_trail
        BEGIN SELECT RAISE(ABORT, 'audit_trail is append-only'); END
        """,
    ),
    "postgresql": (
        """
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$
        """,
        """
        CREATE TRIGGER audit_trail_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_trail
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
        """,
    ),
}


def upgrade() -> None:
    """Create every table, and what keeps the trail append-only."""
    create_queue()
    create_records()
    create_trail()


def create_queue() -> None:
    """Create: The approval queue."""
    op.create_table(
        "approvals",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("natural_key", sa.String(length=64), nullable=False),
        sa.Column("webhook_id", sa.String(length=128), nullable=True),
        sa.Column("contract", sa.String(length=32), nullable=False),
        sa.Column("payload", sa.Text(), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("received_at", sa.String(length=27), nullable=False),
        sa.Column("decided_at", sa.String(length=27), nullable=True),
        sa.Column("decided_by", sa.String(length=128), nullable=True),
        sa.Column("erased_at", sa.String(length=27), nullable=True),
        sa.CheckConstraint(
            "(status = 'pending_approval') = (decided_at IS NULL)", name="ck_approvals_decided_at"
        ),
        sa.CheckConstraint(
            "status IN ('pending_approval', 'approved', 'rejected')", name="ck_approvals_status"
        ),
        sa.CheckConstraint("(decided_at IS NULL) = (decided_by IS NULL)", name="ck_approvals_decided_by"),
        sa.CheckConstraint("(payload IS NULL) = (erased_at IS NOT NULL)", name="ck_approvals_erased"),
        sa.CheckConstraint("length(digest) = 64", name="ck_approvals_digest"),
        sa.PrimaryKeyConstraint("sequence", name="pk_approvals"),
        sa.UniqueConstraint("event", "natural_key", name="uq_approvals_event_natural_key"),
        sa.UniqueConstraint("id", name="uq_approvals_id"),
        sa.UniqueConstraint("webhook_id", name="uq_approvals_webhook_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "rejection_reasons",
        sa.Column("approval_id", sa.String(length=36), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["approval_id"], ["approvals.id"], name="fk_rejection_reasons_approval_id"),
        sa.PrimaryKeyConstraint("approval_id", name="pk_rejection_reasons"),
    )
    op.create_table(
        "heartbeat",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.String(length=27), nullable=False),
        sa.CheckConstraint("id = 1", name="ck_heartbeat_one"),
        sa.PrimaryKeyConstraint("id", name="pk_heartbeat"),
    )


def create_records() -> None:
    """Create: Customers and tickets."""
    op.create_table(
        "customers",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("website_user_id", sa.String(length=64), nullable=False),
        sa.Column("first_name", sa.String(length=200), nullable=True),
        sa.Column("last_name", sa.String(length=200), nullable=True),
        sa.Column("email", sa.String(length=254), nullable=True),
        sa.Column("phone", sa.String(length=64), nullable=True),
        sa.Column("language", sa.String(length=35), nullable=True),
        sa.Column("registered_at", sa.String(length=32), nullable=True),
        sa.Column("registration_source", sa.String(length=64), nullable=True),
        sa.Column("preferences", sa.Text(), nullable=True),
        sa.Column("created_at", sa.String(length=27), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_customers"),
        sa.UniqueConstraint("website_user_id", name="uq_customers_website_user_id"),
    )
    op.create_table(
        "tickets",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("website_repair_id", sa.String(length=64), nullable=False),
        sa.Column("ticket_number", sa.String(length=64), nullable=False),
        sa.Column("customer_id", sa.String(length=36), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("customer_name", sa.String(length=400), nullable=True),
        sa.Column("customer_email", sa.String(length=254), nullable=True),
        sa.Column("device_type", sa.String(length=200), nullable=False),
        sa.Column("device_model", sa.String(length=200), nullable=True),
        sa.Column("issue_description", sa.Text(), nullable=True),
        sa.Column("service_type", sa.String(length=64), nullable=True),
        sa.Column("priority", sa.String(length=16), nullable=True),
        sa.Column("language", sa.String(length=35), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("notes", sa.Text(), nullable=True),
        sa.Column("estimated_cost", sa.Float(), nullable=True),
        sa.Column("photos", sa.Text(), nullable=True),
        sa.Column("booked_at", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.String(length=27), nullable=False),
        sa.CheckConstraint("status IN ('open')", name="ck_tickets_status"),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name="fk_tickets_customer_id"),
        sa.PrimaryKeyConstraint("id", name="pk_tickets"),
        sa.UniqueConstraint("website_repair_id", name="uq_tickets_website_repair_id"),
    )
    op.create_index("ix_tickets_customer_id", "tickets", ["customer_id"], unique=False)
    op.create_index("ix_tickets_ticket_number", "tickets", ["ticket_number"], unique=False)


def create_trail() -> None:
    """Create: The audit trail."""
    op.create_table(
        "audit_trail",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("at", sa.String(length=27), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("verb", sa.String(length=32), nullable=False),
        sa.Column("record", sa.String(length=32), nullable=False),
        sa.Column("record_id", sa.String(length=36), nullable=False),
        sa.Column("pointers", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_audit_trail"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_trail_record_id", "audit_trail", ["record_id"], unique=False)
    for statement in APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)
