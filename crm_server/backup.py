"""Back a SQLite database up while it is used, and put a backup in its place. See docs/backup.md."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL

from crm_server import audit_trail
from crm_server.audit_trail import Actor
from crm_server.database import Database, utc_now
from crm_server.erasure import empty_log, erase_again, journal_of, read_journal
from crm_server.errors import ConfigurationError
from crm_server.migrations import migrate, require_known

SHARED_FIRST, SHARED_SIZE = 0x40000002, 510
"""The bytes of a database on which every open connection of another process has a lock (SQLite, os_unix.c)."""
CURE = "PostgreSQL has pg_dump and pg_restore for this: see docs/backup.md."


def back_up(database: Database, target: Path) -> None:
    """Write a whole, verified copy of a database to a new file for its owner alone; nobody waits for it.

    Raises ConfigurationError when the file is there, FileNotFoundError when its folder is not.
    """
    source, target = file_of(database), target.absolute()
    if target.exists():
        raise ConfigurationError(f"{target} is there already; a backup replaces nothing.")
    with unfinished(target) as part:
        copy(source, part)
        require_sound(part)
        try:
            os.link(part, target)  # unlike a renaming, this replaces nothing
        except FileExistsError:
            raise ConfigurationError(f"{target} is there already; a backup replaces nothing.") from None
    sync_folder(target)


def restore(database: Database, backup: Path, actor: Actor) -> tuple[Path | None, int]:
    """Put a backup in the place of a database, brought up to date and rid of what was erased since.

    Returns where the database of before was put, if there was one, and how many records were erased again.
    Raises ConfigurationError when a program uses the database, or the backup is none.
    """
    path, backup = file_of(database), backup.absolute()
    if not backup.is_file():
        raise ConfigurationError(f"There is no backup at {backup}.")
    require_sound(backup)
    path.parent.mkdir(parents=True, exist_ok=True)
    with unfinished(path) as part, nobody_using(path):
        copy(backup, part)
        again = prepare(part, database, actor)
        aside = put_aside(path)
        part.rename(path)
    sync_folder(path)
    return aside, again


def file_of(database: Database) -> Path:
    """Return a database's file.

    Raises ConfigurationError where it is none.
    """
    if database.file is None:
        raise ConfigurationError(CURE)
    return database.file


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """Give a new, private file beside another, to become that; whatever is left of it is removed."""
    part = Path(f"{target}.part")
    remove(part)
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        yield part
    finally:
        remove(part)


def remove(file: Path) -> None:
    """Remove a database with what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            os.unlink(f"{file}{suffix}")


def copy(source: Path, target: Path) -> None:
    """Copy a database as it is at one moment into an empty file, durably."""
    with closing(
        sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=10)
    ) as connection:
        try:
            connection.execute("VACUUM INTO ?", [str(target)])
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(f"{source} cannot be copied: {error}.") from None
    sync(target)


def require_sound(file: Path) -> None:
    """Raise ConfigurationError unless a file is a whole database of ours, and not a newer one than we know."""
    step = None
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            faults = [row for (row,) in connection.execute("PRAGMA integrity_check") if row != "ok"]
            faults += connection.execute("PRAGMA foreign_key_check").fetchall()
            (step,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError:
        faults = ["it cannot be read"]
    if faults:
        raise ConfigurationError(f"{file} is damaged, or no database of this CRM.")
    require_known(step)


def prepare(part: Path, database: Database, actor: Actor) -> int:
    """Bring a copy up to date, erase in it what was erased since; return how many records that were."""
    journal = journal_of(database)
    copied = Database(URL.create("sqlite", database=str(part)))
    try:
        migrate(copied)
        again = erase_again(copied, read_journal(journal), actor) if journal else 0
        with copied.writing() as connection:
            audit_trail.append(
                connection, at=utc_now(), actor=actor, verb="restore", record="database", record_id="database"
            )
        empty_log(copied, 0)
    finally:
        copied.close()  # the last connection takes the log into the file
    sync(part)
    return again


@contextmanager
def nobody_using(path: Path) -> Iterator[None]:
    """Keep every other program from using a database, damaged or not.

    Raises ConfigurationError when one does.
    """
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield
        return
    try:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, SHARED_SIZE, SHARED_FIRST)
        except OSError:
            raise ConfigurationError(f"A program uses {path}: end the server first.") from None
        yield
    finally:
        os.close(file)


def put_aside(path: Path) -> Path | None:
    """Give a database, with its log, another name; return that, or None when there is none.

    The database goes first: without it no server starts, while a log is all that a database needs to be whole.
    """
    moment = utc_now().replace("-", "").replace(":", "").partition(".")[0]
    aside = path.with_name(f"{path.name}.before-restore-{moment}")
    moved = False
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")
            moved = True
    return aside if moved else None


def sync(file: Path) -> None:
    """Wait until a file's content is on the disk."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(file: Path) -> None:
    """Wait until a file's name is on the disk."""
    sync(file.absolute().parent)
