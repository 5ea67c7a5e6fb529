"""SQLite moves rows between pages, and keeps copies of what it moved: none of them may hold a payload's bytes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, update

from sender import outbox
from sender.database import open_engine, truncate_log
from sender.events import Event
from sender.indexes import metadata
from sender.tables import outbox as table
from sender.tables import outbox_identity
from tests.end_to_end.chaos import left_in_files
from tests.receiver import Receiver
from tests.sender.site import SENTINEL, Site

MARK = "QZSECRETQZ"
LEFT_COPIES = (10, 42)
"""Courses that left a copy, before payloads were covered."""
OTHERS = range(1000, 1100)
LEASED: dict[str, Any] = {
    "status": "pending", "reason": None, "answer": None, "finished_at": None, "lease_token": "t" * 36,
    "lease_until": 5,
}  # fmt: skip
FREE: dict[str, Any] = {"lease_token": None, "lease_until": None, "finished_at": 1}


@pytest.mark.parametrize("course", [*LEFT_COPIES, *(pytest.param(n, marks=pytest.mark.long) for n in OTHERS)])
def test_no_copy_of_a_delivered_payload_is_left_whatever_the_course_was(tmp_path: Path, course: int) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/outbox.sqlite3", create=True)
    try:
        with engine.begin() as connection:
            metadata.create_all(connection)
            connection.execute(outbox_identity())
        run(engine, random.Random(course))
        assert truncate_log(engine)
    finally:
        engine.dispose()
    assert left_in_files(tmp_path, MARK) == []


def run(engine: Engine, chance: random.Random) -> None:
    """Have events be claimed, fail and be delivered in one of many orders, until all are delivered."""
    count = chance.choice([20, 60, 150])
    names: list[str] = []

    def add() -> None:
        payload = json.dumps({"a": MARK * chance.randint(20, 200)})
        name = f"id{len(names)}-{chance.random()}"
        key = f"k{chance.randint(0, 9)}"
        event = Event(name, "repair-request", "1.0.0", name, key, "r", payload, "0" * 64)
        with engine.begin() as connection:
            assert outbox.add(connection, event, 0)
        names.append(name)

    def write(name: str, values: dict[str, Any]) -> None:
        with engine.begin() as connection:
            connection.execute(update(table).where(table.c.id == name).values(values))

    for _ in range(count):
        add()
    left = list(names)
    while left:
        choice = chance.random()
        if choice < 0.35:
            write(chance.choice(left), LEASED)
        elif choice < 0.5:
            name = chance.choice(left)
            said = {"reason": "x" * chance.randint(10, 400), "answer": "y" * chance.randint(10, 900)}
            write(name, FREE | said | {"status": "failed"})
        elif choice < 0.55 and len(names) < 2 * count:
            add()
            left.append(names[-1])
        else:
            name = left.pop(chance.randrange(len(left)))
            write(name, FREE | {"status": "delivered", "payload": None, "reason": None, "answer": None})


def test_no_copy_of_what_is_changed_at_once_is_written_beside_the_outbox(
    site: Site, receiver: Receiver, tmp_path: Path
) -> None:
    beside = tmp_path / "temporary"
    beside.mkdir()
    untouched = beside.stat().st_mtime_ns
    site.book(300, repair__notes=SENTINEL)
    done = site.cli_alone("relay", "--drain", SQLITE_TMPDIR=str(beside))
    assert done.returncode == 0, done.stderr
    assert set(site.statuses()) == {"delivered"}
    assert beside.stat().st_mtime_ns == untouched, "a file that is made and deleted at once is seen too"
