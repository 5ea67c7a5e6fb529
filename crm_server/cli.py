"""`crm-server`: serve, migrate, and the approval queue from the command line."""

import argparse
import asyncio
import gc
import getpass
import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from ipaddress import ip_address
from typing import Any

from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError

from crm_server import approval_queue
from crm_server.database import Database
from crm_server.errors import ConfigurationError, CrmError, cure_of, name_of
from crm_server.migrations import migrate, require_migrated
from crm_server.settings import Settings, load_settings
from crm_server.webhook_keys import LARGEST_AGE_DAYS, KeyInUse, list_keys

HIGHEST_PORT = 65535
STATUSES = ("pending_approval", "approved", "rejected")

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 1 when it failed, or 2 when it was used wrongly."""
    options = parser().parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Alembic tells of every step that it considers.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        code: int = options.run(load_settings(), options)
    except CrmError as error:
        print(f"crm-server: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read our output has seen enough; without this Python complains again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SQLAlchemyError as error:
        print(f"crm-server: the database failed: {name_of(error)}. {cure_of(error)}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"crm-server: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return code


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    top = argparse.ArgumentParser(prog="crm-server", description="The CRM's side of the RevivaTech link.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="receive webhooks until stopped")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=port, default=5001, help="port of the webhooks (default: %(default)s)")
    serve.add_argument("--only", choices=["webhooks"], help="serve this part alone")
    serve.set_defaults(run=run_serve)

    migrate_ = commands.add_parser("migrate", help="create the database or bring it up to date")
    migrate_.set_defaults(run=run_migrate)

    keys = commands.add_parser("keys", help="list the webhook keys by fingerprint, and when they were used")
    keys.add_argument("--json", action="store_true", help="print JSON")
    keys.set_defaults(run=run_keys)

    approvals = commands.add_parser("approvals", help="see and decide what waits for approval")
    add_approvals(approvals.add_subparsers(required=True, metavar="COMMAND"))
    return top


def add_approvals(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands on the approval queue."""
    list_ = commands.add_parser("list", help="list the requests, oldest first")
    list_.add_argument("--status", choices=STATUSES, help="only those in this state")
    list_.set_defaults(run=run_list)
    approve = commands.add_parser("approve", help="approve a request")
    approve.set_defaults(run=run_approve)
    reject = commands.add_parser("reject", help="reject a request")
    reject.add_argument("--reason", required=True, help="why; - reads it from standard input")
    reject.set_defaults(run=run_reject)
    for decision in (approve, reject):
        decision.add_argument("id", metavar="ID", help="the request's id")
    for command in (list_, approve, reject):
        command.add_argument("--json", action="store_true", help="print JSON")


def port(text: str) -> int:
    """Read a port; 0 lets the system choose."""
    number = int(text)
    if not 0 <= number <= HIGHEST_PORT:
        raise ValueError
    return number


def run_serve(settings: Settings, options: argparse.Namespace) -> int:
    """Receive webhooks until stopped."""
    # Connexion imports Starlette's test client, which warns of its own future on every start.
    warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
    # Imported here: the other commands need none of it, and it takes a second.
    from crm_server.app import create_app
    from crm_server.http_server import event_loop, listen, serve
    from crm_server.middleware.bodies import Hurry

    hurry = Hurry()
    app = create_app(settings, hurry)
    listener = listen(options.host, options.port)
    host, number = listener.getsockname()[:2]
    warn_if_exposed(host, settings)
    address = f"http://{f'[{host}]' if ':' in host else host}:{number}/webhooks"
    print(f"crm-server: receiving webhooks on {address}", flush=True)
    gc.collect()
    gc.freeze()  # what is loaded now stays; the collector need not look through it again and again
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        runner.run(serve(app, listener, hurry))
    return 0


def warn_if_exposed(host: str, settings: Settings) -> None:
    """Warn of a listener beyond loopback that takes webhooks from anywhere."""
    if not ip_address(host).is_loopback and not settings.allowed_networks:
        log.warning(
            "Listening beyond this machine, on %s, without WEBHOOK_ALLOWED_NETWORKS: whoever reaches the port"
            " may try keys. Name the networks that webhooks come from.",
            host,
        )


def run_migrate(settings: Settings, options: argparse.Namespace) -> int:
    """Create the database or bring it up to date."""
    database = Database(settings.url)
    migrate(database)
    print(f"crm-server: {settings.url.render_as_string(hide_password=True)} is up to date")
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
        lines + [[k.fingerprint, k.first_used_at or "-", k.last_used_at or "-", state_of(k)] for k in keys]
    )
    return 0


def state_of(key: KeyInUse) -> str:
    """Say what an operator should know of a key."""
    if not key.is_set:
        return "no longer set"
    return f"in use for more than {LARGEST_AGE_DAYS} days: change it" if key.is_due else "set"


def run_list(settings: Settings, options: argparse.Namespace) -> int:
    """Print the requests."""
    with opened(settings).reading() as connection:
        rows = approval_queue.list_approvals(connection, options.status)
        if options.json:
            print(json.dumps([as_json(row) for row in rows], ensure_ascii=False, indent=2))
            return 0
        lines = [["ID", "EVENT", "STATUS", "RECEIVED", "NATURAL KEY"]]
        lines += [[row.id, row.event, row.status, row.received_at, row.natural_key] for row in rows]
    print_table(lines)
    return 0


def print_table(lines: Sequence[Sequence[str]]) -> None:
    """Print lines of cells, each column as wide as its widest."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def run_approve(settings: Settings, options: argparse.Namespace) -> int:
    """Approve a request."""
    with opened(settings).writing() as connection:
        row = approval_queue.approve(connection, options.id, actor())
    return print_decided(row, options)


def run_reject(settings: Settings, options: argparse.Namespace) -> int:
    """Reject a request for a reason."""
    reason = (sys.stdin.read() if options.reason == "-" else options.reason).strip()
    if not reason:
        raise ConfigurationError("A rejection needs a reason.")
    with opened(settings).writing() as connection:
        row = approval_queue.reject(connection, options.id, actor(), reason)
    return print_decided(row, options)


def opened(settings: Settings) -> Database:
    """Return the database, which must be migrated."""
    database = Database(settings.url)
    require_migrated(database)
    return database


def actor() -> str:
    """Name who decides, for the trail."""
    try:
        return f"cli:{getpass.getuser()}"
    except KeyError:
        # A container may run under a number that has no name.
        return f"cli:uid {os.getuid()}"


def print_decided(row: Row[Any], options: argparse.Namespace) -> int:
    """Print a request that was just decided."""
    if options.json:
        print(json.dumps(as_json(row), ensure_ascii=False, indent=2))
    else:
        print(f"{row.id} {row.event} {row.natural_key}: {row.status}")
    return 0


def as_json(row: Row[Any]) -> dict[str, Any]:
    """Return a request as `--json` prints it."""
    return {
        "id": row.id,
        "event": row.event,
        "status": row.status,
        "received_at": row.received_at,
        "webhook_id": row.webhook_id,
        "natural_key": row.natural_key,
        "contract": row.contract,
        "payload": None if row.payload is None else json.loads(row.payload),
        "decided_at": row.decided_at,
        "decided_by": row.decided_by,
    }
