"""Who last saw that something is wrong; and a booking writes one index less."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

FINISHED = sa.text("finished_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("crm_outbox_alerts", sa.Column("seen_at", sa.Float))
    op.add_column("crm_outbox_alerts", sa.Column("seen_by", sa.String(36)))
    op.drop_index("crm_outbox_finished_at", "crm_outbox")
    op.create_index(
        "crm_outbox_finished_at",
        "crm_outbox",
        ["finished_at"],
        sqlite_where=FINISHED,
        postgresql_where=FINISHED,
    )
