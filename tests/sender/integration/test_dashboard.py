"""The dashboard over HTTP: who may see it, what it shows, and what its forms do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from generated.operations import CURRENT, WEBHOOKS
from sender.integration.sessions import IDLE, LONGEST, Sessions
from sender.testing import receipt_id
from sender.troubles import AUTHENTICATION_FAILED, CONNECTION_REFUSED, TROUBLES, VALIDATION_ERRORS
from tests.crm_server.visitors import OTHERS_COOKIES, Html
from tests.factories import booking_status, payment_status, repair_request
from tests.receiver import Receiver, problem
from tests.sender.engines import ENGINES, new_outbox
from tests.sender.integration.admins import AT_FAULT, Admin, Shop, logged_in, start_dashboard, start_shop
from tests.sender.integration.server import TOKEN, start_server
from tests.sender.site import SENTINEL, Site, eventually

OPEN_PATHS = ("/admin/login",)
CLOSED_PATHS = (
    "/admin", "/admin/deliveries", "/admin/deliveries/all", "/admin/deliveries/some-id", "/admin/find",
)  # fmt: skip
FORMS = (
    "/admin/logout", "/admin/test", "/admin/find", "/admin/deliveries/search", "/admin/deliveries/retry",
    "/admin/deliveries/all", "/admin/deliveries/some-id/retry", "/admin/deliveries/some-id/close",
)  # fmt: skip


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with start_shop(tmp_path_factory.mktemp("shop")) as started:
        yield started


@pytest.fixture
def shop(started: Shop) -> Shop:
    """A shop with an empty outbox, before a CRM that is well."""
    started.begin_anew()
    return started


@pytest.fixture
def receiver(shop: Shop) -> Receiver:
    return shop.receiver


@pytest.fixture
def site(shop: Shop) -> Site:
    return shop.site


@pytest.fixture
def address(shop: Shop) -> str:
    return shop.address


@pytest.fixture
def admin(address: str) -> Admin:
    return logged_in(address)


# who may see it


def test_nobody_sees_a_page_or_changes_anything_without_logging_in(site: Site, address: str) -> None:
    nobody = Admin(address)
    for path in CLOSED_PATHS:
        answer = nobody.get(path)
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/admin/login"), path
    for path in FORMS:
        assert nobody.send("POST", path, {}, origin=address).status_code == 401, path
    for path in OPEN_PATHS:
        assert nobody.get(path).status_code == 200


def test_a_wrong_token_is_refused_and_one_that_is_tried_too_often_waits(address: str) -> None:
    nobody = Admin(address)
    found = [nobody.log_in(f"guess-{number}").status_code for number in range(25)]
    assert found[0] == 403
    assert found[-1] == 429
    assert set(found) == {403, 429}
    assert not nobody.cookies


def test_who_logs_in_is_where_they_wanted_to_be_and_nowhere_else(address: str) -> None:
    nobody = Admin(address)
    wanted = nobody.get("/admin/deliveries?state=held").headers["location"]
    assert wanted == "/admin/login?next=%2Fadmin%2Fdeliveries%3Fstate%3Dheld"
    answer = nobody.log_in(wanted="/admin/deliveries?state=held")
    assert answer.headers["location"] == "/admin/deliveries?state=held"
    for elsewhere in ("//evil.example", "https://evil.example", "/admin/x\r\ny:z", "/other", "/admin/logout"):
        assert Admin(address).log_in(wanted=elsewhere).headers["location"] == "/admin", elsewhere


def test_the_cookie_is_for_http_alone_and_secure_behind_a_site_with_tls(shop: Shop, site: Site) -> None:
    with start_dashboard(site, CRM_TRUSTED_PROXIES="127.0.0.1") as address:
        cookie = Admin(address).log_in().headers["set-cookie"]
        assert re.fullmatch(r"crm_link_admin=[\w-]{43}; HttpOnly; Path=/; SameSite=lax", cookie), cookie
        behind = Admin(address, headers={"x-forwarded-proto": "https", "x-forwarded-host": "shop.example"})
        assert behind.log_in().status_code == 403
        cookie = behind.log_in(origin="https://shop.example").headers["set-cookie"]
        assert cookie.endswith("; Secure")


def test_a_form_needs_an_equal_origin_and_the_sessions_token(address: str, admin: Admin) -> None:
    csrf = admin.csrf
    for origin in ("", "http://evil.example", "null", f"{address}.evil.example"):
        assert admin.send("POST", "/admin/test", {"csrf": csrf}, origin=origin).status_code == 403, origin
    assert admin.send("POST", "/admin/test", {"csrf": csrf}).status_code == 403
    other = logged_in(address)
    for wrong in ("", other.csrf, csrf + "x"):
        assert admin.send("POST", "/admin/test", {"csrf": wrong}, origin=address).status_code == 403
    assert Admin(address).log_in(origin="http://evil.example").status_code == 403
    assert admin.post("/admin/test").status_code == 200


@pytest.mark.parametrize("other", OTHERS_COOKIES)
def test_what_other_programs_keep_on_the_host_shuts_nobody_out(address: str, other: str) -> None:
    [own] = [f"{name}={value}" for name, value in logged_in(address).cookies.items()]
    for cookie in (f"{other}; {own}", f"{own}; {other}"):
        assert Admin(address).send("GET", "/admin", cookie=cookie).status_code == 200


def test_a_session_ends_at_the_log_out_and_with_the_dashboard(site: Site) -> None:
    with start_dashboard(site) as address:
        admin, stale = logged_in(address), logged_in(address)
        kept = dict(admin.cookies)
        assert admin.post("/admin/logout").headers["location"] == "/admin/login"
        again = Admin(address)
        again.cookies.update(kept)
        assert again.get("/admin").status_code == 303
        assert stale.get("/admin").status_code == 200
        port = address.rpartition(":")[2]
    with start_dashboard(site, "--port", port, CRM_ADMIN_TOKEN=f"{TOKEN}-changed") as address:
        assert stale.get("/admin").status_code == 303
        assert Admin(address).log_in().status_code == 403


def test_a_session_ends_when_nobody_was_there_and_after_a_day_of_work() -> None:
    now = 0.0
    sessions = Sessions(lambda: now)
    scope = {"headers": [(b"cookie", f"crm_link_admin={sessions.start()}".encode())]}
    now = IDLE - 1.0
    assert sessions.find(scope)
    now += IDLE
    assert sessions.find(scope) is None
    scope = {"headers": [(b"cookie", f"crm_link_admin={sessions.start()}".encode())]}
    began = now
    while now < began + LONGEST - IDLE:
        now += IDLE - 1.0
        assert sessions.find(scope)
    now = began + LONGEST
    assert sessions.find(scope) is None


def test_what_was_searched_for_goes_with_the_session() -> None:
    now = 0.0
    sessions = Sessions(lambda: now)
    scope = {"headers": [(b"cookie", f"crm_link_admin={sessions.start()}".encode())]}
    found = sessions.find(scope)
    assert found
    found.keep(SENTINEL)
    now = float(IDLE)
    assert sessions.find({"headers": []}) is None
    assert not sessions._by_digest


def test_pages_allow_no_script_but_their_own_and_are_kept_by_nobody(address: str, admin: Admin) -> None:
    for answer in (admin.get("/admin"), admin.get("/admin/nowhere"), Admin(address).get("/admin/login")):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content-type": "application/json"}, b"{}", 415),
        ({"content-type": "application/x-www-form-urlencoded"}, b"a=%ff", 400),
        ({"content-type": "application/x-www-form-urlencoded"}, b"a=%00", 400),
        ({"content-type": "application/x-www-form-urlencoded"}, b"a&" * 501, 400),
        ({"content-type": "application/x-www-form-urlencoded"}, b"a" * (1 << 17), 413),
    ],
)
def test_what_is_no_form_is_refused(address: str, headers: dict[str, str], body: bytes, status: int) -> None:
    answer = httpx.post(f"{address}/admin/login", content=body, headers={"origin": address, **headers})
    assert answer.status_code == status


def test_the_api_takes_a_session_with_its_token_and_no_other(address: str, admin: Admin) -> None:
    cookies, own = dict(admin.cookies), {"origin": address, "x-csrf-token": admin.csrf}
    ask = partial(httpx.patch, f"{address}/api/crm/integration/retry-failed", json={})
    assert ask(cookies=cookies, headers=own).status_code == 200
    assert ask(headers=own).status_code == 401
    assert ask(cookies=cookies, headers=own | {"origin": "http://evil.example"}).status_code == 403
    assert ask(cookies=cookies, headers=own | {"x-csrf-token": "x"}).status_code == 403
    assert ask(cookies=cookies, headers={"origin": address}).status_code == 403


# what it shows


def test_the_front_page_says_how_all_is(site: Site, admin: Admin) -> None:
    site.book(2)
    assert site.drain().delivered == 2
    eventually(lambda: "reachable: 200 OK" in admin.html("/admin").text, "the CRM on the dashboard")
    page = admin.html("/admin")
    assert page.all("h1")
    assert "CRM Integration" in page.text
    assert "none is running: nothing is sent" in page.text
    assert str(site.database) in page.text
    for name in WEBHOOKS:
        assert name.replace("-", " ").capitalize() in page.text
    assert page.text.count(f"spoken by the CRM, contract {CURRENT}") == len(WEBHOOKS)
    assert [trouble.name for trouble in TROUBLES if f"{trouble.name}: not seen" in page.text] == [
        trouble.name for trouble in TROUBLES
    ]
    assert page.all("rect", **{"class": "delivered"})
    assert page.all("rect", **{"class": "median"})


def test_an_outage_is_seen_with_its_cause_and_goes_when_it_is_over(
    site: Site, receiver: Receiver, admin: Admin
) -> None:
    receiver.go_away()
    site.book()

    def shown(*words: str) -> bool:
        text = admin.html("/admin").text
        return all(word in text for word in words)

    outage = ("not reachable: Connection refused", "Connection refused: seen now", CONNECTION_REFUSED.cause)
    try:
        eventually(lambda: shown(*outage), "the outage on the dashboard")
        assert shown("the CRM is away: Connection refused; events wait")
    finally:
        receiver.come()
    eventually(lambda: shown("reachable: 200 OK", "Connection refused: not seen"), "the CRM on the dashboard")


def test_a_refused_key_is_seen_with_the_guides_solution(
    shop: Shop, site: Site, receiver: Receiver, admin: Admin
) -> None:
    receiver.event = receiver.test = problem(401, "unauthorized")
    [held] = site.book()
    site.drain()
    held_by = "waits for the key: 401 Unauthorized"
    eventually(lambda: held_by in admin.html("/admin").text, "the hold on the dashboard")
    text = admin.html("/admin").text
    assert "Authentication failed: seen now" in text
    assert AUTHENTICATION_FAILED.solution in text
    listed = admin.html("/admin/deliveries?state=held").text
    assert shop.ticket(held) in listed
    assert "401 Unauthorized: the CRM refuses the key" in listed
    assert "Waits for the key" in listed


def test_the_test_of_the_way_shows_each_step_and_its_cure(receiver: Receiver, admin: Admin) -> None:
    assert "All is fine" in admin.post("/admin/test").text
    receiver.test = problem(401, "unauthorized")
    text = admin.post("/admin/test").text
    assert "Not all is fine" in text
    assert text.count(AUTHENTICATION_FAILED.cause) == len(WEBHOOKS)


def test_no_page_shows_what_a_customer_wrote(site: Site, receiver: Receiver, admin: Admin) -> None:
    payload = repair_request(
        repair__issueDescription=SENTINEL, repair__customerName=SENTINEL, repair__notes=SENTINEL
    )
    receiver.event = problem(400, "invalid-event")
    event_id = site.crm().repair_requested(payload)
    site.drain()
    for path in ("/admin", "/admin/deliveries", f"/admin/deliveries/{event_id}", "/admin/deliveries/all"):
        text = admin.get(path).text
        assert SENTINEL not in text
        assert "@" not in text, path


def test_what_the_crm_said_is_text_on_every_page(shop: Shop, admin: Admin) -> None:
    [event_id] = shop.fail()
    markup = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    answer = '{"status": 400, "contract": "1.0.0", "type": "<b>x</b>", "pointers": ["/<i>"]}'
    shop.change("UPDATE crm_outbox SET reason = ?, answer = ?", markup, answer)
    again = "INSERT INTO crm_outbox_trail (event_id, at, actor, verb, detail) VALUES (?, 0, ?, ?, ?)"
    shop.change(again, event_id, markup, markup, markup)
    for path in ("/admin", "/admin/deliveries", f"/admin/deliveries/{event_id}"):
        page = admin.html(path)
        assert not page.all("img")
        assert not page.all("b")
        assert not page.all("i")
        [script] = page.all("script")
        assert script["src"].startswith("/admin/static/script.js")


# failed and held


def test_a_failure_says_what_the_crm_said_and_where(shop: Shop, admin: Admin) -> None:
    [event_id] = shop.fail()
    page = admin.html(f"/admin/deliveries/{event_id}")
    for words in ("failed", "400 Bad Request", "invalid-event", AT_FAULT, CURRENT, "enqueued"):
        assert words in page.text
    assert VALIDATION_ERRORS.solution in page.text
    assert "Validation errors: seen now" in admin.html("/admin").text


def test_one_is_retried_and_one_is_closed_when_that_is_confirmed(
    shop: Shop, site: Site, admin: Admin
) -> None:
    again, given_up = shop.fail(2)
    assert admin.post(f"/admin/deliveries/{again}/retry").status_code == 303
    assert site.status(again) == "pending"
    assert admin.post(f"/admin/deliveries/{given_up}/close").status_code == 400
    assert site.status(given_up) == "failed"
    assert admin.post(f"/admin/deliveries/{given_up}/close", {"sure": "yes"}).status_code == 303
    assert site.status(given_up) == "closed"
    assert site.row(given_up)["payload"] is None
    text = admin.html(f"/admin/deliveries/{given_up}").text
    assert "dashboard: closed" in text
    assert site.drain().delivered == 1
    assert "dashboard: retried" in admin.html(f"/admin/deliveries/{again}").text
    answer = admin.post(f"/admin/deliveries/{again}/retry")
    assert answer.status_code == 409
    assert "is delivered; this can be done only when it is failed" in answer.text


def test_what_is_selected_is_retried(shop: Shop, site: Site, admin: Admin) -> None:
    ids = shop.fail(3)
    answer = admin.post("/admin/deliveries/retry", {"id": ids[:2]})
    assert answer.status_code == 303
    assert [site.status(event_id) for event_id in ids] == ["pending", "pending", "failed"]
    assert "2 back to pending." in admin.html(answer.headers["location"]).text
    answer = admin.post("/admin/deliveries/retry", {"id": [ids[0], ids[2]]})
    assert "1 back to pending." in answer.text
    assert f"{ids[0]}: is pending" in re.sub(r"<[^>]+>", "", answer.text)
    assert "Nothing was selected." in admin.post("/admin/deliveries/retry").text


def test_everything_that_matches_is_retried_only_while_it_is_what_was_seen(
    shop: Shop, site: Site, admin: Admin
) -> None:
    shop.fail(3)
    seen = form_of(admin.html("/admin/deliveries/all?answer=400"))
    assert seen["count"] == "3"
    [late] = shop.fail()
    answer = admin.post("/admin/deliveries/all?answer=400", seen)
    assert answer.status_code == 409
    assert "What matches has changed" in answer.text
    assert site.statuses() == ["failed"] * 4
    answer = admin.post("/admin/deliveries/all?answer=400", form_of(Html(answer.text)))
    assert answer.status_code == 303
    work = answer.headers["location"]
    eventually(lambda: "4 back to pending" in admin.html(work).text, "the end of the retry")
    assert site.statuses() == ["pending"] * 4
    assert site.verbs(late)[-1] == "retried"


@pytest.mark.parametrize("engine", ENGINES)
def test_an_id_that_no_database_can_hold_is_nobodys(engine: str, tmp_path: Path) -> None:
    with start_server(tmp_path, outbox_url=new_outbox(engine, tmp_path)) as server:
        admin = logged_in(server.address)
        assert admin.get("/admin/deliveries/a%00b").status_code == 404
        assert admin.post("/admin/deliveries/a%00b/retry").status_code == 404
        assert admin.post("/admin/deliveries/a%00b/close", {"sure": "yes"}).status_code == 404


def test_a_second_tab_is_shown_the_retry_that_the_first_began(shop: Shop, site: Site, admin: Admin) -> None:
    ids = shop.fail(2)
    first_tab, second_tab = (form_of(admin.html("/admin/deliveries/all?answer=400")) for _ in range(2))
    work = admin.post("/admin/deliveries/all?answer=400", first_tab).headers["location"]
    eventually(lambda: "2 back to pending" in admin.html(work).text, "the end of the retry")
    answer = admin.post("/admin/deliveries/all?answer=400", second_tab)
    assert (answer.status_code, answer.headers.get("location")) == (303, work)
    assert [site.verbs(event_id).count("retried") for event_id in ids] == [1, 1]


def test_what_a_retry_refused_is_tried_again_when_that_is_asked_for(shop: Shop, admin: Admin) -> None:
    shop.fail()
    shop.change("UPDATE crm_outbox SET payload = payload || '!'")
    seen = form_of(admin.html("/admin/deliveries/all"))
    work = admin.post("/admin/deliveries/all", seen).headers["location"]
    eventually(lambda: "0 back to pending, 1 not" in admin.html(work).text, "the end of the first")
    shop.change("UPDATE crm_outbox SET payload = rtrim(payload, '!')")
    again = admin.post("/admin/deliveries/all", form_of(admin.html("/admin/deliveries/all")))
    eventually(lambda: "1 back to pending" in admin.html(again.headers["location"]).text, "the second")


def form_of(page: Html) -> dict[str, str]:
    """Return the hidden fields of what would be retried."""
    fields = page.all("input", type="hidden")
    return {at["name"]: at["value"] for at in fields if at["name"] in {"count", "digest", "as_of"}}


def listed(page: Html) -> list[str]:
    """Return the ids that can be selected."""
    return [at["value"] for at in page.all("input", type="checkbox")]


def test_the_list_is_filtered_and_goes_by_pages(shop: Shop, admin: Admin) -> None:
    ids = shop.fail(53)
    page = admin.html("/admin/deliveries")
    assert listed(page) == ids[:50]
    [more] = page.all("a", rel="next")
    assert listed(admin.html(more["href"])) == ids[50:]
    assert listed(admin.html("/admin/deliveries?event=repair-request&answer=400&age=1h")) == ids[:50]
    for query in ("answer=409", "answer=timeout", "event=customer-registration", "state=held"):
        assert listed(admin.html(f"/admin/deliveries?{query}")) == [], query


def test_what_is_searched_for_stands_in_no_url(shop: Shop, site: Site, admin: Admin) -> None:
    one, _ = shop.fail(2)
    for words in (shop.ticket(one), one, str(site.row(one)["natural_key"])):
        answer = admin.post("/admin/deliveries/search", {"text": words})
        assert words not in answer.headers["location"]
        page = admin.html(answer.headers["location"])
        assert listed(page) == [one]
        links = [at["href"] for at in page.all("a")] + [at["action"] for at in page.all("form")]
        assert not any(words in link for link in links if link != f"/admin/deliveries/{one}")


def test_where_it_is_is_found_by_ticket_id_and_natural_key(shop: Shop, site: Site, admin: Admin) -> None:
    [event_id] = site.book()
    site.drain()
    for words in (shop.ticket(event_id), event_id, str(site.row(event_id)["natural_key"])):
        answer = admin.post("/admin/find", {"key": words})
        assert answer.headers["location"] == f"/admin/deliveries/{event_id}"
    text = admin.html(f"/admin/deliveries/{event_id}").text
    assert "enqueued" in text
    assert "relay: delivered, 202 Accepted" in text
    assert "waits for the CRM" in text
    assert "No events found" in admin.post("/admin/find", {"key": "REV-nowhere"}).text


def test_a_ticket_of_several_events_shows_all(site: Site, admin: Admin) -> None:
    repair = repair_request()
    ticket = repair["repair"]["ticketNumber"]
    site.crm().repair_requested(repair)
    site.crm().repair_requested(repair_request(repair__ticketNumber=ticket))
    assert "2 events found" in admin.post("/admin/find", {"key": ticket}).text


def test_a_search_says_what_the_crm_decided_of_each(
    shop: Shop, site: Site, receiver: Receiver, admin: Admin
) -> None:
    repair = repair_request()
    ticket = repair["repair"]["ticketNumber"]
    event_id = site.crm().repair_requested(repair)
    site.drain()
    receiver.decides("approved")
    site.crm().payment_changed(payment_status(repair))
    site.drain()
    site.crm().booking_changed(booking_status(repair))
    text = admin.post("/admin/find", {"key": ticket}).text
    assert "3 events found" in text
    assert (text.count("In the CRM"), text.count(">approved<")) == (2, 1)
    assert "waits for the CRM" in text
    asked = len(receiver.questions)
    assert receipt_id(receiver.events[-2]) in admin.html(f"/admin/deliveries/{event_id}").text
    assert len(receiver.questions) == asked + 1, "of one event, one question"
    receiver.told = problem(404, "not-found")
    assert "the CRM is too old to tell" in admin.html(f"/admin/deliveries/{event_id}").text


def test_an_outbox_that_is_away_is_a_page_that_says_so(site: Site, admin: Admin) -> None:
    elsewhere = site.directory / "elsewhere"
    site.database.rename(elsewhere)
    answer = admin.get("/admin/deliveries")
    elsewhere.rename(site.database)
    assert answer.status_code == 503
    assert "<h1>" in answer.text


# below a site's path


def test_below_a_base_path_every_link_and_form_has_it(shop: Shop, site: Site) -> None:
    [event_id] = shop.fail()
    with start_dashboard(site, "--base-path", "/crm") as below:
        address = below.removesuffix("/crm")
        admin = Admin(address, "/crm")
        answer = admin.log_in()
        assert answer.headers["location"] == "/crm/admin"
        assert "Path=/crm" in answer.headers["set-cookie"]
        for path in ("", "/deliveries", f"/deliveries/{event_id}", "/find", "/deliveries/all"):
            page = admin.html(f"/admin{path}")
            kinds = (("a", "href"), ("form", "action"), ("script", "src"), ("link", "href"))
            links = [at[name] for tag, name in kinds for at in page.all(tag)]
            assert [link for link in links if not link.startswith(("/crm/admin", "#", "data:"))] == []
        assert "/crm/admin" in admin.get("/admin/nowhere").text
        nobody = Admin(address, "/crm").get("/admin/deliveries")
        assert nobody.headers["location"].startswith("/crm/admin/login")
        assert admin.post(f"/admin/deliveries/{event_id}/retry").headers["location"].startswith("/crm/admin/")
