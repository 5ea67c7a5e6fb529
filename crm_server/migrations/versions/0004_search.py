"""The search index of the approval queue, and searches that staff save."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BYTEWISE = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")


def upgrade() -> None:
    """Create the tables; the server fills the index."""
    op.create_table(
        "search_documents",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("public_words", sa.Text(), nullable=False),
        sa.Column("personal_words", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["sequence"], ["approvals.sequence"], name="fk_search_documents_sequence"),
        sa.PrimaryKeyConstraint("sequence", name="pk_search_documents"),
    )
    op.create_table(
        "search_terms",
        sa.Column("term", BYTEWISE, nullable=False),
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("personal", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("term", "sequence", name="pk_search_terms"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "searches",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("staff_id", sa.String(length=36), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(length=27), nullable=False),
        sa.ForeignKeyConstraint(["staff_id"], ["staff.id"], name="fk_searches_staff_id"),
        sa.PrimaryKeyConstraint("id", name="pk_searches"),
    )
    op.create_index("ix_searches_created_at", "searches", ["created_at"])
