"""Erasure: of a person, of what stays too long, and of the bytes that SQLite's log still holds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from sqlalchemy import Engine

from sender import outbox
from sender.database import PAUSE, begin_work, reading, truncate_log
from sender.delivery import Status

PART = 100
"""Events that are looked through, or erased, in one transaction, some milliseconds."""

SHARE = 4
"""So many times as long as a transaction took, the database is left to others."""

POLL = 0.05
"""Seconds between two looks whether something is in flight still."""

EMPTY = 3.0
"""Seconds in which programs may end that keep erased bytes in SQLite's log."""


def find(engine: Engine, email: str, users: Collection[str] = ()) -> tuple[Sequence[Any], set[str]]:
    """Return what is not delivered yet of a person: by an e-mail address, in whatever case, in any field.

    And then by every `websiteUserId` that this brings, or that is known already: they are returned, too.
    No row holds a payload.
    """
    word = email.lower()
    ids, users = set[str](), set(users)
    states: tuple[Status, ...] = ("pending", "held", "failed")
    for status in states:
        after = 0
        while True:
            with reading(engine) as connection:
                rows = outbox.payloads_after(connection, status, after, PART)
            if not rows:
                break
            for after, event_id, user, payload in rows:  # noqa: B007  # the last one is where to go on
                if is_mentioned(word, payload):
                    ids.add(event_id)
                    users.add(user)
    with reading(engine) as connection:
        return outbox.unfinished_of(connection, users, ids), users


def is_mentioned(word: str, payload: str) -> bool:
    """Say whether a text in a payload is a word, which is in lower case; a damaged payload needs only hold it."""
    is_written = word in payload.lower()
    if not is_written and "\\" not in payload:
        return False
    try:
        return word in _texts(json.loads(payload))
    except (ValueError, RecursionError):
        return is_written


def _texts(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value.lower()}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {text for each in inner for text in _texts(each)}


def erase(engine: Engine, ids: Sequence[str], lease: float, actor: str) -> int:
    """Erase those of these events that are not delivered yet; return how many.

    What is in flight is waited for. A lease that its relay does not give back, because it was stopped,
    runs out: so two leases are enough to wait, unless a relay takes the event again and again.
    """
    until = time.monotonic() + 2 * lease
    erased, left = 0, list(ids)
    while left and time.monotonic() < until:
        some, left = left[:PART], left[PART:]
        with engine.begin() as connection:
            now = begin_work(connection, time.time)
            gone, stays = outbox.erase(connection, some, now, lease, actor)
        erased += len(gone)
        left += stays
        time.sleep(POLL if len(stays) == len(some) else PAUSE)
    return erased


def expire(engine: Engine, seconds: float, clock: Callable[[], float]) -> int:
    """Erase what failed, or was last held, so many seconds ago, in small transactions; return how many."""
    erased = 0
    while True:
        began = time.monotonic()
        with engine.begin() as connection:
            begin_work(connection, clock)
            gone = outbox.expire(connection, clock() - seconds, clock(), PART)
        if not gone:
            return erased
        erased += gone
        time.sleep(SHARE * (time.monotonic() - began))


def empty_log(engine: Engine, clock: Callable[[], float], patience: float = 0.0) -> bool:
    """Empty SQLite's write-ahead log of what was erased. Return whether nothing of it is left.

    A reader keeps the log: it is tried again for as many seconds as there is `patience`.
    """
    until = time.monotonic() + patience
    while True:
        with reading(engine) as connection:
            since, erasures = outbox.erasing_since(connection)
        if since is None:
            return True
        if truncate_log(engine):
            with engine.begin() as connection:
                outbox.erased(connection, erasures, begin_work(connection, clock))
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(POLL)
