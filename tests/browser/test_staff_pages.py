"""What must hold of every staff page, and the pages that are not the queue."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from playwright.sync_api import Browser, expect

from crm_server import bulk_decisions
from crm_server.approval_queue import Filter
from crm_server.audit_trail import Actor
from crm_server.frontend import PAGES
from tests.browser.visits import add_staff, examine, path, receive, session, visit
from tests.crm_server.conftest import in_database
from tests.factories import customer_registration, repair_request
from tests.servers import Crm

both = pytest.mark.parametrize("javascript", [True, False], ids=["script", "no script"])
ANSWERS_NO_PAGE = {"/static/{name}", "/approvals/arrived"}
READ = [page for page in PAGES if page.method == "GET" and page.path not in ANSWERS_NO_PAGE]


@pytest.fixture(scope="module")
def known(crm: Crm) -> Mapping[str, list[str]]:
    """Ids of records by the path of their pages: requests of each kind, one approved, and what came of it."""
    events = [("repair-request", repair_request()), ("customer-registration", customer_registration())]
    ids = [receive(crm, event, payload) for event, payload in events]
    assert crm.cli("approvals", "approve", ids[0]).returncode == 0
    made = crm.rows("SELECT record, record_id FROM decision_records WHERE approval_id = ?", ids[0])
    me = Actor("cli:tests")
    nothing = bulk_decisions.summary(0, [])
    job = in_database(
        crm,
        lambda connection: bulk_decisions.begin(connection, Filter(), nothing, "approve", None, me),
    )
    found = {f"/{row['record']}s": [row["record_id"]] for row in made}
    return {"/approvals": ids, "/approvals/bulk": [job], **found}


@pytest.mark.parametrize("there", sorted({page.path for page in READ}))
def test_every_page_is_for_everybody_and_fits_a_telephone(
    chromium: Browser, crm: Crm, known: Mapping[str, list[str]], there: str
) -> None:
    with session(chromium, crm, "Admin") as page:
        for record in known[there.partition("/{id}")[0]] if "{id}" in there else [""]:
            answer = page.goto(there.replace("{id}", record))
            assert answer
            assert answer.status == 200
            expect(page.get_by_role("heading", level=1)).to_have_count(1)
            examine(page)


def test_a_script_that_was_smuggled_in_is_not_run_and_a_visit_notices(chromium: Browser, crm: Crm) -> None:
    script = "Object.assign(document.createElement('script'), {text: 'document.title = 1'})"
    visiting = session(chromium, crm)
    page = visiting.__enter__()
    page.evaluate(f"document.body.append({script})")
    expect(page).to_have_title("Today · CRM")
    with pytest.raises(AssertionError, match="Content Security Policy"):
        visiting.__exit__(None, None, None)


def test_what_went_wrong_is_a_page_too(chromium: Browser, crm: Crm) -> None:
    with session(chromium, crm, "Viewer") as page:
        for there, title in (
            ("/nowhere", "Not found"),
            ("/staff", "Forbidden"),
            ("/approvals/none", "Not found"),
        ):
            page.goto(there)
            expect(page.get_by_role("heading", level=1)).to_have_text(title)
            examine(page)


@both
def test_an_admin_adds_somebody_who_can_log_in_until_they_are_disabled(
    chromium: Browser, crm: Crm, javascript: bool
) -> None:
    name = f"Hedy {javascript}"
    with (
        session(chromium, crm, "Admin", "/staff", javascript=javascript) as page,
        visit(chromium, crm.pages_url, javascript=javascript) as theirs,
    ):
        form = page.locator("form", has=page.get_by_role("heading", name="Add somebody"))
        form.get_by_label("Name").fill(name)
        form.get_by_label("Role").select_option("approver")
        form.get_by_label("Password").fill("a password of hers")
        form.get_by_role("button", name="Add").click()
        theirs.goto("/login")
        theirs.get_by_label("Name").fill(name)
        theirs.get_by_label("Password").fill("a password of hers")
        theirs.get_by_role("button", name="Log in").click()
        expect(theirs.get_by_text(f"{name}, approver")).to_be_visible()
        card = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name=name))
        card.get_by_text("Change").click()
        card.get_by_role("button", name="Make a token").click()
        expect(page.get_by_role("status")).to_contain_text("staff_")
        if javascript:
            examine(page)
        page.goto("/staff")
        expect(page.get_by_text("staff_")).to_have_count(0)
        card.get_by_text("Change").click()
        card.get_by_role("button", name="Disable").click()
        expect(card).to_contain_text("disabled")
        theirs.goto("/approvals")
        assert path(theirs) == "/login"


def test_what_is_sent_after_the_session_is_over_changes_nothing_and_says_so(
    chromium: Browser, crm: Crm
) -> None:
    request = receive(crm, "repair-request", repair_request())
    add_staff(crm, "Leaver", "approver")
    with session(chromium, crm, "Leaver", f"/approvals/{request}") as page:
        assert crm.cli("staff", "disable", "Leaver").returncode == 0
        page.get_by_role("button", name="Approve").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("You are logged out")
        examine(page)
        page.get_by_role("link", name="Log in").click()
        assert page.url.endswith(f"/login?next=%2Fapprovals%2F{request}")
    assert crm.rows("SELECT status FROM approvals WHERE id = ?", request)[0]["status"] == "pending_approval"
