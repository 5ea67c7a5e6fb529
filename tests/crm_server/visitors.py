"""Somebody before the staff pages, as a browser without JavaScript is: cookies, links, forms and their Origin."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import httpx
from sqlalchemy import Connection

from crm_server import staff
from crm_server.audit_trail import Actor
from crm_server.staff import Role
from tests.crm_server.conftest import in_database
from tests.servers import NO_TLS, Crm

PASSWORD = "correct horse battery staple"
OTHERS_COOKIES = ("theme=dark mode", 'prefs={"a":1}', "k[]=1", "no-name", 'quote="open', "a/b=c,d")
"""What other programs on the same host have browsers keep."""


class Html(HTMLParser):
    """A page as a browser understands it: its text, and its elements with their attributes."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.parts = "", list[str]()
        self.elements = list[tuple[str, dict[str, str]]]()
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data
        self.parts.append(data)

    @property
    def words(self) -> str:
        """Its text with a space wherever there is another element, and no more of them."""
        return " ".join(" ".join(self.parts).split())

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        """Return the attributes of every element of a kind that has some."""
        return [
            found
            for name, found in self.elements
            if name == tag
            and attributes.items() <= {k.replace("-", "_"): v for k, v in found.items()}.items()
        ]


@dataclass
class Visitor:
    """A browser that may be logged in."""

    crm: Crm
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: httpx.Cookies = field(default_factory=httpx.Cookies)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.crm.frontend_port}"

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="(\w+)"', self.get("/").text)
        assert found
        return found[1]

    def send(self, method: str, path: str, fields: Any = None, **headers: str) -> httpx.Response:
        given = {**self.headers, **headers}
        with httpx.Client(
            base_url=self.origin, cookies=self.cookies, headers=given, timeout=30, verify=NO_TLS
        ) as client:
            response = client.request(method, path, data=fields)
            self.cookies = client.cookies
        return response

    def get(self, path: str) -> httpx.Response:
        return self.send("GET", path)

    def html(self, path: str) -> Html:
        response = self.get(path)
        assert response.status_code == 200, response.text
        return Html(response.text)

    def post(self, path: str, fields: Mapping[str, Any] | None = None, **headers: str) -> httpx.Response:
        """Send a form of a page; `headers` stand in for what a browser adds."""
        whole = {"csrf": self.csrf, **(fields or {})} if self.cookies else fields
        return self.send("POST", path, whole, **{"origin": self.origin, **headers})

    def log_in(
        self, name: str, password: str = PASSWORD, wanted: str = "/", **headers: str
    ) -> httpx.Response:
        """Fill in the form for logging in."""
        fields = {"name": name, "password": password, "next": wanted}
        return self.send("POST", "/login", fields, **{"origin": self.origin, **headers})


def add_staff(crm: Crm, name: str, role: Role) -> None:
    """Add somebody with a password, beside the running server."""
    hashed = staff.hash_password(PASSWORD)

    def add(connection: Connection) -> str:
        staff.add(connection, name, role, hashed, Actor("cli:tests"))
        return name

    in_database(crm, add)


def logged_in(crm: Crm, name: str, role: Role) -> Visitor:
    """Return a browser in which somebody new has logged in."""
    add_staff(crm, name, role)
    visitor = Visitor(crm)
    assert visitor.log_in(name).status_code == 303
    return visitor
