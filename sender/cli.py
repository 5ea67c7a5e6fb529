"""`crm-sender`: the relay, and what operators ask of the outbox."""

from __future__ import annotations

import argparse
import asyncio
import csv
import getpass
import json
import logging
import os
import re
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from io import TextIOWrapper
from ipaddress import ip_address
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryFile
from textwrap import indent
from typing import IO, TYPE_CHECKING, Any, TextIO

from sqlalchemy import Engine, Row
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from generated.operations import WEBHOOKS
from sender import erasure, outbox
from sender.alerts import post, test_notice, watching
from sender.crm import CRM, METHOD_OF
from sender.database import (
    LOCK_WAIT,
    begin_migration,
    count_on,
    is_lock_timeout,
    open_engine,
    reading,
    words_of,
)
from sender.deliveries import close_matching, retry_matching, shown, story, unfinished
from sender.errors import Fault, InvalidEvent, SenderError, SettingsError
from sender.events import check
from sender.logs import TEXT, start_logging
from sender.outbox import Failures
from sender.receipts import with_decisions
from sender.relay import Relay
from sender.settings import SHORT_TOKEN, SenderSettings
from sender.status import status_of, test_integration
from sender.transport import Transport

if TYPE_CHECKING:
    from sender.doctor import Finding

ENV_FILE = ".env"
HIGHEST_PORT = 65535
INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it: 128 and SIGINT's number."""
END_SECONDS = 10.0
"""How long what still runs is waited for at the end, after what was begun was answered or given up."""

MIGRATIONS = 3
"""How often `migrate` tries while the tables are in use."""

log = logging.getLogger("crm_sender")


def main(argv: list[str] | None = None) -> int:
    """Run a command; return its exit code: 0 fine, 1 the operation failed, 2 wrong usage, 130 after Ctrl-C."""
    parser, given = _parser(), sys.argv[1:] if argv is None else argv
    try:
        "".join(given).encode()
    except UnicodeEncodeError:
        parser.error("an argument is not UTF-8")
    options = parser.parse_args(given)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # where a terminal cannot show a character
    try:
        if options.command == "doctor":  # which says what is wrong with the settings, too
            start_logging("text")
            code = _doctor(options)
        else:
            settings = SenderSettings.read(ENV_FILE)
            require_usable(settings)
            start_logging(settings.log_format)
            code = _run(options, settings)
        _end_output()
        return code
    except InvalidEvent as error:
        for fault in error.faults:
            print(f"crm-sender: {fault}", file=sys.stderr)
    except SenderError as error:
        print(f"crm-sender: {error}", file=sys.stderr)
    except BrokenPipeError:  # whoever read our output has seen enough
        _abandon_output()
    except OSError as error:
        words = error if error.filename is None else f"{error.strerror}: {error.filename}"
        print(f"crm-sender: {words}", file=sys.stderr)
        _abandon_output()
    except KeyboardInterrupt:
        return INTERRUPTED
    return 1


def _end_output() -> None:
    """Write what standard output still holds back: Python's own attempt at its end would be no error of ours."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _abandon_output() -> None:
    """Let standard output go where it cannot be written, lest Python complain again at its end."""
    try:
        _end_output()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(options: argparse.Namespace, settings: SenderSettings) -> int:
    """Run a command on the outbox. Raises SenderError that names the outbox when its database fails."""
    try:
        return int(options.run(options, settings))
    except DBAPIError as error:
        where = f"CRM_OUTBOX_URL: {settings.shown_outbox}"
        hint = "; create its tables with: crm-sender migrate" if outbox.is_missing_table(error) else ""
        raise SenderError(f"the outbox cannot be used: {words_of(error)} ({where}){hint}") from None


def require_usable(settings: SenderSettings) -> None:
    """Raise SettingsError for an outbox in memory, for each program would have one of its own, or a useless file."""
    if settings.ca_file:
        Transport(settings).close()
    url = make_url(settings.outbox_url)
    if url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}:
        raise SettingsError("CRM_OUTBOX_URL: an outbox in memory is nobody else's; name a file")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crm-sender", description="The website's side of the link to the CRM: its outbox and the relay."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

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
    _add_filter(command("failed", _failed, "List failed deliveries, and what the CRM said."))
    command("held", _held, "List held events, and what they wait for.")
    sub = command("retry", _retry, "Put failed deliveries back to pending, as they were sent.")
    sub.add_argument("ids", nargs="*", metavar="ID")
    sub.add_argument("--all", action="store_true", help="all that failed")
    _add_filter(sub)
    sub = command("close", _close, "Give failed deliveries up: their payloads are erased.")
    sub.add_argument("ids", nargs="+", metavar="ID")
    sub = command(
        "show", _show, "Say where an event is, or all events of a ticket, and what the CRM decided."
    )
    sub.add_argument("key", metavar="ID|TICKET", help="the event's id, its natural key, or the ticket number")
    sub = command("delivered", _delivered, "List what was delivered since a time.")
    sub.add_argument(
        "--since", required=True, type=_time, metavar="T", help="ISO 8601, such as 2026-11-24T09:00Z"
    )
    sub = command("trail", _trail, "Print what happened to all events: ids, times and verbs, no values.")
    sub.add_argument("--since", type=_time, default=0.0, metavar="T", help="ISO 8601; from the start without")
    sub.add_argument("--csv", action="store_true", help="print CSV")
    sub = command("erase-person", _erase_person, "Erase what is not delivered yet of a person.", data=False)
    sub.add_argument(
        "--email",
        required=True,
        metavar="E|-",
        help="an address of the person; - reads it from standard input",
    )
    sub.add_argument("--yes", action="store_true", help="do not ask")
    sub = command("test", _test, "Test the way to the CRM; nothing is stored there.")
    sub.add_argument("--alert", action="store_true", help="post a test to CRM_ALERT_URL, too")
    command("doctor", _doctor, "Say whether all is fine, or what is wrong, why, and what to do.")
    sub = command(
        "dashboard",
        _dashboard,
        "Serve the integration API, the outbox's own door and the dashboard; runs no relay.",
        data=False,
    )
    sub.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    sub.add_argument("--port", type=_port, default=3010, help="port to listen on (default: %(default)s)")
    sub.add_argument(
        "--base-path",
        type=_base_path,
        default="",
        metavar="PATH",
        help="what a site has before our paths, such as /crm",
    )
    sub = command("migrate", _migrate, "Create or update the outbox's tables.", data=False)
    sub.add_argument("--sql", action="store_true", help="print the SQL instead of running it")
    sub.add_argument(
        "--after", metavar="STEP", help="with --sql: print what comes after a step, such as 0001"
    )
    return parser


def _add_filter(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--event", choices=sorted(WEBHOOKS), help="of this webhook")
    sub.add_argument(
        "--answer", type=_answer, metavar="A", help="that got this answer: a status, or 'timeout'"
    )
    sub.add_argument("--since", type=_time, metavar="T", help="that failed since then: 2026-11-24T09:00Z")


def _answer(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= HIGHEST_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is no port, which is a number up to {HIGHEST_PORT}")
    return int(text)


def _time(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError("is not a time such as 2026-11-24T09:00Z") from None


def _relay(options: argparse.Namespace, settings: SenderSettings) -> int:
    relay = Relay(settings)
    end_in_time = _end_within(settings.timeout + END_SECONDS)

    def stop(*_: object) -> None:
        relay.stop()
        end_in_time()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    progress = _Progress() if options.drain and sys.stderr.isatty() else None
    summary = relay.run(drain=options.drain, watch=progress.show if progress else None)
    if progress:
        print(file=sys.stderr)
    if not options.drain:
        return 0
    left = f"{summary.failed} failed, {summary.held} held, {summary.pending} pending"
    print(f"{summary.delivered} delivered, {left}")
    return 0 if summary.all_delivered else 1


def _end_within(seconds: float) -> Callable[[], None]:
    """Return what makes the program end in so many seconds, though a thread waits for a PostgreSQL that hangs.

    A signal's handler may call it: it begins no thread, which may wait for itself there, and puts to a queue that is
    made for that.
    """
    told: SimpleQueue[None] = SimpleQueue()

    def give_up() -> None:
        told.get()
        time.sleep(seconds)
        log.error("ended without waiting any longer for what still runs: does the database answer?")
        os._exit(1)

    threading.Thread(target=give_up, name="crm-end", daemon=True).start()
    return partial(told.put, None)


class _Progress:
    """A line at the foot of a terminal that says how far a drain is; what is logged goes above it."""

    WIDTH = 30
    WIPE = "\r\x1b[K"

    def __init__(self) -> None:
        self._before: outbox.Counts | None = None
        for handler in logging.getLogger().handlers:
            handler.setFormatter(logging.Formatter(self.WIPE + TEXT))

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
    raw = _input().buffer.read() if options.file == "-" else Path(options.file).read_bytes()
    try:
        body = check(options.event, raw.decode())
    except UnicodeDecodeError:
        raise InvalidEvent(options.event, [Fault("", "is not UTF-8", "JSON in UTF-8")]) from None
    write = getattr(CRM(settings), METHOD_OF[options.event])
    event_id = write(body, resend=options.resend)
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
    for name, count in status["releases"].items():
        if name != status["contract"]:
            lines.append(
                f"contract  {name}: {count['undelivered']} undelivered, {count['delivered']} delivered"
            )
    for name, sunset in crm["deprecated"].items():
        if name == status["contract"] or name in status["releases"]:
            until = f", and may be refused from {sunset}" if sunset else ""
            lines.append(f"contract  {name} should no longer be sent, the CRM says{until}")
    for hold in status["holds"]:
        lines.append(
            f"waiting   {hold['held']} for {hold['waits_for']} since {hold['since']}: {hold['reason']}"
        )
    if box["erasing_since"]:
        lines.append(f"erased bytes wait in the log since {box['erasing_since']}")
    _print(options, status, lines)
    return 0


def _failed(options: argparse.Namespace, settings: SenderSettings) -> int:
    with reading(_outbox(settings)) as connection:
        found = unfinished(connection, _wanted(options))
    names = ("id", "event", "natural_key", "reason", "answer", "attempts", "failed_at")
    _print(options, [{name: row[name] for name in names} for row in found], map(_line, found))
    return 0


def _held(options: argparse.Namespace, settings: SenderSettings) -> int:
    with reading(_outbox(settings)) as connection:
        found = unfinished(connection, Failures(status="held"))
    names = ("id", "event", "natural_key", "waits_for", "reason", "answer", "attempts", "held_at")
    _print(options, [{name: row[name] for name in names} for row in found], map(_line, found))
    return 0


def _wanted(options: argparse.Namespace) -> Failures:
    return Failures(event=options.event, answer=options.answer, since=options.since)


def _retry(options: argparse.Namespace, settings: SenderSettings) -> int:
    wanted = _wanted(options)
    if [bool(options.ids), options.all, wanted != Failures()].count(True) != 1:
        print("crm-sender retry: name events by their ids, or by a filter, or --all", file=sys.stderr)
        return 2
    if options.ids:
        wanted = Failures(ids=options.ids)
    done = retry_matching(_outbox(settings), wanted, _actor())
    _complain(done.refused)
    _complain(done.remarks)
    counts = {"retried": done.retried, "refused": len(done.refused)}
    _print(options, counts, [f"{done.retried} retried, {len(done.refused)} refused"])
    return 1 if done.refused else 0


def _close(options: argparse.Namespace, settings: SenderSettings) -> int:
    done = close_matching(_outbox(settings), Failures(ids=options.ids), _actor())
    _complain(done.refused)
    counts = {"closed": done.closed, "refused": len(done.refused)}
    _print(options, counts, [f"{done.closed} closed, {len(done.refused)} refused"])
    return 1 if done.refused else 0


def _complain(said: Mapping[str, object]) -> None:
    for event_id, words in said.items():
        print(f"crm-sender: {event_id}: {words}", file=sys.stderr)


def _show(options: argparse.Namespace, settings: SenderSettings) -> int:
    with reading(_outbox(settings)) as connection:
        found = story(connection, options.key)
    found = with_decisions(settings, found)
    _print(options, found, (line for event in found for line in _told(event)))
    return 0


def _told(event: dict[str, Any]) -> Iterator[str]:
    """Yield an event's story for people."""
    yield f"{event['event']} {event['natural_key']}, {event['reference']}: {event['status']}"
    facts = {
        "id": event["id"],
        "contract": event["contract"],
        "attempts": event["attempts"],
        "reason": event["reason"],
        "waits for": event["waits_for"],
        "next": event["next_at"],
        "received": event["received_at"],
    }
    answer = event["answer"] or {}
    facts["at fault"] = ", ".join(answer.get("pointers", ()))
    facts["the CRM has"] = " ".join(reversed(answer.get("existing", {}).values()))
    if event["decided"]:
        facts["receipt"], facts["decided"] = event["receipt_id"], event["decided"]["words"]
    yield from (f"  {name:<12}{fact}" for name, fact in facts.items() if fact not in {None, ""})
    for step in event["trail"]:
        yield f"  {step['at']}  {step['actor']:<16}  {step['what']:<10}  {step['detail']}".rstrip()


def _delivered(options: argparse.Namespace, settings: SenderSettings) -> int:
    with _printed_later() as out, reading(_outbox(settings)) as connection:
        data = (
            {
                "id": row.id,
                "event": row.event,
                "natural_key": row.natural_key,
                "digest": row.digest,
                "delivered_at": shown(row.finished_at),
                "receipt_id": row.receipt_id,
            }
            for row in outbox.delivered_since(connection, options.since)
        )
        line = "{id}  {event:<24}{natural_key:<24}{delivered_at}\n"
        out.writelines(_json_parts(data) if options.json else map(line.format_map, data))
    return 0


def _trail(options: argparse.Namespace, settings: SenderSettings) -> int:
    if options.csv and options.json:
        print("crm-sender trail: --csv or --json, not both", file=sys.stderr)
        return 2
    with _printed_later() as out, reading(_outbox(settings)) as connection:
        steps = (row._asdict() | {"at": shown(row.at)} for row in outbox.history(connection, options.since))
        if options.json:
            out.write("[\n")
            out.writelines(_joined(map(json.dumps, steps), ",\n"))
            out.write("\n]\n")
        elif options.csv:
            writer = csv.DictWriter(
                out, ["at", "event_id", "event", "natural_key", "actor", "verb", "detail"]
            )
            writer.writeheader()
            writer.writerows(steps)
        else:
            for s in steps:
                line = f"{s['at']}  {s['event_id']}  {s['actor']:<10}{s['verb']:<10}{s['detail']}"
                out.write(f"{line.rstrip()}\n")
    return 0


def _erase_person(options: argparse.Namespace, settings: SenderSettings) -> int:
    email = (_input_line() if options.email == "-" else options.email).strip()
    if "@" not in email:
        print("crm-sender erase-person: --email wants an e-mail address", file=sys.stderr)
        return 2
    engine = _outbox(settings)
    found, users = erasure.find(engine, email)
    print("\n".join(map(_person_line, found)) or "Nothing of this person waits here.")
    if not found:
        return _say_of_crm()
    if not options.yes:
        print(f"Erase {len(found)} for good? They will never reach the CRM. Type yes: ", end="", flush=True)
        if _input_line().strip() != "yes":
            print("Nothing was erased.")
            return 1
    erased = erasure.erase(engine, [row.id for row in found], settings.lease, _actor())
    again, _ = erasure.find(engine, email, users)
    delivered = len(found) - erased - len({row.id for row in found} & {row.id for row in again})
    print(f"{erased} erased{f'; {delivered} were delivered before that' if delivered else ''}.")
    if again:
        print("\n".join(map(_person_line, again)))
        print(
            f"crm-sender: {len(again)} more of this person came meanwhile, or are being sent; run this again",
            file=sys.stderr,
        )
        return 1
    if not erasure.empty_log(engine, time.time, erasure.EMPTY):
        print(
            "crm-sender: some program reads from the outbox, so erased bytes are left in SQLite's log for now; a "
            "relay empties it as soon as it can, and `crm-sender status` says since when they wait",
            file=sys.stderr,
        )
        return 1
    return _say_of_crm()


def _input() -> TextIO:
    """Return standard input; exit with 2, as for other wrong usage, where it is closed."""
    if sys.stdin is None:
        print("crm-sender: standard input is closed: name a file, or give --email E --yes", file=sys.stderr)
        raise SystemExit(2)
    return sys.stdin


def _output() -> TextIO:
    """Return standard output, for what is written there without `print`. Raises SenderError where it is closed."""
    if sys.stdout is None:
        raise SenderError("standard output is closed, and all of this goes there")
    return sys.stdout


def _input_line() -> str:
    try:
        line = _input().readline()
        line.encode()  # in the C locale Python lets through what it cannot decode
    except UnicodeError:
        raise SenderError("standard input is not UTF-8: convert it") from None
    return line


def _person_line(row: Row[Any]) -> str:
    """Return an event of somebody in one line: nothing that they wrote."""
    return f"{row.id}  {row.status:<10}{row.event:<24}{row.natural_key:<24}{shown(row.enqueued_at)}"


def _say_of_crm() -> int:
    print("What was delivered is in the CRM. Erase it there, too: crm-server erase-person --email -")
    return 0


def _test(options: argparse.Namespace, settings: SenderSettings) -> int:
    result = test_integration(settings)
    if options.alert:
        taken, words = post(settings, test_notice())
        result["steps"].append({"step": "alert", "ok": taken, "answer": words})
        result["ok"] &= taken
    lines = [
        f"{'fine' if step['ok'] else 'FAILED':<8}{step['step']:<24}{step['answer']}"
        for step in result["steps"]
    ]
    _print(options, result, lines)
    return 0 if result["ok"] else 1


def _doctor(options: argparse.Namespace) -> int:
    from sender.doctor import examine  # alembic, which the other commands are spared

    findings = examine(ENV_FILE)
    works = not any(finding.state == "broken" for finding in findings)
    lines = [line for finding in findings for line in _diagnosis(finding)]
    lines.append("It can work." if works else "It cannot work.")
    _print(options, {"ok": works, "findings": [asdict(finding) for finding in findings]}, lines)
    return 0 if works else 1


def _diagnosis(finding: Finding) -> Iterator[str]:
    mark = finding.state if finding.state == "fine" else finding.state.upper()
    yield f"{mark:<8}{finding.subject:<12}{finding.found}"
    for name in ("symptom", "cause", "solution") if finding.symptom else ():
        yield f"{'':<8}{name:<12}{getattr(finding, name)}"


def _base_path(text: str) -> str:
    if not re.fullmatch(r"/?|(/[A-Za-z0-9._~-]+)+/?", text):
        raise argparse.ArgumentTypeError("is not a path such as /crm")
    return text.rstrip("/")


def _dashboard(options: argparse.Namespace, settings: SenderSettings) -> int:
    # Connexion imports Starlette's test client, which warns of its own future on every start.
    warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
    # Imported here: the other commands need none of it, and it takes a second.
    try:
        from sender.integration.app import create_app
        from sender.integration.http_server import listen, serve
    except ModuleNotFoundError as error:
        raise SettingsError(f"the dashboard needs the extra `dashboard`: install {error.name}") from None
    engine = _outbox(settings)
    with reading(engine) as connection:
        outbox.outbox_id(connection)
    app = create_app(settings, engine, base_path=options.base_path)
    listener = listen(options.host, options.port)
    host, port = listener.getsockname()[:2]
    _warn_of_openness(host, settings)
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}{options.base_path}"
    say = partial(print, f"crm-sender: serving on {address}/admin", flush=True)

    end_in_time = _end_within(END_SECONDS)

    async def serve_to_the_end() -> None:
        await serve(app, listener, say)
        end_in_time()

    try:
        with watching(settings, time.time):
            asyncio.run(serve_to_the_end())
    finally:
        engine.dispose()
    return 0


def _warn_of_openness(host: str, settings: SenderSettings) -> None:
    token = settings.admin_token
    if token is None:
        log.warning("CRM_ADMIN_TOKEN is not set: all but GET /api/crm/integration answers 503")
    elif len(token.get_secret_value()) < SHORT_TOKEN:
        log.warning("CRM_ADMIN_TOKEN has fewer than %d characters; use a longer one", SHORT_TOKEN)
    if settings.api_key is None:
        log.warning("CRM_API_KEY is not set: the outbox's own door, /webhooks, answers 503")
    if not ip_address(host).is_loopback:
        log.warning(
            "listening beyond this machine, on %s, without TLS: whoever reaches the port may try tokens and keys. "
            "Listen on 127.0.0.1, behind the site",
            host,
        )


def _migrate(options: argparse.Namespace, settings: SenderSettings) -> int:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    from sender.indexes import metadata
    from sender.migrations import are_the_sites, require_complete

    config = Config()
    config.set_main_option("script_location", "sender:migrations")
    if options.sql:
        config.attributes["dialect"] = make_url(settings.outbox_url).get_backend_name()
        steps = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
        if options.after and options.after not in steps:
            print(f"crm-sender migrate: there is no step {options.after}", file=sys.stderr)
            return 2
        config.output_buffer = _output()
        command.upgrade(config, f"{options.after}:head" if options.after else "head", sql=True)
        return 0
    if options.after:
        print("crm-sender migrate: --after goes with --sql", file=sys.stderr)
        return 2
    engine = open_engine(settings.outbox_url, create=True)

    def upgrade() -> None:
        with engine.begin() as connection:
            begin_migration(connection)
            if are_the_sites(connection):
                require_complete(connection)
            else:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
            for table in metadata.sorted_tables:
                count_on(connection, table)

    for number in range(MIGRATIONS):
        time.sleep(LOCK_WAIT if number else 0)
        try:
            upgrade()
        except CommandError:
            # After a step back of the sender: releases only add to the tables, and the bookings beside them
            # cannot be put back to a backup.
            print(
                "crm-sender: the outbox's tables are of a newer release, and stay as they are",
                file=sys.stderr,
            )
            return 0
        except DBAPIError as error:
            if not is_lock_timeout(error):
                raise
        else:
            print(f"crm-sender: {settings.shown_outbox} is up to date")
            return 0
    print(
        "crm-sender: the outbox's tables are in use by somebody who does not end, as pg_dump and an open transaction "
        "do not; nothing was changed, for bookings would have waited. Run it again when that has ended",
        file=sys.stderr,
    )
    return 1


def _outbox(settings: SenderSettings) -> Engine:
    return open_engine(settings.outbox_url)


def _actor() -> str:
    try:
        return f"cli:{getpass.getuser()}"[:64]
    except (KeyError, OSError):  # a user id without a name, as in a container
        return f"cli:uid {os.getuid()}"


def _line(event: dict[str, Any]) -> str:
    """Return a failed or held event in one line."""
    answer = event["answer"] or {}
    said = [event["reason"], ", ".join(answer.get("pointers", ()))]
    if existing := answer.get("existing"):
        said.append(f"the CRM has {existing['event']} {existing['id']}")
    words = "; ".join(filter(None, said))
    when = event["failed_at"] or event["held_at"]
    return f"{event['id']}  {event['event']:<24}{event['natural_key']:<24}{when}  {words}"


def _print(options: argparse.Namespace, data: Any, lines: Iterable[str]) -> None:
    for text in [json.dumps(data, indent=2)] if options.json else lines:
        print(text)


@contextmanager
def _printed_later() -> Iterator[IO[str]]:
    """Give a file whose text is printed after the block, and may be more than there is memory.

    Whoever reads it slowly holds no transaction of the block open, which keeps erased bytes in SQLite's log.
    """
    output = _output()
    with TemporaryFile("w+", encoding="utf-8", newline="") as text:
        yield text
        text.seek(0)
        shutil.copyfileobj(text, output)


def _joined(parts: Iterable[str], separator: str) -> Iterator[str]:
    for number, part in enumerate(parts):
        yield f"{separator if number else ''}{part}"


def _json_parts(items: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """Yield what `json.dumps` returns for a list of all, with an indent of 2."""
    before = "[\n"
    for item in items:
        yield before + indent(json.dumps(item, indent=2), "  ")
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


if __name__ == "__main__":
    sys.exit(main())
