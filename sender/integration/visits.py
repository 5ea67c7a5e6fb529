"""What a page of the dashboard is, and what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from starlette.requests import Request
from starlette.responses import Response

from sender.database import reading
from sender.integration.sessions import Session, Sessions
from sender.settings import SenderSettings

T = TypeVar("T")

ACTOR = "dashboard"
"""How the trail names who did something here: whoever has the admin token."""


@dataclass(frozen=True, slots=True)
class Site:
    """What all pages share."""

    settings: SenderSettings
    engine: Engine
    status: Callable[[], Awaitable[dict[str, Any]]]
    """What `crm-sender status --json` says, at most five seconds old."""
    sessions: Sessions = field(default_factory=Sessions)
    works: dict[str, asyncio.Task[Any]] = field(default_factory=dict)
    """What was begun for everything that matches, by its id."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A request for a page by somebody who may make it."""

    request: Request
    site: Site
    form: Mapping[str, list[str]]
    """The fields that were sent, each with all its values."""
    found: Session | None

    @property
    def session(self) -> Session:
        """The session; every page but those of the log-in has one."""
        if self.found is None:
            raise RuntimeError("This page is open: it has no session.")
        return self.found

    @property
    def base(self) -> str:
        """The path under which a site shows all of this, empty for none."""
        return str(self.request.scope.get("root_path", ""))

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

    async def write(self, verb: Callable[[Connection], T]) -> T:
        """Run a verb in a transaction, beside the event loop."""

        def run() -> T:
            with self.site.engine.begin() as connection:
                return verb(connection)

        return await asyncio.to_thread(run)


class Refusal(Exception):
    """A page that says what is wrong, and what to do."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        """Make one."""
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


Handler = Callable[[Visit], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Page:
    """A page, or what a form of one does."""

    method: str
    path: str
    handler: Handler
    is_open: bool = False
    """Whether it is for everybody, not only for who has logged in."""
