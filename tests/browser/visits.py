"""Visits of a site in a real browser, and what must hold on every page that is seen there.

On any visit: no error in the console (a violation of the Content-Security-Policy is one), no script that
fails, nothing that fails to load, and not one request to another origin.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response, expect

from crm_server.staff import Role
from scripts.browser import AXE
from tests.crm_server.answers import until
from tests.servers import Crm

WIDE = {"width": 1280, "height": 800}
NARROW = {"width": 360, "height": 740}
SECONDS = 10
MOST_TABS = 100
PASSWORD = "correct horse battery staple"
HOSTILE = '=HYPERLINK("http://evil.example") <img src=x onerror=alert(1)>"\u202e\'&amp; مرحبا 😀 ' + "W" * 120
"""Markup, a formula of spreadsheets, text that turns round, emoji, and a word that fits no line."""
Scheme = Literal["light", "dark"]


@contextmanager
def visit(chromium: Browser, address: str, *, javascript: bool = True) -> Iterator[Page]:
    """Open a browser window without history or cookies; hold the whole visit against the rules above."""
    context = chromium.new_context(base_url=address, java_script_enabled=javascript, viewport=WIDE)  # type: ignore[arg-type]
    context.set_default_timeout(SECONDS * 1000)
    troubles = watch(context, address)
    try:
        yield context.new_page()
        assert not troubles, troubles
    finally:
        context.close()


@contextmanager
def session(
    chromium: Browser, crm: Crm, name: str = "Approver", start: str = "/", *, javascript: bool = True
) -> Iterator[Page]:
    """Visit the staff pages as somebody, beginning at a path."""
    with visit(chromium, crm.pages_url, javascript=javascript) as page:
        log_in(page, name, start)
        yield page


def log_in(page: Page, name: str, start: str = "/") -> None:
    """Log somebody in who wants to see a page."""
    page.goto(start)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()


def add_staff(crm: Crm, name: str, role: Role) -> None:
    """Add somebody to the staff."""
    added = crm.cli("staff", "add", name, "--role", role, "--password-stdin", stdin=PASSWORD)
    assert added.returncode == 0, added.stderr


def receive(crm: Crm, event: str, payload: dict[str, Any]) -> str:
    """Send a webhook; return the request's id once it can be searched for."""
    answer = crm.post(event, payload)
    assert answer.status_code == 202, answer.text
    found = "SELECT 1 FROM approvals JOIN search_documents USING (sequence) WHERE id = ?"
    until(lambda: crm.rows(found, answer.json()["id"]))
    return str(answer.json()["id"])


def watch(context: BrowserContext, address: str) -> list[str]:
    """Return a list to which each trouble of a visit is added."""
    troubles: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith("Failed to load resource"):
            troubles.append(f"{message.type}: {message.text}")

    def on_request(request: Request) -> None:
        if not request.url.startswith((f"{address}/", "data:")):
            troubles.append(f"another origin: {request.url}")

    def on_response(response: Response) -> None:
        if response.status >= 400 and not response.request.is_navigation_request():
            troubles.append(f"{response.status}: {response.url}")

    context.on("console", on_console)
    context.on("request", on_request)
    context.on("response", on_response)
    context.on("weberror", lambda error: troubles.append(str(error.error)))
    context.on("dialog", lambda dialog: troubles.append(f"dialog: {dialog.message}"))
    return troubles


def examine(page: Page) -> None:
    """Hold the page that is open against axe, in light and dark, and against a narrow screen.

    The visit must be one with JavaScript: without, axe never comes to an end.
    """
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= NARROW["width"], f"{path(page)} is {wide} px wide on a narrow screen"
    found = findings(page, "light")
    page.set_viewport_size(WIDE)  # type: ignore[arg-type]
    found += findings(page, "light") + findings(page, "dark")
    assert not found, found


def findings(page: Page, scheme: Scheme) -> list[str]:
    """Return what axe has to say, of any weight."""
    page.emulate_media(color_scheme=scheme)
    page.evaluate(AXE.read_text())
    report: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    page.emulate_media(color_scheme="light")
    return [
        f"{path(page)} ({scheme}) {found['impact']} {found['id']}: {found['nodes'][0]['html']}"
        for found in report["violations"]
    ]


def path(page: Page) -> str:
    """Return where on the site the page is."""
    return urlsplit(page.url).path


def tab_to(page: Page, role: str, name: str) -> None:
    """Press Tab until the focus is on what has this role and name, and is seen to be there."""
    wanted = page.get_by_role(role, name=name, exact=True).first  # type: ignore[arg-type]
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            expect(wanted).not_to_have_css("outline-style", "none")
            return
    raise AssertionError(f"Tab does not come to the {role} {name!r}.")
