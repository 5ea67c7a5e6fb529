"""What a decision made, so that it can be taken back; tickets that move, and notes on them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BEFORE = "status IN ('open')"
STATUSES = "status IN ('open', 'in_repair', 'ready', 'closed')"


def upgrade() -> None:
    """Create what is new, and let tickets have more states."""
    op.create_table(
        "decision_records",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("approval_id", sa.String(length=36), nullable=False),
        sa.Column("record", sa.String(length=32), nullable=False),
        sa.Column("record_id", sa.String(length=36), nullable=False),
        sa.Column("created", sa.Boolean(), nullable=False),
        sa.Column("fields", sa.Text(), nullable=False),
        sa.CheckConstraint("record IN ('customer', 'ticket')", name="ck_decision_records_record"),
        sa.ForeignKeyConstraint(["approval_id"], ["approvals.id"], name="fk_decision_records_approval_id"),
        sa.PrimaryKeyConstraint("sequence", name="pk_decision_records"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_decision_records_approval_id", "decision_records", ["approval_id"])
    op.create_index("ix_decision_records_record_id", "decision_records", ["record_id"])
    let_tickets_move()
    op.create_table(
        "ticket_notes",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("ticket_id", sa.String(length=36), nullable=False),
        sa.Column("at", sa.String(length=27), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["ticket_id"], ["tickets.id"], name="fk_ticket_notes_ticket_id"),
        sa.PrimaryKeyConstraint("id", name="pk_ticket_notes"),
    )
    op.create_index("ix_ticket_notes_ticket_id", "ticket_notes", ["ticket_id"])


def let_tickets_move() -> None:
    """Let tickets have more states; SQLite cannot change a check, so the table is made anew.

    By hand, for alembic's own way writes the constraints in another order each time.
    """
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        op.drop_constraint("ck_tickets_status", "tickets", type_="check")
        op.create_check_constraint("ck_tickets_status", "tickets", STATUSES)
        return
    made = connection.execute(sa.text("SELECT sql FROM sqlite_master WHERE name = 'tickets'")).scalar_one()
    op.execute(made.replace("CREATE TABLE tickets", "CREATE TABLE moving_tickets").replace(BEFORE, STATUSES))
    op.execute("INSERT INTO moving_tickets SELECT * FROM tickets")
    op.drop_table("tickets")
    op.rename_table("moving_tickets", "tickets")
    op.create_index("ix_tickets_customer_id", "tickets", ["customer_id"])
    op.create_index("ix_tickets_ticket_number", "tickets", ["ticket_number"])
