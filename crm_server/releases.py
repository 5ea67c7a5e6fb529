"""The contract's releases: which are accepted, who sends them, and how one is retired.

What was stored of a retired release is read as before; only its webhooks are no longer taken.
"""

import asyncio
import logging
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

from sqlalchemy import Connection, delete, func, insert, select, update

from crm_server import audit_trail
from crm_server.audit_trail import Actor
from crm_server.database import insert_or_ignore, utc_now
from crm_server.errors import ReleaseNotRetired, Unavailable, describe
from crm_server.metrics import Counter
from crm_server.tables import release_uses, retired_releases
from generated.operations import CURRENT, DEPRECATED, RELEASES, Deprecated

Found = TypeVar("Found")
State = Literal["current", "accepted", "deprecated", "retired"]
Job = Callable[[Connection], Any]

LOOK_SECONDS = 2.0
"""How often a server looks which releases are retired."""
NOTE_LOOKS = 30
"""At each which of these looks it writes how often each release came: once a minute."""
DAYS = 30
"""So long nobody may have sent a release that is to be retired."""

log = logging.getLogger(__name__)


class Database(Protocol):
    """What asks and writes for the server."""

    def read(self, question: Callable[[Connection], Found]) -> Awaitable[Found]:
        """Answer a question."""

    def write(self, job: Callable[[Connection], Found]) -> Awaitable[Found]:
        """Run a job in a transaction."""


class Releases:
    """Which releases this server accepts now, and how often each has come."""

    def __init__(self, uses: Counter[str]) -> None:
        """Accept all; `uses` counts each use."""
        self._uses = uses
        self._retired: frozenset[str] = frozenset()
        self._noted: Tally[tuple[str, str]] = Tally()
        self._known: set[tuple[str, str]] = set()
        """Those of which a use is written already."""

    @property
    def accepted(self) -> list[str]:
        """The releases that are accepted, oldest first."""
        return [release for release in RELEASES if release not in self._retired]

    @property
    def spoken(self) -> dict[str, Any]:
        """What health says of them."""
        given_up = {name: days(of) for name, of in DEPRECATED.items() if name not in self._retired}
        return {"versions": self.accepted, **({"deprecated": given_up} if given_up else {})}

    def take(self, release: str, key: str) -> bool:
        """Note that a webhook of a release came with a key, by its fingerprint; return whether it is accepted."""
        if release not in RELEASES:
            return False
        self._uses.add(release)
        self._noted[release, key] += 1
        return release not in self._retired

    def look(self, connection: Connection) -> None:
        """Learn which releases are retired."""
        self._retired = frozenset(connection.execute(select(retired_releases.c.release)).scalars())

    async def keep(self, database: Database) -> None:
        """Learn what is retired, and write what was noted, until cancelled."""
        looks = 0
        while True:
            try:
                await database.read(self.look)
                await self.write(database, all_=looks % NOTE_LOOKS == 0)
                looks += 1
            except Unavailable:
                pass  # at the next look, then
            except Exception as error:
                # A bug; what is retired meanwhile must still be learnt one day.
                log.error("A bug: %s", describe(error))
            await asyncio.sleep(LOOK_SECONDS)

    async def write(self, database: Database, *, all_: bool = True) -> None:
        """Write what was noted: all of it, or what is new since the start."""
        noted = {use: count for use, count in self._noted.items() if all_ or use not in self._known}
        if noted:
            await database.write(partial(record_uses, uses=noted))
            self._noted -= Tally(noted)
            self._known |= noted.keys()


def days(given_up: Deprecated) -> dict[str, str]:
    """Return when a release is given up, as health says it."""
    until = {"sunset": given_up.sunset.isoformat()} if given_up.sunset else {}
    return {"since": given_up.since.isoformat(), **until}


def record_uses(connection: Connection, uses: Mapping[tuple[str, str], int], at: str | None = None) -> None:
    """Add to how often webhooks of each release came with each key today."""
    at = at or utc_now()
    c = release_uses.c
    for (release, key), count in sorted(uses.items()):
        row = {"release": release, "key": key, "day": at[:10], "count": 0, "last_at": at}
        connection.execute(insert_or_ignore(connection.dialect.name, release_uses), row)
        this = (c.release == release) & (c.key == key) & (c.day == at[:10])
        connection.execute(update(release_uses).where(this).values(count=c.count + count, last_at=at))


@dataclass(frozen=True, slots=True)
class Use:
    """How one key sends a release."""

    key: str
    """Its fingerprint; empty for what came before keys were noted."""
    count: int
    """In the last days."""
    last_at: str
    """True to the minute."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release, and who sends it."""

    release: str
    state: State
    since: str | None
    """The day from which on it should no longer be sent."""
    sunset: str | None
    """The day from which on it may be refused."""
    retired_at: str | None
    last_at: str | None
    """When a webhook of it came last, true to the minute."""
    count: int
    """How many came in the last days."""
    uses: tuple[Use, ...]
    """By key, those of the last days."""


def list_releases(connection: Connection, now: str | None = None) -> list[Release]:
    """Return every release, oldest first, and who sent it in the last days."""
    c, first = release_uses.c, first_day(now or utc_now())
    latest = select(c.release, func.max(c.last_at)).group_by(c.release)
    last: dict[str, str] = {release: at for release, at in connection.execute(latest)}  # noqa: C416  # no pairs to mypy
    ended = select(retired_releases.c.release, retired_releases.c.retired_at)
    retired: dict[str, str] = {release: at for release, at in connection.execute(ended)}  # noqa: C416
    recent = (
        select(c.release, c.key, func.sum(c.count), func.max(c.last_at))
        .where(c.day >= first)
        .group_by(c.release, c.key)
        .order_by(c.release, c.key)
    )
    uses: dict[str, list[Use]] = {}
    for release, key, count, last_at in connection.execute(recent):
        uses.setdefault(release, []).append(Use(key, int(count), last_at))
    return [
        Release(
            release,
            state_of(release, retired),
            **{"since": None, "sunset": None, **(days(DEPRECATED[release]) if release in DEPRECATED else {})},
            retired_at=retired.get(release),
            last_at=last.get(release),
            count=sum(use.count for use in uses.get(release, ())),
            uses=tuple(uses.get(release, ())),
        )
        for release in RELEASES
    ]


def first_day(now: str) -> str:
    """Return the first of the last days, this one among them."""
    return (date.fromisoformat(now[:10]) - timedelta(days=DAYS)).isoformat()


def state_of(release: str, retired: Iterable[str]) -> State:
    """Return what a release is."""
    if release in retired:
        return "retired"
    if release == CURRENT:
        return "current"
    return "deprecated" if release in DEPRECATED else "accepted"


def retire(connection: Connection, release: str, actor: Actor) -> None:
    """Accept webhooks of a release no longer.

    Raises ReleaseNotRetired while somebody sends it, and for what is no earlier release.
    """
    require_known(release)
    if release == CURRENT:
        raise ReleaseNotRetired(f"{release} is today's contract.")
    [found] = [each for each in list_releases(connection) if each.release == release]
    if found.state == "retired":
        return
    if found.uses:
        raise ReleaseNotRetired(f"{release} was sent in the last {DAYS} days: {senders(found.uses)}.")
    row = {"release": release, "retired_at": utc_now()}
    connection.execute(insert(retired_releases), row)
    note(connection, release, "retire", actor)


def unretire(connection: Connection, release: str, actor: Actor) -> None:
    """Accept webhooks of a release again that was retired.

    Raises ReleaseNotRetired for what is no release.
    """
    require_known(release)
    if connection.execute(delete(retired_releases).where(retired_releases.c.release == release)).rowcount:
        note(connection, release, "unretire", actor)


def note(connection: Connection, release: str, verb: str, actor: Actor) -> None:
    """Put it on the trail."""
    audit_trail.append(connection, at=utc_now(), actor=actor, verb=verb, record="release", record_id=release)


def require_known(release: str) -> None:
    """Raise ReleaseNotRetired for what is no release."""
    if release not in RELEASES:
        raise ReleaseNotRetired(f"There is no release {release}. These are: {', '.join(RELEASES)}.")


def senders(uses: Sequence[Use]) -> str:
    """Say who sends a release."""
    return ", ".join(f"key {use.key or 'unknown'} {use.count} times, last at {use.last_at}" for use in uses)
