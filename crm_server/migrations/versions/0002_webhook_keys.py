"""When each webhook key was used."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of the keys' use."""
    op.create_table(
        "webhook_keys",
        sa.Column("fingerprint", sa.String(length=12), nullable=False),
        sa.Column("first_used_at", sa.String(length=27), nullable=False),
        sa.Column("last_used_at", sa.String(length=27), nullable=False),
        sa.CheckConstraint("first_used_at <= last_used_at", name="ck_webhook_keys_order"),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_webhook_keys"),
    )
