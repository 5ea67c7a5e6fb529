"""What a page of the dashboard is, and what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from sender.database import reading
from sender.deliveries import Retried
from sender.integration.sessions import Session, Sessions
from sender.integration.site import Site

T = TypeVar("T")

ACTOR = "dashboard"
"""How the trail names who did something here: whoever has the admin token."""


@dataclass(slots=True)
class Memory:
    """What a dashboard keeps while it runs."""

    sessions: Sessions = field(default_factory=Sessions)
    works: dict[str, asyncio.Task[Retried]] = field(default_factory=dict)
    """Retries of everything that matched, by the digests of what was seen."""
    answer: str = ""
    """What the CRM said of itself last, as far as somebody looked."""
    since: float = 0.0
    """When it said so first."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A request for a page by somebody who may make it."""

    request: Request
    site: Site
    memory: Memory
    form: Mapping[str, list[str]]
    """The fields that were sent, each with all its values."""

    @property
    def session(self) -> Session:
        """The session; every page but those of the log-in has one."""
        session: Session = self.request.scope["link.session"]
        return session

    @property
    def base(self) -> str:
        """The path under which a site shows all of this, empty for none."""
        return str(self.request.scope["root_path"])

    def field(self, name: str) -> str:
        """Return a field of the form without the space around it, empty if it was not sent."""
        return self.form.get(name, [""])[0].strip()

    def asked(self, name: str, among: Mapping[str, Any]) -> str:
        """Return a parameter of the URL if it is one of some, else the first of them."""
        value = self.request.query_params.get(name, "")
        return value if value in among else next(iter(among))

    async def read(self, verb: Callable[[Connection], T]) -> T:
        """Run a verb that only reads, beside the event loop."""

        def run() -> T:
            with reading(self.site.engine) as connection:
                return verb(connection)

        return await asyncio.to_thread(run)


Handler = Callable[[Visit], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Page:
    """A page, or what a form of one does."""

    method: str
    path: str
    handler: Handler
    is_open: bool = False
    """Whether it is for everybody, not only for who has logged in."""
