"""What version 1.1.0 of the contract brings: of which repair a request tells more, and an estimate's currency."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TELLS_MORE = sa.text("about IS NOT NULL")


def upgrade() -> None:
    """Create the columns, and the index of those few that tell more of a repair."""
    op.add_column("approvals", sa.Column("about", sa.String(length=64), nullable=True))
    op.create_index(
        "ix_approvals_about",
        "approvals",
        ["about", "sequence"],
        sqlite_where=TELLS_MORE,
        postgresql_where=TELLS_MORE,
    )
    op.add_column("tickets", sa.Column("currency", sa.String(length=3), nullable=True))
