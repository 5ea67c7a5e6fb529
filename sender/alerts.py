"""Alerts: what people should know, told once and again when it is over.

Conditions are decided by a pure function of what is so and of what people were told last. That is
kept in the outbox, so that of several that look one tells. It runs beside the relay, in a thread with a
connection of its own: whatever the receiver of alerts does, deliveries do not wait for it. It runs beside
the dashboard too, for a relay that is down tells nobody.

Told by the log, and by `CRM_ALERT_URL` where it is set: `{"text": …}` with fields, which receivers
made for Slack take. No notice holds anything of an event but counts.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from sender import erasure, outbox
from sender.database import open_engine, reading, time_of, words_of
from sender.delivery import Answer, cause_of
from sender.errors import NotMigrated
from sender.outbox import Told, Trouble
from sender.settings import UNTOUCHED_DAYS, SenderSettings
from sender.transport import Transport, post_json
from sender.transport import words_of as words_of_outcome

log = logging.getLogger("crm_sender.alerts")

LOOK = 15.0
"""Seconds between two looks."""

POST_TIMEOUT, POST_AGAIN = 5.0, 60.0
"""Seconds that posting a notice may take, and after which one that was not taken is posted again."""

SKEW = 60.0
"""Seconds by which the clocks of two that look may differ; what lies further ahead was written before a clock
jumped back."""

HOUR, DAY = 3_600.0, 86_400.0

NEWS = DAY
"""Seconds for which a notice that nobody posted is news; after them it is dropped."""

SEEN_FOR = 3 * LOOK
"""Seconds for which what one has seen is so, whatever another sees, if their clocks agree: a relay's way to the CRM
may be cut, and not a dashboard's."""

PATIENCE = 60.0
"""Seconds for which the CRM may be away, as it is when it is restarted."""

SETTLED = 900.0
"""Seconds from the end of a condition in which the same again is told only when it lasts as long: no storm of
what comes and goes."""

WORSE_AFTER, REMIND_AFTER = HOUR, DAY
"""Seconds after which people are told again: of what got worse, and of what is as it was."""

UNTOUCHED_AFTER = UNTOUCHED_DAYS * DAY
"""Seconds after which a failed or held delivery should have been looked at."""

NOTICE = DAY
"""Seconds from the alert that something stays to its erasure."""

Condition = Literal["crm-away", "key-refused", "pending-too-old", "failed", "untouched"]
CONDITIONS: tuple[Condition, ...] = ("crm-away", "key-refused", "pending-too-old", "failed", "untouched")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is so at a moment; times in seconds since 1970."""

    now: float
    away: str | None
    """What the CRM's health answers instead of well, in the guide's words; None while it is well."""
    undelivered: int
    oldest: float | None
    """When the oldest that is not delivered was enqueued."""
    trouble: Trouble
    relays: int = 1
    """How many look at the outbox."""
    may_wait: float = 900.0
    """Seconds after which an event should be delivered."""
    retention_days: int = 90
    seen_by: str = "watch"


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition that is so, and what to say of it."""

    words: str
    count: int
    mark: float = 0.0
    """How bad it is; people are told again when it grows."""
    patience: float = 0.0
    """Seconds for which it may be so before people are told."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What people are told."""

    text: str
    condition: str
    state: Literal["new", "still", "over"]
    count: int
    since: str | None

    def as_json(self) -> str:
        """Return it as receivers of `{"text": …}` take it."""
        return json.dumps(asdict(self), ensure_ascii=False)


_OVER: Mapping[Condition, str] = {
    "crm-away": "The CRM is back; what waited goes by itself.",
    "key-refused": "Nothing is held any more because the CRM refuses the key or the address.",
    "pending-too-old": "No delivery has waited too long any more.",
    "failed": "No failed delivery is left.",
    "untouched": "No failed or held delivery is left untouched for seven days.",
}

REFUSALS = (401, 403)
"""The answers by which the CRM refuses the key, or the address."""


def find(snapshot: Snapshot, known: Mapping[str, Told]) -> dict[Condition, Finding]:
    """Return what is so.

    What waits because the CRM is away, or refuses us, is told as that and not as too old; when that
    is over, the age counts anew, for a backlog takes its time.
    """
    found: dict[Condition, Finding] = {}
    trouble = snapshot.trouble
    if snapshot.away is not None:
        waits = f"{_deliveries(snapshot.undelivered)} waiting, to go by themselves when it is back"
        words = f"The CRM is away ({snapshot.away}); {waits}."
        found["crm-away"] = Finding(words, snapshot.undelivered, patience=PATIENCE)
    refused = {status: trouble.held[status] for status in REFUSALS if trouble.held.get(status)}
    if refused:
        causes = [cause_of("/", status) for status in refused]
        why = "; ".join(f"{cause.what}, {cause.cure}" for cause in causes)
        count = sum(refused.values())
        words = f"{_deliveries(count)} held, and go by themselves when it is mended: {why}."
        found["key-refused"] = Finding(words, count)
    if snapshot.oldest is not None and not found:
        before = [known.get("crm-away", Told()), known.get("key-refused", Told())]
        ends = [snapshot.now if each.told_at is not None else each.over_at or 0.0 for each in before]
        waited = snapshot.now - max([snapshot.oldest, *(end for end in ends if end <= snapshot.now)])
        if waited > snapshot.may_wait:
            found["pending-too-old"] = Finding(
                f"The oldest of {_deliveries(snapshot.undelivered)} has waited for {waited / 60:.0f} minutes. "
                + (
                    "See why with: crm-sender status"
                    if snapshot.relays
                    else "No relay runs: start crm-sender relay"
                ),
                snapshot.undelivered,
            )
    if trouble.failed:
        words = f"{_deliveries(trouble.failed)} failed. See why with: crm-sender failed"
        found["failed"] = Finding(words, trouble.failed, mark=trouble.newest_failure or 0.0)
    if trouble.untouched:
        found["untouched"] = Finding(
            f"{_deliveries(trouble.untouched)} failed or held, and left alone for seven days. Retry or close "
            f"what failed, mend what is waited for; payloads are erased after {snapshot.retention_days} days.",
            trouble.untouched,
            mark=trouble.untouched,
        )
    return found


def _waits_too_long(snapshot: Snapshot) -> bool:
    return snapshot.oldest is not None and snapshot.now - snapshot.oldest > snapshot.may_wait


def _deliveries(count: int) -> str:
    return f"{count} {'delivery' if count == 1 else 'deliveries'}"


def decide(snapshot: Snapshot, known: Mapping[str, Told]) -> dict[Condition, tuple[Told, Notice | None]]:
    """Return what changes: for each such condition what to remember, and what to tell people, if anything."""
    found = find(snapshot, known)
    changes: dict[Condition, tuple[Told, Notice | None]] = {}
    for condition in CONDITIONS:
        if condition == "pending-too-old" and condition not in found and _waits_too_long(snapshot):
            continue  # What else explains it does not end it: people would hear that nothing waits any more.
        before = known.get(condition, Told())
        after, state = _next(before, found.get(condition), snapshot)
        if after != before:
            changes[condition] = (after, _notice(condition, state, found.get(condition), before, after))
    return changes


def _next(
    before: Told, finding: Finding | None, snapshot: Snapshot
) -> tuple[Told, Literal["new", "still", "over"] | None]:
    now = snapshot.now
    if finding is None:
        if _is_seen_by_another(before, snapshot):
            return before, None
        return (Told(over_at=before.over_at), None) if before.told_at is None else (Told(over_at=now), "over")
    before = replace(before, seen_at=now, seen_by=snapshot.seen_by)
    # What was seen in the future was seen before a clock jumped back.
    since = now if before.since is None or before.since > now else before.since
    told_now = replace(before, since=since, told_at=now, mark=finding.mark)
    if before.told_at is None:
        came_again = before.over_at is not None and 0 <= since - before.over_at < SETTLED
        is_told = now - since >= (SETTLED if came_again else finding.patience)
        return (told_now, "new") if is_told else (replace(before, since=since), None)
    is_worse = finding.mark > before.mark
    quiet = WORSE_AFTER if is_worse else REMIND_AFTER
    return (before, None) if -SKEW <= now - before.told_at < quiet else (told_now, "still")


def _is_seen_by_another(known: Told, snapshot: Snapshot) -> bool:
    if known.seen_at is None or known.seen_by == snapshot.seen_by:
        return False
    return -SKEW <= snapshot.now - known.seen_at < SEEN_FOR + SKEW


def _notice(
    condition: Condition,
    state: Literal["new", "still", "over"] | None,
    finding: Finding | None,
    before: Told,
    after: Told,
) -> Notice | None:
    if state is None:
        return None
    words = finding.words if finding else _OVER[condition]
    since = after.since if finding else before.since
    shown = None if since is None else datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")
    return Notice(
        f"CRM link: {'still: ' if state == 'still' else ''}{words}",
        condition,
        state,
        finding.count if finding else 0,
        shown,
    )


class Watch:
    """Looks, tells people what they should know, and erases what they left alone for too long.

    `clock` tells the time of day, in seconds.
    """

    def __init__(self, settings: SenderSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._id = str(uuid.uuid4())
        self._stopped = threading.Event()
        self._complaint: str | None = None

    def run(self) -> None:
        """Look every few seconds until told to stop. Raises nothing: what it runs beside must go on."""
        while not self._stopped.wait(LOOK):
            try:
                self.look()
                self._complaint = None
            except DBAPIError as error:
                self._complain(f"the outbox cannot be used: {words_of(error)}; see: crm-sender migrate")
            except NotMigrated as error:
                self._complain(str(error))
            except Exception as error:
                self._complain(f"A bug in the alerts: {type(error).__name__}")
        self.close()

    def _complain(self, words: str) -> None:
        """Log what keeps it from looking, once for as long as it does."""
        if words != self._complaint:
            self._complaint = words
            log.error("%s", words)

    def stop(self) -> None:
        """Have `run` return, after what it does now."""
        self._stopped.set()

    @cached_property
    def _engine(self) -> Engine:
        return open_engine(self._settings.outbox_url)

    def close(self) -> None:
        """Close the connection to the outbox."""
        if "_engine" in self.__dict__:
            self._engine.dispose()

    def look(self) -> None:
        """Look once. Raises the database's errors, and NotMigrated."""
        with Transport(self._settings) as transport:
            health = transport.health()
        now = self._clock()
        with reading(self._engine) as connection:
            counts = outbox.counts(connection)
            at = time_of(connection, self._clock)
            relays, _ = outbox.running_relays(connection, at, self._settings.lease)
            snapshot = Snapshot(
                now,
                None if health.ok else health.words,
                counts.pending + counts.held,
                outbox.oldest_pending(connection),
                outbox.trouble(connection, now - UNTOUCHED_AFTER),
                relays,
                self._settings.alert_pending_seconds,
                self._settings.outbox_retention_days,
                self._id,
            )
            known = outbox.told(connection)
            has_unposted = outbox.has_unposted(connection)
        if decide(snapshot, known):
            self._tell(snapshot)
            has_unposted = True
        if has_unposted and self._settings.alert_url:
            self._post(now)
        untouched = known.get("untouched", Told())
        if untouched.told_at is not None and untouched.since is not None and now - untouched.since >= NOTICE:
            erasure.expire(self._engine, self._settings.outbox_retention_days * DAY, self._clock)

    def _tell(self, snapshot: Snapshot) -> None:
        """Decide again where nobody else can at the same time, write it down, and log it."""
        with self._engine.begin() as connection:
            changes = decide(snapshot, outbox.told_for_change(connection, CONDITIONS))
            for condition, (known, notice) in changes.items():
                # Also without an address: another that looks may have one.
                to_post = notice.as_json() if notice else None
                outbox.write_told(connection, condition, snapshot.now, known, to_post)
        for _, notice in changes.values():
            if notice:
                log.log(logging.INFO if notice.state == "over" else logging.WARNING, "%s", notice.text)

    def _post(self, now: float) -> None:
        """Post what was not taken yet: what nobody answers stays for the next time."""
        with self._engine.begin() as connection:
            outbox.drop_notices(connection, now - NEWS)
        with self._engine.begin() as connection:  # its own: who tells locks the rows in another order
            notices = outbox.claim_notices(connection, now, POST_AGAIN, SKEW)
        for condition, notice in notices:
            taken, words = post(self._settings, notice)
            if taken:
                with self._engine.begin() as connection:
                    outbox.posted(connection, condition, notice)
            else:
                # Not where to: the address is a secret.
                log.warning("CRM_ALERT_URL: %s; it is tried again in %d seconds", words, POST_AGAIN)


def post(settings: SenderSettings, notice: str) -> tuple[bool, str]:
    """Post a notice, within five seconds. Return whether the receiver took it, and its words."""
    if settings.alert_url is None:
        return False, "CRM_ALERT_URL is not set"
    outcome = post_json(settings.alert_url.get_secret_value(), notice.encode(), POST_TIMEOUT)
    return isinstance(outcome, Answer) and 200 <= outcome.status < 300, words_of_outcome(outcome)


def test_notice() -> str:
    """Return a notice for a try of `CRM_ALERT_URL`."""
    return json.dumps({"text": "CRM link: a test; nothing is wrong.", "condition": "test", "state": "test"})


@contextmanager
def watching(settings: SenderSettings, clock: Callable[[], float]) -> Iterator[None]:
    """Look in a thread of its own for as long as the block lasts."""
    watch = Watch(settings, clock)
    thread = threading.Thread(target=watch.run, name="crm-alerts")
    thread.start()
    try:
        yield
    finally:
        watch.stop()
        thread.join()
