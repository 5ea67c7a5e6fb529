"""A small site for the benchmarks: bookings in SQLite, and events in the same transaction."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, String, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from scripts.bench.payloads import REPAIR
from scripts.bench.processes import KEY, environment
from sender import CRM, SenderSettings


class Base(DeclarativeBase):
    """The site's tables."""


class Booking(Base):
    """A booking."""

    __tablename__ = "bookings"
    id: Mapped[int] = mapped_column(primary_key=True)
    repair: Mapped[str] = mapped_column(String(64), unique=True)
    device: Mapped[str] = mapped_column(String(200))


class Site:
    """A booking site with an outbox, in SQLite unless another database is named."""

    def __init__(self, folder: Path, port: int = 1, url: str | None = None) -> None:
        self.folder = folder
        self.url = url or f"sqlite:///{folder}/site.sqlite3"
        self.crm_url = f"http://127.0.0.1:{port}/webhooks"
        self.settings = SenderSettings(outbox_url=self.url, api_key=KEY, webhook_url=self.crm_url)
        self.env = environment(CRM_OUTBOX_URL=self.url, CRM_WEBHOOK_URL=self.crm_url)
        subprocess.run(
            [sys.executable, "-m", "sender", "migrate"],
            env=self.env,
            check=True,
            capture_output=True,
            cwd=folder,
        )
        self.engine: Engine = create_engine(self.url.replace("postgresql:", "postgresql+psycopg:"))
        Base.metadata.create_all(self.engine)
        self.crm = CRM(self.settings)

    def book(self, event: dict[str, Any] | None, name: str) -> None:
        """Make a booking, with its event where there is one, in one transaction."""
        with Session(self.engine) as session, session.begin():
            session.add(Booking(repair=name, device="MacBook"))
            if event is not None:
                self.crm.repair_requested(event, session)


def new_repair(customer: str | None = None) -> dict[str, Any]:
    """Return a repair request like the guide's, of another booking, and of another customer unless named."""
    event: dict[str, Any] = copy.deepcopy(REPAIR)
    name = os.urandom(16).hex()
    event["repair"]["websiteRepairId"] = event["repair"]["ticketNumber"] = name
    event["customer"]["websiteUserId"] = customer or name
    return event
