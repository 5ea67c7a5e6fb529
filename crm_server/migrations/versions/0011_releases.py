"""Who sends which release of the contract, and which releases are retired."""

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

DAYS = 30
SEEN = """
    INSERT INTO release_uses (release, key, day, count, last_at)
    SELECT contract, coalesce(received_by, ''), substr(received_at, 1, 10), count(*), max(received_at)
    FROM approvals WHERE received_at >= :since
    GROUP BY contract, coalesce(received_by, ''), substr(received_at, 1, 10)
"""


def upgrade() -> None:
    """Create the tables, and note who sent what in the last days."""
    op.create_table(
        "release_uses",
        sa.Column("release", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=12), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.String(length=27), nullable=False),
        sa.PrimaryKeyConstraint("release", "key", "day", name="pk_release_uses"),
    )
    op.create_table(
        "retired_releases",
        sa.Column("release", sa.String(length=32), nullable=False),
        sa.Column("retired_at", sa.String(length=27), nullable=False),
        sa.PrimaryKeyConstraint("release", name="pk_retired_releases"),
    )
    since = (datetime.now(UTC) - timedelta(days=DAYS)).date().isoformat()
    op.execute(sa.text(SEEN).bindparams(since=since))
