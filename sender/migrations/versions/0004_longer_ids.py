"""An id that a client of the outbox's own door chose has up to 128 characters, as the contract says."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":  # SQLite bounds no text
        op.alter_column("crm_outbox", "id", type_=sa.String(128))
        op.alter_column("crm_outbox_trail", "event_id", type_=sa.String(128))
