"""Deciding everything that matches, on pages: what was seen is decided, and what could not be is listed."""

import re
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Connection

from crm_server import bulk_decisions, staff
from crm_server.approval_queue import Filter
from crm_server.audit_trail import Actor
from crm_server.bulk_decisions import FORBIDDEN
from crm_server.errors import CannotReopen, Refused
from crm_server.frontend.bulk_decisions import WHY
from tests.crm_server.answers import post, until
from tests.crm_server.conftest import assert_nothing_private, in_database
from tests.crm_server.visitors import Html, Visitor, logged_in
from tests.factories import FACTORIES, customer_registration, repair_request
from tests.servers import Crm, start_crm


@pytest.fixture(scope="module")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server whose queue these tests may empty."""
    with start_crm(tmp_path_factory.mktemp("bulk"), only=None) as crm:
        yield crm
    assert_nothing_private(crm)


@pytest.fixture(scope="module")
def approver(crm: Crm) -> Visitor:
    return logged_in(crm, "Bulk approver", "approver")


def receive(crm: Crm, **over: Any) -> str:
    return str(post(crm, "repair-request", repair_request(**over)).json["id"])


def status(crm: Crm, approval: str) -> str:
    (row,) = crm.rows("SELECT status FROM approvals WHERE id = ?", approval)
    return str(row["status"])


def forms(html: Html) -> dict[str, str]:
    """What the forms of a preview send of what it showed."""
    return {
        given["name"]: given["value"]
        for given in html.all("input", type="hidden")
        if given["name"] in ("count", "as_of", "digest")
    }


def decide(visitor: Visitor, path: str, html: Html, **fields: str) -> Any:
    return visitor.post(path, {**forms(html), **fields})


def finished(visitor: Visitor, answer: Any) -> Html:
    """Wait for a decision to be done, as somebody without JavaScript does; return its page."""
    assert answer.status_code == 303, answer.text
    until(lambda: "Finished" in visitor.html(answer.headers["location"]).text)
    return visitor.html(answer.headers["location"])


def one_line(html: Html) -> str:
    return " ".join(html.text.split())


def test_what_matches_the_queues_filter_and_search_is_approved_and_nothing_else(
    crm: Crm, approver: Visitor
) -> None:
    wanted = [receive(crm, repair__deviceType="Zeppelin") for _ in range(2)]
    other = receive(crm)
    registered = post(crm, "customer-registration", customer_registration()).json["id"]
    until(lambda: crm.rows("SELECT 1 FROM search_documents WHERE sequence = 4"))
    found = approver.post("/approvals/search?event=repair-request&order=newest", {"text": "zeppelin"})
    (link,) = approver.html(found.headers["location"]).all("a", href=path_of_all(found.headers["location"]))
    html = approver.html(link["href"])
    assert "2 requests" in html.text
    assert "zeppelin" in html.text
    assert forms(html)["count"] == "2"
    late = receive(crm, repair__deviceType="Zeppelin")
    answer = decide(approver, link["href"], html, decision="approve")
    page = finished(approver, answer)
    assert "2 of 2 approved" in one_line(page)
    assert page.all("a", href=found.headers["location"]), "the way back is where somebody came from"
    assert [status(crm, each) for each in wanted] == ["approved", "approved"]
    assert {status(crm, each) for each in (other, registered, late)} == {"pending_approval"}


def path_of_all(queue: str) -> str:
    return queue.replace("/approvals?", "/approvals/bulk?")


def test_what_cannot_be_decided_is_listed_with_why_and_a_link(crm: Crm, approver: Visitor) -> None:
    number = repair_request()["repair"]["ticketNumber"]
    for _ in range(2):
        second = receive(crm, repair__ticketNumber=number)
    path = "/approvals/bulk?event=repair-request"
    page = finished(approver, decide(approver, path, approver.html(path), decision="approve"))
    assert ", 1 not." in one_line(page)
    assert "Another ticket has its number" in page.text
    assert [link["href"] for link in page.all("a") if "data-request" in link] == [f"/approvals/{second}"]
    assert not page.all("progress")


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ("payment-status", "Its repair has no ticket: approve the repair request first"),
        ("customer-profile", "Its customer is not on record: approve their registration first"),
    ],
)
def test_what_waits_for_another_request_is_listed_with_which(
    crm: Crm, approver: Visitor, event: str, words: str
) -> None:
    post(crm, event, FACTORIES[event]())
    path = f"/approvals/bulk?event={event}"
    page = finished(approver, decide(approver, path, approver.html(path), decision="approve"))
    assert words in one_line(page)


def test_what_is_not_decided_because_somebody_was_shut_out_says_so(crm: Crm, approver: Visitor) -> None:
    approval = receive(crm)

    def shut_out(connection: Connection) -> str:
        me, cli = Actor("staff:Shut out"), Actor("cli:tests")
        staff.add(connection, "Shut out", "approver", None, cli)
        wanted = Filter(status="pending_approval")
        seen = bulk_decisions.preview(connection, wanted)
        staff.disable(connection, "Shut out", cli)
        return bulk_decisions.begin(connection, wanted, seen, "approve", None, me)

    path = f"/approvals/bulk/{in_database(crm, shut_out)}"
    until(lambda: "Finished" in approver.html(path).text)
    page = approver.html(path)
    assert "Whoever began this may no longer decide" in one_line(page)
    assert page.all("a", href=f"/approvals/{approval}")
    assert status(crm, approval) == "pending_approval"


def test_every_kind_of_refusal_has_a_sentence() -> None:
    of_others = {Refused.kind, CannotReopen.kind}
    kinds = {error.kind for error in Refused.__subclasses__()} - of_others
    assert set(WHY) == {*kinds, FORBIDDEN, "internal-error"}


def test_a_set_that_has_changed_is_shown_anew_with_the_reason_and_nothing_is_decided(
    crm: Crm, approver: Visitor
) -> None:
    first, second = receive(crm), receive(crm)
    path = "/approvals/bulk?event=repair-request"
    html = approver.html(path)
    approver.post(f"/approvals/{first}/approve")
    answer = decide(approver, path, html, decision="reject", reason="Shut\r\non Monday")
    assert answer.status_code == 409
    again = Html(answer.text)
    assert "Nothing was decided. Some of what you saw has been decided since, or is being" in one_line(again)
    assert int(forms(again)["count"]) == int(forms(html)["count"]) - 1
    assert "Shut\non Monday" in again.text
    assert status(crm, second) == "pending_approval"
    finished(approver, decide(approver, path, again, decision="reject", reason="Shut\r\non Monday"))
    assert "Shut\non Monday" in approver.html(f"/approvals/{second}").text


def test_a_double_click_is_one_decision_and_somebody_elses_on_the_same_preview_is_none(
    crm: Crm, approver: Visitor
) -> None:
    wanted = [receive(crm) for _ in range(30)]
    path = "/approvals/bulk?event=repair-request"
    html = approver.html(path)
    other = logged_in(crm, "Other approver", "approver")
    with ThreadPoolExecutor() as threads:
        first, second = threads.map(lambda _: decide(approver, path, html, decision="approve"), range(2))
    assert (first.status_code, second.status_code) == (303, 303)
    assert first.headers["location"] == second.headers["location"]
    refused = decide(other, path, html, decision="reject", reason="Spam")
    assert refused.status_code == 409
    assert "Nothing was decided." in one_line(Html(refused.text))
    page = finished(approver, first)
    assert f"{forms(html)['count']} of {forms(html)['count']} approved" in one_line(page)
    assert {status(crm, each) for each in wanted} == {"approved"}
    again = decide(approver, path, html, decision="approve")
    assert again.headers["location"] == first.headers["location"], "also when all is done"


def test_a_rejection_without_a_reason_and_what_no_page_sends_decide_nothing(
    crm: Crm, approver: Visitor
) -> None:
    approval = receive(crm)
    html = approver.html("/approvals/bulk")
    blank = decide(approver, "/approvals/bulk", html, decision="reject", reason=" ")
    assert blank.status_code == 400
    assert "To reject needs a reason" in blank.text
    for wrong in ({"decision": "reopen"}, {"decision": ""}, {"decision": "approve", "digest": "x"}):
        assert decide(approver, "/approvals/bulk", html, **wrong).status_code == 400
    for number in ("", "-1", "x", "9" * 30, "1.5"):
        assert decide(approver, "/approvals/bulk", html, decision="approve", count=number).status_code == 400
    assert decide(approver, "/approvals/bulk?search=none", html, decision="approve").status_code == 404
    assert approver.get("/approvals/bulk?search=none").status_code == 404
    assert approver.get("/approvals/bulk/none").status_code == 404
    forged = approver.send(
        "POST", "/approvals/bulk", {**forms(html), "decision": "approve"}, origin=approver.origin
    )
    assert forged.status_code == 403
    assert status(crm, approval) == "pending_approval"
    assert crm.rows("SELECT 1 FROM bulk_jobs WHERE state = 'running'") == []


def test_nothing_that_waits_is_nothing_to_decide(crm: Crm, approver: Visitor) -> None:
    path = "/approvals/bulk?status=approved"
    html = approver.html(path)
    assert "waiting" in html.text, "what is decided is not decided again"
    finished(approver, decide(approver, path, html, decision="reject", reason="Spam"))
    assert "Nothing that waits matches." in approver.html(path).text
    assert not approver.html(path).all("button", name="decision")


def test_a_job_that_runs_shows_how_far_it_is_and_a_way_to_look_again(crm: Crm, approver: Visitor) -> None:
    for _ in range(60):
        receive(crm)
    path = "/approvals/bulk?event=repair-request"
    answer = decide(approver, path, approver.html(path), decision="approve")
    with closing(sqlite3.connect(crm.database, timeout=10)) as other, other:
        other.execute("BEGIN IMMEDIATE")  # nothing more is decided meanwhile
        page = approver.html(answer.headers["location"])
        meanwhile = approver.html(path)
    assert "Nothing else that waits matches." in one_line(meanwhile), "what is being decided is left to that"
    assert "staff:Bulk approver is approving 60 requests" in one_line(meanwhile)
    assert meanwhile.all("a", href=answer.headers["location"].partition("?")[0])
    (bar,) = page.all("progress")
    assert bar["max"] == "60"
    assert page.all("a", href=answer.headers["location"])
    (live,) = page.all("div", id="progress")
    assert re.fullmatch(r"/approvals/bulk/[0-9a-f-]{36}", live["data-url"])
    assert "60 of 60 approved" in one_line(finished(approver, answer))
