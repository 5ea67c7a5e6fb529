"""Alembic's environment: `sender.cli migrate` gives the connection, or asks for SQL."""

from alembic import context

from sender.indexes import metadata
from sender.tables import VERSION_TABLE

if context.is_offline_mode():
    context.configure(
        dialect_name=context.config.attributes["dialect"],
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        literal_binds=True,
        transactional_ddl=False,  # the transaction is of who runs it: Django's RunSQL has begun one
    )
    with context.begin_transaction():
        context.run_migrations()
else:
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        version_table=VERSION_TABLE,
    )
    context.run_migrations()
