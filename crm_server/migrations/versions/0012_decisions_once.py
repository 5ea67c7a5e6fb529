"""Which requests a decision on everything was to decide, by which it is known when it is sent twice."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the column."""
    op.add_column("bulk_jobs", sa.Column("digest", sa.String(length=64), nullable=True))
