"""Keys and signing secrets are changed as docs/security.md says, while events flow: no gap, nothing lost."""

import base64
from pathlib import Path

import pytest

from tests.end_to_end.chaos import Site, received, running, wait_until
from tests.servers import KEY, start_crm

EVENTS = 150
NEW_KEY = "the-new-key-of-the-tests-0123456789"
OLD_SECRET = "whsec_" + base64.b64encode(b"the old secret of the tests.....").decode()
NEW_SECRET = "whsec_" + base64.b64encode(b"the new secret of the tests.....").decode()


def test_key_and_secret_are_changed_while_events_flow(tmp_path: Path) -> None:
    with start_crm(tmp_path / "crm", WEBHOOK_SIGNING_SECRET=OLD_SECRET) as crm:
        site = Site(tmp_path / "site", crm)
        site.env["CRM_SIGNING_SECRET"] = OLD_SECRET
        book = ("tests.end_to_end.chaos", str(site.directory), str(EVENTS), "1")
        with running(site, "sender", "relay") as relay, running(site, *book):
            wait_until(lambda: received(crm), 60, "a first event")

            crm.env |= {
                "WEBHOOK_API_KEY": f"{KEY},{NEW_KEY}",
                "WEBHOOK_SIGNING_SECRET": f"{OLD_SECRET},{NEW_SECRET}",
            }
            crm.restart()  # the CRM takes both
            site.env |= {"CRM_API_KEY": NEW_KEY, "CRM_SIGNING_SECRET": NEW_SECRET}
            relay.stop()
            relay.start()  # the website has the new ones
            wait_until(lambda: len(crm.rows("SELECT 1 FROM webhook_keys")) == 2, 60, "the new key's use")
            crm.env |= {"WEBHOOK_API_KEY": NEW_KEY, "WEBHOOK_SIGNING_SECRET": NEW_SECRET}
            crm.restart()  # the CRM takes the new ones alone

            wait_until(lambda: site.website.count() == EVENTS, 60, "everything booked")
            wait_until(lambda: site.status()["pending"] == 0, 60, "everything delivered")
            status = site.status()
            assert [status[state] for state in ("delivered", "failed", "held")] == [EVENTS, 0, 0]
        assert received(crm) == site.website.told()
        assert not any(secret in crm.log for secret in (KEY, NEW_KEY, OLD_SECRET, NEW_SECRET))


@pytest.mark.long
def test_a_wrong_secret_holds_events_until_it_is_mended(tmp_path: Path) -> None:
    with start_crm(tmp_path / "crm", WEBHOOK_SIGNING_SECRET=NEW_SECRET) as crm:
        site = Site(tmp_path / "site", crm)
        site.website.tell("ada")
        for given in ({}, {"CRM_SIGNING_SECRET": OLD_SECRET}):
            site.env |= given
            assert "0 delivered, 0 failed, 1 held" in site.cli("relay", "--drain").stdout
        assert site.cli("test").returncode == 1
        status, doctor = site.cli("status").stdout, site.cli("doctor").stdout
        assert "1 for the signature" in status
        assert "check CRM_SIGNING_SECRET and the CRM's WEBHOOK_SIGNING_SECRET" in status
        assert "waiting for the signature" in doctor
        assert doctor.count("WEBHOOK_SIGNING_SECRET") == 2  # of what is held, and of the test
        site.env["CRM_SIGNING_SECRET"] = NEW_SECRET
        assert "1 delivered, 0 failed, 0 held" in site.cli("relay", "--drain").stdout


@pytest.mark.long
def test_a_relay_that_is_faster_than_the_limit_waits_and_delivers_all(tmp_path: Path) -> None:
    with start_crm(tmp_path / "crm", WEBHOOK_RATE_LIMIT="10/second") as crm:
        site = Site(tmp_path / "site", crm)
        for number in range(35):
            site.website.tell(f"customer-{number}")
        assert "35 delivered, 0 failed, 0 held" in site.cli("relay", "--drain").stdout
        assert received(crm) == site.website.told()
