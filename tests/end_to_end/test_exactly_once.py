"""The promise: an event committed with a booking reaches the approval queue exactly once, unchanged, in order.

`make faults` runs the second test a thousand kills long.
"""

import os
import random
from pathlib import Path

from tests.end_to_end.chaos import SECRET, Site, hurt_at_random, left_in_files, received, running, wait_until
from tests.servers import start_crm

KILLS = int(os.environ.get("CHAOS_KILLS", "24"))
EVENTS = int(os.environ.get("CHAOS_EVENTS", "300"))


def test_a_booking_goes_the_whole_way(tmp_path: Path) -> None:
    with start_crm(tmp_path / "crm") as crm:
        site = Site(tmp_path / "site", crm)
        site.website.tell("ada")
        site.website.tell("ada")
        done = site.cli("relay", "--drain")
        assert (done.returncode, done.stdout) == (0, "2 delivered, 0 failed, 0 held, 0 pending\n"), (
            done.stderr
        )
        assert received(crm) == site.website.told()
        assert left_in_files(site.directory, SECRET) == []


def test_nothing_is_lost_doubled_changed_or_reordered_whatever_is_killed(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(2**32)))
    print(f"CHAOS_SEED={seed}")
    with start_crm(tmp_path / "crm") as crm:
        site = Site(tmp_path / "site", crm)
        book = ("tests.end_to_end.chaos", str(site.directory), str(EVENTS), str(seed))
        with running(site, "sender", "relay") as relay, running(site, *book) as website:
            hurt_at_random([crm, relay, website], KILLS, random.Random(seed))
            wait_until(lambda: site.website.count() == EVENTS, 120, "everything booked")
            wait_until(lambda: site.status()["pending"] == 0, 120, "everything delivered")
            status = site.status()
            assert [status[state] for state in ("delivered", "failed", "held")] == [EVENTS, 0, 0]
            wait_until(lambda: not left_in_files(site.directory, SECRET), 20, "payloads erased")
        got = received(crm)
    assert got == site.website.told()
