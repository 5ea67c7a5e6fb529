"""Who may see what: every page by everybody there is."""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from crm_server import bulk_decisions
from crm_server.approval_queue import Filter
from crm_server.audit_trail import Actor
from crm_server.frontend import PAGES
from crm_server.frontend.visits import Page
from crm_server.middleware.sessions import COOKIE
from crm_server.staff import RANKS
from tests.crm_server.answers import post
from tests.crm_server.conftest import in_database
from tests.crm_server.visitors import Visitor, logged_in
from tests.factories import repair_request
from tests.servers import Crm

ROLES: list[str] = list(RANKS)
STRANGERS = ("no one", "a wrong cookie", "one who is disabled")
CHECKED = [page for page in PAGES if page.path != "/logout"]
"""To log out would end the session for the others."""


def matrix() -> Iterator[Any]:
    """Yield everybody with every page."""
    for page in CHECKED:
        for who in (*STRANGERS, *ROLES):
            yield pytest.param(who, page, id=f"{page.method} {page.path} by {who}")


@pytest.fixture(scope="module")
def everybody(crm: Crm) -> Mapping[str, Visitor]:
    """A browser of each of them."""
    roles = {role: logged_in(crm, f"Matrix {role}", role) for role in RANKS}
    disabled = logged_in(crm, "Matrix disabled", "admin")
    assert disabled.get("/staff").status_code == 200
    assert crm.cli("staff", "disable", "Matrix disabled").returncode == 0
    wrong = Visitor(crm, cookies=httpx.Cookies({COOKIE: "wrong"}))
    return dict(zip(STRANGERS, (Visitor(crm), wrong, disabled), strict=True)) | roles


@pytest.fixture(scope="module")
def csrf(everybody: Mapping[str, Visitor]) -> Mapping[str, str]:
    """What the forms of each of them hold; those of strangers nothing."""
    return {who: visitor.csrf if who in ROLES else "" for who, visitor in everybody.items()}


@pytest.fixture(scope="module")
def ids(crm: Crm) -> Mapping[str, str]:
    """A record for each kind of page that shows one, by the part of its path before the id."""
    waiting, approved = (post(crm, "repair-request", repair_request()).json["id"] for _ in range(2))
    assert crm.cli("approvals", "approve", approved).returncode == 0
    made = crm.rows("SELECT record, record_id FROM decision_records WHERE approval_id = ?", approved)
    me = Actor("cli:tests")
    nothing = bulk_decisions.summary(0, [])
    job = in_database(
        crm,
        lambda connection: bulk_decisions.begin(connection, Filter(), nothing, "approve", None, me),
    )
    return {"approvals": str(waiting), "bulk": job} | {f"{row['record']}s": row["record_id"] for row in made}


@pytest.mark.parametrize(("who", "page"), [*matrix()])
def test_everybody_sees_what_their_role_allows_and_nothing_else(
    everybody: Mapping[str, Visitor], csrf: Mapping[str, str], ids: Mapping[str, str], who: str, page: Page
) -> None:
    visitor = everybody[who]
    kind = page.path.partition("/{id}")[0].rpartition("/")[2]
    path = page.path.replace("{id}", ids.get(kind, "")).replace("{name}", "style.css")
    fields = {"csrf": csrf[who]} if page.method == "POST" else None
    answer = visitor.send(page.method, path, fields, origin=visitor.origin)
    if page.role is None:
        assert answer.status_code == 200
    elif who in STRANGERS and page.method == "GET":
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login")
    elif who in STRANGERS:
        assert answer.status_code == 401
    elif ROLES.index(who) < ROLES.index(page.role):
        assert answer.status_code == 403
    else:
        assert answer.status_code in (200, 303, 400, 409)


def test_every_page_that_changes_something_needs_a_role() -> None:
    assert [page.path for page in PAGES if page.method != "GET" and page.role is None] == []
