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

from scripts.browser import AXE

WIDE = {"width": 1280, "height": 800}
NARROW = {"width": 360, "height": 740}
SECONDS = 10
MOST_TABS = 100
Scheme = Literal["light", "dark"]


@contextmanager
def visit(chromium: Browser, address: str, *, javascript: bool = True) -> Iterator[Page]:
    """Open a browser window without history or cookies; hold the whole visit against the rules above."""
    context = chromium.new_context(base_url=address, java_script_enabled=javascript, viewport=WIDE)  # type: ignore[arg-type]
    context.set_default_timeout(SECONDS * 1000)
    troubles = watch(context, address)
    try:
        yield context.new_page()
        assert troubles == []
    finally:
        context.close()


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
    """Hold the page that is open against axe, in light and dark, and against a narrow screen."""
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= NARROW["width"], f"{path(page)} is {wide} px wide on a narrow screen"
    found = findings(page, "light")
    page.set_viewport_size(WIDE)  # type: ignore[arg-type]
    assert found + findings(page, "light") + findings(page, "dark") == []


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
