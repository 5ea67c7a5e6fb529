"""The CRM's receipt of a delivered event: by its id the CRM says what was decided."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("crm_outbox", sa.Column("receipt_id", sa.String(128)))
