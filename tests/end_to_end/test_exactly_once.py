"""The promise: an event committed with a booking reaches the approval queue exactly once, unchanged, in order."""

import json
import os
import random
import time
from pathlib import Path

from tests.end_to_end.chaos import (
    SECRET,
    Website,
    canonical,
    kill_at_random,
    left_in_files,
    meanwhile,
    received,
    running_relay,
    wait_until,
)
from tests.servers import start_crm

KILLS = int(os.environ.get("CHAOS_KILLS", "20"))
EVENTS = int(os.environ.get("CHAOS_EVENTS", "300"))
CUSTOMERS = 20


def status(site: Website) -> dict[str, int]:
    found: dict[str, int] = json.loads(site.cli("status", "--json").stdout)
    return found


def test_a_booking_goes_the_whole_way(tmp_path: Path) -> None:
    with start_crm(tmp_path / "crm") as crm:
        site = Website(tmp_path / "site", crm.url, crm.key)
        site.register("ada")
        site.book("ada")
        done = site.cli("relay", "--drain")
        assert (done.returncode, done.stdout) == (0, "2 delivered, 0 failed, 0 held, 0 pending\n"), (
            done.stderr
        )
        assert canonical(received(crm)) == canonical(site.told)
        assert left_in_files(site.directory, SECRET) == []


def test_nothing_is_lost_doubled_changed_or_reordered_whatever_is_killed(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(2**32)))
    print(f"CHAOS_SEED={seed}")
    luck = random.Random(seed)
    with start_crm(tmp_path / "crm") as crm:
        site = Website(tmp_path / "site", crm.url, crm.key)
        customers = [f"customer-{number}" for number in range(CUSTOMERS)]

        def everybody_books() -> None:
            for customer in customers:
                site.register(customer)
            for _ in range(EVENTS - CUSTOMERS):
                time.sleep(luck_of_bookings.uniform(0, 0.1))  # so that bookings and kills overlap
                site.book(luck_of_bookings.choice(customers))

        luck_of_bookings = random.Random(seed + 1)
        with running_relay(site) as relay:
            with meanwhile(everybody_books):
                kill_at_random(crm, relay, KILLS, luck)
            wait_until(lambda: status(site)["pending"] == 0, 120, "everything delivered")
            counts = status(site)
            assert [counts[state] for state in ("delivered", "failed", "held")] == [EVENTS, 0, 0]
            wait_until(lambda: not left_in_files(site.directory, SECRET), 20, "payloads erased")
        got = received(crm)
    assert canonical(got) == canonical(site.told)
    assert left_in_files(site.directory, SECRET) == []
