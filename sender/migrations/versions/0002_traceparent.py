"""What trace an event belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("crm_outbox", sa.Column("traceparent", sa.String(55)))
