"""The outbox's tables, from one release to the next: by our own steps, or by a site's from `sender.metadata`.

A step only adds, so that the release before still runs after it: the bookings beside cannot go back to a backup.
"""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from sender import tables
from sender.errors import OutboxError
from sender.indexes import metadata

_OUR_TRIGGERS = {
    "sqlite": text(
        "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND tbl_name LIKE 'crm_outbox%'"
    ),
    "postgresql": text("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'crm_outbox%'"),
}


def are_the_sites(connection: Connection) -> bool:
    """Say whether the tables are there, and were not made by our steps."""
    there = inspect(connection)
    return there.has_table(tables.outbox.name) and not there.has_table(tables.VERSION_TABLE)


def require_complete(connection: Connection) -> None:
    """Give tables that a site's own migrations made what `sender.metadata` cannot hold: identity and triggers.

    Raises OutboxError when they are not as this release needs them.
    """
    ours = {"include_name": lambda name, kind, _: kind != "table" or name in metadata.tables}
    differences = compare_metadata(MigrationContext.configure(connection, opts=ours), metadata)
    if differences:
        raise OutboxError(
            "the outbox's tables were made by the site's own migrations, and this release has others: make the "
            f"next of them from sender.metadata ({len(differences)} differences)"
        )
    if connection.scalar(tables.state.select()) is None:
        connection.execute(tables.outbox_identity())
    if not connection.scalar(_OUR_TRIGGERS[connection.dialect.name]):
        config = Config()
        config.set_main_option("script_location", "sender:migrations")
        for step in reversed(list(ScriptDirectory.from_config(config).walk_revisions())):
            if add_triggers := getattr(step.module, "add_triggers", None):
                add_triggers(connection.exec_driver_sql, connection.dialect.name)
