"""Take pictures of the staff pages, full of people who do not exist, into docs/screenshots/."""

from __future__ import annotations

import argparse
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page

from scripts.browser import browser
from scripts.generate import ROOT
from scripts.processes import HOST, Broken, Programs, environment

PICTURES = ROOT / "docs" / "screenshots"
REQUESTS = 400
NAME = "Grace"
"""Who decides; one of those that scripts.seed adds."""
WIDTH, HEIGHT = 1000, 700


@contextmanager
def pages() -> Iterator[tuple[str, str]]:
    """Serve the pages on a database of made-up people; give their address and the password of NAME."""
    with tempfile.TemporaryDirectory(prefix="screenshots-") as name:
        folder, port, password = Path(name), free_port(), secrets.token_urlsafe()
        settings = environment(CRM_DATABASE_URL=f"sqlite:///{folder}/crm.sqlite3")
        programs = Programs(folder, folder, settings)
        programs.ask("scripts.seed", str(REQUESTS), "--days", "14", "--seed", "pictures")
        subprocess.run(
            [sys.executable, "-m", "crm_server", "staff", "password", NAME, "--password-stdin"],
            cwd=folder,
            env=settings,
            input=f"{password}\n".encode(),
            check=True,
        )
        try:
            programs.start("CRM", "crm_server", "serve", "--only", "staff", "--frontend-port", str(port))
            programs.wait_for(f"http://{HOST}:{port}/login")
            yield f"http://{HOST}:{port}", password
        finally:
            programs.stop()


def free_port() -> int:
    """Return a port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        number: int = probe.getsockname()[1]
        return number


def log_in(page: Page, password: str) -> None:
    """Log NAME in."""
    page.goto("/login")
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Log out").wait_for()


def take(page: Page) -> Iterator[str]:
    """Go from page to page; yield each one's name when it is to be seen."""
    page.goto("/")
    yield "today"
    page.goto("/approvals")
    page.keyboard.press("j")
    yield "queue"
    page.goto("/approvals?event=repair-request")
    page.locator("[data-request]").first.click()
    page.get_by_role("heading", name="Decide").wait_for()
    yield "request"
    page.goto("/tickets?status=in_repair")
    page.locator("[data-request]").first.click()
    page.get_by_role("heading", name="Work on it").wait_for()
    yield "ticket"


def main(argv: list[str] | None = None) -> int:
    """Take each picture in light and in dark."""
    parser = argparse.ArgumentParser(prog="screenshots", description=__doc__)
    parser.parse_args(argv)
    PICTURES.mkdir(exist_ok=True)
    try:
        with pages() as (address, password), browser() as started:
            context = started.new_context(base_url=address, viewport={"width": WIDTH, "height": HEIGHT})
            page = context.new_page()
            log_in(page, password)
            for name in take(page):
                page.emulate_media(color_scheme="light")
                page.screenshot(path=PICTURES / f"{name}.png")
                page.emulate_media(color_scheme="dark")
                page.screenshot(path=PICTURES / f"{name}-dark.png")
    except Broken as error:
        print(f"screenshots: {error}", file=sys.stderr)
        return 1
    print(f"The pictures are in {PICTURES}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
