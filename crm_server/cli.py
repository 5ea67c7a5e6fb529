"""`crm-server`: serve, migrate, and the approval queue, staff, people and backups from the command line."""

import argparse
import asyncio
import gc
import getpass
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from io import TextIOWrapper
from ipaddress import ip_address
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pydantic import ValidationError
from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError

from crm_server import approval_queue, audit_trail, backup, erasure, releases, staff, workers
from crm_server.approval_queue import STATUSES, as_json
from crm_server.audit_trail import Actor
from crm_server.backup import Restored
from crm_server.database import Database, utc_now
from crm_server.decisions import COMPARED, Choice
from crm_server.erasure import Held
from crm_server.errors import ConfigurationError, CrmError, cure_of, name_of
from crm_server.logs import start_logging
from crm_server.metrics import Memory
from crm_server.migrations import migrate, require_migrated
from crm_server.pages import Window
from crm_server.settings import Settings, load_settings, warn_of_weak_secrets
from crm_server.staff import RANKS
from crm_server.webhook_keys import list_keys
from generated.approvals import Approving, Rejecting

if TYPE_CHECKING:
    from crm_server.app import Part

HIGHEST_PORT = 65535
AUDIT_PAGE = 1000
APPROVALS_PAGE = 100
INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it: 128 and SIGINT's number."""
GARBAGE = 20_000
"""So many new objects make the collector look for garbage: those of some hundred requests, which mostly go by
themselves. Python's 700 are those of a few that wait for their commit, so it would look all the time."""

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 1 when it failed, 2 when it was used wrongly, or 130 after Ctrl-C."""
    grammar, given = parser(), sys.argv[1:] if argv is None else argv
    try:
        "".join(given).encode()
    except UnicodeEncodeError:
        grammar.error("an argument is not UTF-8")
    options = grammar.parse_args(given)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # where a terminal cannot show a character of a name
    try:
        settings = load_settings()
        start_logging(settings.log_format, settings.log_level)
        warn_of_weak_secrets(settings)
        code: int = options.run(settings, options)
        end_output()
    except CrmError as error:
        print(f"crm-server: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read our output has seen enough
        return abandon_output()
    except SQLAlchemyError as error:
        print(f"crm-server: the database failed: {name_of(error)}. {cure_of(error)}", file=sys.stderr)
        return 1
    except OSError as error:
        words = error if error.filename is None else f"{error.filename}: {error.strerror}"
        print(f"crm-server: {words}", file=sys.stderr)
        return abandon_output()
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def end_output() -> None:
    """Write what standard output still holds back: Python's own attempt at its end would be no error of ours."""
    if sys.stdout is not None:
        sys.stdout.flush()


def abandon_output() -> int:
    """Let standard output go where it cannot be written, lest Python complain again at its end; return 1."""
    try:
        end_output()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    top = argparse.ArgumentParser(prog="crm-server", description="The CRM's side of the RevivaTech link.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="receive webhooks, and serve staff, until stopped")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=port, default=5001, help="port of the webhooks (default: %(default)s)")
    serve.add_argument(
        "--frontend-port", type=port, default=3001, help="port of the staff (default: %(default)s)"
    )
    serve.add_argument("--only", choices=["webhooks", "staff"], help="serve this part alone")
    serve.add_argument(
        "--workers", type=positive, default=1, help="processes that serve; above 1 with PostgreSQL alone"
    )
    serve.set_defaults(run=run_serve)

    migrate_ = commands.add_parser("migrate", help="create the database or bring it up to date")
    migrate_.set_defaults(run=run_migrate)

    keys = commands.add_parser("keys", help="list the webhook keys by fingerprint, and when they were used")
    keys.add_argument("--json", action="store_true", help="print JSON")
    keys.set_defaults(run=run_keys)

    releases_ = commands.add_parser("releases", help="list the contract's releases, and who sends which")
    releases_.add_argument("--json", action="store_true", help="print JSON")
    releases_.set_defaults(run=run_releases)
    retire = commands.add_parser("retire", help="accept a release no longer that nobody sends")
    retire.set_defaults(run=run_retire)
    unretire = commands.add_parser("unretire", help="accept a release again that was retired")
    unretire.set_defaults(run=run_unretire)
    for command in (retire, unretire):
        command.add_argument("release", metavar="RELEASE", help="its number, such as 1.0.0")

    audit = commands.add_parser("audit", help="print the audit trail, oldest first")
    notation = audit.add_mutually_exclusive_group()
    notation.add_argument(
        "--json", dest="notation", action="store_const", const="jsonl", help="print JSON lines"
    )
    notation.add_argument("--csv", dest="notation", action="store_const", const="csv", help="print CSV")
    audit.set_defaults(run=run_audit)

    approvals = commands.add_parser("approvals", help="see and decide what waits for approval")
    add_approvals(approvals.add_subparsers(required=True, metavar="COMMAND"))

    staff_ = commands.add_parser("staff", help="say who may see and decide what")
    add_staff(staff_.add_subparsers(required=True, metavar="COMMAND"))

    add_people(commands)

    backup_ = commands.add_parser(
        "backup", help="copy the database, also while it is used, and verify the copy"
    )
    backup_.set_defaults(run=run_backup)
    restore = commands.add_parser("restore", help="put a backup in the place of the database")
    restore.set_defaults(run=run_restore)
    for command in (backup_, restore):
        command.add_argument("file", metavar="FILE", type=file_name, help="the backup")
    return top


def add_people(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands on what is held of a person."""
    export = commands.add_parser("export-person", help="print all that is held of a person, as JSON")
    export.set_defaults(run=run_export_person)
    erase = commands.add_parser("erase-person", help="erase all that is held of a person, for good")
    erase.add_argument("--yes", action="store_true", help="do not ask")
    erase.set_defaults(run=run_erase_person)
    for command in (export, erase):
        command.add_argument(
            "--email",
            type=or_input(email_address),
            required=True,
            help="whose; - reads it from standard input, for a command line is public",
        )


def add_approvals(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands on the approval queue."""
    list_ = commands.add_parser("list", help="list the requests, oldest first")
    list_.add_argument("--status", choices=STATUSES, help="only those in this state")
    list_.set_defaults(run=run_list)
    approve = commands.add_parser("approve", help="approve a request")
    approve.set_defaults(run=run_approve)
    reject = commands.add_parser("reject", help="reject a request")
    reject.add_argument(
        "--reason", type=or_input(rejection_reason), required=True, help="why; - reads it from standard input"
    )
    reject.set_defaults(run=run_reject)
    approve.add_argument(
        "--ticket-number",
        type=ticket_number,
        help="the ticket's number, where the one that was sent is taken",
    )
    approve.add_argument(
        "--customer-id",
        type=customer_id,
        help="the customer, where their websiteUserId is not known yet",
    )
    approve.add_argument(
        "--use-sent",
        action="append",
        choices=COMPARED,
        metavar="FIELD",
        help=f"a field of the customer that becomes what was sent: {', '.join(COMPARED)}; may be repeated",
    )
    reopen = commands.add_parser("reopen", help="take a decision back")
    reopen.set_defaults(run=run_reopen)
    for decision in (approve, reject, reopen):
        decision.add_argument("id", metavar="ID", help="the request's id")
    for command in (list_, approve, reject, reopen):
        command.add_argument("--json", action="store_true", help="print JSON")


def add_staff(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands on staff."""
    list_ = commands.add_parser("list", help="list the staff")
    list_.add_argument("--json", action="store_true", help="print JSON")
    list_.set_defaults(run=run_staff_list)
    add = commands.add_parser("add", help="add somebody")
    add.add_argument("--role", required=True, choices=list(RANKS), help="what they may do")
    add.set_defaults(run=run_staff_add)
    password = commands.add_parser("password", help="give somebody another password")
    password.set_defaults(run=run_staff_password)
    token = commands.add_parser("token", help="print a new token for the staff API, once")
    token.set_defaults(run=run_staff_token)
    revoke = commands.add_parser("revoke", help="end every token of somebody")
    revoke.set_defaults(run=run_staff_revoke)
    disable = commands.add_parser("disable", help="shut somebody out, at once and for good")
    disable.set_defaults(run=run_staff_disable)
    for command in (add, password, token, revoke, disable):
        command.add_argument("name", metavar="NAME", help="who")
    for command, needed in ((add, False), (password, True)):
        command.add_argument(
            "--password-stdin", action="store_true", required=needed, help="read it from standard input"
        )


def ticket_number(text: str) -> str:
    """Read a ticket number, by the rule of the staff's contract."""
    return str(Approving(ticket_number=text).ticket_number)


def customer_id(text: str) -> str:
    """Read a customer's id, by the rule of the staff's contract."""
    return str(Approving(customer_id=text).customer_id)


def rejection_reason(text: str) -> str:
    """Read why a request is rejected, by the rule of the staff's contract; the error holds nothing of it."""
    try:
        return str(Rejecting(reason=text.strip()).reason)
    except ValidationError:
        message = "A rejection needs a reason, of at most 5,000 characters, without control characters."
        raise argparse.ArgumentTypeError(message) from None


def email_address(text: str) -> str:
    """Read an address, of which nothing is sure but the @; the error holds nothing of it."""
    if "@" not in text or "\0" in text:  # PostgreSQL compares nothing with the second
        raise argparse.ArgumentTypeError("An e-mail address is wanted: it has an @.")
    return text.strip()


def file_name(text: str) -> Path:
    """Read the name of a file, which an empty one is not: to Path it is the folder where one stands."""
    if not text:
        raise argparse.ArgumentTypeError("A file's name is wanted.")
    return Path(text)


def or_input(read: Callable[[str], str]) -> Callable[[str], str]:
    """Return how an argument is read that may be -, for standard input."""
    return lambda text: text if text == "-" else read(text)


def port(text: str) -> int:
    """Read a port; 0 lets the system choose."""
    number = int(text)
    if not 0 <= number <= HIGHEST_PORT:
        raise ValueError
    return number


def positive(text: str) -> int:
    """Read a number from 1."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def run_serve(settings: Settings, options: argparse.Namespace) -> int:
    """Receive webhooks, and serve staff, until stopped."""
    if options.workers > 1 and settings.url.get_backend_name() == "sqlite":
        message = "--workers above 1 needs PostgreSQL, for SQLite has one writer: see CRM_DATABASE_URL"
        print(f"crm-server: {message}.", file=sys.stderr)
        return 2
    # Connexion imports Starlette's test client, which warns of its own future on every start.
    warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
    # Imported here: the other commands need none of it, and it takes a second.
    from crm_server.app import BASE_PATHS, Part, create_apps
    from crm_server.http_server import event_loop, listen, serve
    from crm_server.middleware.bodies import Hurry

    hurry, memory = Hurry(), Memory(options.workers)
    doors: dict[Part, tuple[int, str, str]] = {
        "webhooks": (options.port, "--port", "receiving webhooks"),
        "staff": (options.frontend_port, "--frontend-port", "serving staff"),
    }
    parts = [part for part in doors if options.only in (None, part)]
    apps = create_apps(settings, parts, hurry, memory)
    listeners = {part: listen(options.host, *doors[part][:2]) for part in apps}
    for part, listener in listeners.items():
        host, number = listener.getsockname()[:2]
        path = "/" if part == "staff" else BASE_PATHS[part]
        address = f"http://{f'[{host}]' if ':' in host else host}:{number}{path}"
        warn_if_exposed(part, host, settings)
        print(f"crm-server: {doors[part][2]} on {address}", flush=True)
    gc.collect()
    gc.freeze()  # what is loaded now stays; the collector need not look through it again and again
    gc.set_threshold(GARBAGE)

    def work(number: int = 0, leash: int | None = None) -> None:
        memory.be(number)
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            runner.run(serve([(app, listeners[part]) for part, app in apps.items()], hurry, leash))

    if options.workers == 1:
        work()
        return 0
    warn_of_counting_apart(options.workers, settings)
    return workers.run(options.workers, work)


def warn_of_counting_apart(count: int, settings: Settings) -> None:
    """Warn when each of several processes counts requests for itself."""
    if settings.rate_limit_storage.get_secret_value() == "memory://":
        log.warning(
            "Each of %d workers counts requests for itself, so the limits are up to %d times as high: set"
            " RATE_LIMIT_STORAGE_URL to a Redis in which they count together.",
            count,
            count,
        )


def warn_if_exposed(part: "Part", host: str, settings: Settings) -> None:
    """Warn of a listener beyond loopback that takes requests from anywhere."""
    name, allowed = {
        "webhooks": ("WEBHOOK_ALLOWED_NETWORKS", settings.allowed_networks),
        "staff": ("STAFF_ALLOWED_NETWORKS", settings.staff_networks),
    }[part]
    if not ip_address(host).is_loopback and not allowed:
        log.warning(
            "Listening beyond this machine, on %s, without %s: whoever reaches the port may try keys. Name the"
            " networks that requests come from.",
            host,
            name,
        )


def run_migrate(settings: Settings, options: argparse.Namespace) -> int:
    """Create the database or bring it up to date."""
    database = Database(settings.url)
    migrate(database)
    print(f"crm-server: {settings.shown_database} is up to date")
    return 0


def run_keys(settings: Settings, options: argparse.Namespace) -> int:
    """Print the webhook keys by fingerprint, and when they were used."""
    with opened(settings).reading() as connection:
        keys = list_keys(connection, [key.get_secret_value() for key in settings.webhook_keys])
    if options.json:
        print(json.dumps([{**asdict(key), "is_due": key.is_due} for key in keys], indent=2))
        return 0
    lines = [["FINGERPRINT", "FIRST USED", "LAST USED", ""]]
    print_table(
        lines + [[k.fingerprint, k.first_used_at or "-", k.last_used_at or "-", k.state] for k in keys]
    )
    return 0


def run_releases(settings: Settings, options: argparse.Namespace) -> int:
    """Print the contract's releases, and who sends which."""
    with opened(settings).reading() as connection:
        found = releases.list_releases(connection)
    if options.json:
        print(json.dumps([asdict(release) for release in found], indent=2))
        return 0
    print_table(
        [["RELEASE", "STATE", "SUNSET", "LAST", f"IN {releases.DAYS} DAYS", "BY KEY"]]
        + [
            [r.release, r.state, r.sunset or "-", r.last_at or "-", str(r.count), by_key(r.uses)]
            for r in found
        ]
    )
    return 0


def by_key(uses: Sequence[releases.Use]) -> str:
    """Return how often each key sent a release."""
    return ", ".join(f"{use.key or 'unknown'} {use.count}" for use in uses)


def run_retire(settings: Settings, options: argparse.Namespace) -> int:
    """Accept a release no longer."""
    with opened(settings).writing() as connection:
        releases.retire(connection, options.release, actor())
    print(f"crm-server: {options.release} is retired; running servers know it within seconds.")
    return 0


def run_unretire(settings: Settings, options: argparse.Namespace) -> int:
    """Accept a release again."""
    with opened(settings).writing() as connection:
        releases.unretire(connection, options.release, actor())
    print(f"crm-server: {options.release} is accepted; running servers know it within seconds.")
    return 0


def run_audit(settings: Settings, options: argparse.Namespace) -> int:
    """Print the audit trail, a page at a time."""
    database, after, is_first = opened(settings), None, True
    while is_first or after is not None:
        with database.reading() as connection:
            page = audit_trail.page(connection, Window(AUDIT_PAGE, newest_first=False, after=after))
        if options.notation:
            head = audit_trail.head_of(options.notation) if is_first else ""
            output().write(head + audit_trail.as_lines(page.rows, options.notation))
        else:
            for row in page.rows:
                print(row.at, row.actor, row.verb, row.record, row.record_id, row.origin or "")
        after, is_first = page.next, False
    return 0


def run_list(settings: Settings, options: argparse.Namespace) -> int:
    """Print the requests."""
    rows = all_approvals(opened(settings), options.status)
    if options.json:
        output().writelines(json_parts(map(as_json, rows)))
        print()
        return 0
    lines = [["ID", "EVENT", "STATUS", "RECEIVED", "NATURAL KEY"]]
    lines += [[row.id, row.event, row.status, row.received_at, row.natural_key] for row in rows]
    print_table(lines)
    return 0


def all_approvals(database: Database, status: str | None) -> Iterator[Row[Any]]:
    """Yield the requests, oldest first, of which there may be more than there is memory.

    Each page is read in a transaction of its own: whoever is given the rows may wait for a slow reader, and a snapshot
    that stays open keeps erased bytes in SQLite's log.
    """
    after: int | None = 0
    while after is not None:
        with database.reading() as connection:
            page = approval_queue.list_approvals(connection, status, after, APPROVALS_PAGE)
        yield from page
        after = page[-1].sequence if len(page) == APPROVALS_PAGE else None


def json_parts(items: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """Yield what `json.dumps` returns for a list of all, with an indent of 2."""
    before = "[\n"
    for item in items:
        # Within a text JSON has no line feed, while other ends of lines may be there, and stay.
        text = json.dumps(item, ensure_ascii=False, indent=2).replace("\n", "\n  ")
        yield f"{before}  {text}"
        before = ",\n"
    yield "[]" if before == "[\n" else "\n]"


def print_table(lines: Sequence[Sequence[str]]) -> None:
    """Print lines of cells, the first of which are headings, in columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def run_approve(settings: Settings, options: argparse.Namespace) -> int:
    """Approve a request."""
    choice = Choice(options.ticket_number, options.customer_id, options.use_sent or ())
    with opened(settings).writing() as connection:
        row = approval_queue.approve(connection, options.id, actor(), choice)
    return print_decided(row, options)


def run_reject(settings: Settings, options: argparse.Namespace) -> int:
    """Reject a request for a reason."""
    given = options.reason
    reason = of_input(methodcaller("read"), rejection_reason) if given == "-" else given
    with opened(settings).writing() as connection:
        row = approval_queue.reject(connection, options.id, actor(), reason)
    return print_decided(row, options)


def run_reopen(settings: Settings, options: argparse.Namespace) -> int:
    """Take a decision back."""
    with opened(settings).writing() as connection:
        row = approval_queue.reopen(connection, options.id, actor())
    return print_decided(row, options)


def run_staff_list(settings: Settings, options: argparse.Namespace) -> int:
    """Print the staff."""
    shown = ("name", "role", "created_at", "disabled_at")
    with opened(settings).reading() as connection:
        rows = [{name: getattr(row, name) for name in shown} for row in staff.everybody(connection)]
    if options.json:
        print(json.dumps(rows, ensure_ascii=False, indent=2))
    else:
        print_table(
            [["NAME", "ROLE", "SINCE", "DISABLED"]] + [[v or "" for v in row.values()] for row in rows]
        )
    return 0


def run_staff_add(settings: Settings, options: argparse.Namespace) -> int:
    """Add somebody, with a password if one is given."""
    password = read_password() if options.password_stdin else None
    with opened(settings).writing() as connection:
        staff.add(connection, options.name, options.role, password, actor())
    return 0


def run_staff_password(settings: Settings, options: argparse.Namespace) -> int:
    """Give somebody another password."""
    password = read_password()
    with opened(settings).writing() as connection:
        staff.set_password(connection, options.name, password, actor())
    return 0


def run_staff_token(settings: Settings, options: argparse.Namespace) -> int:
    """Print a new token, and nothing else."""
    with opened(settings).writing() as connection:
        token = staff.make_token(connection, options.name, actor())
    print(token)
    return 0


def run_staff_revoke(settings: Settings, options: argparse.Namespace) -> int:
    """End every token of somebody."""
    with opened(settings).writing() as connection:
        staff.revoke(connection, options.name, actor())
    return 0


def run_staff_disable(settings: Settings, options: argparse.Namespace) -> int:
    """Shut somebody out."""
    with opened(settings).writing() as connection:
        staff.disable(connection, options.name, actor())
    return 0


def run_export_person(settings: Settings, options: argparse.Namespace) -> int:
    """Print all that is held of a person."""
    database = opened(settings)
    person = erasure.find(database, read_email(options))
    with database.writing() as connection:
        found = erasure.export(connection, person, actor())
    print(json.dumps(found, ensure_ascii=False, indent=2))
    return 0


def run_erase_person(settings: Settings, options: argparse.Namespace) -> int:
    """Show what is held of a person, and erase it when that is wanted."""
    database = opened(settings)
    person = erasure.find(database, read_email(options))
    with database.reading() as connection:
        held = erasure.held(connection, person)
    if held.is_empty:
        print("Nothing is held of this person.")
        return 0
    print_held(held)
    if not options.yes:
        print("Erase all of it, for good? Type yes: ", end="", flush=True)
        if of_input(methodcaller("readline")).strip() != "yes":
            print("Nothing was erased.")
            return 1
    with database.writing() as connection:
        erasure.erase(connection, person, actor())
    print("Erased.")
    if erasure.empty_log(database, erasure.EMPTY_SECONDS):
        return 0
    print(
        "crm-server: some program reads from the database, so erased bytes are left in its log for now. A server"
        " that runs empties it as soon as it can; or run this again when that program has ended.",
        file=sys.stderr,
    )
    return 1


def run_backup(settings: Settings, options: argparse.Namespace) -> int:
    """Copy the database."""
    backup.back_up(Database(settings.url), options.file)
    print(
        f"crm-server: {options.file} is a whole copy, of {utc_now()}. Personal data is in it: guard it well."
    )
    return 0


def run_restore(settings: Settings, options: argparse.Namespace) -> int:
    """Put a backup in the place of the database."""
    done = backup.restore(Database(settings.url), options.file, actor())
    words = "".join(f"crm-server: {line}\n" for line in told_of(done, settings.shown_database, options.file))
    try:
        print(words, end="", flush=True)
    except OSError:
        # It is done, and what is left to do stands nowhere else.
        print(words, end="", file=sys.stderr)
        raise
    return 0


def told_of(done: Restored, database: str, file: Path) -> Iterator[str]:
    """Yield what there is to know after a restore."""
    yield f"{database} is what {file} holds."
    if done.erased.count:
        yield f"{done.erased.count} records in it had been erased since, and are erased again."
    for customer_id in done.erased.doubtful:
        yield (
            f"customer {customer_id} may hold what an erased person had sent, for its decision cannot be"
            " taken back here: correct that on the customer's page."
        )
    for approval_id in done.erased.misled:
        yield (
            f"approval request {approval_id} is another person's than the erased customer for whom it is"
            " approved, and that cannot be taken back here: what it says, and its ticket, are left whole."
        )
    if done.erased.unknown:
        yield (
            f"{len(done.erased.unknown)} requests came after the backup and were erased by an earlier release,"
            " so they are not known here. See that the website does not send them again:"
            f" {', '.join(done.erased.unknown)}."
        )
    if not done.keeps_staff:
        yield (
            "who was disabled, and which tokens and passwords were changed since the backup, is not known:"
            " look through `crm-server staff list`."
        )
    if done.aside:
        yield f"what was there is {done.aside}. Remove it when you need it no more."


def read_email(options: argparse.Namespace) -> str:
    """Return the address that a command was given.

    Raises ConfigurationError.
    """
    given: str = options.email
    return of_input(methodcaller("readline"), email_address) if given == "-" else given


def of_input(take: Callable[[TextIO], str], read: Callable[[str], str] = str) -> str:
    """Take something from standard input, and read it as an argument is read.

    Raises ConfigurationError.
    """
    if sys.stdin is None:
        raise ConfigurationError("Standard input is closed, and something is to be read from it.")
    try:
        text = take(sys.stdin)
        text.encode()  # in the C locale Python lets through what it cannot decode
        return read(text)
    except UnicodeError:
        raise ConfigurationError("Standard input is not UTF-8: convert it.") from None
    except argparse.ArgumentTypeError as error:
        raise ConfigurationError(str(error)) from None


def output() -> TextIO:
    """Return standard output, for what is written there without `print`.

    Raises ConfigurationError.
    """
    if sys.stdout is None:
        raise ConfigurationError("Standard output is closed, and all of this goes there.")
    return sys.stdout


def print_held(held: Held) -> None:
    """Print what is held of a person: ids and states, nothing personal."""
    lines = [["KIND", "ID", "STATUS", "SINCE"]]
    lines += [[row.event, row.id, row.status, row.received_at] for row in held.approvals]
    lines += [["customer", row.id, "", row.created_at] for row in held.customers]
    lines += [["ticket", row.id, row.status, row.created_at] for row in held.tickets]
    lines += [["note", row.id, "", row.at] for row in held.notes]
    print_table(lines)


def read_password() -> str:
    """Return the hash of the password on standard input, without the line's end."""
    return staff.hash_password(of_input(methodcaller("readline")).rstrip("\r\n"))


def opened(settings: Settings) -> Database:
    """Return the database, which must be migrated."""
    database = Database(settings.url)
    require_migrated(database)
    return database


def actor() -> Actor:
    """Name who does this, for the trail."""
    try:
        return Actor(f"cli:{getpass.getuser()}")
    except (KeyError, OSError):  # the second since Python 3.13
        # A container may run under a number that has no name.
        return Actor(f"cli:uid {os.getuid()}")


def print_decided(row: Row[Any], options: argparse.Namespace) -> int:
    """Print a request that was just decided."""
    if options.json:
        print(json.dumps(as_json(row), ensure_ascii=False, indent=2))
    else:
        print(f"{row.id} {row.event} {row.natural_key}: {row.status}")
    return 0
