"""What is wrong between website and CRM, why, and what to do: in the integration guide's words where it has them."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from generated.operations import CURRENT, WEBHOOKS
from sender import outbox
from sender.database import open_engine, reading, time_of, words_of
from sender.deliveries import holds, shown
from sender.delivery import cause_of
from sender.errors import NotMigrated, SettingsError
from sender.settings import SenderSettings, given
from sender.tables import VERSION_TABLE
from sender.transport import NO_TLS, NOT_ACCEPTED, TLS_FAILED, Health, Transport, addresses
from sender.troubles import AUTHENTICATION_FAILED, CONNECTION_REFUSED, trouble_of

OTHERS = 0o077
"""The rights of everybody but the owner."""

SHORT_KEY = 16
"""Characters below which a key can be guessed."""

LITTLE_SPACE = 100 * 1024 * 1024
"""Bytes below which a disk is soon full."""

COMMIT_SECONDS = 4.0
"""How long the CRM may wait for its database before it answers."""

SKEW, MOST_SKEW = 60.0, 300.0
"""Seconds by which the clocks differ visibly, and by which the CRM refuses signatures (Standard Webhooks)."""

TOO_OLD = 15 * 60.0
"""Seconds after which an event should long have gone."""

ERASING_TOO_LONG = 60.0
"""Seconds after which what was erased should have left SQLite's log."""

CONNECT_TIMEOUT = 2.0
"""Seconds that a connection may take."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; no secret and no personal data."""

    subject: str
    state: Literal["fine", "look", "broken"]
    """`look` asks for a person; while anything is `broken` nothing is delivered."""
    found: str
    symptom: str | None = None
    cause: str | None = None
    solution: str | None = None


def examine(env_file: str | None = None) -> list[Finding]:
    """Look at settings, outbox, CRM, clocks and the work itself; nothing is stored, here or there.

    Takes some seconds when the CRM is silent.
    """
    try:
        settings = SenderSettings.read(env_file)
    except SettingsError as error:
        return [_unusable(error)]
    return [*_settings(settings, env_file), *_outbox(settings), *_crm(settings)]


# settings


def _unusable(error: SettingsError) -> Finding:
    wrong = "no command starts", "a setting is wrong", "correct it where it is set"
    return Finding("settings", "broken", str(error), *wrong)


def _settings(settings: SenderSettings, env_file: str | None) -> Iterator[Finding]:
    set_where = given(env_file)
    for name in SenderSettings.model_fields:
        _, where = set_where.get(name, ("", "default"))
        yield Finding("settings", "fine", f"CRM_{name.upper()} {_shown(settings, name)} ({where})")
    if settings.api_key is None:
        solution = "give CRM_API_KEY the key that the CRM has as WEBHOOK_API_KEY"
        yield Finding(
            "settings", "broken", "no key", "the relay does not start", AUTHENTICATION_FAILED.cause, solution
        )
    elif len(settings.api_key.get_secret_value()) < SHORT_KEY:
        short = "it can be guessed", f"fewer than {SHORT_KEY} characters"
        yield Finding("settings", "look", "a short key", *short, "take another: openssl rand -hex 32")
    if settings.timeout <= COMMIT_SECONDS:
        yield Finding(
            "settings",
            "look",
            f"CRM_TIMEOUT {settings.timeout:g}",
            "an attempt is given up that the CRM was about to confirm, and counts",
            f"the CRM may wait {COMMIT_SECONDS:g} seconds for its database",
            f"take more than {COMMIT_SECONDS:g}",
        )
    address = urlsplit(settings.webhook_url)
    if address.scheme == "http" and not _is_loopback(str(address.hostname)):
        yield Finding(
            "settings",
            "look",
            f"http:// to {address.hostname}",
            "the key and what customers wrote can be read on the way",
            "http:// to a host that is not this one",
            "use https://, or a network that the two sides share alone",
        )
    if env_file and os.path.exists(env_file) and os.stat(env_file).st_mode & OTHERS:
        yield Finding(
            "settings",
            "look",
            f"{env_file} is open to others",
            "other users of this machine can read the key",
            f"the rights of {env_file}",
            f"chmod 600 {env_file}",
        )


def _shown(settings: SenderSettings, name: str) -> str:
    value = settings.shown_outbox if name == "outbox_url" else getattr(settings, name)
    match value:
        case None | ():
            return "is not set"
        case SecretStr():
            return "is set"
        case tuple():
            return ",".join(f"{part:g}" if isinstance(part, float) else str(part) for part in value)
    return str(value)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# the outbox, and the work


def _outbox(settings: SenderSettings) -> Iterator[Finding]:
    try:
        engine = open_engine(settings.outbox_url)
        try:
            with reading(engine) as connection:
                identity = outbox.outbox_id(connection)
                yield Finding("outbox", "fine", f"{settings.shown_outbox} is reached, it is {identity}")
                yield _migrations(connection)
            with engine.connect() as connection:  # and nothing of it is committed
                outbox.note(connection, ["doctor"], 0.0, "doctor", "tried")
            yield Finding("outbox", "fine", "it can be written")
            yield from _files(engine)
            yield from _work(settings, engine)
        finally:
            engine.dispose()
    except SettingsError as error:
        yield _unusable(error)
    except NotMigrated as error:
        missing = "no booking can tell the CRM anything", "there is no outbox"
        yield Finding("outbox", "broken", str(error), *missing, "crm-sender migrate")
    except DBAPIError as error:
        yield Finding(
            "outbox",
            "broken",
            words_of(error),
            "no booking can tell the CRM anything",
            "the database is away, locked, full, read-only or damaged",
            "check CRM_OUTBOX_URL, and the database that it names",
        )


def _migrations(connection: Connection) -> Finding:
    """Compare the tables' release with ours; a site's own Alembic keeps no table of our versions."""
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    config = Config()
    config.set_main_option("script_location", "sender:migrations")
    scripts = ScriptDirectory.from_config(config)
    here, newest = context.get_current_revision(), scripts.get_current_head()
    if here is None:
        return Finding("outbox", "fine", "its tables are in the site's own migrations")
    if here == newest:
        return Finding("outbox", "fine", "its tables are up to date")
    known = {script.revision for script in scripts.walk_revisions()}
    age, solution = (
        ("of an older release", "crm-sender migrate")
        if here in known
        else ("of a newer release", "update this crm-sender")
    )
    found = f"its tables are at {here}, this crm-sender at {newest}"
    wrong = "what is new in a release does not work", f"the tables are {age}"
    return Finding("outbox", "look", found, *wrong, solution)


def _files(engine: Engine) -> Iterator[Finding]:
    """Look at SQLite's files."""
    if engine.dialect.name != "sqlite" or not engine.url.database:
        return
    path = Path(engine.url.database)
    with reading(engine) as connection:
        journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    if journal != "wal":
        wrong = "bookings wait for the relay", "there can be no write-ahead log here", "use a local disk"
        yield Finding("outbox", "look", f"SQLite's journal is {journal}", *wrong)
    parts = [Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm")]
    if any(part.stat().st_mode & OTHERS for part in parts if part.exists()):
        yield Finding(
            "outbox",
            "look",
            "its files are open to others",
            "other users of this machine can read what customers wrote",
            "the files' rights",
            f"chmod 600 {path}*, or 660 where the website and the relay are two users",
        )
    free = shutil.disk_usage(path.parent).free
    if free < LITTLE_SPACE:
        wrong = "bookings will fail", "the disk is nearly full", "make room on it"
        yield Finding("outbox", "look", f"{free // 1024**2} MiB are free", *wrong)
    else:
        yield Finding("outbox", "fine", f"journal {journal}, {free // 1024**2:,} MiB are free")


def _work(settings: SenderSettings, engine: Engine) -> Iterator[Finding]:
    now = time.time()
    with reading(engine) as connection:
        at = time_of(connection, time.time)  # by which relays write, unlike booking code
        relays, seen_at = outbox.running_relays(connection, at, settings.lease)
        oldest = outbox.oldest_pending(connection)
        counts = outbox.counts(connection)
        erasing_since, _ = outbox.erasing_since(connection)
        held = holds(connection)
    if relays:
        yield Finding("relay", "fine", f"{relays} running")
    else:
        seen = f"not running, last seen {shown(seen_at) or 'never'}"
        wrong = "events stay pending", "no relay runs, or it reads another outbox"
        yield Finding("relay", "look", seen, *wrong, "crm-sender relay, or systemctl start crm-relay")
    if oldest is not None and now - oldest > TOO_OLD:
        wrong = "events stay pending", "no relay runs, the CRM is away, or events are held"
        solution = "mend what else is said here, and they go by themselves"
        yield Finding("deliveries", "look", f"the oldest waits since {shown(oldest)}", *wrong, solution)
    for hold in held:
        found = f"{hold['held']} held since {hold['since']}, waiting for {hold['waits_for']}"
        ours = hold["reason"].partition(":")[0], hold["cause"], hold["cure"]
        yield Finding("deliveries", "look", found, *(_in_the_guides_words(hold["reason"]) or ours))
    if counts.failed:
        wrong = "the CRM does not have them", "it refused them, or did not take them while it was well"
        solution = "crm-sender failed says why; mend that, then crm-sender retry, or close"
        yield Finding("deliveries", "look", f"{counts.failed} failed", *wrong, solution)
    if erasing_since is not None and at - erasing_since > ERASING_TOO_LONG:
        wrong = "delivered payloads are still in SQLite's log", "a program reads for long, or no relay runs"
        found = f"erased bytes wait since {shown(erasing_since)}"
        yield Finding("deliveries", "look", found, *wrong, "end what reads the database for long")
    yield Finding("deliveries", "fine", f"{counts.pending} pending, {counts.delivered} delivered")


# the CRM


def _crm(settings: SenderSettings) -> Iterator[Finding]:
    try:
        transport = Transport(settings)
    except SettingsError as error:
        yield _unusable(error)
        return
    with transport:
        yield from _way(settings, transport)


def _way(settings: SenderSettings, transport: Transport) -> Iterator[Finding]:
    address = urlsplit(settings.webhook_url)
    port = address.port or {"http": 80, "https": 443}[address.scheme]
    try:
        _connect(str(address.hostname), port)
    except (socket.gaierror, UnicodeError):
        wrong = CONNECTION_REFUSED.symptom, f"no address is known for {address.hostname}"
        yield Finding(
            "network", "broken", "Cannot connect", *wrong, "check the host in CRM_WEBHOOK_URL, and DNS"
        )
        return
    except OSError as error:
        words = "timeout" if isinstance(error, TimeoutError) else error.strerror or type(error).__name__
        yield Finding("network", "broken", words, *_in_words(words))
        return
    yield Finding("network", "fine", f"{address.hostname}:{port} is reached")
    began = time.time()
    health = transport.health()
    now = (began + time.time()) / 2
    yield from _health(health)
    if health.clock is not None:
        yield _clock(health.clock - now, is_signed=settings.signing_secret is not None)
    answers: dict[tuple[bool, str], list[str]] = {}
    for name, webhook in WEBHOOKS.items() if settings.api_key else ():
        answers.setdefault(transport.probe(webhook.path), []).append(name)
    for (passed, words), names in answers.items():
        if passed:
            yield Finding("key", "fine", f"{', '.join(names)}: a test passes")
        else:
            yield Finding("key", "broken", f"{', '.join(names)}: {words}", *_in_words(words))


def _connect(host: str, port: int) -> None:
    """Connect to any address of a host. Raises OSError, the last one's, and UnicodeError for a name that is none."""
    failure = OSError("the name has no address")
    for address in addresses(host, port, CONNECT_TIMEOUT):
        try:
            socket.create_connection((address, port), CONNECT_TIMEOUT).close()
            return
        except OSError as error:
            failure = error
    raise failure


def _health(health: Health) -> Iterator[Finding]:
    if not health.ok:
        yield Finding("health", "broken", health.words, *_in_words(health.words))
        return
    yield Finding("health", "fine", health.words)
    if health.versions is None:
        wrong = "an event of a release that it does not know fails", "the CRM does not say which it speaks"
        yield Finding("handshake", "look", "no contract releases are named", *wrong, "update the CRM")
    elif CURRENT in health.versions:
        yield Finding("handshake", "fine", f"contract {CURRENT} is spoken")
    else:
        spoken = f"it speaks {', '.join(health.versions) or 'none'}, and not {CURRENT}"
        cause = cause_of(CURRENT)
        yield Finding("handshake", "broken", spoken, "events are held", cause.what, cause.cure)


def _clock(ahead: float, *, is_signed: bool) -> Finding:
    if abs(ahead) <= SKEW:
        return Finding("clock", "fine", "both sides' clocks agree")
    found = f"the CRM's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} ours"
    symptom = "401 Unauthorized for a right signature" if is_signed else "times in the two trails differ"
    state: Literal["broken", "look"] = "broken" if is_signed and abs(ahead) > MOST_SKEW else "look"
    return Finding("clock", state, found, symptom, "one clock is wrong", "set both by NTP: timedatectl")


def _in_words(words: str) -> tuple[str, str, str]:
    """Return symptom, cause and solution of an answer: the guide's, where it has the issue."""
    if known := _in_the_guides_words(words):
        return known
    if words.startswith(NOT_ACCEPTED):
        what = "the certificate at CRM_WEBHOOK_URL is of another name, over, or of an authority unknown here"
        return words, what, "mend it where TLS ends, or name its authority: CRM_CA_FILE"
    if words.startswith(TLS_FAILED):
        return (
            words,
            "where TLS ends it was refused or broken off",
            "see the log there; we have no certificate to give",
        )
    if words.startswith(NO_TLS):
        what = "what listens there speaks no TLS"
        return words, what, "check scheme and port of CRM_WEBHOOK_URL"
    status = int(words[:3]) if words[:3].isdecimal() else 0
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return words, "more than WEBHOOK_RATE_LIMIT, or many wrong keys from here", "wait a minute"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return words, "the CRM cannot store requests now", "see the CRM's log: journalctl -u crm-server"
    cause = cause_of("/", status)
    return words, cause.what, cause.cure


def _in_the_guides_words(words: str) -> tuple[str, str, str] | None:
    trouble = trouble_of(words)
    return (trouble.symptom, trouble.cause, trouble.solution) if trouble else None
