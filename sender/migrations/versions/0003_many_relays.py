"""What finds a customer's lease at once, and what tells relays of a commit."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

LEASED = sa.text("lease_until IS NOT NULL")

TELL = """
CREATE FUNCTION crm_outbox_tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('crm_outbox', '');
    RETURN NULL;
END
$$
"""
TELLS = """
CREATE TRIGGER crm_outbox_tells AFTER INSERT ON crm_outbox
FOR EACH STATEMENT EXECUTE FUNCTION crm_outbox_tell()
"""


def upgrade() -> None:
    op.create_index(
        "crm_outbox_leased", "crm_outbox", ["order_key"], sqlite_where=LEASED, postgresql_where=LEASED
    )
    add_triggers(op.execute, op.get_context().dialect.name)


def add_triggers(execute: Callable[[str], Any], dialect: str) -> None:
    if dialect == "postgresql":
        execute(TELL)
        execute(TELLS)
