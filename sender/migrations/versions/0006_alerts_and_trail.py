"""What people were told of, and a trail that nobody can change."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import context, op

revision = "0006"
down_revision = "0005"

APPEND_ONLY = {
    "sqlite": (
        # INSERT OR REPLACE deletes without a word to the trigger below, unless recursive_triggers is on.
        """
        CREATE TRIGGER crm_outbox_trail_no_replace BEFORE INSERT ON crm_outbox_trail
        WHEN EXISTS (SELECT 1 FROM crm_outbox_trail WHERE number = NEW.number)
        BEGIN SELECT RAISE(ABORT, 'crm_outbox_trail is append-only'); END
        """,
        """
        CREATE TRIGGER crm_outbox_trail_no_update BEFORE UPDATE ON crm_outbox_trail
        BEGIN SELECT RAISE(ABORT, 'crm_outbox_trail is append-only'); END
        """,
        """
        CREATE TRIGGER crm_outbox_trail_no_delete BEFORE DELETE ON crm_outbox_trail
        BEGIN SELECT RAISE(ABORT, 'crm_outbox_trail is append-only'); END
        """,
    ),
    "postgresql": (
        """
        CREATE FUNCTION crm_outbox_trail_refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'crm_outbox_trail is append-only'; END $$
        """,
        """
        CREATE TRIGGER crm_outbox_trail_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON crm_outbox_trail
        FOR EACH STATEMENT EXECUTE FUNCTION crm_outbox_trail_refuse()
        """,
    ),
}


def upgrade() -> None:
    op.create_table(
        "crm_outbox_alerts",
        sa.Column("condition", sa.String(32), primary_key=True),
        sa.Column("since", sa.Float),
        sa.Column("told_at", sa.Float),
        sa.Column("mark", sa.Float, nullable=False, server_default="0"),
        sa.Column("over_at", sa.Float),
        sa.Column("unposted", sa.Text),
        sa.Column("post_at", sa.Float),
        sa.CheckConstraint("told_at IS NULL OR since IS NOT NULL", name="crm_outbox_alerts_told"),
        sa.CheckConstraint("(unposted IS NULL) = (post_at IS NULL)", name="crm_outbox_alerts_unposted"),
    )
    add_triggers(op.execute, context.get_context().dialect.name)


def add_triggers(execute: Callable[[str], Any], dialect: str) -> None:
    for statement in APPEND_ONLY[dialect]:
        execute(statement)
