"""Somebody before the dashboard's pages, as a browser without JavaScript is: cookies, links, forms, their Origin."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.crm_server.visitors import Html
from tests.receiver import TEST_OK, Receiver, first, problem, receipt, start_receiver
from tests.sender.integration.server import TOKEN, start_server
from tests.sender.site import Site, migrated_outbox
from tests.servers import NO_TLS

AT_FAULT = "/repair/priority"
"""What the CRM refuses in what fails here."""


@contextmanager
def start_dashboard(site: Site, *arguments: str, **over: str) -> Iterator[str]:
    """Serve a site's dashboard for the block; give its address."""
    settings = site.environment() | over
    ours = {name: value for name, value in settings.items() if name.startswith("CRM_")}
    del ours["CRM_OUTBOX_URL"]
    with start_server(site.directory, *arguments, outbox_url=site.url, **ours) as server:
        yield server.address


@dataclass(frozen=True)
class Shop:
    """A site with its dashboard, and the CRM behind it."""

    site: Site
    receiver: Receiver
    address: str

    def begin_anew(self) -> None:
        """Empty the outbox, and let the CRM be well."""
        self.change("DELETE FROM crm_outbox")
        self.receiver.event, self.receiver.test = receipt, TEST_OK
        self.receiver.told = self.receiver.tells

    def change(self, statement: str, *parameters: object) -> None:
        """Write to the outbox beside the dashboard."""
        with closing(sqlite3.connect(self.site.database, timeout=10)) as database, database:
            database.execute(statement, parameters)

    def fail(self, count: int = 1) -> list[str]:
        """Book so many repairs that the CRM refuses; return their ids."""
        self.receiver.event = first(*[problem(400, "invalid-event", errors=[{"pointer": AT_FAULT}])] * count)
        ids = self.site.book(count)
        assert self.site.drain().failed == count
        return ids

    def ticket(self, event_id: str) -> str:
        """Return an event's ticket number."""
        return str(self.site.row(event_id)["reference"])


@contextmanager
def start_shop(directory: Path) -> Iterator[Shop]:
    """Start a shop for the block: one for many tests, for it takes longer to start than to ask."""
    migrated_outbox(directory)
    with start_receiver() as receiver:
        site = Site(directory, receiver.url)
        with start_dashboard(site) as address:
            yield Shop(site, receiver, address)


@dataclass
class Admin:
    """A browser before the dashboard; `base` is the path below which a site shows it."""

    address: str
    base: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: httpx.Cookies = field(default_factory=httpx.Cookies)

    def send(self, method: str, path: str, fields: Any = None, **headers: str) -> httpx.Response:
        """Send a request; keep the cookies of the answer."""
        given = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        with httpx.Client(
            base_url=self.address, cookies=self.cookies, headers=given, timeout=30, verify=NO_TLS
        ) as client:
            response = client.request(method, f"{self.base}{path}", data=fields)
            self.cookies = client.cookies
        return response

    def get(self, path: str) -> httpx.Response:
        """Open a page."""
        return self.send("GET", path)

    def html(self, path: str) -> Html:
        """Open a page that is there."""
        response = self.get(path)
        assert response.status_code == 200, response.text
        return Html(response.text)

    @property
    def csrf(self) -> str:
        """The token of the session, as a page has it."""
        found = re.search(r'name="csrf" value="(\w+)"', self.get("/admin/find").text)
        assert found
        return found[1]

    def post(self, path: str, fields: Mapping[str, Any] | None = None, **headers: str) -> httpx.Response:
        """Send a form of a page; `headers` stand in for what a browser adds."""
        whole = {"csrf": self.csrf, **(fields or {})} if self.cookies else fields
        return self.send("POST", path, whole, **{"origin": self.address, **headers})

    def log_in(self, token: str = TOKEN, wanted: str = "/admin", **headers: str) -> httpx.Response:
        """Fill in the form for logging in."""
        fields = {"token": token, "next": wanted}
        return self.send("POST", "/admin/login", fields, **{"origin": self.address, **headers})


def logged_in(address: str) -> Admin:
    """Return a browser in which somebody has logged in."""
    admin = Admin(address)
    assert admin.log_in().status_code == 303
    return admin
