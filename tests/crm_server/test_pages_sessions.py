"""Who is logged in: by what, for how long, and what a request by session must show."""

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import count

import pytest
from sqlalchemy import Connection, update

from crm_server.database import BUSY_SECONDS, utc_now
from crm_server.frontend.login import MOST_WAITING, LogIn, in_words, local
from crm_server.middleware.rate_limit import Limit
from crm_server.middleware.sessions import COOKIE, session_token
from crm_server.problems import Problem
from crm_server.tables import staff_sessions
from tests.crm_server.answers import Answer, ask, post
from tests.crm_server.conftest import ON_BOTH_IN_TIME, in_database
from tests.crm_server.visitors import OTHERS_COOKIES, PASSWORD, Visitor, add_staff, logged_in
from tests.factories import repair_request
from tests.servers import Crm, start_crm

pytestmark = ON_BOTH_IN_TIME

numbers = count()


@pytest.fixture
def visitor(crm: Crm) -> Visitor:
    """Somebody new who has logged in, and may do all."""
    return logged_in(crm, f"Vera {next(numbers)}", "admin")


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server behind a proxy that ends TLS, with few attempts to log in."""
    directory = tmp_path_factory.mktemp("proxied")
    with start_crm(directory, only="staff", CRM_TRUSTED_PROXIES="127.0.0.1", CRM_LOGIN_LIMIT="3/hour") as crm:
        yield crm


def is_in(visitor: Visitor) -> bool:
    return visitor.get("/approvals").status_code == 200


def verbs(crm: Crm, name: str) -> list[str]:
    rows = crm.rows(
        "SELECT verb, origin FROM audit_trail JOIN staff ON staff.id = record_id WHERE name = ?"
        " AND verb IN ('log-in', 'fail-log-in', 'log-out') ORDER BY sequence",
        name,
    )
    assert {row["origin"] for row in rows} == {"127.0.0.1"}
    return [row["verb"] for row in rows]


def stored(crm: Crm) -> str:
    """Return all that is stored of log-ins: SQLite's files, or the rows of the tables that may hold some of it."""
    if crm.database_url.startswith("sqlite"):
        return "".join(path.read_bytes().decode("latin-1") for path in crm.database.parent.iterdir())
    tables = ("staff", "staff_sessions", "audit_trail")
    return "".join(
        row["row"] for table in tables for row in crm.rows(f"SELECT t::text AS row FROM {table} t")
    )


def test_who_is_not_logged_in_logs_in_and_is_where_they_wanted_to_be(crm: Crm) -> None:
    add_staff(crm, "Nora", "viewer")
    visitor = Visitor(crm)
    asked = visitor.get("/approvals?status=all&order=newest")
    assert asked.status_code == 303
    form = visitor.html(asked.headers["location"])
    (wanted,) = form.all("input", name="next")
    answer = visitor.log_in("Nora", wanted=wanted["value"])
    assert (answer.status_code, answer.headers["location"]) == (303, "/approvals?status=all&order=newest")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert {part.strip() for part in cookie.split(";")[1:]} == {"HttpOnly", "Path=/", "SameSite=lax"}
    assert is_in(visitor)
    assert verbs(crm, "Nora") == ["log-in"]


def test_a_cookie_is_kept_as_a_digest(crm: Crm, visitor: Visitor) -> None:
    assert visitor.cookies[COOKIE] not in stored(crm)


@pytest.mark.parametrize(
    ("name", "password"),
    [("Olga", "another password"), ("Olga", ""), ("Olga", "x" * 5000), ("Nobody", PASSWORD), ("", "")],
)
def test_a_wrong_name_or_password_is_refused_alike(crm: Crm, name: str, password: str) -> None:
    if not crm.rows("SELECT 1 FROM staff WHERE name = 'Olga'"):
        add_staff(crm, "Olga", "viewer")
    visitor = Visitor(crm)
    answer = visitor.log_in(name, password)
    assert answer.status_code == 403
    assert "No one has this name and this password." in answer.text
    assert "set-cookie" not in answer.headers
    assert not is_in(visitor)


def test_the_trail_tells_of_a_failed_log_in_and_not_what_was_typed(crm: Crm) -> None:
    add_staff(crm, "Paula", "viewer")
    Visitor(crm).log_in("Paula", "a wrong password")
    Visitor(crm).log_in("a password in the wrong field")
    assert verbs(crm, "Paula") == ["fail-log-in"]
    rows = crm.rows("SELECT actor, record_id FROM audit_trail WHERE verb = 'fail-log-in'")
    assert {row["actor"] for row in rows} == {"nobody"}
    assert "nobody" in {row["record_id"] for row in rows}
    assert "wrong field" not in stored(crm)
    assert "wrong field" not in crm.log


def test_who_has_no_password_cannot_log_in(crm: Crm) -> None:
    assert crm.cli("staff", "add", "Petra", "--role", "viewer").returncode == 0
    assert Visitor(crm).log_in("Petra", "").status_code == 403


def test_logging_out_ends_the_session_and_no_other(crm: Crm) -> None:
    first, second = logged_in(crm, "Rosa", "viewer"), Visitor(crm)
    second.log_in("Rosa")
    cookie = first.cookies[COOKIE]
    answer = first.post("/logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert COOKIE not in first.cookies
    first.cookies.set(COOKIE, cookie)
    assert [is_in(first), is_in(second)] == [False, True]
    assert verbs(crm, "Rosa") == ["log-in", "log-in", "log-out"]


@pytest.mark.parametrize("command", ["disable", "password"])
def test_every_session_ends_at_once_when_its_owner_is_shut_out(crm: Crm, command: str) -> None:
    visitor = logged_in(crm, f"Sara {command}", "viewer")
    more = ["--password-stdin"] if command == "password" else []
    done = crm.cli("staff", command, f"Sara {command}", *more, stdin="another long password")
    assert (done.returncode, done.stderr) == (0, "")
    assert not is_in(visitor)
    assert Visitor(crm).log_in(f"Sara {command}").status_code == 403


@pytest.mark.parametrize(
    ("started", "seen", "goes_on"),
    [
        (timedelta(hours=11), timedelta(minutes=29), True),
        (timedelta(hours=1), timedelta(minutes=31), False),
        (timedelta(hours=13), timedelta(0), False),
    ],
    ids=["in use", "nobody there", "half a day"],
)
def test_a_session_ends_when_nobody_is_there_and_after_half_a_day(
    crm: Crm, visitor: Visitor, started: timedelta, seen: timedelta, goes_on: bool
) -> None:
    age(crm, started, seen)
    assert is_in(visitor) is goes_on
    assert is_in(visitor) is goes_on


def age(crm: Crm, started: timedelta, seen: timedelta) -> None:
    """Have every session have begun, and been used last, so long ago."""
    times = update(staff_sessions).values(started_at=utc_now(started), seen_at=utc_now(seen))
    in_database(crm, lambda connection: str(connection.execute(times).rowcount))


def test_what_a_page_asks_by_itself_keeps_no_session_alive(crm: Crm, visitor: Visitor) -> None:
    age(crm, timedelta(hours=1), timedelta(minutes=20))
    before = crm.rows("SELECT max(seen_at) AS at FROM staff_sessions")[0]["at"]
    asked = visitor.send("GET", "/approvals/arrived?since=0", **{"x-polled": "1"})
    assert asked.status_code == 200
    assert crm.rows("SELECT max(seen_at) AS at FROM staff_sessions")[0]["at"] == before
    assert is_in(visitor)
    assert crm.rows("SELECT max(seen_at) AS at FROM staff_sessions")[0]["at"] > before


def test_who_is_logged_in_can_look_while_another_program_writes(crm: Crm, visitor: Visitor) -> None:
    age(crm, timedelta(hours=1), timedelta(minutes=20))

    def look(_: Connection) -> str:
        began = time.monotonic()
        cookie = f"{COOKIE}={visitor.cookies[COOKIE]}"
        assert is_in(visitor)
        assert ask(crm, "", "GET", "/approvals", cookie=cookie).status == 200
        return f"{time.monotonic() - began}"

    assert float(in_database(crm, look)) < BUSY_SECONDS, (
        "the use that cannot be noted is not waited for so long"
    )


def test_a_session_that_is_over_is_erased_when_the_next_begins(crm: Crm, visitor: Visitor) -> None:
    age(crm, timedelta(hours=13), timedelta(hours=13))
    logged_in(crm, f"Tina {next(numbers)}", "viewer")
    assert len(crm.rows("SELECT 1 FROM staff_sessions")) == 1


@pytest.mark.parametrize(
    "origin", ["", "null", "http://127.0.0.1", "https://evil.example", "http://localhost:1"]
)
def test_a_form_of_another_site_changes_nothing(crm: Crm, visitor: Visitor, origin: str) -> None:
    approval = post(crm, "repair-request", repair_request()).json["id"]
    answer = visitor.post(f"/approvals/{approval}/approve", origin=origin)
    assert answer.status_code == 403
    assert Visitor(crm).log_in("Anybody", origin=origin).status_code == 403
    (row,) = crm.rows("SELECT status FROM approvals WHERE id = ?", approval)
    assert row["status"] == "pending_approval"


@pytest.mark.parametrize("csrf", ["", "0" * 64, "é\ud83d"])
def test_a_form_of_another_session_changes_nothing(crm: Crm, visitor: Visitor, csrf: str) -> None:
    approval = post(crm, "repair-request", repair_request()).json["id"]
    fields = {"csrf": csrf.encode("utf-8", "surrogatepass")}
    answer = visitor.post(f"/approvals/{approval}/approve", fields)
    assert answer.status_code in (400, 403)
    other = logged_in(crm, f"Uta {next(numbers)}", "admin")
    assert visitor.post(f"/approvals/{approval}/approve", {"csrf": other.csrf}).status_code == 403
    (row,) = crm.rows("SELECT status FROM approvals WHERE id = ?", approval)
    assert row["status"] == "pending_approval"


@pytest.mark.parametrize("other", OTHERS_COOKIES)
def test_what_other_programs_keep_on_the_host_shuts_nobody_out(
    crm: Crm, visitor: Visitor, other: str
) -> None:
    own = f"{COOKIE}={visitor.cookies[COOKIE]}"
    for cookie in (f"{other}; {own}", f"{own}; {other}"):
        assert ask(crm, "", "GET", "/approvals", cookie=cookie).status == 200


def test_the_session_opens_the_api_and_changes_need_what_only_our_pages_have(
    crm: Crm, visitor: Visitor
) -> None:
    approval = post(crm, "repair-request", repair_request()).json["id"]

    def approve(origin: str, csrf: str) -> Answer:
        path, cookie = f"/approvals/{approval}/approve", f"other=1; {COOKIE}={visitor.cookies[COOKIE]}"
        return ask(crm, "", "POST", path, {}, cookie=cookie, origin=origin, x_csrf_token=csrf)

    cookie = f"{COOKIE}={visitor.cookies[COOKIE]}"
    assert ask(crm, "", "GET", "/approvals", cookie=cookie).status == 200
    wrong = [("", ""), (visitor.origin, ""), ("http://evil.example", visitor.csrf), (visitor.origin, "x")]
    for origin, csrf in wrong:
        answer = approve(origin, csrf)
        assert (answer.status, answer.type) == (403, "forbidden")
    assert approve(visitor.origin, visitor.csrf).status == 200


def test_a_wrong_token_is_not_mended_by_a_session(crm: Crm, visitor: Visitor) -> None:
    cookie = f"{COOKIE}={visitor.cookies[COOKIE]}"
    assert ask(crm, "staff_wrong", "GET", "/approvals", cookie=cookie).status == 401


def test_who_is_logged_out_is_told_that_their_form_changed_nothing(crm: Crm) -> None:
    answer = Visitor(crm).post(
        "/approvals/1/approve", {}, referer="http://127.0.0.1/approvals/1?order=newest"
    )
    assert answer.status_code == 401
    assert 'href="/login?next=%2Fapprovals%2F1%3Forder%3Dnewest"' in answer.text


def test_behind_tls_the_cookie_is_secure_and_the_origin_https(proxied: Crm) -> None:
    add_staff(proxied, "Wilma", "approver")
    tls = {"x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.1"}
    visitor = Visitor(proxied, tls)
    assert visitor.log_in("Wilma").status_code == 403
    answer = visitor.log_in("Wilma", origin=visitor.origin.replace("http", "https"))
    assert answer.status_code == 303
    assert "; Secure" in answer.headers["set-cookie"]
    (row,) = proxied.rows("SELECT origin FROM audit_trail WHERE verb = 'log-in'")
    assert row["origin"] == "192.0.2.1"


def test_who_guesses_at_one_name_waits_wherever_they_are(proxied: Crm) -> None:
    add_staff(proxied, "Xenia", "viewer")
    for number in range(3):
        visitor = Visitor(proxied, {"x-forwarded-for": f"198.51.100.{number}"})
        assert visitor.log_in("Xenia", "a wrong password").status_code == 403
    refused = Visitor(proxied, {"x-forwarded-for": "198.51.100.9"}).log_in("Xenia")
    assert refused.status_code == 429
    seconds = int(refused.headers["retry-after"])
    assert 0 < seconds <= 3600
    assert f"There were too many attempts to log in. Wait {in_words(seconds)}." in refused.text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "1 second"),
        (2, "2 seconds"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (61, "2 minutes"),
        (3600, "60 minutes"),
    ],
)
def test_how_long_to_wait_is_said_as_people_say_it_and_never_too_short(seconds: int, words: str) -> None:
    assert in_words(seconds) == words


def test_who_guesses_at_many_names_waits_too(proxied: Crm) -> None:
    visitor = Visitor(proxied, {"x-forwarded-for": "203.0.113.7"})
    answers = [visitor.log_in(f"guess {number}", "a password").status_code for number in range(4)]
    assert answers == [403, 403, 403, 429]


def test_a_flood_of_log_ins_is_refused_before_it_fills_the_memory() -> None:
    async def flood() -> list[object]:
        log_in = LogIn(Limit("10/minute", "log-in"), lambda _: True)
        checks = [log_in.is_password("some password", None) for _ in range(MOST_WAITING + 5)]
        return list(await asyncio.gather(*checks, return_exceptions=True))

    outcomes = asyncio.run(flood())
    assert outcomes[:MOST_WAITING] == [False] * MOST_WAITING
    assert [type(outcome) for outcome in outcomes[MOST_WAITING:]] == [Problem] * 5


@pytest.mark.parametrize(
    "path",
    [
        "",
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "\\",
        "javascript:alert(1)",
        "/a\nb",
        "/a b",
        "/login?next=/",
    ],
)
def test_a_log_in_leads_to_no_other_server(path: str) -> None:
    assert local(path) == "/"
    assert local("/approvals?status=all&after=1") == "/approvals?status=all&after=1"


def test_a_log_in_leads_to_what_is_a_page_and_not_to_what_only_a_form_does(crm: Crm) -> None:
    add_staff(crm, "Yvonne", "viewer")
    acts = ("/logout", "/approvals/decide?order=newest", "/approvals/1/reject", "/people/erase", "/nothing")
    wanted = dict.fromkeys(acts, "/") | {
        path: path for path in ("/", "/people", "/approvals/1?order=newest", "/tickets?status=open")
    }
    led = {path: Visitor(crm).log_in("Yvonne", wanted=path).headers["location"] for path in wanted}
    assert led == wanted


@pytest.mark.parametrize("cookie", [b"", b"crm_staff", b"=;;=", b"a=b; c", b"\xff\xfe=1"])
def test_what_is_no_cookie_opens_nothing(cookie: bytes) -> None:
    assert not session_token([(b"cookie", cookie)])
