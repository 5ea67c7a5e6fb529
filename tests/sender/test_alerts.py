"""People are told once of what they should know, and again when it is over; and no delivery waits for that."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import SecretStr

from sender import CRM, Relay, SenderSettings, SettingsError, alerts
from sender.alerts import DAY, HOUR, Snapshot, Watch, decide
from sender.outbox import Told, Trouble
from tests.factories import repair_request
from tests.receiver import (
    TEST_OK,
    Receiver,
    Reply,
    Request,
    always,
    problem,
    receipt,
    reply,
    start_receiver,
)
from tests.sender.engines import rows
from tests.sender.site import SENTINEL, Site, eventually, running

NOW = 1_800_000_000.0
OK = always(reply(200))

# what is told: a pure function of what is so and of what was told


def snapshot(now: float = NOW, away: str | None = None, **over: Any) -> Snapshot:
    """Return one in which all is well, but for what is said."""
    oldest = over.pop("oldest", None)
    by = over.pop("by", "one")
    trouble = {"failed": 0, "newest_failure": None, "untouched": 0, "held": {}} | over
    return Snapshot(now, away, 0 if oldest is None else 3, oldest, Trouble(**trouble), seen_by=by)


def told(*steps: Snapshot) -> list[list[tuple[str, str]]]:
    """Return what people are told at each of some moments, one after the other."""
    known: dict[str, Told] = {}
    said: list[list[tuple[str, str]]] = []
    for step in steps:
        changes = decide(step, known)
        known |= {condition: now_known for condition, (now_known, _) in changes.items()}
        said.append([(notice.condition, notice.state) for _, notice in changes.values() if notice])
    return said


def failed(now: float, count: int = 1, at: float = NOW) -> Snapshot:
    return snapshot(now, failed=count, newest_failure=at)


CASES: dict[str, tuple[list[Snapshot], list[list[tuple[str, str]]]]] = {
    "nothing is told while all is well": ([snapshot(), snapshot(NOW + DAY)], [[], []]),
    "a failure once, and when none is left": (
        [failed(NOW), failed(NOW + 15), failed(NOW + HOUR), snapshot(NOW + HOUR + 15), snapshot(NOW + DAY)],
        [[("failed", "new")], [], [], [("failed", "over")], []],
    ),
    "the same failure again after a day": (
        [failed(NOW), failed(NOW + DAY - 1), failed(NOW + DAY), failed(NOW + DAY + 15)],
        [[("failed", "new")], [], [("failed", "still")], []],
    ),
    "a storm of failures once an hour": (
        [failed(NOW + 15 * n, n + 1, NOW + 15 * n) for n in range(300)],
        [[("failed", "new")], *[[]] * 239, [("failed", "still")], *[[]] * 59],
    ),
    "another failure in the place of one that was closed": (
        [failed(NOW), failed(NOW + 2 * HOUR, 1, NOW + 2 * HOUR)],
        [[("failed", "new")], [("failed", "still")]],
    ),
    "a restart of the CRM is nobody's business": (
        [snapshot(NOW, "Connection refused"), snapshot(NOW + 45, "503"), snapshot(NOW + 60)],
        [[], [], []],
    ),
    "a CRM that is away for a minute": (
        [snapshot(NOW + 15 * n, "Connection refused", oldest=NOW - HOUR) for n in range(6)],
        [[], [], [], [], [("crm-away", "new")], []],
    ),
    "what waits for an absent CRM is not too old, nor is a backlog right after": (
        [
            snapshot(NOW, "timeout", oldest=NOW),
            snapshot(NOW + HOUR, "timeout", oldest=NOW),
            snapshot(NOW + HOUR + 15, oldest=NOW),
            snapshot(NOW + HOUR + 600, oldest=NOW),
            snapshot(NOW + HOUR + 930, oldest=NOW),
            snapshot(NOW + HOUR + 945),
        ],
        [
            [],
            [("crm-away", "new")],
            [("crm-away", "over")],
            [],
            [("pending-too-old", "new")],
            [("pending-too-old", "over")],
        ],
    ),
    "what waits too long is not over when one probe fails": (
        [snapshot(NOW + t, "timeout" if t == 300 else None, oldest=NOW - HOUR) for t in range(0, 1500, 15)],
        [[("pending-too-old", "new")], *[[]] * 99],
    ),
    "nor when one event meets a refused key": (
        [
            snapshot(NOW, oldest=NOW - HOUR),
            snapshot(NOW + 15, oldest=NOW - HOUR, held={401: 1}),
            snapshot(NOW + 30, oldest=NOW - HOUR),
            snapshot(NOW + 45),
        ],
        [
            [("pending-too-old", "new")],
            [("key-refused", "new")],
            [("key-refused", "over")],
            [("pending-too-old", "over")],
        ],
    ),
    "nor by an outage, until it is delivered": (
        [
            snapshot(NOW, oldest=NOW - HOUR),
            snapshot(NOW + 15, "timeout", oldest=NOW - HOUR),
            snapshot(NOW + 75, "timeout", oldest=NOW - HOUR),
            snapshot(NOW + 90, oldest=NOW - HOUR),
            snapshot(NOW + HOUR, oldest=NOW - HOUR),
            snapshot(NOW + HOUR + 15, "timeout", oldest=NOW + HOUR),
        ],
        [
            [("pending-too-old", "new")],
            [],
            [("crm-away", "new")],
            [("crm-away", "over")],
            [],
            [("pending-too-old", "over")],
        ],
    ),
    "a refused key, and not its age too": (
        [snapshot(NOW, oldest=NOW - HOUR, held={401: 2}), snapshot(NOW + 15)],
        [[("key-refused", "new")], [("key-refused", "over")]],
    ),
    "what is held for another reason, when it has waited too long": (
        [snapshot(NOW, oldest=NOW - 900, held={404: 1}), snapshot(NOW + 1, oldest=NOW - 900, held={404: 1})],
        [[], [("pending-too-old", "new")]],
    ),
    "a CRM that comes and goes, when it stays away": (
        [
            *(snapshot(NOW + t, "timeout" if t % 240 < 120 else None) for t in range(0, 960, 60)),
            snapshot(NOW + 960, "timeout"),
            snapshot(NOW + 1860, "timeout"),
        ],
        [[], [("crm-away", "new")], [("crm-away", "over")], *[[]] * 14, [("crm-away", "new")]],
    ),
    "a CRM that one cannot reach whose clock is behind": (
        [
            snapshot(
                NOW + 15 * n - 55 * (n % 2), "timeout" if n % 2 else None, by="cut off" if n % 2 else "well"
            )
            for n in range(10)
        ],
        [*[[]] * 5, [("crm-away", "new")], *[[]] * 4],
    ),
    "what was left alone": (
        [snapshot(NOW, failed=1, newest_failure=NOW - 8 * DAY, untouched=1)],
        [[("failed", "new"), ("untouched", "new")]],
    ),
    "a clock that jumps on and back parks nothing": (
        [failed(NOW + 365 * DAY), failed(NOW), failed(NOW + 15)],
        [[("failed", "new")], [("failed", "still")], []],
    ),
    "nor is anything told again by a host whose clock is a little behind": (
        [failed(NOW), failed(NOW - 30), failed(NOW + DAY)],
        [[("failed", "new")], [], [("failed", "still")]],
    ),
    "nor does one that jumps while the CRM is away": (
        [snapshot(NOW + DAY, "timeout"), snapshot(NOW, "timeout"), snapshot(NOW + 60, "timeout")],
        [[], [], [("crm-away", "new")]],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_people_are_told(case: str) -> None:
    steps, said = CASES[case]
    assert told(*steps) == said


# what is posted, from a real outbox to a real receiver, with the clock in the test's hand


@dataclass
class Clock:
    """What the watch takes for the time of day."""

    now: float

    def __call__(self) -> float:
        return self.now


@dataclass
class Watched:
    """An outbox, a watch that looks when it is told to, and whoever receives its alerts."""

    settings: SenderSettings
    crm: CRM
    people: Receiver
    clock: Clock
    watch: Watch

    def look(self, after: float = 0.0) -> list[tuple[str, str]]:
        """Look, so many seconds later; return what was posted."""
        before = len(self.people.events)
        self.clock.now += after
        self.watch.look()
        return [(body["condition"], body["state"]) for body in self.posted[before:]]

    @property
    def posted(self) -> list[dict[str, Any]]:
        """All that was posted."""
        return [json.loads(request.body) for request in self.people.events]

    def book(self) -> str:
        """Put a repair of somebody into the outbox."""
        return self.crm.repair_requested(repair_request(repair__notes=SENTINEL))

    def drain(self) -> None:
        """Send what there is."""
        Relay(self.settings).run(drain=True)

    def write(self, statement: str, *parameters: object) -> list[Any]:
        """Change the outbox behind everybody's back, or read it."""
        return rows(self.settings.outbox_url, statement, *parameters)

    @property
    def statuses(self) -> list[str]:
        return [row["status"] for row in self.write("SELECT status FROM crm_outbox ORDER BY sequence")]

    @property
    def trail(self) -> list[tuple[str, str]]:
        return [tuple(row) for row in self.write("SELECT actor, verb FROM crm_outbox_trail ORDER BY number")]


@pytest.fixture
def people() -> Iterator[Receiver]:
    """Where alerts go."""
    with start_receiver() as receiver:
        receiver.event = OK
        yield receiver


@pytest.fixture
def watched(settings: SenderSettings, crm: CRM, people: Receiver) -> Iterator[Watched]:
    told = settings.model_copy(update={"alert_url": SecretStr(people.url)})
    clock = Clock(time.time())
    watched = Watched(told, crm, people, clock, Watch(told, clock))
    yield watched
    watched.watch.close()


def test_a_failure_is_posted_once_and_so_is_its_end(watched: Watched, receiver: Receiver) -> None:
    receiver.event = problem(400, "invalid-event")
    event = watched.book()
    watched.drain()
    assert watched.look() == [("failed", "new")]
    assert watched.look(15) == watched.look(HOUR) == []
    assert watched.look(DAY) == [("failed", "still")]
    receiver.event = receipt
    watched.write("UPDATE crm_outbox SET status = 'pending', reason = NULL, finished_at = NULL")
    watched.drain()
    assert watched.look(15) == [("failed", "over")]
    assert watched.look(DAY) == []
    [new, still, over] = watched.posted
    assert new["text"] == "CRM link: 1 delivery failed. See why with: crm-sender failed"
    assert new["count"] == still["count"] == 1
    assert still["text"].startswith("CRM link: still: 1 delivery failed.")
    assert over["text"] == "CRM link: No failed delivery is left."
    assert {request.headers["content-type"] for request in watched.people.events} == {"application/json"}
    told_of = b"".join(request.body for request in watched.people.events).decode()
    assert SENTINEL not in told_of
    assert event not in told_of
    assert "authorization" not in watched.people.events[0].headers


def test_what_people_were_told_outlives_the_relay_that_told_them(
    watched: Watched, receiver: Receiver
) -> None:
    receiver.event = problem(400, "invalid-event")
    watched.book()
    watched.drain()
    assert watched.look() == [("failed", "new")]
    watched.watch.close()
    watched.watch = Watch(watched.settings, watched.clock)
    assert watched.look(15) == []


def test_of_several_relays_one_tells(watched: Watched, receiver: Receiver) -> None:
    receiver.event = problem(400, "invalid-event")
    watched.book()
    watched.drain()
    watches = [Watch(watched.settings, watched.clock) for _ in range(6)]
    together = threading.Barrier(len(watches))

    def look(watch: Watch) -> None:
        together.wait(10)
        watch.look()
        watch.close()

    with ThreadPoolExecutor(len(watches)) as pool:
        list(pool.map(look, watches))
    assert [(body["condition"], body["state"]) for body in watched.posted] == [("failed", "new")]


def test_an_outage_of_days_is_told_as_one_and_daily(watched: Watched, receiver: Receiver) -> None:
    receiver.go_away()
    watched.book()
    said = [watched.look(6 * HOUR) for _ in range(12)]
    new, still, nothing = [("crm-away", "new")], [("crm-away", "still")], list[tuple[str, str]]()
    assert said == [nothing, new, *[nothing] * 3, still, *[nothing] * 3, still, *[nothing] * 2]
    assert "Connection refused" in watched.posted[0]["text"]
    assert "1 delivery waiting" in watched.posted[0]["text"]
    receiver.come()
    watched.drain()
    assert watched.look(15) == [("crm-away", "over")]
    assert watched.statuses == ["delivered"]


def test_a_crm_that_one_of_two_cannot_reach_is_away(watched: Watched) -> None:
    cut_off = watched.settings.model_copy(update={"webhook_url": "http://127.0.0.1:1/webhooks"})
    relays, said = Watch(cut_off, watched.clock), list[tuple[str, str]]()
    for _ in range(8):
        watched.clock.now += 8
        relays.look()
        said += watched.look(7)
    relays.close()
    assert [(body["condition"], body["state"]) for body in watched.posted] == [("crm-away", "new")]
    assert "Connection refused" in watched.posted[0]["text"]
    assert said == []
    assert watched.look(60) == [], "who saw it may look again"
    assert watched.look(60) == [("crm-away", "over")]


def test_what_waits_because_no_relay_runs_is_told_with_the_cure(watched: Watched) -> None:
    watched.book()
    too_long = watched.settings.alert_pending_seconds + 1
    assert watched.look(too_long) == [("pending-too-old", "new")]
    assert watched.posted[0]["text"].endswith(
        "has waited for 15 minutes. No relay runs: start crm-sender relay"
    )
    watched.drain()
    assert watched.look(15) == [("pending-too-old", "over")]


def test_a_refused_key_is_told_with_its_cure(watched: Watched, receiver: Receiver) -> None:
    receiver.event = receiver.test = problem(401, "unauthorized")
    watched.book()
    watched.drain()
    assert watched.look() == [("key-refused", "new")]
    assert "check CRM_API_KEY" in watched.posted[0]["text"]
    receiver.event, receiver.test = receipt, TEST_OK
    watched.drain()
    assert watched.look(15) == [("key-refused", "over")]


# what stays for too long


def leave_alone(watched: Watched, receiver: Receiver) -> None:
    """Have one event failed and one held."""
    receiver.event = problem(400, "invalid-event")
    watched.book()
    watched.drain()
    receiver.event = receiver.test = problem(401, "unauthorized")
    watched.book()
    watched.drain()
    assert watched.statuses == ["failed", "held"]


def test_what_nobody_touches_is_told_after_seven_days_and_erased_after_ninety(
    watched: Watched, receiver: Receiver
) -> None:
    leave_alone(watched, receiver)
    watched.look()
    assert ("untouched", "new") not in watched.look(7 * DAY - 60)
    assert ("untouched", "new") in watched.look(120)
    assert ("untouched", "still") in watched.look(DAY)
    watched.look(82 * DAY - 120)
    assert watched.statuses == ["failed", "held"]
    watched.look(180)
    assert watched.statuses == ["erased", "erased"]
    assert watched.write("SELECT payload FROM crm_outbox WHERE payload IS NOT NULL") == []
    assert watched.trail[-2:] == [("retention", "erased")] * 2
    assert {"untouched", "failed"} <= {condition for condition, state in watched.look(15) if state == "over"}


def test_a_relay_that_was_off_for_long_tells_before_it_erases(watched: Watched, receiver: Receiver) -> None:
    leave_alone(watched, receiver)
    assert ("untouched", "new") in watched.look(365 * DAY)
    watched.look(DAY - 60)
    assert watched.statuses == ["failed", "held"]
    watched.look(120)
    assert watched.statuses == ["erased", "erased"]


def test_nothing_of_what_is_erased_stays_in_the_files(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "LOOK", 0.05)
    receiver.event = problem(400, "invalid-event")
    site.book(3, repair__notes=SENTINEL)
    site.drain()
    ahead = 0.0
    relay = Relay(site.settings(), clock=lambda: time.time() + ahead)
    with running(relay):
        ahead = 100 * DAY
        eventually(
            lambda: site.rows(
                "SELECT 1 FROM crm_outbox_alerts WHERE condition = 'untouched' AND told_at > 0"
            ),
            "told",
        )
        assert site.left_of(SENTINEL)
        ahead = 102 * DAY
        eventually(lambda: site.statuses() == ["erased"] * 3, "erased")
        eventually(lambda: site.left_of(SENTINEL) == [], "nothing is left")


# never in the relay's way


def hang(go_on: threading.Event) -> Any:
    def answer(request: Request) -> Reply:
        go_on.wait(20)
        return reply(200)

    return answer


@pytest.mark.parametrize("trouble", ["hangs", "is away", "answers 500", "redirects"])
def test_a_receiver_of_alerts_that_is_in_trouble_costs_deliveries_nothing(
    site: Site,
    receiver: Receiver,
    people: Receiver,
    trouble: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(alerts, "LOOK", 0.05)
    monkeypatch.setattr(alerts, "POST_TIMEOUT", 1.0)
    caplog.set_level(logging.INFO)
    go_on = threading.Event()
    elsewhere = {
        "hangs": hang(go_on),
        "answers 500": always(reply(500)),
        "redirects": always(reply(302, location="/")),
    }
    people.event = elsewhere.get(trouble, OK)
    if trouble == "is away":
        people.go_away()
    address = f"{people.url}/secret-of-the-receiver"
    receiver.event = problem(400, "invalid-event")
    site.book()
    site.drain()
    receiver.event = receipt
    with running(Relay(site.settings(alert_url=address))):
        eventually(lambda: people.events or "CRM_ALERT_URL: " in caplog.text, "it is posted")
        for _ in range(20):
            [event] = site.book()
            eventually(lambda e=event: site.status(e) == "delivered", "a delivery meanwhile")  # type: ignore[misc]
        eventually(lambda: "CRM_ALERT_URL: " in caplog.text, "it is logged that nobody took it")
    go_on.set()
    assert "CRM link: 1 delivery failed" in caplog.text
    assert "secret-of-the-receiver" not in caplog.text
    assert len(people.events) <= 1


def test_a_notice_that_nobody_took_is_posted_when_somebody_does(watched: Watched, receiver: Receiver) -> None:
    receiver.event = problem(400, "invalid-event")
    watched.book()
    watched.drain()
    watched.people.event = always(reply(500))
    assert watched.look() == [("failed", "new")]
    watched.people.event = OK
    assert watched.look(15) == []
    assert watched.look(60) == [("failed", "new")]
    assert watched.look(120) == []


@pytest.fixture
def mute(watched: Watched) -> Iterator[Watch]:
    """One that looks beside it and has no address."""
    watch = Watch(watched.settings.model_copy(update={"alert_url": None}), watched.clock)
    yield watch
    watch.close()


def test_what_one_without_an_address_tells_is_posted_once_by_one_that_has_it(
    watched: Watched, mute: Watch, receiver: Receiver
) -> None:
    receiver.event = problem(400, "invalid-event")
    watched.book()
    watched.drain()
    mute.look()
    mute.look()
    assert watched.posted == []
    assert watched.look(15) == [("failed", "new")]
    mute.look()
    assert watched.look(120) == []


def test_what_nobody_posted_is_posted_as_it_is_now_and_for_a_day(
    watched: Watched, mute: Watch, receiver: Receiver
) -> None:
    def tell_of_a_failure_and_its_end() -> None:
        receiver.event = problem(400, "invalid-event")
        watched.book()
        watched.drain()
        mute.look()
        receiver.event = receipt
        watched.write(
            "UPDATE crm_outbox SET status = 'pending', reason = NULL, finished_at = NULL WHERE status = 'failed'"
        )
        watched.drain()
        mute.look()

    tell_of_a_failure_and_its_end()
    assert watched.look(DAY - 60) == [("failed", "over")]
    tell_of_a_failure_and_its_end()
    assert watched.look(DAY + 60) == []
    tell_of_a_failure_and_its_end()
    assert watched.look() == [("failed", "over")]


def test_a_notice_on_its_way_is_not_posted_by_a_host_whose_clock_is_a_little_behind(
    watched: Watched, receiver: Receiver
) -> None:
    behind = Watch(watched.settings, lambda: watched.clock.now - 30)
    looks = iter([behind.look])

    def answer(request: Request) -> Reply:
        for look in looks:
            look()
        return reply(200)

    receiver.event = problem(400, "invalid-event")
    watched.book()
    watched.drain()
    watched.people.event = answer
    assert watched.look() == [("failed", "new")]
    behind.close()


def test_alerts_are_logged_where_no_address_is_set(
    site: Site, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    receiver.event = problem(400, "invalid-event")
    site.book()
    site.drain()
    watch = Watch(site.settings())
    watch.look()
    watch.look()
    watch.close()
    lines = [r.getMessage() for r in caplog.records if r.name == "crm_sender.alerts"]
    assert lines == ["CRM link: 1 delivery failed. See why with: crm-sender failed"]


def test_an_outbox_that_lacks_the_newest_tables_still_delivers_and_is_told_how_to_mend_that(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alerts, "LOOK", 0.02)
    with closing(sqlite3.connect(site.database)) as connection, connection:
        connection.execute("DROP TABLE crm_outbox_alerts")
    with running(Relay(site.settings())):
        eventually(lambda: "no such table: crm_outbox_alerts" in caplog.text, "it says so")
        [event] = site.book()
        eventually(lambda: site.status(event) == "delivered", "deliveries go on")
    [line] = [r.getMessage() for r in caplog.records if r.name == "crm_sender.alerts"]
    assert line.endswith("see: crm-sender migrate")


# the command, the setting


def test_a_test_alert_is_posted_on_request(site: Site, people: Receiver) -> None:
    done = site.cli("test", "--alert", CRM_ALERT_URL=people.url)
    assert (done.returncode, done.stdout.splitlines()[-1].split()[:2]) == (0, ["fine", "alert"])
    assert json.loads(people.events[0].body)["text"] == "CRM link: a test; nothing is wrong."
    people.event = always(reply(403))
    refused = site.cli("test", "--alert", CRM_ALERT_URL=f"{people.url}/secret")
    assert (refused.returncode, refused.stdout.splitlines()[-1].split()[:2]) == (1, ["FAILED", "alert"])
    assert "secret" not in refused.stdout + refused.stderr
    assert site.cli("test", "--alert").returncode == 1


@pytest.mark.parametrize(
    "address", ["secret", "ftp://secret", "http://:80", "https://me:secret@host/", "http://h/é"]
)
def test_an_address_that_is_none_is_refused_without_showing_it(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRM_ALERT_URL", address)
    with pytest.raises(SettingsError, match="CRM_ALERT_URL: ") as refused:
        SenderSettings.read()
    assert address not in str(refused.value)


@pytest.mark.parametrize("days", ["0", "7", "-1", "soon"])
def test_payloads_stay_longer_than_it_takes_to_tell(days: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_OUTBOX_RETENTION_DAYS", days)
    with pytest.raises(SettingsError, match="CRM_OUTBOX_RETENTION_DAYS: "):
        SenderSettings.read()
