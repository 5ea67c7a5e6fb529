"""The pages of the queue, of one request, of the day and of the staff, as a browser without JavaScript has them."""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from crm_server.frontend.lists import PAGE_SIZE
from crm_server.staff import RANKS
from tests.crm_server.answers import ask, post, until
from tests.crm_server.visitors import PASSWORD, Html, Visitor, logged_in
from tests.factories import customer_registration, repair_request
from tests.servers import Crm, start_crm


@pytest.fixture(scope="session")
def visitors(crm: Crm) -> Mapping[str, Visitor]:
    """A browser for each role."""
    return {role: logged_in(crm, f"Page {role}", role) for role in RANKS}


@pytest.fixture
def approver(visitors: Mapping[str, Visitor]) -> Visitor:
    return visitors["approver"]


@pytest.fixture
def viewer(visitors: Mapping[str, Visitor]) -> Visitor:
    return visitors["viewer"]


@pytest.fixture
def admin(visitors: Mapping[str, Visitor]) -> Visitor:
    return visitors["admin"]


def received(crm: Crm, **over: Any) -> str:
    return str(post(crm, "repair-request", repair_request(**over)).json["id"])


def listed(html: Html) -> list[str]:
    """The ids of the requests of a list, in order."""
    links = [link["href"] for link in html.all("a") if "data-request" in link]
    return [link.partition("?")[0].rpartition("/")[2] for link in links]


def status(crm: Crm, approval: str) -> str:
    (row,) = crm.rows("SELECT status FROM approvals WHERE id = ?", approval)
    return str(row["status"])


def test_the_newest_come_first_when_asked_and_links_and_forms_keep_it(crm: Crm, approver: Visitor) -> None:
    first, second = received(crm), received(crm)
    html = approver.html("/approvals?order=newest&event=repair-request")
    assert listed(html)[:2] == [second, first]
    keep = "event=repair-request&order=newest"
    assert {link["href"].partition("?")[2] for link in html.all("a") if "data-request" in link} == {keep}
    assert html.all("form", action=f"/approvals/decide?{keep}")
    assert html.all("form", action=f"/approvals/search?{keep}")
    answer = approver.post(f"/approvals/decide?{keep}", {"id": [first, second], "decision": "approve"})
    assert answer.headers["location"] == f"/approvals?{keep}&done=2"
    assert "2 decided." in approver.html(answer.headers["location"]).text
    assert [status(crm, first), status(crm, second)] == ["approved", "approved"]


def test_pages_follow_each_other_without_a_gap(crm: Crm, approver: Visitor) -> None:
    for _ in range(52):
        crm.post("customer-registration", customer_registration())
    path, seen = "/approvals?event=customer-registration&status=all", list[str]()
    while True:
        html = approver.html(path)
        seen += listed(html)
        following = html.all("a", rel="next")
        if not following:
            break
        path = following[0]["href"]
        assert "event=customer-registration" in path
    rows = crm.rows("SELECT id FROM approvals WHERE event = 'customer-registration' ORDER BY sequence")
    assert seen == [row["id"] for row in rows]


@pytest.mark.parametrize("query", ["status=none", "after=x", "after=99999999999999999999", "order=up", "x=1"])
def test_what_is_no_view_is_the_usual_one(approver: Visitor, query: str) -> None:
    assert listed(approver.html(f"/approvals?{query}")) == listed(approver.html("/approvals"))


def test_a_search_stands_in_no_address_and_is_still_in_its_box(crm: Crm, approver: Visitor) -> None:
    approval = received(crm, repair__customerName="Quentin Sentinelson")
    answer = approver.post("/approvals/search?order=newest", {"text": "sentinelson"})
    assert answer.status_code == 303
    path = answer.headers["location"]
    assert re.fullmatch(r"/approvals\?order=newest&search=[0-9a-f-]{36}", path)
    assert until(lambda: listed(approver.html(path))) == [approval]  # the index follows the queue
    html = approver.html(path)
    assert html.all("input", name="text")[0]["value"] == "sentinelson"
    assert approver.post(path.replace("approvals", "approvals/search"), {"text": " "}).headers[
        "location"
    ] == ("/approvals?order=newest")
    assert approver.post("/approvals/search", {"text": "x" * 201}).status_code == 400


def test_a_search_is_nobody_elses(approver: Visitor, admin: Visitor) -> None:
    path = approver.post("/approvals/search", {"text": "lovelace"}).headers["location"]
    assert admin.get(path).status_code == 404


def test_a_decision_is_seen_and_who_comes_second_is_told_who_was_first(
    crm: Crm, approver: Visitor, admin: Visitor
) -> None:
    approval = received(crm)
    page = f"/approvals/{approval}"
    answer = approver.post(f"{page}/approve?order=newest")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{page}?order=newest")
    assert "approved by staff:Page approver" in " ".join(approver.html(page).text.split())
    late = admin.post(f"{page}/reject", {"reason": "Too late"})
    assert late.status_code == 409
    assert "Nothing was changed: this was approved by staff:Page approver" in Html(late.text).text
    assert status(crm, approval) == "approved"


def test_a_rejection_needs_a_reason_which_a_viewer_does_not_read(
    crm: Crm, approver: Visitor, viewer: Visitor
) -> None:
    page = f"/approvals/{received(crm)}"
    for nothing in ("", "  \r\n ", "\x1b[31m", "x" * 5001):
        answer = approver.post(f"{page}/reject", {"reason": nothing})
        assert answer.status_code == 400
        assert "needs a reason" in answer.text
    assert approver.post(f"{page}/reject", {"reason": "Sentinel:\r\ncalled off"}).status_code == 303
    assert "Sentinel:\ncalled off" in approver.html(page).text
    assert "Sentinel:" not in viewer.html(page).text
    assert approver.post(f"{page}/reopen").status_code == 303
    assert "Sentinel:" not in approver.html(page).text


def test_an_equal_ticket_number_is_decided_with_a_number_of_its_own(crm: Crm, approver: Visitor) -> None:
    number = repair_request()["repair"]["ticketNumber"]
    first, second = (received(crm, repair__ticketNumber=number) for _ in range(2))
    assert approver.post(f"/approvals/{first}/approve").status_code == 303
    refused = approver.post(f"/approvals/{second}/approve")
    assert refused.status_code == 409
    assert "Another ticket has this number" in refused.text
    assert Html(refused.text).all("details", open="")
    assert approver.post(f"/approvals/{second}/approve", {"ticket_number": "no number"}).status_code == 400
    own = {"ticket_number": f"{number}-B"}
    assert approver.post(f"/approvals/{second}/approve", own).status_code == 303
    assert crm.rows("SELECT 1 FROM tickets WHERE ticket_number = ?", f"{number}-B")


def test_a_decision_that_is_in_use_stands(crm: Crm, approver: Visitor) -> None:
    approval = received(crm)
    approver.post(f"/approvals/{approval}/approve")
    crm_ticket = crm.rows("SELECT record_id FROM decision_records WHERE approval_id = ?", approval)[-1][0]
    noted = ask(
        crm,
        "",
        "POST",
        f"/tickets/{crm_ticket}/notes",
        {"text": "Mine"},
        cookie=f"crm_staff={approver.cookies['crm_staff']}",
        origin=approver.origin,
        x_csrf_token=approver.csrf,
    )
    assert noted.status == 200
    answer = approver.post(f"/approvals/{approval}/reopen")
    assert answer.status_code == 409
    assert "The ticket has a note." in answer.text


def test_of_some_each_is_decided_for_itself(crm: Crm, approver: Visitor) -> None:
    first, second = received(crm), received(crm)
    approver.post(f"/approvals/{first}/approve")
    fields = {"id": [first, second, "nothing", "no/id"], "decision": "reject", "reason": "Closed"}
    answer = approver.post("/approvals/decide?order=newest", fields)
    assert answer.status_code == 409
    assert "1 decided. 3 not:" in Html(answer.text).text
    assert [status(crm, first), status(crm, second)] == ["approved", "rejected"]


@pytest.mark.parametrize("reason", ["", " \r\n ", "\x1b[31m", "Sentinel " + "x" * 5001])
def test_some_that_are_rejected_without_a_reason_stay_chosen_and_so_does_what_was_written(
    crm: Crm, approver: Visitor, reason: str
) -> None:
    left_out, *chosen = (received(crm) for _ in range(3))
    view = "event=repair-request&order=newest"
    fields = {"id": chosen, "decision": "reject", "reason": reason}
    answer = approver.post(f"/approvals/decide?{view}", fields)
    assert answer.status_code == 400
    html = Html(answer.text)
    assert "Nothing was decided. To reject needs a reason, of at most 5,000 characters." in html.words
    boxes = {box["value"]: "checked" in box for box in html.all("input", type="checkbox", name="id")}
    assert {each for each, is_checked in boxes.items() if is_checked} == set(chosen)
    assert left_out in boxes
    (field,) = html.all("textarea", id="reason")
    assert field["aria-invalid"] == "true"
    assert html.all("p", id=field["aria-describedby"], role="alert")
    assert reason.strip() in html.text
    assert html.all("form", action=f"/approvals/decide?{view}"), "the same part of the queue"
    assert {status(crm, each) for each in chosen} == {"pending_approval"}


def test_what_says_nothing_or_of_nothing_is_said_above_the_list_with_all_that_was_given(
    crm: Crm, approver: Visitor
) -> None:
    approval = received(crm)
    given: list[dict[str, Any]] = [
        {"id": [approval]},
        {"id": [approval], "decision": "reopen"},
        {"decision": "approve"},
        {"decision": "reject"},
        {"id": [approval] * (PAGE_SIZE + 1), "decision": "approve"},
    ]
    for fields in given:
        answer = approver.post("/approvals/decide?order=newest", {**fields, "reason": "Sentinel reason"})
        assert answer.status_code == 400
        html = Html(answer.text)
        assert "Nothing was decided. Choose a decision, and up to 50 requests." in html.words
        assert len(html.all("input", name="id", checked="")) == (1 if "id" in fields else 0)
        assert "Sentinel reason" in html.text
    nothing_waits = approver.post("/approvals/decide?status=rejected", {"id": ["x"], "decision": "reject"})
    assert nothing_waits.status_code == 400
    assert "Nothing was decided. To reject needs a reason" in Html(nothing_waits.text).words
    assert approver.post("/approvals/decide?search=none", {"decision": "approve"}).status_code == 404
    assert status(crm, approval) == "pending_approval"


def test_a_viewer_sees_masks_and_nothing_to_decide_with(crm: Crm, viewer: Visitor) -> None:
    approval = received(crm)
    for page in ("/approvals?order=newest", f"/approvals/{approval}"):
        html = viewer.html(page)
        assert "Lovelace" not in html.text
        assert "•••" in html.text
        assert not html.all("button", id="approve")
        assert not html.all("input", type="checkbox", name="id")
    assert viewer.post(f"/approvals/{approval}/approve").status_code == 403
    assert status(crm, approval) == "pending_approval"


def test_every_field_is_shown_by_its_label_in_the_contracts_order(crm: Crm, approver: Visitor) -> None:
    text = approver.html(f"/approvals/{received(crm)}").text
    labels = ["Ticket number", "Customer email", "Device type", "Issue description", "Photos", "First name"]
    places = [re.search(rf"^{label}", text, re.MULTILINE) for label in labels]
    starts = [place.start() for place in places if place]
    assert len(starts) == len(labels)
    assert starts == sorted(starts)


HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    '"\' onmouseover=alert(1) x="',
    "{{ 7 * 7 }}{% raw %}",
    '=HYPERLINK("http://evil.example")',
    "\u202egnp.exe\u2066\u2067",
    "\u05d0\u05d1\u05d2 \u0627\u0644",
    "\U0001f469\u200d\U0001f4bb" * 20,
    "W" * 200,
    "</textarea></title><!--",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_shown_whole_and_is_nothing_but_text(crm: Crm, approver: Visitor, name: str) -> None:
    plain = approver.html(f"/approvals/{received(crm)}")
    approval = received(crm, repair__customerName=name, repair__issueDescription=name, repair__photos=[name])
    page = approver.html(f"/approvals/{approval}")
    assert page.text.count(name) >= 3
    kinds = [[tag for tag, _ in html.elements if tag not in ("a", "bdi", "span")] for html in (page, plain)]
    assert kinds[0] == kinds[1]
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    isolated = [tag for tag, given in page.elements if tag == "bdi" or given.get("dir") == "auto"]
    assert len(isolated) > 10
    assert name in approver.html("/approvals?order=newest").text


def test_photos_are_links_only_to_the_web(crm: Crm, approver: Visitor) -> None:
    safe = ["https://example.com/a?b=<c>", "HTTP://example.com/d"]
    other = ["javascript:alert(1)", "data:text/html,x", "//example.com", "http://", "http://[", "url1"]
    page = approver.html(f"/approvals/{received(crm, repair__photos=[*safe, *other])}")
    links = page.all("a", rel="noreferrer noopener external")
    assert [link["href"] for link in links] == safe
    assert all(text in page.text for text in other)
    assert page.all("img") == []


def test_arrivals_are_counted_since_the_page_was_made(crm: Crm, viewer: Visitor) -> None:
    path = arrivals_of(viewer, "/approvals")
    assert viewer.get(path).json() == {"count": 0}
    received(crm)
    assert viewer.get(path).json() == {"count": 1}
    assert viewer.get("/approvals/arrived?since=x").status_code == 400


def test_a_row_of_a_spreadsheet_is_searched_for_as_it_is_pasted(crm: Crm, approver: Visitor) -> None:
    approval = received(crm, customer__lastName="Spreadsheet")
    answer = approver.post("/approvals/search", {"text": "Ada\tSpreadsheet"})
    assert answer.status_code == 303
    until(lambda: f"/approvals/{approval}" in approver.get(answer.headers["location"]).text)


def test_only_those_are_counted_as_arrived_that_the_page_would_show(
    crm: Crm, approver: Visitor, viewer: Visitor
) -> None:
    nothing = viewer.post("/approvals/search", {"text": "Orrery"}).headers["location"]
    views = ("/approvals?event=customer-registration", nothing, "/approvals", "/approvals?status=all")
    *others, waiting, all_ = (arrivals_of(viewer, view) for view in views)
    path = f"/approvals/{received(crm)}"
    assert [viewer.get(url).json() for url in others] == [{"count": 0}] * 2
    assert viewer.get(waiting).json() == {"count": 1}
    approver.post(f"{path}/approve")
    assert (viewer.get(waiting).json(), viewer.get(all_).json()) == ({"count": 0}, {"count": 1})


def arrivals_of(visitor: Visitor, view: str) -> str:
    """Return where a page asks what has arrived since."""
    (live,) = visitor.html(view).all("p", id="arrived")
    return live["data-url"]


def test_the_front_page_has_the_days_figures(crm: Crm, approver: Visitor) -> None:
    def figures() -> list[int]:
        text = approver.html("/").text
        found = [
            re.search(rf"{name}\s*(\d+)", text) for name in ("Arrived", "Approved", "Rejected", "Waiting")
        ]
        return [int(match[1]) for match in found if match]

    before = figures()
    approval = received(crm)
    received(crm)
    approver.post(f"/approvals/{approval}/approve")
    assert [after - was for after, was in zip(figures(), before, strict=True)] == [2, 1, 0, 1]


def test_nothing_on_a_page_is_inline_and_no_other_site_has_a_part(crm: Crm, admin: Visitor) -> None:
    for path in (
        "/",
        "/approvals",
        f"/approvals/{received(crm)}",
        "/approvals/bulk",
        "/keys",
        "/people",
        "/staff",
        "/login",
        "/nowhere",
    ):
        answer = admin.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        html = Html(answer.text)
        assert not [given for _, given in html.elements if "style" in given]
        assert not html.all("style")
        for script in html.all("script"):
            assert admin.get(script["src"]).headers["content-type"].startswith("text/javascript")
        for sheet in html.all("link", rel="stylesheet"):
            assert "immutable" in admin.get(sheet["href"]).headers["cache-control"]
        controls = {
            given["id"] for tag, given in html.elements if "id" in given and tag in ("input", "textarea")
        }
        assert {given["for"] for given in html.all("label") if "for" in given} >= controls - {"keys-on"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/approvals/x", 404),
        ("GET", "/approvals/a%00b", 404),
        ("PUT", "/", 405),
    ],
)
def test_errors_are_pages(admin: Visitor, method: str, path: str, status: int) -> None:
    answer = admin.send(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert "Go to the front page" in answer.text


def test_a_body_that_is_no_form_is_refused(admin: Visitor) -> None:
    own = {"origin": admin.origin}
    assert admin.send("POST", "/staff/add", **own, **{"content-type": "text/plain"}).status_code == 415
    assert admin.post("/staff/add", {"name": "a\0b", "role": "viewer"}).status_code == 400
    assert admin.post("/staff/add", {"name": "x" * 70000}).status_code == 413
    assert admin.post("/staff/add", {"name": ["x"] * 600}).status_code == 400


def test_an_admin_adds_changes_and_shuts_out_people(crm: Crm, admin: Visitor) -> None:
    new = {"name": "Zelda", "role": "viewer", "password": PASSWORD}
    assert admin.post("/staff/add", new).status_code == 303
    assert admin.post("/staff/add", new).status_code == 409
    assert admin.post("/staff/add", {**new, "name": "Zelma", "password": "short"}).status_code == 400
    assert admin.post("/staff/add", {**new, "name": "Zelma", "role": "boss"}).status_code == 400
    zelda = Visitor(crm)
    assert zelda.log_in("Zelda").status_code == 303
    assert zelda.get("/staff").status_code == 403
    assert admin.post("/staff/role", {"name": "Zelda", "role": "admin"}).status_code == 303
    assert zelda.get("/staff").status_code == 200
    answer = admin.post("/staff/token", {"name": "Zelda"})
    token = re.search(r"<code>(staff_[\w-]+)</code>", answer.text)
    assert token
    assert ask(crm, token[1], "GET", "/audit").status == 200
    assert token[1] not in admin.get("/staff").text
    assert admin.post("/staff/revoke", {"name": "Zelda"}).status_code == 303
    assert ask(crm, token[1], "GET", "/audit").status == 401
    assert admin.post("/staff/password", {"name": "Zelda", "password": "x" * 12}).status_code == 303
    assert zelda.get("/staff").status_code == 303
    assert zelda.log_in("Zelda", "x" * 12).status_code == 303
    assert admin.post("/staff/disable", {"name": "Zelda"}).status_code == 303
    assert zelda.get("/").status_code == 303
    assert admin.post("/staff/token", {"name": "Zelda"}).status_code == 409
    rows = crm.rows("SELECT verb FROM audit_trail WHERE actor = 'staff:Page admin' AND record = 'staff'")
    verbs = {row["verb"] for row in rows}
    assert verbs >= {"add", "set-role", "add-token", "revoke", "set-password", "disable"}


def test_the_only_admin_is_told_why_they_stay_one(tmp_path: Path) -> None:
    with start_crm(tmp_path, only="staff") as crm:
        una = logged_in(crm, "Una", "admin")
        for change, more in (("disable", {}), ("role", {"role": "approver"})):
            answer = una.post(f"/staff/{change}", {"name": "Una", **more})
            assert answer.status_code == 409
            assert "Una is the only admin. Make somebody else one first." in answer.text
            assert una.get("/staff").status_code == 200
        logged_in(crm, "Duo", "admin")
        assert una.post("/staff/role", {"name": "Una", "role": "approver"}).status_code == 303
        assert una.get("/staff").status_code == 403


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_more_leads_through_all_of_the_trail(crm: Crm, admin: Visitor, order: str) -> None:
    for _ in range(60):
        received(crm)
    [total] = crm.rows("SELECT (SELECT count(*) FROM audit_trail) + (SELECT count(*) FROM approvals)")
    seen, link = list[datetime](), f"/audit?order={order}"
    for _ in range(-(-total[0] // PAGE_SIZE)):
        html = admin.html(link)
        # As times: `.4Z` comes before `.49Z`, and after it as text.
        seen += [datetime.fromisoformat(time["datetime"]) for time in html.all("time")]
        following = html.all("a", rel="next")
        link = following[0]["href"] if following else ""
    assert not link
    assert len(seen) >= total[0]
    assert seen == sorted(seen, reverse=order == "newest")


def test_the_whole_trail_is_there_for_admins_alone(admin: Visitor, viewer: Visitor) -> None:
    links = [link["href"] for link in admin.html("/audit").all("a") if "export" in link["href"]]
    assert len(links) == 2
    for link in links:
        answer = admin.get(link)
        assert answer.status_code == 200
        assert answer.headers["content-disposition"].startswith("attachment")
    assert "/audit/export" not in viewer.get("/audit").text
