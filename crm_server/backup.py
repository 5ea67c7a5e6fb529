"""Back a SQLite database up while it is used, and put a backup in its place. See docs/backup.md."""

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Table, delete, insert, select
from sqlalchemy.exc import IntegrityError

from crm_server import audit_trail
from crm_server.audit_trail import Actor
from crm_server.database import Database, create_private, give_to_owner, utc_now
from crm_server.erasure import empty_log
from crm_server.erasure_again import ErasedAgain, erase_again
from crm_server.erasure_journal import journal_of, read_journal, sync, sync_folder
from crm_server.errors import ConfigurationError
from crm_server.migrations import NOTING, RECEIVED, migrate, require_known, require_ours
from crm_server.tables import searches, staff, staff_sessions, staff_tokens

SHARED_FIRST, SHARED_SIZE = 0x40000002, 510
"""The bytes of a database on which every open connection of another process has a lock (SQLite, os_unix.c)."""
CURE = "PostgreSQL has pg_dump and pg_restore for this: see docs/backup.md."

ERASED = (
    "SELECT 1 FROM audit_trail WHERE verb = 'erase' AND (actor LIKE 'cli:%' OR actor LIKE 'staff:%') LIMIT 1"
)
"""Finds whether people were erased: what goes by itself, past its time, is not noted in the journal."""

UNFINISHED = ".part"
"""The end of the name of a file that is made, or was when its program was killed."""

Rows = Mapping[Table, Sequence[Mapping[str, Any]]]
"""The rows of some tables."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did."""

    aside: Path | None
    """Where the database of before was put, if there was one."""
    erased: ErasedAgain
    keeps_staff: bool
    """Whether the staff are as they were until then; otherwise they are as in the backup."""


def back_up(database: Database, target: Path) -> None:
    """Write a whole, verified copy of a database to a new file for its owner alone; nobody waits for it.

    An older release's is copied as it is: a backup is wanted most before `migrate` changes it. Raises ConfigurationError
    when it is none of ours or the file is there, FileNotFoundError when its folder is not.
    """
    source, target = file_of(database), target.absolute()
    require_ours(database)
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


def restore(database: Database, backup: Path, actor: Actor) -> Restored:
    """Put a backup in the place of a database, brought up to date and rid of what was erased since.

    The staff, their passwords and tokens stay as they are, where that can be read, and nobody stays logged in.
    Raises ConfigurationError when a program uses the database, the backup is none, what was erased since cannot be
    read, or there is no room.
    """
    path, backup = file_of(database), backup.absolute()
    if not backup.is_file():
        raise ConfigurationError(f"There is no backup at {backup}.")
    if (backup.parent, backup.suffix) == (path.parent, UNFINISHED):
        raise ConfigurationError(f"{backup} has a name of files that a restore removes: give it another.")
    require_sound(backup)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In this order: where there was no database, another restore may have put one there by now.
    with unfinished(path) as part, nobody_using(path) as file:
        kept = None if file is None else read_staff(path, file, journal_of(database))
        copy(backup, part)
        erased, keeps_staff = prepare(part, database, kept, actor)
        give_to_owner(part, path.parent if file is None else path)
        aside = put_aside(path)
        part.rename(path)
    sync_folder(path)
    return Restored(aside, erased, keeps_staff)


def file_of(database: Database) -> Path:
    """Return a database's file.

    Raises ConfigurationError where it is none.
    """
    if database.file is None:
        raise ConfigurationError(CURE)
    return database.file


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """Give a new, private file beside another, to become that; whatever is left of it is removed.

    Raises ConfigurationError while another program makes one.
    """
    part = Path(f"{target}{UNFINISHED}")
    with alone(Path(f"{part}.lock"), target):
        remove(part)
        create_private(part)
        try:
            yield part
        finally:
            remove(part)


@contextmanager
def alone(lock: Path, target: Path) -> Iterator[None]:
    """Keep every other program from making a file, by another one beside it, which is gone afterwards.

    Raises ConfigurationError when one makes it.
    """
    file = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_there = os.path.samestat(os.fstat(file), os.stat(lock))  # not removed by who had it until now
        except (BlockingIOError, FileNotFoundError):
            is_there = False
        if not is_there:
            raise ConfigurationError(f"Another backup or restore makes {target} now: let it end first.")
        try:
            yield
        finally:
            os.unlink(lock)
    finally:
        os.close(file)


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
    step, received = None, []
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            faults = [row for (row,) in connection.execute("PRAGMA integrity_check") if row != "ok"]
            faults += connection.execute("PRAGMA foreign_key_check").fetchall()
            (step,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            if step in NOTING:
                received = [release for (release,) in connection.execute(RECEIVED)]
    except sqlite3.DatabaseError:
        faults = ["it cannot be read"]
    if faults:
        raise ConfigurationError(f"{file} is damaged, or no database of this CRM.")
    require_known(step, received, file)


def read_staff(path: Path, file: int, journal: Path | None) -> Rows | None:
    """Read the staff and their tokens from a database that is locked; return None when they cannot be read.

    Nor are they when there is nobody: people are never deleted, so that database was begun anew. Raises
    ConfigurationError when there is no room for a copy, or people were erased and the journal is not there.
    """
    with unfinished(Path(f"{path}.staff")) as copied:
        # To open the file itself, and close it, would drop this process's lock on it (POSIX).
        log = Path(f"{copied}-wal")
        try:
            with open(file, "rb", closefd=False) as source, copied.open("wb") as target:
                shutil.copyfileobj(source, target)
            log.touch(0o600)
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{path}-wal", log)
        except OSError as error:
            raise ConfigurationError(
                f"The staff in {path} cannot be copied: {error.strerror}. Make room for a copy of that file; or"
                " move it elsewhere, and the staff will be those of the backup."
            ) from None
        erased = False
        try:
            with closing(sqlite3.connect(copied)) as connection:
                connection.row_factory = sqlite3.Row
                found = {
                    table: [dict(row) for row in connection.execute(str(select(table)))]
                    for table in (staff, staff_tokens)
                }
                with suppress(sqlite3.DatabaseError):  # damaged, while the staff are not
                    erased = connection.execute(ERASED).fetchone() is not None
        except sqlite3.DatabaseError:
            return None
    if erased and journal and not journal.exists():
        raise ConfigurationError(
            f"People were erased in {path}, and {journal}, which names them, is not there: a backup may hold them. Put"
            " that file back; or put an empty one there, restore, and erase them again by `erase-person`. Nothing"
            " was restored."
        )
    return found if found[staff] else None


def keep_staff(copied: Database, kept: Rows | None) -> bool:
    """Log everybody out, and give a copy the staff that are kept; return whether it has them."""
    with copied.writing() as connection:
        connection.execute(delete(staff_sessions))
        if kept is None:
            return False
        try:
            with connection.begin_nested():
                # Searches are somebody's, who may not be among the kept; they last for a day only.
                for table in (searches, staff_tokens, staff):
                    connection.execute(delete(table))
                for table, rows in kept.items():
                    if rows:
                        connection.execute(insert(table), rows)
        except IntegrityError:  # what was read is damaged
            return False
    return True


def prepare(part: Path, database: Database, kept: Rows | None, actor: Actor) -> tuple[ErasedAgain, bool]:
    """Bring a copy up to date, give it the staff that are kept, erase in it what was erased since.

    Returns what was erased again, and whether the copy has the staff.
    """
    journal = journal_of(database)
    copied = Database(URL.create("sqlite", database=str(part)))
    try:
        migrate(copied)
        keeps_staff = keep_staff(copied, kept)
        again = erase_again(copied, read_journal(journal), actor) if journal else ErasedAgain()
        with copied.writing() as connection:
            audit_trail.append(
                connection, at=utc_now(), actor=actor, verb="restore", record="database", record_id="database"
            )
        empty_log(copied, 0)
    finally:
        copied.close()  # the last connection takes the log into the file
    sync(part)
    return again, keeps_staff


@contextmanager
def nobody_using(path: Path) -> Iterator[int | None]:
    """Keep every other program from using a database, damaged or not; give its open file, None where there is none.

    Raises ConfigurationError when one does.
    """
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, SHARED_SIZE, SHARED_FIRST)
        except OSError:
            raise ConfigurationError(f"A program uses {path}: end the server first.") from None
        yield file
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
