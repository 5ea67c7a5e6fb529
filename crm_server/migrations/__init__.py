"""The database's history: one file a step under `versions/`, run by `crm-server migrate`."""

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from crm_server.database import Database, count_on, create_file
from crm_server.errors import ConfigurationError, Unavailable
from crm_server.tables import metadata
from generated.operations import CURRENT

STEPS = ("0001", "0002", "0003", "0004", "0005", "0007", "0008", "0009", "0010", "0011", "0012")
"""The steps, oldest first; written here so that other commands need not load alembic to know them."""
NOTING = STEPS[STEPS.index("0011") :]
"""Those at which a database notes which releases of the contract it has received."""
RECEIVED = """
    SELECT release FROM release_uses
    UNION SELECT contract FROM approvals WHERE sequence = (SELECT max(sequence) FROM approvals)
"""
"""The releases of the contract that were received; uses are noted some seconds later, so that the newest request counts."""
CURE = "run `crm-server migrate`"
BEHIND = f"The database is not at the newest step: {CURE}."


def migrate(database: Database) -> None:
    """Create the database where there is none, and bring it to the newest step; harmless to repeat."""
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    if database.file:
        create_file(database.file)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    with database.writing() as connection:
        require_known(*_history(connection), database.file)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        for table in metadata.sorted_tables:
            count_on(connection, table)


def require_migrated(database: Database) -> None:
    """Raise ConfigurationError, with the command, unless the database is at the newest step."""
    if require_ours(database) != STEPS[-1]:
        raise ConfigurationError(BEHIND)


def require_ours(database: Database) -> str:
    """Return the step at which the database is.

    Raises ConfigurationError, with the command, unless `migrate` of this release or of an older one made it.
    """
    if database.file and not database.file.exists():
        raise ConfigurationError(f"There is no database at {database.file}: {CURE}.")
    try:
        with database.reading() as connection:
            current, received = _history(connection)
    except Unavailable as error:
        raise ConfigurationError(str(error)) from None
    if current is None:
        raise ConfigurationError(BEHIND)
    require_known(current, received, database.file)
    return current


def require_known(step: str | None, received: Sequence[str], file: Path | None) -> None:
    """Raise ConfigurationError for a database, in a file where it is SQLite's, that a newer crm-server has used.

    It has migrated it, or has received events of a release of the contract that this one cannot read.
    """
    newer = None
    if step is not None and step not in STEPS:
        newer = f"is at step {step}"
    elif received and _number(newest := max(received, key=_number)) > _number(CURRENT):
        newer = f"has events of the contract's release {newest}"
    if newer:
        raise ConfigurationError(
            f"{file or 'The database'} {newer}, which is newer than this crm-server: install the newer release"
            " again, or go back to a backup of before the update. See docs/backup.md."
        )


def _number(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))


def _history(connection: Connection) -> tuple[str | None, list[str]]:
    """Return the step at which a database is, and the releases of the contract that it has received."""
    if not inspect(connection).has_table("alembic_version"):
        return None, []
    step: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return step, list(connection.execute(text(RECEIVED)).scalars()) if step in NOTING else []
