"""The webhook keys' page: when each was used and which is due to be changed, and none of them."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, insert

from crm_server.tables import webhook_keys
from crm_server.webhook_keys import fingerprint
from tests.crm_server.conftest import assert_nothing_private, in_database
from tests.crm_server.visitors import Visitor, logged_in
from tests.servers import Crm, start_crm

OLD, NEW, GONE = "the-old-key-0123456789", "the-new-key-0123456789", "the-gone-key-0123456789"


@pytest.fixture(scope="module")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server that knows two keys; one is old, and another was taken out."""
    with start_crm(tmp_path_factory.mktemp("keys"), only="staff", WEBHOOK_API_KEY=f"{OLD},{NEW}") as crm:
        in_database(crm, use_long_ago)
        yield crm
    assert_nothing_private(crm)


def use_long_ago(connection: Connection) -> str:
    at = (datetime.now(UTC) - timedelta(days=91)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    rows = [{"fingerprint": fingerprint(k), "first_used_at": at, "last_used_at": at} for k in (OLD, GONE)]
    connection.execute(insert(webhook_keys), rows)
    return at


@pytest.fixture(scope="module")
def admin(crm: Crm) -> Visitor:
    return logged_in(crm, "Key admin", "admin")


def test_an_old_key_is_due_and_others_are_what_they_are(admin: Visitor) -> None:
    html = admin.html("/keys")
    old, new, gone = map(fingerprint, (OLD, NEW, GONE))
    states = (
        f"{old} .{{41}} in use for more than 90 days: change it"
        f" {new} never never set {gone} .{{41}} no longer set"
    )
    assert re.search(states, " ".join(html.text.split()))
    assert not [key for key in (OLD, NEW, GONE) if key in html.text]
    assert [link["href"] for link in html.all("a", aria_current="page")] == ["/keys"]


def test_a_server_that_knows_no_key_says_so_and_judges_none(crm: Crm, admin: Visitor) -> None:
    crm.env["WEBHOOK_API_KEY"] = ""
    crm.restart()
    html = admin.html("/keys")
    assert fingerprint(OLD) in html.text
    assert "is set for this server" in html.text
    assert "no longer set" not in html.text
