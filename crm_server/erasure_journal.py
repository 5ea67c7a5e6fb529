"""What was erased, noted in a file beside the database: a backup does not know it, and what restores one must."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from crm_server.database import Database, create_private, give_to_owner
from crm_server.errors import ConfigurationError, Unavailable
from crm_server.idempotency import Identity

REMAINS = ("id", "contract", "received_at", *(part.name for part in fields(Identity)))
"""What stays of an erased request; its identity is disguised."""
RECORDS = {"approvals": "approval", "customers": "customer", "tickets": "ticket"}


def journal_of(database: Database) -> Path | None:
    """Return where erasures are noted for a later restore: beside the database, None where that is no file."""
    return Path(f"{database.file}.erasures") if database.file else None


@dataclass(frozen=True, slots=True)
class Journal:
    """All that was ever erased."""

    ids: Mapping[str, Mapping[str, str]]
    """By the records' kinds and ids, when it was for the last time."""
    requests: Mapping[str, Mapping[str, Any]]
    """What is left of the requests, by id; not of those that a release erased which did not note it."""


def write_journal(
    journal: Path, at: str, ids: Mapping[str, Sequence[str]], requests: Sequence[Mapping[str, Any]]
) -> None:
    """Note what is about to be erased, durably: ids of the CRM and what is left of requests, see `remains`.

    Neither tells anything of a person without the key, which only the database and its backups hold.

    Whoever calls it erases nothing before it has returned, and it returns when the whole line is on the disk. So a
    last line without its end belongs to a write that failed, by whose transaction nothing was erased: it is taken
    out before the next one is written, and `read_journal` passes over it. Who erases is alone, as all who write.
    Raises Unavailable, with the file as long as it was, when the line cannot be written.
    """
    rest = memoryview(json.dumps({"at": at, **ids, "requests": requests}).encode() + b"\n")
    try:
        with suppress(FileExistsError):
            create_private(journal)
            give_to_owner(journal, journal.with_suffix(""))
        with journal.open("r+b", buffering=0) as file:
            end = file.seek(file.read().rfind(b"\n") + 1)
            file.truncate()
            try:
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
                sync_folder(journal)
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise Unavailable(
            f"{journal} cannot be written: {error.strerror}. Nothing was erased: mend that, and erase again."
        ) from None


def read_journal(journal: Path) -> Journal:
    """Return all that was ever erased.

    A last line without its end is none, see `write_journal`. Raises ConfigurationError for any other line that
    cannot be read.
    """
    found: dict[str, dict[str, str]] = {kind: {} for kind in RECORDS}
    requests: dict[str, dict[str, Any]] = {}
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            for kind, ids in found.items():
                ids.update(dict.fromkeys(entry[kind], entry["at"]))
            for request in entry.get("requests", []):
                requests[request["id"]] = {name: request[name] for name in REMAINS}
        except (ValueError, TypeError, KeyError):
            raise ConfigurationError(
                f"{journal}, line {number}, is damaged, so not all that was erased is known. Put a sound copy of that"
                " file in its place; or take the line out, restore, and erase again by `erase-person` who was"
                " erased at that time. Nothing was restored."
            ) from None
    return Journal(found, requests)


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
