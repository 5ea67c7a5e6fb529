"""Take pictures of the staff pages and the dashboard, full of people who do not exist, into docs/screenshots/."""

from __future__ import annotations

import argparse
import json
import math
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from playwright.sync_api import Browser, Page
from sqlalchemy import insert, update

from generated.operations import CURRENT
from scripts import people
from scripts.browser import browser
from scripts.generate import ROOT
from scripts.processes import HOST, Broken, Programs, environment
from sender import CRM, SenderSettings
from sender.database import open_engine
from sender.statistics import hour_of
from sender.tables import hours, outbox

PICTURES = ROOT / "docs" / "screenshots"
REQUESTS = 400
NAME = "Grace"
"""Who decides; one of those that scripts.seed adds."""
WIDTH, HEIGHT = 1000, 700


@dataclass(frozen=True, slots=True)
class Pages:
    """Where the pages are served, and what opens them."""

    staff: str
    password: str
    """Of NAME."""
    dashboard: str
    token: str


@contextmanager
def pages() -> Iterator[Pages]:
    """Serve the pages on databases of made-up people."""
    with tempfile.TemporaryDirectory(prefix="screenshots-") as name:
        folder, password, token, key = Path(name), *(secrets.token_urlsafe() for _ in range(3))
        webhooks, staff, dashboard = (free_port() for _ in range(3))
        settings = environment(
            WEBHOOK_API_KEY=key,
            CRM_DATABASE_URL=f"sqlite:///{folder}/crm.sqlite3",
            CRM_API_KEY=key,
            CRM_ADMIN_TOKEN=token,
            CRM_OUTBOX_URL=f"sqlite:///{folder}/outbox.sqlite3",
            CRM_WEBHOOK_URL=f"http://{HOST}:{webhooks}/webhooks",
        )
        programs = Programs(folder, folder, settings)
        programs.ask("scripts.seed", str(REQUESTS), "--days", "14", "--seed", "pictures")
        programs.ask("sender", "migrate")
        fill_outbox(settings["CRM_OUTBOX_URL"])
        subprocess.run(
            [sys.executable, "-m", "crm_server", "staff", "password", NAME, "--password-stdin"],
            cwd=folder,
            env=settings,
            input=f"{password}\n".encode(),
            check=True,
        )
        try:
            ports = ["--port", str(webhooks), "--frontend-port", str(staff)]
            programs.start("CRM", "crm_server", "serve", *ports)
            programs.start("relay", "sender", "relay")
            programs.start("dashboard", "sender", "dashboard", "--port", str(dashboard))
            served = Pages(f"http://{HOST}:{staff}", password, f"http://{HOST}:{dashboard}", token)
            programs.wait_for(f"{served.staff}/login")
            programs.wait_for(f"{served.dashboard}/admin/login")
            yield served
        finally:
            programs.stop()


def fill_outbox(url: str) -> None:
    """Write some events, three of which failed, and a day of deliveries."""
    chance, now = Random("pictures"), datetime.now(UTC)  # noqa: S311
    crm = CRM(SenderSettings(outbox_url=url))
    events = [
        crm.repair_requested(
            people.repair_request(chance, people.make_person(chance, f"user-{n}"), f"{n}", now)
        )
        for n in range(5)
    ]
    hour = hour_of(now.timestamp())
    with open_engine(url).begin() as connection:
        for event_id, (status, words, answer) in zip(events, ANSWERS, strict=False):
            kept = {"status": status, "contract": CURRENT, **answer}
            failed = {"status": "failed", "attempts": 1, "finished_at": now.timestamp() - 60 * status}
            said = {"reason": f"{status} {words}", "answer": json.dumps(kept)}
            connection.execute(update(outbox).where(outbox.c.id == event_id).values(**failed, **said))
        for ago in range(24 * 7):
            busy = round(40 * (1 + math.sin(ago / 24 * math.tau)) + chance.random() * 10)
            counted = {
                ("delivered", 20): busy,
                ("delivered", 200): busy // 9 + 1,
                ("failed", 0): chance.choice((0, 0, 1, 3)),
            }
            for (verb, rung), count in counted.items():
                row = {"hour": hour - ago, "verb": verb, "within_ms": rung, "count": count}
                connection.execute(insert(hours).values(row))


ANSWERS: tuple[tuple[int, str, dict[str, object]], ...] = (
    (400, "Bad Request", {"type": "invalid-event", "pointers": ["/repair/priority", "/customer/email"]}),
    (409, "Conflict", {"type": "conflict"}),
    (413, "Request Entity Too Large", {"type": "content-too-large"}),
)
"""What the CRM said of those that failed."""


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


def take_dashboard(page: Page, token: str) -> Iterator[str]:
    """Go from page to page of the dashboard, as above."""
    page.goto("/admin/login")
    page.get_by_label("Admin token").fill(token)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Statistics").wait_for()
    yield "dashboard"
    page.goto("/admin/deliveries")
    yield "failed"


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


def open_page(started: Browser, address: str) -> Page:
    """Open a window of the pictures' size."""
    return started.new_context(base_url=address, viewport={"width": WIDTH, "height": HEIGHT}).new_page()


def shoot(page: Page, names: Iterable[str], *, full_page: bool = False) -> None:
    """Take a picture of each page in light and in dark."""
    for name in names:
        page.emulate_media(color_scheme="light")
        page.screenshot(path=PICTURES / f"{name}.png", full_page=full_page)
        page.emulate_media(color_scheme="dark")
        page.screenshot(path=PICTURES / f"{name}-dark.png", full_page=full_page)


def main(argv: list[str] | None = None) -> int:
    """Take each picture in light and in dark."""
    parser = argparse.ArgumentParser(prog="screenshots", description=__doc__)
    parser.parse_args(argv)
    PICTURES.mkdir(exist_ok=True)
    try:
        with pages() as served, browser() as started:
            page = open_page(started, served.staff)
            log_in(page, served.password)
            shoot(page, take(page))
            page = open_page(started, served.dashboard)
            shoot(page, take_dashboard(page, served.token), full_page=True)
    except Broken as error:
        print(f"screenshots: {error}", file=sys.stderr)
        return 1
    print(f"The pictures are in {PICTURES}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
