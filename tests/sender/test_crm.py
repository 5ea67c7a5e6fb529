"""What booking code sees: one INSERT in its own transaction, or an error that says what to do and shows nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, create_engine, event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import sender
from sender import (
    CRM,
    AsyncCRM,
    ConflictingEvent,
    InvalidEvent,
    NotMigrated,
    NoTransaction,
    Relay,
    RepairRequest,
    SenderSettings,
    SettingsError,
    WrongDatabase,
)
from tests.factories import customer_registration, repair_request
from tests.receiver import Receiver
from tests.sender.site import SENTINEL, Site, all_text, cli, eventually, sender_environment
from tests.servers import ROOT

bookings = Table(
    "bookings", MetaData(), Column("id", Integer, primary_key=True), Column("key", String, unique=True)
)


@pytest.fixture
def own_engine(site: Site) -> Iterator[Engine]:
    """The site's own engine, as SQLAlchemy makes it."""
    made = create_engine(site.url)
    bookings.create(made)
    yield made
    made.dispose()


@contextmanager
def statements(own_engine: Engine) -> Iterator[list[str]]:
    """Collect what is executed on an engine."""
    seen: list[str] = []

    def see(_c: object, _u: object, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(own_engine, "before_cursor_execute", see)
    yield seen
    event.remove(own_engine, "before_cursor_execute", see)


@pytest.mark.parametrize("kind", [Session, Engine.connect], ids=["Session", "Connection"])
def test_an_event_is_committed_with_its_booking(site: Site, own_engine: Engine, kind: Any) -> None:
    with kind(own_engine) as session, session.begin():
        session.execute(bookings.insert().values(key="b"))
        event_id = site.crm().repair_requested(repair_request(), session)
        assert site.rows() == []
    assert site.status(event_id) == "pending"


@pytest.mark.parametrize("kind", [Session, Engine.connect], ids=["Session", "Connection"])
def test_an_event_is_rolled_back_with_its_booking(site: Site, own_engine: Engine, kind: Any) -> None:
    def book(session: Any) -> None:
        with session.begin():
            session.execute(bookings.insert().values(key="b"))
            site.crm().repair_requested(repair_request(), session)
            session.execute(bookings.insert().values(key="b"))

    with kind(own_engine) as session, pytest.raises(IntegrityError):
        book(session)
    assert site.rows() == site.rows("SELECT * FROM bookings") == []


def test_an_event_without_a_session_is_there_at_once(site: Site) -> None:
    event_id = site.crm().customer_registered(customer_registration())
    assert site.status(event_id) == "pending"


def says_begin(own_engine: Engine) -> None:
    """Follow SQLAlchemy's recipe for SQLite: BEGIN is sent by the site, not guessed by the driver."""

    @event.listens_for(own_engine, "connect")
    def _quiet(connection: Any, _: object) -> None:
        connection.isolation_level = None

    event.listen(own_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    own_engine.dispose()


def test_a_savepoint_that_would_commit_the_event_alone_is_refused(site: Site, own_engine: Engine) -> None:
    with (
        own_engine.begin() as connection,
        connection.begin_nested(),
        pytest.raises(NoTransaction, match="SQLAlchemy's recipe"),
    ):
        site.crm().repair_requested(repair_request(), connection)
    assert site.rows() == []


class AlwaysBegun(sqlite3.Connection):
    """As Python 3.12 makes one with `autocommit=False`, which SQLAlchemy recommends from there on."""

    autocommit = False

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.execute("BEGIN")

    def rollback(self) -> None:
        super().rollback()
        self.execute("BEGIN")


def test_a_savepoint_of_a_driver_that_has_always_begun_is_no_transaction_of_its_own(site: Site) -> None:
    own = create_engine(site.url, connect_args={"factory": AlwaysBegun})
    with Session(own) as session:
        with session.begin_nested():
            site.crm().repair_requested(repair_request(), session)
        assert site.rows() == []
        session.rollback()
    assert site.rows() == []
    own.dispose()


def test_an_event_in_a_savepoint_goes_with_the_transaction_around_it(site: Site, own_engine: Engine) -> None:
    says_begin(own_engine)
    with own_engine.connect() as connection, connection.begin() as transaction:
        with connection.begin_nested():
            site.crm().repair_requested(repair_request(), connection)
        transaction.rollback()
    assert site.rows() == []


def test_an_event_in_a_savepoint_that_is_rolled_back_is_not_there(site: Site, own_engine: Engine) -> None:
    says_begin(own_engine)
    with Session(own_engine) as session, session.begin():
        session.execute(bookings.insert().values(key="b"))
        with session.begin_nested() as savepoint:
            site.crm().repair_requested(repair_request(), session)
            savepoint.rollback()
    assert site.rows() == []
    assert len(site.rows("SELECT * FROM bookings")) == 1


def test_one_event_is_one_insert(site: Site, own_engine: Engine) -> None:
    crm = site.crm()
    with Session(own_engine) as session, session.begin():
        crm.repair_requested(repair_request(), session)
        with statements(own_engine) as seen:
            crm.repair_requested(repair_request(), session)
    assert len(seen) == 1
    assert seen[0].startswith("INSERT INTO crm_outbox")


def test_the_same_event_again_has_the_same_id_whenever_it_was_sent(site: Site, own_engine: Engine) -> None:
    crm, payload = site.crm(), repair_request()
    with Session(own_engine) as session, session.begin():
        first = crm.repair_requested(payload, session)
        assert crm.repair_requested(payload, session) == first
    again = payload | {"metadata": payload["metadata"] | {"timestamp": "2025-01-01T00:00:00Z"}}
    assert crm.repair_requested(again) == first
    assert len(site.rows()) == 1


def test_other_content_under_a_natural_key_conflicts_and_spoils_no_transaction(
    site: Site, own_engine: Engine
) -> None:
    crm, payload = site.crm(), repair_request()
    first = crm.repair_requested(payload)
    other = payload | {"repair": payload["repair"] | {"notes": SENTINEL}}
    with Session(own_engine) as session, session.begin():
        session.execute(bookings.insert().values(key="b"))
        with pytest.raises(ConflictingEvent) as caught:
            crm.repair_requested(other, session)
    assert caught.value.existing_id == first
    assert SENTINEL not in all_text(caught.value)
    assert len(site.rows("SELECT * FROM bookings")) == 1


def test_a_delivered_event_is_known_again_and_sent_again_only_when_asked(
    site: Site, receiver: Receiver
) -> None:
    crm, payload = site.crm(), repair_request()
    first = crm.repair_requested(payload)
    site.drain()
    assert crm.repair_requested(payload) == first
    assert site.status(first) == "delivered"
    assert crm.repair_requested(payload, resend=True) == first
    assert site.drain().delivered == 1
    assert [request.id for request in receiver.events] == [first, first]
    assert site.rows("SELECT delivered FROM crm_outbox_state")[0]["delivered"] == 1
    assert site.verbs(first) == ["delivered", "resent", "delivered"]


def test_a_mapping_is_sent_as_it_was_given(site: Site, receiver: Receiver) -> None:
    payload = repair_request(
        repair__createdAt="2024-12-13T10:00:00.500+00:00", repair__notes="ünïcode \u2028 ☃"
    )
    site.crm().repair_requested(payload)
    site.drain()
    assert receiver.events[0].body == json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def test_a_model_is_written_down_once(site: Site, receiver: Receiver) -> None:
    model: Any = RepairRequest.model_validate(repair_request(repair__notes=...))
    event_id = site.crm().repair_requested(model)
    written = site.row(event_id)["payload"]
    site.drain()
    assert (
        receiver.events[0].body.decode() == written == model.model_dump_json(by_alias=True, exclude_none=True)
    )
    assert "notes" not in receiver.events[0].json["repair"]


INVALID: dict[str, tuple[Any, list[str]]] = {
    "two faults": (
        repair_request(customer__email=SENTINEL, repair__priority=SENTINEL, repair__notes=SENTINEL),
        ["/customer/email", "/repair/priority"],
    ),
    "missing and unknown": (
        repair_request(repair__ticketNumber=..., repair__extra=SENTINEL, repair__notes=SENTINEL),
        ["/repair/extra", "/repair/ticketNumber"],
    ),
    "not JSON": (repair_request(repair__notes={SENTINEL}), ["/repair/notes"]),
    "not a number": (
        repair_request(repair__estimatedCost=float("nan"), repair__notes=SENTINEL),
        ["/repair/estimatedCost"],
    ),
    "what other programs than JSON hold": (
        repair_request(
            repair__createdAt=datetime(2026, 11, 24, 10, tzinfo=UTC),
            repair__estimatedCost=Decimal("12.30"),
            customer=MappingProxyType({"email": SENTINEL}),
            repair__notes=SENTINEL,
        ),
        ["/customer", "/repair/createdAt", "/repair/estimatedCost"],
    ),
    "a lone surrogate": (repair_request(repair__notes=SENTINEL + "\ud800"), [""]),
    "a name that is no string": (repair_request() | {(SENTINEL,): 1}, [""]),
    "a test's key": (
        repair_request(repair__websiteRepairId="webhook-test", repair__notes=SENTINEL),
        ["/repair/websiteRepairId"],
    ),
}


@pytest.mark.parametrize(("payload", "pointers"), INVALID.values(), ids=INVALID)
def test_an_invalid_event_is_refused_with_all_pointers_and_no_value_before_anything_is_written(
    site: Site, own_engine: Engine, payload: Any, pointers: list[str]
) -> None:
    with (
        statements(own_engine) as seen,
        Session(own_engine) as session,
        pytest.raises(InvalidEvent) as caught,
    ):
        site.crm().repair_requested(payload, session)
    assert sorted(fault.pointer for fault in caught.value.faults) == pointers
    assert SENTINEL not in all_text(caught.value)
    assert seen == []


def test_what_json_cannot_hold_is_named_with_what_the_contract_wants_in_its_place(site: Site) -> None:
    payload = repair_request(
        repair__createdAt=datetime(2026, 11, 24, 10, tzinfo=UTC),
        repair__estimatedCost=float("nan"),
        customer__websiteUserId=UUID(int=7),
        repair__photos=["https://shop.example/1.jpg", Path("2.jpg")],
        repair__extra=b"",
    )
    with pytest.raises(InvalidEvent) as caught:
        site.crm().repair_requested(payload)
    assert set(map(str, caught.value.faults)) == {
        "/repair/createdAt is a datetime, which JSON cannot hold; expected: string, date-time",
        "/repair/estimatedCost is no finite number, which JSON cannot hold; expected: number",
        "/customer/websiteUserId is a UUID, which JSON cannot hold; expected: string",
        "/repair/photos holds a PosixPath, which JSON cannot hold; expected: array",
        "/repair/extra is a bytes, which JSON cannot hold; expected: only the fields of the contract",
    }


def test_a_mapping_that_holds_itself_is_refused(site: Site, own_engine: Engine) -> None:
    payload = repair_request()
    payload["repair"]["notes"] = payload["repair"]["address"] = payload["repair"]
    with Session(own_engine) as session, pytest.raises(InvalidEvent, match="cannot be written as JSON"):
        site.crm().repair_requested(payload, session)


def test_what_is_neither_model_nor_mapping_is_a_mistake_of_the_caller(site: Site) -> None:
    with pytest.raises(TypeError, match="takes a RepairRequest or a mapping, not str") as caught:
        site.crm().repair_requested(SENTINEL)  # type: ignore[arg-type]
    assert SENTINEL not in str(caught.value)


@pytest.mark.parametrize("echo", [True, "debug"])
def test_no_payload_is_in_the_callers_echo(site: Site, caplog: pytest.LogCaptureFixture, echo: Any) -> None:
    own_engine = create_engine(site.url, echo=echo)
    caplog.set_level(logging.DEBUG, "sqlalchemy.engine")
    with Session(own_engine) as session, session.begin():
        site.crm().repair_requested(repair_request(repair__notes=SENTINEL), session)
    own_engine.dispose()
    assert "INSERT INTO crm_outbox" in caplog.text
    assert SENTINEL not in caplog.text


def test_no_payload_is_in_the_errors_of_the_callers_engine(site: Site, own_engine: Engine) -> None:
    with own_engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON crm_outbox BEGIN SELECT RAISE(ABORT, 'no more'); END"
        )
    with Session(own_engine) as session, pytest.raises(IntegrityError, match="no more") as caught:
        site.crm().repair_requested(repair_request(repair__notes=SENTINEL), session)
    assert "(payload)" in str(caught.value)
    assert SENTINEL not in all_text(caught.value)


def test_another_database_is_refused_with_both_addresses_and_no_password(site: Site, tmp_path: Path) -> None:
    elsewhere = f"sqlite:///{tmp_path / 'elsewhere.sqlite3'}"
    own_engine = create_engine(elsewhere)
    with Session(own_engine) as session, pytest.raises(WrongDatabase) as caught:
        site.crm().repair_requested(repair_request(), session)
    assert elsewhere in str(caught.value)
    assert site.url in str(caught.value)
    done = cli("migrate", directory=tmp_path, env=sender_environment(CRM_OUTBOX_URL=elsewhere))
    assert done.returncode == 0
    with Session(own_engine) as session, pytest.raises(WrongDatabase):
        site.crm().repair_requested(repair_request(), session)
    with own_engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM crm_outbox").scalar() == 0
    own_engine.dispose()


@pytest.mark.parametrize("first", ["sqlite3", "SQLAlchemy"])
def test_a_database_that_was_made_anew_beside_a_running_site_is_the_relays(site: Site, first: str) -> None:
    crm, own_engine = site.crm(), create_engine(site.url)

    def book_by(driver: str) -> None:
        if driver == "sqlite3":
            with closing(sqlite3.connect(site.database)) as connection, connection:
                crm.repair_requested(repair_request(), connection)
        else:
            with Session(own_engine) as session, session.begin():
                crm.repair_requested(repair_request(), session)

    book_by("sqlite3")
    book_by("SQLAlchemy")
    own_engine.dispose()
    for path in site.directory.glob(f"{site.database.name}*"):
        path.unlink()
    assert site.cli("migrate").returncode == 0
    book_by(first)
    book_by("sqlite3")
    book_by("SQLAlchemy")
    own_engine.dispose()
    assert len(site.rows()) == 3


def test_no_password_of_an_outbox_is_shown(site: Site) -> None:
    settings = site.settings(outbox_url="postgresql://site:hunter2@db.example/site")
    assert settings.shown_outbox == "postgresql://site:***@db.example/site"


def test_autocommit_is_refused_before_anything_is_written(site: Site, own_engine: Engine) -> None:
    with (
        own_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(NoTransaction),
    ):
        site.crm().repair_requested(repair_request(), connection)
    assert site.rows() == []


def test_a_site_that_says_begin_by_itself_is_in_a_transaction(site: Site, own_engine: Engine) -> None:
    says_begin(own_engine)
    with Session(own_engine) as session:
        site.crm().repair_requested(repair_request(), session)
        session.rollback()
        assert site.rows() == []
        site.crm().repair_requested(repair_request(), session)
        session.commit()
    assert len(site.rows()) == 1


def test_an_outbox_that_is_not_migrated_names_the_command(site: Site, tmp_path: Path) -> None:
    crm = CRM(site.settings(outbox_url=f"sqlite:///{tmp_path / 'empty.sqlite3'}"))
    with pytest.raises(NotMigrated, match="crm-sender migrate"):
        crm.repair_requested(repair_request())
    with pytest.raises(NotMigrated, match="crm-sender migrate"), crm.relay():
        pass


def test_a_relay_that_cannot_run_says_so_before_the_block(site: Site, tmp_path: Path) -> None:
    (tmp_path / "authority.pem").write_text("no certificate")
    crm = CRM(site.settings(ca_file=str(tmp_path / "authority.pem")))
    with pytest.raises(SettingsError, match="CRM_CA_FILE: holds no certificate in PEM"), crm.relay():
        pytest.fail("the block runs without a relay")


def test_what_ends_a_relay_is_logged_and_raised_after_the_block(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def end(*_: object) -> None:
        raise RuntimeError(SENTINEL)

    monkeypatch.setattr(Relay, "_turn", end)
    crm = site.crm()
    with pytest.raises(RuntimeError, match=SENTINEL), crm.relay():
        eventually(lambda: "the relay has ended" in caplog.text, "it is logged while the block runs")
    assert "waits for another: RuntimeError" in caplog.text
    assert SENTINEL not in caplog.text
    with pytest.raises(LookupError, match="the block's own"), crm.relay():
        raise LookupError("the block's own")


@pytest.mark.parametrize("ended", ["atexit.register(stack.close)", ""], ids=["by atexit", "by nobody"])
def test_a_process_ends_though_it_has_not_left_the_block_of_its_relay(site: Site, ended: str) -> None:
    program = f"""
import atexit, contextlib
from sender import CRM

stack = contextlib.ExitStack()
stack.enter_context(CRM().relay())
{ended}
"""
    environment = site.environment(PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "-c", program], env=environment, timeout=30, check=False)
    assert done.returncode == 0


def test_a_relay_without_a_key_says_so(site: Site) -> None:
    with pytest.raises(SettingsError, match="CRM_API_KEY is not set"):
        Relay(site.settings(api_key=None))


def test_async_code_has_the_same_names_in_its_own_transaction_or_none(site: Site, own_engine: Engine) -> None:
    async def story() -> list[str]:
        crm = AsyncCRM(site.settings())
        own = create_async_engine(site.url.replace("sqlite:", "sqlite+aiosqlite:"))
        payload = repair_request()
        async with AsyncSession(own) as session, session.begin():
            await session.execute(bookings.insert().values(key="b"))
            ids = [await crm.repair_requested(payload, session)]
        async with own.begin() as connection:
            ids.append(await crm.customer_registered(customer_registration(), connection))
        ids.append(await crm.repair_requested(payload))
        ids.append(await crm.customer_registered(customer_registration()))
        async with AsyncSession(own) as session:
            await crm.repair_requested(repair_request(), session)
            await session.rollback()
        with pytest.raises(InvalidEvent):
            await crm.repair_requested({})
        await own.dispose()
        return ids

    ids = asyncio.run(story())
    assert ids[0] == ids[2]
    assert {row["id"] for row in site.rows()} == set(ids)


def test_rows_that_the_sites_own_connection_moves_leave_no_copy(site: Site, own_engine: Engine) -> None:
    event.listen(own_engine, "connect", lambda connection, _: connection.execute("PRAGMA secure_delete=OFF"))
    own_engine.dispose()
    crm = site.crm()
    for number in range(60):
        with own_engine.begin() as connection:
            connection.execute(bookings.insert().values(key=f"{number}"))
            crm.repair_requested(repair_request(repair__notes=SENTINEL * (1 + number % 40)), connection)
    assert site.drain().delivered == 60
    own_engine.dispose()
    assert site.left_of(SENTINEL) == []


def test_importing_the_sender_loads_no_web_framework_and_nothing_that_sends() -> None:
    code = "import sys; from sender import CRM, RepairRequest; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "sender.crm" in loaded
    assert not loaded & {
        "sender.relay",
        "httpx",
        "sqlalchemy.orm",
        "sqlalchemy.dialects.postgresql",
        "connexion",
        "starlette",
        "granian",
        "uvicorn",
        "flask",
        "jinja2",
        "alembic",
        "crm_server",
    }


def test_all_that_is_public_is_named_in_order() -> None:
    assert sender.__all__ == sorted(sender.__all__, key=lambda name: (not name.isupper(), name))
    assert all(hasattr(sender, name) for name in sender.__all__)
    assert re.search(r"crm\.repair_requested", sender.__doc__ or "")


@pytest.mark.parametrize("value", [datetime.now(UTC), Decimal(1), float("nan"), object()])
def test_a_value_that_json_cannot_hold_is_named_by_its_field(site: Site, value: object) -> None:
    with pytest.raises(InvalidEvent) as caught:
        site.crm().repair_requested(repair_request(repair__createdAt=value))
    assert [fault.pointer for fault in caught.value.faults] == ["/repair/createdAt"]


def test_a_model_that_is_changed_says_no_without_the_value() -> None:
    model: Any = RepairRequest.model_validate(repair_request())
    with pytest.raises(AttributeError, match="frozen") as caught:
        model.repair.notes = SENTINEL
    assert SENTINEL not in str(caught.value)


def test_asking_an_outbox_that_is_not_there_creates_nothing(tmp_path: Path, site: Site) -> None:
    missing = tmp_path / "missing.sqlite3"
    with pytest.raises(NotMigrated, match="crm-sender migrate"):
        CRM(site.settings(outbox_url=f"sqlite:///{missing}")).repair_requested(repair_request())
    assert not missing.exists()


def test_an_empty_part_of_the_schedule_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_RETRY_SCHEDULE", "1,,3")
    with pytest.raises(SettingsError, match="CRM_RETRY_SCHEDULE"):
        SenderSettings.read()
