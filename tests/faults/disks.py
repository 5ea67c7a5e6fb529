"""What disks and people do to a database file that a program has open, and how it is mended."""

from __future__ import annotations

import os
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

PAGE = 4096

Fault = Callable[[Path, int], AbstractContextManager[None]]
"""Breaks a database, or what the process of that id may do to it; mends it after the block."""


@contextmanager
def deleted(path: Path, _: int) -> Iterator[None]:
    """The file is deleted, and comes back as another file of the same content; its log stays."""
    content = path.read_bytes()
    path.unlink()
    yield
    path.write_bytes(content)


def overwritten(change: Callable[[bytes], bytes]) -> Fault:
    """Make a fault in which the file's content changes in place, with nothing in its log."""

    @contextmanager
    def fault(path: Path, _: int) -> Iterator[None]:
        with closing(sqlite3.connect(path, timeout=10)) as connection:
            busy, *_rest = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            assert not busy
        content = path.read_bytes()
        write_in_place(path, change(content))
        yield
        write_in_place(path, content)

    return fault


def write_in_place(path: Path, content: bytes) -> None:
    """Give the same file another content."""
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


def garbled(content: bytes) -> bytes:
    """Return a database of whose pages only the first can be read."""
    return content[:PAGE] + b"\xa5" * (len(content) - PAGE)


def cut(content: bytes) -> bytes:
    """Return the first half of a database."""
    return content[: len(content) // PAGE // 2 * PAGE]


@contextmanager
def full(path: Path, pid: int) -> Iterator[None]:
    """The process can make no file longer than nothing, as on a full disk."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    yield
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


FAULTS: dict[str, Fault] = {
    "deleted": deleted,
    "emptied": overwritten(lambda _: b""),
    "garbled": overwritten(garbled),
    "full": full,
}


def without_privileges(command: list[str]) -> list[str]:
    """Return a command that permissions bind although root runs it."""
    if os.geteuid() != 0:
        return command
    dropped = "-dac_override,-dac_read_search"
    return ["setpriv", "--bounding-set", dropped, "--inh-caps", dropped, *command]
