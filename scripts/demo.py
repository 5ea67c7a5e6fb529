"""Show the whole way of the data: real programs, a real booking site, and a CRM that is killed on the way.

python -m scripts.demo          tell the story, then go on running until Ctrl-C
python -m scripts.demo --once   tell the story, then end: 0 when all was as promised, else 1
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from scripts.generate import ROOT
from scripts.processes import HOST, Broken, Interrupted, Programs, environment, interruptible, require_free
from sender.events import canonical

WHILE_AWAY = 20
"""Bookings that are made while the CRM is away."""
ANSWER_SECONDS = 5.0
"""The longest that a customer may wait for an answer, CRM or no CRM."""
ARRIVE_SECONDS = 60.0
TOLD = ["payment-status", "booking-status", "customer-profile"]
"""What the website tells of a repair, and of the customer, after the booking."""
INTERRUPTED = 130
"""The exit code of a program that was stopped before it was done."""

STAFF = "Grace"
ADA = {"first_name": "Ada", "last_name": "Lovelace", "email": "ada@example.com", "phone": "+44 20 7946 0000"}
LAPTOP = {
    "device": "Apple MacBook Pro",
    "model": 'MacBook Pro 16"',
    "issue": "The screen is cracked.\nIt still turns on.",
    "service": "SCREEN_REPAIR",
    "priority": "normal",
}


@dataclass
class Demo:
    """The programs of the story, and what a person at their keyboard would do with them."""

    programs: Programs
    crm_port: int
    staff_port: int
    site_port: int
    dashboard_port: int
    browser: httpx.Client = field(init=False)
    """Ada's: it keeps the site's cookie."""
    admin: httpx.Client = field(init=False)
    """That of whoever looks after the link: it keeps the dashboard's cookie."""
    password: str = field(default_factory=secrets.token_urlsafe)
    """Grace's, who is staff."""

    def __post_init__(self) -> None:
        self.browser = httpx.Client(base_url=self.site_address, timeout=ANSWER_SECONDS, trust_env=False)
        self.admin = httpx.Client(
            base_url=self.dashboard_address,
            headers={"origin": self.dashboard_address},
            timeout=ANSWER_SECONDS,
            follow_redirects=True,
            trust_env=False,
        )

    @property
    def site_address(self) -> str:
        """Where the booking site is."""
        return f"http://{HOST}:{self.site_port}"

    @property
    def crm_address(self) -> str:
        """Where the CRM takes webhooks."""
        return f"http://{HOST}:{self.crm_port}/webhooks"

    @property
    def staff_address(self) -> str:
        """Where staff work."""
        return f"http://{HOST}:{self.staff_port}"

    @property
    def dashboard_address(self) -> str:
        """Where the dashboard is."""
        return f"http://{HOST}:{self.dashboard_port}"

    @property
    def admin_token(self) -> str:
        """What logs in there."""
        return self.programs.environment["CRM_ADMIN_TOKEN"]

    def start_crm(self, **settings: str) -> None:
        """Start the CRM and wait until it is well."""
        ports = ["--port", str(self.crm_port), "--frontend-port", str(self.staff_port)]
        self.programs.start("CRM", "crm_server", "serve", *ports, **settings)
        self.programs.wait_for(f"{self.crm_address}/health")

    def submit(self, path: str, filled: Mapping[str, str]) -> tuple[str, httpx.Response]:
        """Open a form, fill it in, and send it as a browser does; return the form's id and the answer."""
        form_id = hidden_id(self.browser.get(path).text)
        return form_id, self.browser.post(path, data={"id": form_id, **filled})

    def book(self, **filled: str) -> str:
        """Book a repair through the form; return the booking's id."""
        booking_id, answer = self.submit("/book", {**LAPTOP, **ADA, **filled})
        expect(answer.status_code == 303, f"A booking was answered {answer.status_code}, not 303.")
        page = self.browser.get(answer.headers["location"])
        expect("REV-" in page.text, "The confirmation shows no ticket number.")
        return booking_id

    def see_on_dashboard(self, path: str, *words: str) -> str:
        """Wait until a page of the dashboard shows some words; return it."""
        shown = ""

        def is_shown() -> bool:
            nonlocal shown
            shown = self.admin.get(path).text
            return all(each in shown for each in words)

        self.programs.wait_until(is_shown, ARRIVE_SECONDS, f"{' and '.join(words)} on the dashboard")
        return shown

    def queue(self) -> list[dict[str, Any]]:
        """Return the CRM's approval queue, in order of receipt."""
        listed: list[dict[str, Any]] = json.loads(
            self.programs.ask("crm_server", "approvals", "list", "--json")
        )
        return listed

    def wait_for_requests(self, count: int) -> list[dict[str, Any]]:
        """Wait until the approval queue holds so many requests and the outbox none; return the queue."""
        self.programs.wait_until(
            lambda: self.crm_rows("SELECT count(*) FROM approvals") == [(count,)] and not self.undelivered(),
            ARRIVE_SECONDS,
            f"{count} requests in the approval queue",
        )
        return self.queue()

    def undelivered(self) -> list[str]:
        """Return the payloads that wait in the outbox, in their order."""
        rows = self.site_rows("SELECT payload FROM crm_outbox WHERE status <> 'delivered' ORDER BY sequence")
        return [payload for (payload,) in rows]

    def site_rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Read from the site's database, beside the site."""
        return rows(self.programs.folder / "site.sqlite3", statement)

    def crm_rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Read from the CRM's database, beside the CRM."""
        return rows(self.programs.folder / "crm.sqlite3", statement)


def start(demo: Demo) -> None:
    """Start the CRM, the relay and the booking site."""
    demo.programs.ask("crm_server", "migrate")
    demo.programs.ask("sender", "migrate")
    grace = ["staff", "add", STAFF, "--role", "admin", "--password-stdin"]
    demo.programs.ask("crm_server", *grace, stdin=demo.password)
    demo.start_crm()
    demo.programs.start("relay", "sender", "relay")
    demo.programs.start("booking site", "scripts.booking_site", "--port", str(demo.site_port))
    demo.programs.wait_for(demo.site_address)
    say(f"The CRM takes webhooks at {demo.crm_address}, the booking site is {demo.site_address}.")
    demo.programs.start("dashboard", "sender", "dashboard", "--port", str(demo.dashboard_port))
    demo.programs.wait_for(f"{demo.dashboard_address}/admin/login")
    demo.admin.post("/admin/login", data={"token": demo.admin_token, "next": "/admin"})
    demo.see_on_dashboard("/admin", "reachable: 200 OK")
    say(
        f"The dashboard at {demo.dashboard_address}/admin says that all is well; admin token {demo.admin_token}"
    )


def register_and_book(demo: Demo) -> None:
    """A customer registers and books a repair, through the forms."""
    _, answer = demo.submit("/register", ADA)
    expect(answer.status_code == 303, f"The registration was answered {answer.status_code}, not 303.")
    say("Ada has registered.")
    demo.book()
    say("Ada has booked a repair. Her booking and the event for the CRM are one transaction.")


def see_the_queue(demo: Demo) -> None:
    """Both wait for approval in the CRM."""
    queue = demo.wait_for_requests(2)
    expect(
        [request["event"] for request in queue] == ["customer-registration", "repair-request"],
        "The approval queue does not hold the registration, then the repair request.",
    )
    for request in queue:
        say(f"{request['event']:<22}{request['status']:<18}{request['natural_key']}")


def kill_the_crm(demo: Demo) -> None:
    """The CRM is killed; bookings go on, and none waits for it."""
    before = {request["natural_key"] for request in demo.queue()}
    say(f"The CRM (process {demo.programs.kill('CRM')}) is killed with SIGKILL.")
    booked, times = [], []
    for number in range(1, WHILE_AWAY + 1):
        began = time.monotonic()
        booked.append(demo.book(issue=f"Laptop {number} of {WHILE_AWAY} of our school does not start."))
        times.append(time.monotonic() - began)
    milliseconds = " ".join(f"{1000 * seconds:.0f}" for seconds in times)
    say(f"{WHILE_AWAY} bookings meanwhile, form to confirmation, in milliseconds: {milliseconds}")
    committed = demo.undelivered()
    expect(len(committed) == WHILE_AWAY, f"The outbox holds {len(committed)} events, not {WHILE_AWAY}.")
    say(f"{len(committed)} events wait in the outbox; nothing has failed.")
    demo.see_on_dashboard(
        "/admin", "not reachable: Connection refused", f'data-count="pending">{WHILE_AWAY}<'
    )
    say("The dashboard shows the outage: Connection refused, its cause and its solution.")
    demo.start_crm()
    say("The CRM is back.")
    queue = demo.wait_for_requests(len(before) + WHILE_AWAY)
    arrived = [request for request in queue if request["natural_key"] not in before]
    require_the_same(booked, committed, arrived)
    say(f"All {WHILE_AWAY} are in the approval queue: once each, in order, unchanged.")
    say("The outbox holds no payload any more.")


def require_the_same(
    booked: Sequence[str], committed: Sequence[str], arrived: Sequence[dict[str, Any]]
) -> None:
    """Compare what customers booked, what was committed, and what the CRM has."""
    keys = [request["natural_key"] for request in arrived]
    expect(keys == booked, "The CRM does not have each booking once, in the order in which they were made.")
    received = [canonical(request["payload"]) for request in arrived]
    expect(
        received == [canonical(json.loads(payload)) for payload in committed],
        "What the CRM has is not what was committed with the bookings.",
    )


def refuse_an_invalid_booking(demo: Demo) -> None:
    """A booking that the contract refuses is shown to the customer, and nothing is committed."""
    count = "SELECT (SELECT count(*) FROM bookings), (SELECT count(*) FROM crm_outbox)"
    before = demo.site_rows(count)
    _, answer = demo.submit("/book", {**LAPTOP, **ADA, "email": "ada at example.com"})
    expect(answer.status_code == 422, f"An invalid booking was answered {answer.status_code}, not 422.")
    fault = between(answer.text, 'id="email-fault">', "<")
    expect(bool(fault), "The page does not show the fault beside the e-mail field.")
    say(f"A booking with a wrong e-mail address is refused, beside the field: “{fault}”")
    expect(demo.site_rows(count) == before, "The refused booking left something behind.")
    ((bookings, events),) = before
    say(f"Nothing was committed: still {bookings} bookings and {events} events.")


def approve_a_request(demo: Demo) -> None:
    """Staff log in, open the first repair request and approve it, and it becomes a ticket."""
    request = next(request for request in demo.queue() if request["event"] == "repair-request")
    with httpx.Client(
        base_url=demo.staff_address,
        headers={"origin": demo.staff_address},
        timeout=ANSWER_SECONDS,
        follow_redirects=True,
        trust_env=False,
    ) as browser:
        page = browser.post("/login", data={"name": STAFF, "password": demo.password, "next": "/approvals"})
        expect("REV-" in page.text, "The queue's page shows no request.")
        say(f"{STAFF} has logged in on {demo.staff_address} and sees the queue.")
        path = f"/approvals/{request['id']}"
        page = browser.get(path)
        expect(ADA["email"] in page.text, "The request's page does not show what was sent.")
        page = browser.post(f"{path}/approve", data={"csrf": between(page.text, 'name="csrf" value="', '"')})
        expect(page.status_code == httpx.codes.OK, f"The approval was answered {page.status_code}.")
        ((ticket_id,),) = demo.crm_rows("SELECT id FROM tickets")
        page = browser.get(f"/tickets/{ticket_id}")
        expect(LAPTOP["device"] in page.text, "The ticket's page does not show the device.")
    tickets = demo.crm_rows(
        "SELECT tickets.ticket_number, tickets.status, tickets.website_repair_id, customers.website_user_id"
        " FROM tickets JOIN customers ON customers.id = tickets.customer_id"
    )
    expect(len(tickets) == 1, f"The approval made {len(tickets)} tickets, not one.")
    ((number, status, repair_id, user_id),) = tickets
    payload = request["payload"]
    expect(
        (repair_id, user_id) == (request["natural_key"], payload["customer"]["websiteUserId"]),
        "The ticket is not of the request that was approved.",
    )
    say(f"{STAFF} has approved Ada's repair request: ticket {number} is {status}.")
    say(f"The request: {demo.staff_address}{path}")
    say(f"The ticket:  {demo.staff_address}/tickets/{ticket_id}")


def fail_and_retry(demo: Demo) -> None:
    """The CRM refuses a booking by a mistake in its settings; when that is mended it is sent again."""
    before = len(demo.queue())
    demo.programs.kill("CRM")
    demo.start_crm(WEBHOOK_MAX_BODY_BYTES="64")
    say("The CRM is started again, with a setting that is wrong: it takes bodies of 64 bytes at most.")
    booking_id = demo.book()
    page = demo.see_on_dashboard("/admin/deliveries", 'dir="auto">413 ')
    path = between(page, '<a href="/admin/deliveries/', '"')
    say(f"The booking has failed, and says why: {demo.dashboard_address}/admin/deliveries/{path}")
    demo.programs.kill("CRM")
    demo.start_crm()
    say("The setting is mended.")
    page = demo.admin.get(f"/admin/deliveries/{path}").text
    demo.admin.post(
        f"/admin/deliveries/{path}/retry", data={"csrf": between(page, 'name="csrf" value="', '"')}
    )
    queue = demo.wait_for_requests(before + 1)
    expect(queue[-1]["natural_key"] == booking_id, "The booking that failed is not what arrived.")
    demo.see_on_dashboard(f"/admin/deliveries/{path}", "dashboard</bdi>: retried", "relay</bdi>: delivered")
    say("Retried on the dashboard, it is in the approval queue.")


def see_what_becomes_of_it(demo: Demo) -> None:
    """The customer pays, chooses another day and changes the telephone number; the website asks what was decided."""
    queue = demo.queue()
    repair = next(request for request in queue if request["status"] == "approved")
    page = f"/bookings/{repair['natural_key']}"
    form_id = hidden_id(demo.browser.get(page).text)
    for path, filled in (("pay", {}), ("day", {"day": "2030-01-15"})):
        answer = demo.browser.post(f"{page}/{path}", data={"id": form_id, **filled})
        expect(answer.status_code == 303, f"{page}/{path} was answered {answer.status_code}, not 303.")
    _, answer = demo.submit("/profile", {"phone": "+44 20 7946 0001"})
    expect(answer.status_code == 303, f"The new telephone number was answered {answer.status_code}, not 303.")
    say("Ada has paid the deposit, chosen another day, and changed her telephone number.")
    arrived = [request["event"] for request in demo.wait_for_requests(len(queue) + len(TOLD))[len(queue) :]]
    expect(arrived == TOLD, f"The CRM has {', '.join(arrived)} and not, in this order, {', '.join(TOLD)}.")
    ticket = repair["payload"]["repair"]["ticketNumber"]

    def decisions(key: str) -> list[str]:
        told = json.loads(demo.programs.ask("sender", "show", key, "--json"))
        return [each["decided"]["status"] for each in told if each["decided"]]

    demo.programs.wait_until(
        lambda: decisions(ticket) == ["approved"] * 3,
        ARRIVE_SECONDS,
        "the CRM to take the payment and the other day to its ticket",
    )
    say(f"crm-sender show {ticket}")
    for line in demo.programs.ask("sender", "show", ticket).splitlines():
        if not line.startswith("  ") or line.startswith("  decided"):
            say(f"  {line}")
    customer = repair["payload"]["customer"]["websiteUserId"]
    expect(
        decisions(customer)[-1] == "pending_approval", "The new telephone number does not wait for the staff."
    )
    say("The new telephone number waits for the CRM's staff, beside the one on record.")


SCENES: Sequence[tuple[str, Callable[[Demo], None]]] = (
    ("Starting", start),
    ("A customer registers and books", register_and_book),
    ("The approval queue", see_the_queue),
    ("The CRM dies, and nobody notices", kill_the_crm),
    ("A mistake is caught before it is committed", refuse_an_invalid_booking),
    ("A failure, and a retry", fail_and_retry),
    ("Staff approve", approve_a_request),
    ("What becomes of a repair", see_what_becomes_of_it),
)


def main(argv: list[str] | None = None) -> int:
    """Tell the story; return 0, or 1 when something was not as promised."""
    options = parser().parse_args(argv)
    ports = {
        options.crm_port: "the CRM",
        options.staff_port: "the CRM's staff",
        options.site_port: "the booking site",
        options.dashboard_port: "the dashboard",
    }
    began, told = time.monotonic(), False
    try:
        with interruptible():
            require_free(ports, " (or choose others: python -m scripts.demo --help)")
            demo = prepare(options)
            try:
                for title, scene in SCENES:
                    print(f"\n{title}", flush=True)
                    scene(demo)
                print(f"\nAll was as promised, in {time.monotonic() - began:.0f} seconds.", flush=True)
                told = True
                if not options.once:
                    go_on(demo)
            finally:
                demo.programs.stop()
    except (Broken, httpx.HTTPError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except Interrupted:
        print("\nStopped.", flush=True)
    return 0 if told else INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    made = argparse.ArgumentParser(
        prog="demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--once",
        action="store_true",
        default=bool(os.environ.get("ONCE")),
        help="end after the story (also: ONCE=1 in the environment)",
    )
    made.add_argument("--crm-port", type=int, default=5001, help="default: %(default)s")
    made.add_argument("--staff-port", type=int, default=3001, help="default: %(default)s")
    made.add_argument("--site-port", type=int, default=3011, help="default: %(default)s")
    made.add_argument("--dashboard-port", type=int, default=3010, help="default: %(default)s")
    made.add_argument(
        "--folder",
        type=Path,
        default=ROOT / "var" / "demo",
        help="for databases and logs; those of an earlier demo are removed (default: var/demo)",
    )
    return made


def prepare(options: argparse.Namespace) -> Demo:
    """Remove what an earlier demo left, and make a key for this run."""
    folder: Path = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for left in (*folder.glob("*.sqlite3*"), *folder.glob("*.log")):
        left.unlink()
    key = secrets.token_urlsafe()
    settings = environment(
        WEBHOOK_API_KEY=key,
        CRM_DATABASE_URL=f"sqlite:///{folder / 'crm.sqlite3'}",
        CRM_API_KEY=key,
        CRM_WEBHOOK_URL=f"http://{HOST}:{options.crm_port}/webhooks",
        CRM_OUTBOX_URL=f"sqlite:///{folder / 'site.sqlite3'}",
        CRM_ADMIN_TOKEN=secrets.token_urlsafe(),
    )
    ports = options.crm_port, options.staff_port, options.site_port, options.dashboard_port
    return Demo(Programs(folder, folder, settings), *ports)


def go_on(demo: Demo) -> None:
    """Leave everything running until somebody stops us."""
    folder = demo.programs.folder
    print(
        f"""
Try it yourself; Ctrl-C ends it.
  Booking site  {demo.site_address}
  Staff pages   {demo.staff_address}, as {STAFF} with the password {demo.password}
  Dashboard     {demo.dashboard_address}/admin, with the admin token {demo.admin_token}
  CRM           {demo.crm_address}/health
  Approvals     CRM_DATABASE_URL=sqlite:///{folder}/crm.sqlite3 {sys.executable} -m crm_server approvals list
  Logs          {folder}""",
        flush=True,
    )
    while True:
        demo.programs.require_running()
        time.sleep(0.5)


def hidden_id(page: str) -> str:
    """Return the id that a form carries."""
    found = between(page, 'name="id" value="', '"')
    expect(bool(found), "The page has no form of ours.")
    return str(uuid.UUID(found))


def between(text: str, start: str, end: str) -> str:
    """Return what stands between two texts, or nothing."""
    return text.partition(start)[2].partition(end)[0]


def rows(database: Path, statement: str) -> list[tuple[Any, ...]]:
    """Read from a database file, and only read."""
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=5)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def expect(holds: bool, otherwise: str) -> None:
    """Raise Broken unless something holds."""
    if not holds:
        raise Broken(otherwise)


def say(line: str) -> None:
    """Tell what has happened."""
    print(f"  {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
