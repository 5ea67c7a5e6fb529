"""The staff's page, for admins: who may see and decide what."""

import asyncio
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from starlette.responses import Response

from crm_server import staff
from crm_server.errors import Refused
from crm_server.frontend.rendering import page, see_other
from crm_server.frontend.visits import Visit
from crm_server.problems import Problem
from crm_server.staff import RANKS, Role


async def list_staff(visit: Visit) -> Response:
    """Show everybody."""
    return await shown(visit)


async def shown(visit: Visit, *, status: int = 200, fault: str = "", token: str = "") -> Response:
    """Show everybody, and what came of a change."""
    people = await visit.queue.read(lambda connection: list(staff.everybody(connection)))
    name = visit.field("name")
    return page(
        visit, "staff.html", status, people=people, roles=list(RANKS), fault=fault, token=token, name=name
    )


async def add(visit: Visit) -> Response:
    """Add somebody, with a password if one is given."""
    role, password = role_of(visit), password_of(visit)
    try:
        hashed = await asyncio.to_thread(staff.hash_password, password) if password else None
    except Refused as error:
        return await shown(visit, status=HTTPStatus.BAD_REQUEST, fault=str(error))
    return await changed(visit, partial(staff.add, role=role, password_hash=hashed))


async def set_role(visit: Visit) -> Response:
    """Let somebody do more or less."""
    return await changed(visit, partial(staff.set_role, role=role_of(visit)))


async def set_password(visit: Visit) -> Response:
    """Give somebody another password."""
    try:
        hashed = await asyncio.to_thread(staff.hash_password, password_of(visit))
    except Refused as error:
        return await shown(visit, status=HTTPStatus.BAD_REQUEST, fault=str(error))
    return await changed(visit, partial(staff.set_password, password_hash=hashed))


async def make_token(visit: Visit) -> Response:
    """Show a new token of somebody, once."""
    name = visit.field("name")
    try:
        token = await visit.queue.write(lambda connection: staff.make_token(connection, name, visit.actor))
    except Refused as error:
        return await shown(visit, status=HTTPStatus.CONFLICT, fault=str(error))
    return await shown(visit, token=token)


async def revoke(visit: Visit) -> Response:
    """End every token of somebody."""
    return await changed(visit, staff.revoke)


async def disable(visit: Visit) -> Response:
    """Shut somebody out."""
    return await changed(visit, staff.disable)


async def changed(visit: Visit, change: Callable[..., Any]) -> Response:
    """Change something of somebody; show everybody as they are then."""
    name = visit.field("name")
    try:
        await visit.queue.write(lambda connection: change(connection, name, actor=visit.actor))
    except Refused as error:
        return await shown(visit, status=HTTPStatus.CONFLICT, fault=str(error))
    return see_other("/staff")


def role_of(visit: Visit) -> Role:
    """Return the role that was chosen."""
    role = visit.field("role")
    if role not in RANKS:
        raise Problem("malformed-request", "Choose a role.")
    return cast(Role, role)


def password_of(visit: Visit) -> str:
    """Return the password that was given, with any space in it."""
    return visit.form.get("password", [""])[0]
