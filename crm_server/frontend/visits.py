"""What a page is, and what it is given."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from crm_server.approval_queue import ApprovalQueue
from crm_server.audit_trail import Actor
from crm_server.problems import Problem
from crm_server.sessions import Session
from crm_server.staff import Role, Staff


@dataclass(frozen=True, slots=True)
class Visit:
    """A request for a page by somebody who may make it."""

    request: Request
    queue: ApprovalQueue
    form: Mapping[str, list[str]]
    """The fields that were sent, each with all its values; a text has one line feed for each of its ends."""
    webhook_keys: Sequence[SecretStr]
    """The keys that open the webhooks' door, if this server knows them."""

    @property
    def session(self) -> Session:
        """The session; every page but that of the log-in has one."""
        session: Session = self.request.scope["crm.session"]
        return session

    @property
    def staff(self) -> Staff:
        """Who it is."""
        return self.session.staff

    @property
    def address(self) -> str:
        """From where."""
        return str(self.request.scope["crm.address"])

    @property
    def actor(self) -> Actor:
        """How the trail names them."""
        return self.staff.at(self.address)

    @property
    def id(self) -> str:
        """The record's id in the path; raises the 404 for what is none."""
        text = str(self.request.path_params["id"])
        if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", text):
            raise Problem("not-found", "There is no such record.")
        return text

    def field(self, name: str) -> str:
        """Return a field of the form without the space around it, empty if it was not sent."""
        return self.form.get(name, [""])[0].strip()


Handler = Callable[[Visit], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Page:
    """A page or what a form of one does."""

    method: str
    path: str
    handler: Handler
    role: Role | None
    """The least role that it needs; None for everybody."""
