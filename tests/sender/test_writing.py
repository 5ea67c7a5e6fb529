"""What holds for every way to write an event, on every database: `doors.py` opens them, `engines.py` has the outboxes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from generated.operations import WEBHOOKS
from sender import (
    ConflictingEvent,
    InvalidEvent,
    NotMigrated,
    NoTransaction,
    Relay,
    SenderSettings,
    WrongDatabase,
)
from tests.factories import FACTORIES, repair_request
from tests.receiver import Receiver
from tests.sender.doors import DOORS, Door, OfAiosqlite, OfAsyncPsycopg, OfPsycopg, OfSqlite3
from tests.sender.engines import ENGINES, new_outbox, rows
from tests.sender.site import SENTINEL, all_text
from tests.servers import KEY

WAYS = [(engine, door) for door in DOORS for engine in door.engines]
BOOK = "INSERT INTO bookings (id) VALUES ('b')"


@pytest.fixture(params=WAYS, ids=[f"{door.__name__}-{engine}" for engine, door in WAYS])
def way(request: pytest.FixtureRequest) -> tuple[str, type[Door]]:
    """A database, and a way to write to it."""
    found: tuple[str, type[Door]] = request.param
    return found


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """A site's database on each engine: its bookings, and an outbox."""
    made = {engine: new_outbox(engine, tmp_path_factory.mktemp("site")) for engine in ENGINES}
    for url in made.values():
        rows(url, "CREATE TABLE bookings (id VARCHAR(8) PRIMARY KEY)")
    return made


@pytest.fixture
def url(way: tuple[str, type[Door]], sites: Mapping[str, str]) -> str:
    """The database, with nothing in it: to make one for each test takes longer than the test."""
    for table in ("crm_outbox", "bookings"):
        rows(sites[way[0]], f"DELETE FROM {table}")
    return sites[way[0]]


@pytest.fixture
def door(way: tuple[str, type[Door]], url: str) -> Iterator[Door]:
    """The way, opened."""
    with closing(way[1](url)) as opened:
        yield opened


@pytest.fixture
def settings(url: str) -> SenderSettings:
    return SenderSettings(outbox_url=url, api_key=KEY)


def there(url: str) -> tuple[int, list[str]]:
    """Return how many bookings are committed, and the ids of the events."""
    [[bookings]] = rows(url, "SELECT count(*) FROM bookings")
    return bookings, [row["id"] for row in rows(url, "SELECT id FROM crm_outbox ORDER BY sequence")]


def fail_after(work: Callable[[], object], begun: AbstractContextManager[Any]) -> None:
    """Do work in a transaction, then fail."""
    with begun:
        work()
        raise ZeroDivisionError


def test_an_event_is_committed_with_its_booking_and_not_before(
    door: Door, settings: SenderSettings, url: str
) -> None:
    with door.transaction():
        door.execute(BOOK)
        event_id = door.write(settings, repair_request())
        assert there(url) == (0, [])
    assert there(url) == (1, [event_id])


def test_every_event_of_the_contract_is_written_in_the_transaction(
    door: Door, settings: SenderSettings, url: str
) -> None:
    with door.transaction():
        ids = [door.write(settings, make(), event) for event, make in FACTORIES.items()]
        assert there(url) == (0, [])
    assert there(url) == (0, ids)
    assert [row["event"] for row in rows(url, "SELECT event FROM crm_outbox ORDER BY sequence")] == list(
        WEBHOOKS
    )


def test_an_event_is_rolled_back_with_its_booking(door: Door, settings: SenderSettings, url: str) -> None:
    def book() -> None:
        door.execute(BOOK)
        door.write(settings, repair_request())

    with pytest.raises(ZeroDivisionError):
        fail_after(book, door.transaction())
    assert there(url) == (0, [])


def test_a_booking_may_follow_its_event(door: Door, settings: SenderSettings, url: str) -> None:
    with door.transaction():
        event_id = door.write(settings, repair_request())
        door.execute(BOOK)
    assert there(url) == (1, [event_id])


def test_an_event_goes_with_its_savepoint(door: Door, settings: SenderSettings, url: str) -> None:
    with door.transaction():
        door.execute(BOOK)
        with door.savepoint():
            kept = door.write(settings, repair_request())
        with pytest.raises(ZeroDivisionError):
            fail_after(lambda: door.write(settings, repair_request()), door.savepoint())
    assert there(url) == (1, [kept])


def test_the_same_event_again_has_the_same_id(door: Door, settings: SenderSettings, url: str) -> None:
    body = repair_request()
    with door.transaction():
        first = door.write(settings, body)
        assert door.write(settings, body) == first
    with door.transaction():
        assert door.write(settings, body) == first
    assert there(url) == (0, [first])


def test_other_content_under_a_natural_key_conflicts_and_spoils_no_transaction(
    door: Door, settings: SenderSettings, url: str
) -> None:
    body = repair_request()
    with door.transaction():
        first = door.write(settings, body)
    with door.transaction():
        door.execute(BOOK)
        with pytest.raises(ConflictingEvent) as caught:
            door.write(settings, body | {"repair": body["repair"] | {"notes": SENTINEL}})
    assert caught.value.existing_id == first
    assert SENTINEL not in all_text(caught.value)
    assert there(url) == (1, [first])


def test_an_invalid_event_spoils_no_transaction(door: Door, settings: SenderSettings, url: str) -> None:
    with door.transaction():
        door.execute(BOOK)
        with pytest.raises(InvalidEvent):
            door.write(settings, repair_request(repair__priority=SENTINEL))
    assert there(url) == (1, [])


def test_a_delivered_event_is_sent_again_only_when_asked(
    door: Door, settings: SenderSettings, url: str, receiver: Receiver
) -> None:
    body = repair_request()

    def deliver() -> int:
        return Relay(settings.model_copy(update={"webhook_url": receiver.url})).run(drain=True).delivered

    with door.transaction():
        first = door.write(settings, body)
    assert deliver() == 1
    with door.transaction():
        assert door.write(settings, body) == first
    assert deliver() == 0
    with door.transaction():
        assert door.write(settings, body, resend=True) == first
    assert deliver() == 1
    assert [request.id for request in receiver.events] == [first, first]
    verbs = rows(url, "SELECT verb FROM crm_outbox_trail WHERE event_id = ? ORDER BY number", first)
    assert [row["verb"] for row in verbs] == ["delivered", "resent", "delivered"]


def test_another_database_than_the_relays_is_refused_before_anything_is_written(
    door: Door, url: str, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = SenderSettings(outbox_url=new_outbox("sqlite", elsewhere))
    with door.transaction():
        door.execute(BOOK)
        with pytest.raises(WrongDatabase) as caught:
            door.write(other, repair_request())
    assert str(elsewhere) in str(caught.value)
    assert url.rpartition("/")[2].partition("?")[0] in str(caught.value)
    assert there(url) == (1, [])


def test_a_database_without_an_outbox_is_refused(door: Door, settings: SenderSettings, url: str) -> None:
    rows(url, "ALTER TABLE crm_outbox_state RENAME TO elsewhere")
    try:
        with door.transaction():
            door.execute(BOOK)
            with pytest.raises(NotMigrated, match="crm-sender migrate"):
                door.write(settings, repair_request())
    finally:
        rows(url, "ALTER TABLE elsewhere RENAME TO crm_outbox_state")
    assert there(url) == (1, [])


def test_a_connection_that_commits_each_statement_is_refused(
    door: Door, settings: SenderSettings, url: str
) -> None:
    door.autocommit()
    with pytest.raises(NoTransaction):
        door.write(settings, repair_request())
    assert there(url) == (0, [])


@pytest.mark.parametrize("first_commits", [True, False], ids=["commits", "rolls back"])
def test_of_two_writers_of_one_event_the_second_waits_for_the_first(
    way: tuple[str, type[Door]], settings: SenderSettings, url: str, first_commits: bool
) -> None:
    body, written, go_on = repair_request(), threading.Event(), threading.Event()

    def write_first() -> str:
        with closing(way[1](url)) as door, door.transaction():
            event_id = door.write(settings, body)
            written.set()
            assert go_on.wait(10)
            if not first_commits:
                raise ZeroDivisionError
        return event_id

    def write_second() -> str:
        with closing(way[1](url)) as door, door.transaction():
            return door.write(settings, body)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(write_first)
        assert written.wait(10)
        second = pool.submit(write_second)
        assert not second.done()
        go_on.set()
        known = second.result(10)
        if first_commits:
            assert first.result(10) == known
        else:
            assert isinstance(first.exception(10), ZeroDivisionError)
    assert there(url) == (0, [known])


def test_an_error_of_the_database_is_the_callers_own_and_shows_no_payload(
    door: Door, settings: SenderSettings, url: str
) -> None:
    if door.is_sqlite:
        refuse = "CREATE TRIGGER full BEFORE INSERT ON crm_outbox BEGIN SELECT RAISE(ABORT, 'no more'); END"
        mend = "DROP TRIGGER full"
    else:
        refuse = "ALTER TABLE crm_outbox ADD CONSTRAINT no_more CHECK (event = 'no more')"
        mend = "ALTER TABLE crm_outbox DROP CONSTRAINT no_more"
    rows(url, refuse)
    body = repair_request(customer__firstName=SENTINEL)
    shown = {"customer": body["customer"], **body}  # PostgreSQL repeats the first 64 characters of a text
    try:
        with pytest.raises(door.error, match=r"no.more") as caught, door.transaction():
            door.write(settings, shown)
    finally:
        rows(url, mend)
    assert SENTINEL not in all_text(caught.value)


OF_DRIVERS = [
    (engine, door)
    for engine, door in WAYS
    if issubclass(door, OfSqlite3 | OfPsycopg | OfAsyncPsycopg | OfAiosqlite)
]


@pytest.mark.parametrize("way", OF_DRIVERS, indirect=True, ids=[door.__name__ for _, door in OF_DRIVERS])
def test_the_callers_settings_are_left_as_they_are(door: Door, settings: SenderSettings) -> None:
    session: Any = door.session
    before = session.row_factory
    with door.transaction():
        session.row_factory = own = lambda *_: pytest.fail("the caller's way to make rows was used")
        if door.is_sqlite:
            session.text_factory = bytes
        event_id = door.write(settings, body := repair_request())
        assert door.write(settings, body) == event_id
        assert session.row_factory is own
        if door.is_sqlite:
            assert session.text_factory is bytes
        session.row_factory = before
