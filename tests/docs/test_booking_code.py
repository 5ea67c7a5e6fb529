"""The README's four lines of booking code, on a real SQLAlchemy site."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from sender import CRM
from sender import cli as crm_sender
from tests.docs.documents import README, blocks
from tests.end_to_end.chaos import wait_until
from tests.factories import repair_request
from tests.servers import KEY, start_crm


class Base(DeclarativeBase):
    pass


class Booking(Base):
    __tablename__ = "bookings"
    id: Mapped[str] = mapped_column(primary_key=True)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of a site's database, with the outbox in it."""
    url = f"sqlite:///{tmp_path / 'bookings.sqlite3'}"
    monkeypatch.setenv("CRM_OUTBOX_URL", url)
    monkeypatch.setenv("CRM_API_KEY", KEY)
    assert crm_sender.main(["migrate"]) == 0
    return url


def test_the_four_lines_commit_booking_and_event_and_the_crm_gets_it(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_engine(database)
    Base.metadata.create_all(engine)
    given = repair_request()
    [block] = [block for block in blocks(README) if block.language == "python"]
    names = {"Session": sessionmaker(engine), "booking": Booking(id="1"), "given": given}
    with start_crm(tmp_path / "crm") as crm:
        monkeypatch.setenv("CRM_WEBHOOK_URL", crm.url)
        exec(block.text, names)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM bookings")) == 1
            assert connection.scalar(text("SELECT count(*) FROM crm_outbox")) == 1
        with CRM().relay():  # as the README says too
            wait_until(lambda: crm.rows("SELECT 1 FROM approvals"), 20, "the repair request")
        [request] = json.loads(crm.cli("approvals", "list", "--json").stdout)
    engine.dispose()
    assert request["natural_key"] == given["repair"]["websiteRepairId"]
