"""Logging in and out."""

import asyncio
import hashlib
import math
import re
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from crm_server import sessions, staff
from crm_server.audit_trail import Actor
from crm_server.frontend.rendering import page, render, see_other
from crm_server.frontend.visits import Visit
from crm_server.middleware.authentication import group
from crm_server.middleware.networks import address_bytes
from crm_server.middleware.rate_limit import Limit, too_many
from crm_server.middleware.sessions import COOKIE, SAFE_METHODS, session_token
from crm_server.problems import Problem

AT_ONCE = 2
"""Passwords that are checked at once: each takes 64 MiB and a core for a twentieth of a second."""
MOST_WAITING = 20
"""How many log-ins may wait for that."""
MINUTE = 60
"""In seconds."""


async def log_in_page(visit: Visit) -> Response:
    """Show the form."""
    return page(
        visit, "login.html", next=local(visit.request.query_params.get("next", "")), name="", fault=""
    )


class LogIn:
    """Lets somebody in by name and password."""

    def __init__(self, attempts: Limit, is_page: Callable[[str], bool]) -> None:
        """Remember how often somebody may try; `is_page` tells whether there is anything to see at a path."""
        self._attempts, self._is_page = attempts, is_page
        self._checking = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def __call__(self, visit: Visit) -> Response:
        """Log somebody in, and show what they wanted to see."""
        name, password = visit.field("name"), visit.form.get("password", [""])[0]
        await self.slow_down(name, visit.address)
        known = await visit.queue.read(lambda connection: sessions.credentials(connection, name))
        token = None
        if await self.is_password(password, known.password_hash if known else None) and known:
            actor = Actor(f"staff:{name}", visit.address)
            token = await visit.queue.write(lambda connection: sessions.start(connection, known, actor))
        wanted = local(visit.field("next"))
        if token is None:
            await visit.queue.write(lambda connection: sessions.refuse(connection, known, visit.address))
            fault = "No one has this name and this password."
            return page(visit, "login.html", HTTPStatus.FORBIDDEN, next=wanted, name=name, fault=fault)
        # They may come from a page that was the answer to a form, whose path shows nothing.
        response = see_other(wanted if self._is_page(urlsplit(wanted).path) else "/")
        secure = visit.request.scope["scheme"] == "https"
        response.set_cookie(COOKIE, token, path="/", secure=secure, httponly=True, samesite="lax")
        return response

    async def slow_down(self, name: str, address: str) -> None:
        """Raise the 429 when there were too many attempts, with this name or from this address.

        All are counted, for a password that is right must not be found by going on.
        """
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
        for who in (f"name {group(digest)}", f"address {group(address_bytes(address))}"):
            if seconds := await self._attempts.hit(who):
                what = "There were too many attempts to log in."
                raise too_many(what, seconds, f"Wait {in_words(seconds)}.")

    async def is_password(self, password: str, password_hash: str | None) -> bool:
        """Check a password, when it is its turn."""
        if self._waiting >= MOST_WAITING:
            detail = "Too many log in at once. Try again."
            raise Problem("unavailable", detail, headers={"retry-after": "1"})
        self._waiting += 1
        try:
            async with self._checking:
                return await asyncio.to_thread(staff.is_password, password, password_hash)
        finally:
            self._waiting -= 1


def in_words(seconds: int) -> str:
    """Return how long somebody waits, in whole minutes from the first on."""
    count, unit = (seconds, "second") if seconds < MINUTE else (math.ceil(seconds / MINUTE), "minute")
    return f"{count} {unit}{'' if count == 1 else 's'}"


async def log_out(visit: Visit) -> Response:
    """Log somebody out."""
    token = session_token(visit.request.scope["headers"]) or ""
    await visit.queue.write(lambda connection: sessions.end(connection, token, visit.staff, visit.actor))
    response = see_other("/login")
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
    return response


def to_log_in(request: Request) -> Response:
    """Have somebody log in who must; then they are where they wanted to be."""
    if request.method in SAFE_METHODS:
        query = f"?{request.url.query}" if request.url.query else ""
        return see_other(login_path(request.url.path + query))
    came_from = urlsplit(request.headers.get("referer", ""))
    link = login_path(came_from.path + (f"?{came_from.query}" if came_from.query else ""))
    response = render(request, "session_over.html", HTTPStatus.UNAUTHORIZED, link=link)
    response.headers["www-authenticate"] = "Bearer"
    return response


def login_path(wanted: str) -> str:
    """Return where to log in for another page."""
    wanted = local(wanted)
    return "/login" if wanted == "/" else f"/login?{urlencode({'next': wanted})}"


def local(path: str) -> str:
    """Return a path on this server, the front page for what leads anywhere else."""
    return path if re.fullmatch(r"/(?!/|login|static)[!-\[\]-~]*", path) else "/"
