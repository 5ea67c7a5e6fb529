"""Sessions: who has logged in on the pages; every statement on their table but the ones that shut somebody out.

A session is 256 random bits in a cookie, and here their SHA-256. A signature would add nothing: nobody can
make a cookie that is found here, and a stolen one would be signed as well.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, Connection, delete, insert, or_, select, update

from crm_server import audit_trail
from crm_server.audit_trail import Actor
from crm_server.database import utc_now
from crm_server.staff import Staff
from crm_server.tables import staff, staff_sessions

IDLE = timedelta(minutes=30)
"""So long after the last page a session ends."""
LONGEST = timedelta(hours=12)
"""So long after the log-in it ends in any case."""
NOTED = timedelta(minutes=1)
"""How exactly the time of the last page is kept: a write for each would hold up webhooks."""
SESSION_BYTES = 32
NOBODY = "nobody"
"""How the trail names who tried to log in with a name that there is not: what was typed may be a password."""


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who has logged in."""

    staff: Staff
    csrf: str
    """What a page of this session sends along to change something; no other site can know it."""
    is_noted: bool
    """Whether it is kept that it was used just now."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is kept to log somebody in."""

    staff_id: str
    password_hash: str | None


def credentials(connection: Connection, name: str) -> Credentials | None:
    """Return what is kept of somebody who may log in."""
    may = (staff.c.name == name) & staff.c.disabled_at.is_(None)
    row = connection.execute(select(staff.c.id, staff.c.password_hash).where(may)).one_or_none()
    return None if row is None else Credentials(*row)


def start(connection: Connection, known: Credentials, actor: Actor) -> str | None:
    """Log somebody in; return the token for their cookie, None if password or right were just taken away."""
    now = utc_now()
    unchanged = (staff.c.id == known.staff_id) & (staff.c.password_hash == known.password_hash)
    statement = select(staff.c.id).where(unchanged, staff.c.disabled_at.is_(None)).with_for_update()
    if connection.execute(statement).first() is None:
        return None
    connection.execute(delete(staff_sessions).where(is_over()))
    token = secrets.token_urlsafe(SESSION_BYTES)
    row = {"digest": digest(token), "staff_id": known.staff_id, "started_at": now, "seen_at": now}
    connection.execute(insert(staff_sessions), row)
    note(connection, actor, "log-in", known.staff_id)
    return token


def find(connection: Connection, token: str) -> Session | None:
    """Return whose session it is, unless it is over."""
    s = staff_sessions.c
    mine = (s.digest == digest(token)) & ~is_over()
    columns = (staff.c.id, staff.c.name, staff.c.role, s.seen_at)
    statement = select(*columns).join_from(staff_sessions, staff)
    row = connection.execute(statement.where(mine, staff.c.disabled_at.is_(None))).one_or_none()
    if row is None:
        return None
    who = Staff(row.id, row.name, row.role)
    return Session(who, csrf_of(token), is_noted=row.seen_at > utc_now(NOTED))


def touch(connection: Connection, token: str) -> None:
    """Keep that a session is used now."""
    this, now = staff_sessions.c.digest == digest(token), utc_now()
    earlier = staff_sessions.c.seen_at < now
    connection.execute(update(staff_sessions).where(this, earlier).values(seen_at=now))


def end(connection: Connection, token: str, who: Staff, actor: Actor) -> None:
    """Log somebody out."""
    connection.execute(delete(staff_sessions).where(staff_sessions.c.digest == digest(token)))
    note(connection, actor, "log-out", who.id)


def refuse(connection: Connection, known: Credentials | None, origin: str | None) -> None:
    """Put on the trail that somebody failed to log in; who it was nobody knows."""
    note(connection, Actor(NOBODY, origin), "fail-log-in", known.staff_id if known else NOBODY)


def is_over() -> ColumnElement[bool]:
    """Return what a session meets that has ended."""
    s = staff_sessions.c
    return or_(s.seen_at <= utc_now(IDLE), s.started_at <= utc_now(LONGEST))


def csrf_of(token: str) -> str:
    """Return the CSRF token of a session: from it, so that nothing more is kept, and not to be turned back."""
    return hmac.new(token.encode(), b"csrf", hashlib.sha256).hexdigest()


def digest(token: str) -> str:
    """Return a session's token as it is kept."""
    return hashlib.sha256(token.encode()).hexdigest()


def note(connection: Connection, actor: Actor, verb: str, staff_id: str) -> None:
    """Put a log-in or its end on the trail."""
    audit_trail.append(connection, at=utc_now(), actor=actor, verb=verb, record="staff", record_id=staff_id)
