"""How many events of each release of the contract were delivered."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

DELIVERED = """
INSERT INTO crm_outbox_releases (contract, delivered)
SELECT contract, count(*) FROM crm_outbox WHERE status = 'delivered' GROUP BY contract
"""


def upgrade() -> None:
    op.create_table(
        "crm_outbox_releases",
        sa.Column("contract", sa.String(32), primary_key=True),
        sa.Column("delivered", sa.BigInteger, nullable=False),
    )
    op.execute(DELIVERED)
