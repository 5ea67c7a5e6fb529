"""The database's history: one file a step under `versions/`, run by `crm-server migrate`."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from crm_server.database import Database, create_file
from crm_server.errors import ConfigurationError, Unavailable

CURE = "run `crm-server migrate`"


def migrate(database: Database) -> None:
    """Create the database where there is none, and bring it to the newest step; harmless to repeat."""
    if database.file:
        create_file(database.file)
    with database.writing() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def require_migrated(database: Database) -> None:
    """Raise ConfigurationError, with the command, unless the database is at the newest step."""
    if database.file and not database.file.exists():
        raise ConfigurationError(f"There is no database at {database.file}: {CURE}.")
    try:
        with database.reading() as connection:
            current = _current(connection)
    except Unavailable as error:
        raise ConfigurationError(str(error)) from None
    if current != ScriptDirectory.from_config(_config()).get_current_head():
        raise ConfigurationError(f"The database is not at the newest step: {CURE}.")


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
