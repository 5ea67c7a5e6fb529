"""The webhook keys, by fingerprint: when each was first and last used, and which is due to be changed."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, select, update

from crm_server.database import insert_or_ignore, utc_now
from crm_server.errors import Unavailable
from crm_server.metrics import Counter
from crm_server.tables import webhook_keys

NOTE_SECONDS = 60.0
"""How old a key's last use may be in the database; it is not written with every request."""
LARGEST_AGE_DAYS = 90
"""Days after its first use at which a key is due to be changed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyInUse:
    """A key that the settings name, that was used, or both."""

    fingerprint: str
    is_set: bool
    """Whether the settings name it, so that it is right today."""
    first_used_at: str | None
    last_used_at: str | None
    days: int | None
    """Since its first use."""

    @property
    def is_due(self) -> bool:
        """Whether it should be changed for a new one."""
        return self.is_set and self.days is not None and self.days >= LARGEST_AGE_DAYS

    @property
    def state(self) -> str:
        """What an operator should know of it."""
        if not self.is_set:
            return "no longer set"
        return f"in use for more than {LARGEST_AGE_DAYS} days: change it" if self.is_due else "set"


class KeyUse:
    """Has the use of a key written, once a minute at most."""

    def __init__(self, write: Callable[[str], Awaitable[None]], uses: Counter[str]) -> None:
        """Prepare; `write` stores that a key was used now, by its fingerprint; `uses` counts each use."""
        self._write, self._uses = write, uses
        self._due: dict[str, float] = {}
        self._writing: set[asyncio.Task[None]] = set()

    def note(self, key: str) -> None:
        """Note that a key, by its fingerprint, was used now."""
        self._uses.add(key)
        now = time.monotonic()
        if now < self._due.get(key, 0.0):
            return
        self._due[key] = now + NOTE_SECONDS
        task = asyncio.get_running_loop().create_task(self._store(key))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _store(self, key: str) -> None:
        try:
            await self._write(key)
        except Unavailable as error:
            log.warning("The use of key %s was not noted: %s", key, error)


def fingerprint(key: str) -> str:
    """Return what names a key without telling it: 12 hexadecimal digits."""
    return hashlib.sha256(f"revivatech webhook key\n{key}".encode()).hexdigest()[:12]


def record_use(connection: Connection, key: str) -> None:
    """Write that a key, by its fingerprint, was used now."""
    now = utc_now()
    row = {"fingerprint": key, "first_used_at": now, "last_used_at": now}
    connection.execute(insert_or_ignore(connection.dialect.name, webhook_keys), row)
    is_older = (webhook_keys.c.fingerprint == key) & (webhook_keys.c.last_used_at < now)
    connection.execute(update(webhook_keys).where(is_older).values(last_used_at=now))


def list_keys(connection: Connection, keys: Iterable[str], now: datetime | None = None) -> list[KeyInUse]:
    """Return the keys that the settings name, in their order, then those that only were used once."""
    used = {
        row.fingerprint: row for row in connection.execute(select(webhook_keys).order_by("first_used_at"))
    }
    named = [fingerprint(key) for key in keys]
    found = []
    for name in dict.fromkeys([*named, *used]):
        row = used.get(name)
        first, last = (row.first_used_at, row.last_used_at) if row else (None, None)
        days = ((now or datetime.now(UTC)) - datetime.fromisoformat(first)).days if first else None
        found.append(KeyInUse(name, name in named, first, last, days))
    return found


def warn_of_old_keys(connection: Connection, keys: Iterable[str]) -> None:
    """Log each key that is due to be changed."""
    for key in list_keys(connection, keys):
        if key.is_due:
            log.warning(
                "The webhook key %s was first used %d days ago: change it, see docs/security.md.",
                key.fingerprint,
                key.days,
            )
