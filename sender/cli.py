"""`crm-sender`: the relay, and what operators ask of the outbox."""

from __future__ import annotations

import argparse
import getpass
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from generated.operations import WEBHOOKS
from sender import outbox
from sender.crm import CRM
from sender.database import open_engine, reading, words_of
from sender.errors import Fault, InvalidEvent, OutboxError, SenderError
from sender.events import check
from sender.relay import PAUSE, Relay
from sender.settings import SenderSettings
from sender.status import shown, status_of, test_integration

ENV_FILE = ".env"
LOG_LINE = "%(asctime)s %(levelname)s %(message)s"


def main(argv: list[str] | None = None) -> int:
    """Run a command; return its exit code: 0 fine, 1 the operation failed, 2 wrong usage."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format=LOG_LINE, stream=sys.stderr)
    for chatty in ("httpx", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        return int(options.run(options, SenderSettings.read(ENV_FILE)))
    except InvalidEvent as error:
        for fault in error.faults:
            print(f"crm-sender: {fault}", file=sys.stderr)
    except SenderError as error:
        print(f"crm-sender: {error}", file=sys.stderr)
    except DBAPIError as error:
        hint = "; create its tables with: crm-sender migrate" if outbox.is_missing_table(error) else ""
        print(f"crm-sender: the outbox cannot be used: {words_of(error)}{hint}", file=sys.stderr)
    except BrokenPipeError:
        # Whoever read our output has seen enough; without this Python complains again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"crm-sender: {error.strerror}: {error.filename}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crm-sender", description="The website's side of the link to the CRM: its outbox and the relay."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., int], words: str, data: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=words, description=words)
        sub.set_defaults(run=run)
        if data:
            sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    sub = command("relay", _relay, "Deliver events to the CRM, until stopped.", data=False)
    sub.add_argument(
        "--drain", action="store_true", help="stop when nothing is due; exit 1 when not all is delivered"
    )
    sub = command("enqueue", _enqueue, "Put an event into the outbox.")
    sub.add_argument("event", choices=sorted(WEBHOOKS))
    sub.add_argument("file", metavar="FILE|-", help="the event's JSON; - reads standard input")
    sub.add_argument("--resend", action="store_true", help="send it again when it was delivered")
    command("status", _status, "Say how the outbox, the relay and the CRM are.")
    command("failed", _failed, "List failed deliveries.")
    sub = command("retry", _retry, "Put failed deliveries back to pending.")
    sub.add_argument("ids", nargs="*", metavar="ID")
    sub.add_argument("--all", action="store_true", help="all that failed")
    sub = command("close", _close, "Give a failed delivery up: its payload is erased.")
    sub.add_argument("id", metavar="ID")
    sub = command("show", _show, "Say where an event is.")
    sub.add_argument("key", metavar="ID|TICKET", help="the event's id, its natural key, or the ticket number")
    sub = command("delivered", _delivered, "List what was delivered since a time.")
    sub.add_argument(
        "--since", required=True, type=_time, metavar="T", help="ISO 8601, such as 2026-11-24T09:00Z"
    )
    command("test", _test, "Test the way to the CRM; nothing is stored there.")
    sub = command("migrate", _migrate, "Create or update the outbox's tables.", data=False)
    sub.add_argument("--sql", action="store_true", help="print the SQL instead of running it")
    return parser


def _time(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError("is not a time such as 2026-11-24T09:00Z") from None


def _relay(options: argparse.Namespace, settings: SenderSettings) -> int:
    relay = Relay(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: relay.stop())
    progress = _Progress() if options.drain and sys.stderr.isatty() else None
    summary = relay.run(drain=options.drain, watch=progress.show if progress else None)
    if progress:
        print(file=sys.stderr)
    if not options.drain:
        return 0
    left = f"{summary.failed} failed, {summary.held} held, {summary.pending} pending"
    print(f"{summary.delivered} delivered, {left}")
    return 0 if summary.all_delivered else 1


class _Progress:
    """A line at the foot of a terminal that says how far a drain is; what is logged goes above it."""

    WIDTH = 30
    WIPE = "\r\x1b[K"

    def __init__(self) -> None:
        self._before: outbox.Counts | None = None
        for handler in logging.getLogger().handlers:
            handler.setFormatter(logging.Formatter(self.WIPE + LOG_LINE))

    def show(self, counts: outbox.Counts) -> None:
        """Draw it anew."""
        if self._before is None:
            self._before, self._since = counts, time.monotonic()
        before, left = self._before, counts.pending + counts.held
        done = counts.delivered + counts.failed - before.delivered - before.failed
        rate = done / max(time.monotonic() - self._since, 0.001)
        share = done / (done + left) if done + left else 1.0
        bar = ("#" * round(share * self.WIDTH)).ljust(self.WIDTH, ".")
        rest = f"{timedelta(seconds=round(left / rate))} left" if rate else "waiting"
        words = f"[{bar}] {done:,} of {done + left:,}, {rate:,.0f}/s, {rest}"
        print(self.WIPE + words, end="", file=sys.stderr, flush=True)


def _enqueue(options: argparse.Namespace, settings: SenderSettings) -> int:
    raw = sys.stdin.buffer.read() if options.file == "-" else Path(options.file).read_bytes()
    try:
        body = check(options.event, raw.decode())
    except UnicodeDecodeError:
        raise InvalidEvent(options.event, [Fault("", "is not UTF-8", "JSON in UTF-8")]) from None
    crm = CRM(settings)
    write = {"customer-registration": crm.customer_registered, "repair-request": crm.repair_requested}
    event_id = write[options.event](body, resend=options.resend)
    _print(options, {"id": event_id}, [event_id])
    return 0


def _status(options: argparse.Namespace, settings: SenderSettings) -> int:
    status = status_of(settings, _outbox(settings))
    crm, relay, box = status["crm"], status["relay"], status["outbox"]
    lines = [
        *(f"{name:<10}{status[name]}" for name in ("pending", "delivered", "failed", "held")),
        f"CRM       {crm['answer']} at {crm['url']}, contracts {', '.join(crm['contract_versions']) or 'unknown'}",
        f"relay     {'running' if relay['running'] else 'not running'}, last seen {relay['seen_at'] or 'never'}",
        f"outbox    {box['url']}",
    ]
    lines += [f"waits for {waited_for}" for waited_for in box["held_for"]]
    if box["erasing_since"]:
        lines.append(f"erased bytes wait in the log since {box['erasing_since']}")
    _print(options, status, lines)
    return 0


def _failed(options: argparse.Namespace, settings: SenderSettings) -> int:
    with reading(_outbox(settings)) as connection:
        rows = outbox.failed(connection)
    _print(options, [_failed_row(row) for row in rows], map(_line, rows))
    return 0


def _failed_row(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "event": row.event,
        "natural_key": row.natural_key,
        "reason": row.reason,
        "answer": json.loads(row.answer) if row.answer else None,
        "attempts": row.attempts,
        "failed_at": shown(row.finished_at),
    }


def _retry(options: argparse.Namespace, settings: SenderSettings) -> int:
    if bool(options.ids) == options.all:
        print("crm-sender retry: name events by their ids, or --all", file=sys.stderr)
        return 2
    engine = _outbox(settings)
    with reading(engine) as connection:
        ids = options.ids or [row.id for row in outbox.failed(connection)]
    refused = 0
    for event_id in ids:
        with engine.begin() as connection:
            try:
                _recheck(connection, event_id)
                outbox.retry(connection, event_id, time.time(), _actor())
            except SenderError as error:
                refused += 1
                print(f"crm-sender: {event_id}: {error}", file=sys.stderr)
        time.sleep(PAUSE)
    _print(
        options,
        {"retried": len(ids) - refused, "refused": refused},
        [f"{len(ids) - refused} back to pending"],
    )
    return 1 if refused else 0


def _recheck(connection: Connection, event_id: str) -> None:
    """Refuse to send again what today's contract refuses."""
    for row in outbox.find(connection, event_id):
        payload = outbox.payload_of(connection, row.id)
        if payload is not None:
            check(row.event, payload)


def _close(options: argparse.Namespace, settings: SenderSettings) -> int:
    with _outbox(settings).begin() as connection:
        outbox.close(connection, options.id, time.time(), _actor())
    _print(options, {"id": options.id, "status": "closed"}, [f"{options.id} closed, its payload is erased"])
    return 0


def _show(options: argparse.Namespace, settings: SenderSettings) -> int:
    with reading(_outbox(settings)) as connection:
        rows = outbox.find(connection, options.key)
        events = [(row, outbox.trail_of(connection, row.id)) for row in rows]
    data, lines = [], []
    for row, trail in events:
        steps = [
            {"at": shown(step.at), "actor": step.actor, "what": step.verb, "detail": step.detail}
            for step in trail
        ]
        steps.insert(0, {"at": shown(row.enqueued_at), "actor": "site", "what": "enqueued", "detail": ""})
        data.append(_failed_row(row) | {"status": row.status, "reference": row.reference, "trail": steps})
        lines += [_line(row), *(f"  {s['at']}  {s['actor']:<8}{s['what']:<10}{s['detail']}" for s in steps)]
    _print(options, data, lines)
    return 0


def _delivered(options: argparse.Namespace, settings: SenderSettings) -> int:
    with reading(_outbox(settings)) as connection:
        rows = outbox.delivered_since(connection, options.since)
    data = [
        {
            "id": row.id,
            "event": row.event,
            "natural_key": row.natural_key,
            "digest": row.digest,
            "delivered_at": shown(row.finished_at),
        }
        for row in rows
    ]
    _print(options, data, map(_line, rows))
    return 0


def _test(options: argparse.Namespace, settings: SenderSettings) -> int:
    result = test_integration(settings)
    lines = [
        f"{'fine' if step['ok'] else 'FAILED':<8}{step['step']:<24}{step['answer']}"
        for step in result["steps"]
    ]
    _print(options, result, lines)
    return 0 if result["ok"] else 1


def _migrate(options: argparse.Namespace, settings: SenderSettings) -> int:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", "sender:migrations")
    if options.sql:
        config.attributes["dialect"] = make_url(settings.outbox_url).get_backend_name()
        command.upgrade(config, "head", sql=True)
        return 0
    with open_engine(settings.outbox_url, create=True).begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError:
            raise OutboxError("the outbox's tables are of a newer release than this crm-sender") from None
    print(f"crm-sender: {settings.shown_outbox} is up to date")
    return 0


def _outbox(settings: SenderSettings) -> Engine:
    return open_engine(settings.outbox_url)


def _actor() -> str:
    try:
        return f"cli:{getpass.getuser()}"[:64]
    except (KeyError, OSError):  # a user id without a name, as in a container
        return f"cli:uid {os.getuid()}"


def _line(row: Row[Any]) -> str:
    """Return an event in one line, without personal data."""
    when = shown(row.finished_at or row.enqueued_at)
    return (
        f"{row.id}  {row.status:<10}{row.event:<24}{row.natural_key:<24}{when}  {row.reason or ''}".rstrip()
    )


def _print(options: argparse.Namespace, data: Any, lines: Iterable[str]) -> None:
    print(json.dumps(data, indent=2) if options.json else "\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
