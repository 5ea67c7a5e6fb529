"""What one would write by hand: FastAPI, SQLAlchemy async, one commit a request."""

from __future__ import annotations

import json
import os
import secrets
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import String, Text, event
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from scripts.bench.peers.by_hand_models import RepairRequest


class Base(DeclarativeBase):
    """The tables."""


class Approval(Base):
    """A request that waits for approval."""

    __tablename__ = "approvals"
    id: Mapped[int] = mapped_column(primary_key=True)
    natural_key: Mapped[str] = mapped_column(String(64), unique=True)
    status: Mapped[str] = mapped_column(String(32))
    payload: Mapped[str] = mapped_column(Text)


engine = create_async_engine(os.environ["BENCH_DATABASE_URL"])
sessions = async_sessionmaker(engine, expire_on_commit=False)
bearer = HTTPBearer()
app = FastAPI()

if engine.dialect.name == "sqlite":

    @event.listens_for(engine.sync_engine, "connect")
    def set_pragmas(connection, _) -> None:  # type: ignore[no-untyped-def]
        """Be as durable as we are."""
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=4000"):
            connection.execute(f"PRAGMA {pragma}")


@app.on_event("startup")
async def create() -> None:
    """Create the tables."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


@app.post("/webhooks/repair-request", status_code=202)
async def repair_request(
    body: RepairRequest, key: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]
) -> dict[str, object]:
    """Store a request."""
    if not secrets.compare_digest(key.credentials, os.environ["BENCH_KEY"]):
        raise HTTPException(401)
    row = Approval(
        natural_key=body.repair.websiteRepairId,
        status="pending_approval",
        payload=json.dumps(body.model_dump(mode="json", exclude_none=True)),
    )
    async with sessions.begin() as session:
        session.add(row)
    return {"id": row.id, "status": row.status}
