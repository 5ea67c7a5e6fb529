"""Staff: who they are, their roles, passwords and tokens; every statement on their tables.

Each verb runs in the caller's transaction and puts itself on the trail. A password is kept as Argon2id
makes it, a token as its SHA-256: it is random, so that nothing slower is needed.
"""

import functools
import hashlib
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from sqlalchemy import Connection, Row, delete, insert, select, update

from crm_server import audit_trail
from crm_server.audit_trail import Actor
from crm_server.database import insert_or_ignore, new_id, utc_now
from crm_server.errors import LastAdmin, Refused, StaffNotAdded, UnknownStaff
from crm_server.tables import staff, staff_sessions, staff_tokens

Role = Literal["viewer", "approver", "admin"]
RANKS: Mapping[Role, int] = {role: rank for rank, role in enumerate(get_args(Role))}
"""Each role may do what those before it may."""

SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 1024
"""In characters; Argon2 reads all of it, so there is an end."""
TOKEN_PREFIX = "staff_"  # noqa: S105  # so that a token that was left somewhere is known for what it is
TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class Staff:
    """Somebody who has shown who they are."""

    id: str
    name: str
    role: Role

    def may(self, least: Role) -> bool:
        """Tell whether what needs at least a role is allowed."""
        return RANKS[self.role] >= RANKS[least]

    def at(self, origin: str | None) -> Actor:
        """Return how the trail names them, doing something from an address."""
        return Actor(f"staff:{self.name}", origin)


def hash_password(password: str) -> str:
    """Return a password as it is kept; takes a twentieth of a second and 64 MiB on purpose.

    Raises Refused for one that is too short or too long.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise Refused(f"A password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters.")
    return PasswordHasher().hash(password)


def is_password(password: str, password_hash: str | None) -> bool:
    """Tell whether a password is the one that is kept, in the same time when none is."""
    if len(password) > LONGEST_PASSWORD:
        return False
    try:
        return (
            PasswordHasher().verify(password_hash or nobodys_hash(), password) and password_hash is not None
        )
    except VerificationError:
        return False


@functools.cache
def nobodys_hash() -> str:
    """Return the hash of a password that nobody has."""
    return hash_password(secrets.token_urlsafe(TOKEN_BYTES))


def add(connection: Connection, name: str, role: Role, password_hash: str | None, actor: Actor) -> None:
    """Add somebody.

    Raises StaffNotAdded.
    """
    if not re.fullmatch(r"[^\x00-\x1f\x7f]{1,64}", name) or name != name.strip():
        raise StaffNotAdded("A name has 1 to 64 characters, and no space around them.")
    row = {"id": new_id(), "name": name, "role": role, "password_hash": password_hash}
    statement = insert_or_ignore(connection.dialect.name, staff)
    if not connection.execute(statement, {**row, "created_at": utc_now()}).rowcount:
        raise StaffNotAdded("There is somebody of this name already.")
    _note(connection, actor, "add", str(row["id"]))


def everybody(connection: Connection) -> Iterator[Row[Any]]:
    """Read all of the staff, by name; those who are disabled too."""
    yield from connection.execute(select(staff).order_by(staff.c.name))


def make_token(connection: Connection, name: str, actor: Actor) -> str:
    """Return a new token for somebody; it is not kept and cannot be shown again.

    Raises UnknownStaff, also for who is disabled.
    """
    found = _find(connection, name)
    if found.disabled_at is not None:
        raise UnknownStaff(f"{name} is disabled.")
    token = TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    row = {"digest": _digest(token.encode()), "staff_id": found.id, "created_at": utc_now()}
    connection.execute(insert(staff_tokens), row)
    _note(connection, actor, "add-token", found.id)
    return token


def set_password(connection: Connection, name: str, password_hash: str, actor: Actor) -> None:
    """Give somebody another password; who is logged in with the old one is logged out.

    Raises UnknownStaff.
    """
    found = _find(connection, name)
    connection.execute(update(staff).where(staff.c.id == found.id).values(password_hash=password_hash))
    _end_sessions(connection, found.id)
    _note(connection, actor, "set-password", found.id)


def set_role(connection: Connection, name: str, role: Role, actor: Actor) -> None:
    """Let somebody do more or less, from now on.

    Raises UnknownStaff, and LastAdmin.
    """
    if role != "admin":
        _keep_an_admin(connection, name)
    found = _find(connection, name)
    if found.role != role:
        connection.execute(update(staff).where(staff.c.id == found.id).values(role=role))
        _note(connection, actor, "set-role", found.id)


def revoke(connection: Connection, name: str, actor: Actor) -> None:
    """End every token of somebody.

    Raises UnknownStaff.
    """
    found = _find(connection, name)
    connection.execute(delete(staff_tokens).where(staff_tokens.c.staff_id == found.id))
    _note(connection, actor, "revoke", found.id)


def disable(connection: Connection, name: str, actor: Actor) -> None:
    """Shut somebody out, at once and for good; what they did keeps their name.

    Raises UnknownStaff, and LastAdmin.
    """
    _keep_an_admin(connection, name)
    revoke(connection, name, actor)
    found = _find(connection, name)
    _end_sessions(connection, found.id)
    if found.disabled_at is None:
        connection.execute(update(staff).where(staff.c.id == found.id).values(disabled_at=utc_now()))
        _note(connection, actor, "disable", found.id)


def of_token(connection: Connection, token: bytes) -> Staff | None:
    """Return whose token it is, unless they are disabled."""
    mine = staff_tokens.c.digest == _digest(token)
    row = connection.execute(
        select(staff.c.id, staff.c.name, staff.c.role)
        .join(staff_tokens, staff_tokens.c.staff_id == staff.c.id)
        .where(mine, staff.c.disabled_at.is_(None))
    ).one_or_none()
    return None if row is None else Staff(*row)


def may_still(connection: Connection, actor: Actor, least: Role) -> bool:
    """Tell whether an actor of the staff is enabled, and in a role at least, until the transaction ends.

    Whoever is none of the staff, as who used the command line, was never shut out.
    """
    kind, _, name = actor.name.partition(":")
    if kind != "staff":
        return True
    mine = staff.c.name == name, staff.c.disabled_at.is_(None)
    role = connection.scalar(select(staff.c.role).where(*mine).with_for_update(read=True))
    return role is not None and RANKS[role] >= RANKS[least]


def _find(connection: Connection, name: str) -> Row[Any]:
    row = connection.execute(select(staff).where(staff.c.name == name).with_for_update()).one_or_none()
    if row is None:
        raise UnknownStaff(f"There is nobody called {name}.")
    return row


def _keep_an_admin(connection: Connection, name: str) -> None:
    """See that there is an admin without one of them, until the transaction ends: two may take it from each other."""
    admins = staff.c.role == "admin", staff.c.disabled_at.is_(None)
    names = select(staff.c.name).where(*admins).order_by(staff.c.id).with_for_update()
    if connection.scalars(names).all() == [name]:
        raise LastAdmin(f"{name} is the only admin. Make somebody else one first.")


def _end_sessions(connection: Connection, staff_id: str) -> None:
    connection.execute(delete(staff_sessions).where(staff_sessions.c.staff_id == staff_id))


def _digest(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()


def _note(connection: Connection, actor: Actor, verb: str, staff_id: str) -> None:
    audit_trail.append(connection, at=utc_now(), actor=actor, verb=verb, record="staff", record_id=staff_id)
