"""The whole trail, of what was done and received: as pages, as files, and from the command line."""

import csv
import io
import json
from collections.abc import Iterator, Mapping

import httpx
import pytest

from crm_server import audit_trail
from crm_server.audit_trail import Actor
from crm_server.database import Database, utc_now
from crm_server.pages import Window
from crm_server.staff import Role
from tests.crm_server.answers import ask, post
from tests.crm_server.conftest import ON_BOTH_IN_TIME
from tests.factories import repair_request
from tests.servers import Crm

pytestmark = ON_BOTH_IN_TIME


@pytest.fixture
def filled(crm: Crm, tokens: Mapping[Role, str]) -> Crm:
    """A server that has received, decided and received again."""
    approval = post(crm, "repair-request", repair_request()).json["id"]
    ask(crm, tokens["approver"], "POST", f"/approvals/{approval}/approve")
    post(crm, "repair-request", repair_request())
    return crm


def test_pages_files_and_the_command_line_tell_the_same(filled: Crm, tokens: Mapping[Role, str]) -> None:
    path = "/audit?order=oldest&limit=200"
    pages: list[dict[str, object]] = []
    after = ""
    while True:
        page = ask(filled, tokens["admin"], "GET", f"{path}{after}").json
        pages += page["items"]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert [entry["at"] for entry in pages] == sorted(str(entry["at"]) for entry in pages)
    assert page["total"] == len(pages) > len(filled.rows("SELECT * FROM approvals")), "receipts, and more"
    lines = ask(filled, tokens["admin"], "GET", "/audit/export")
    assert lines.headers["content-disposition"] == 'attachment; filename="audit.jsonl"'
    assert [json.loads(line) for line in lines.body.decode().splitlines()] == pages
    text = ask(filled, tokens["admin"], "GET", "/audit/export?format=csv").body.decode()
    head, *rows = csv.reader(io.StringIO(text, newline=""))
    assert head == [*audit_trail.FIELDS, "pointers"]
    assert [(row[0], row[3], row[5], row[6:]) for row in rows] == [
        (entry["at"], entry["verb"], entry["record_id"], entry["pointers"]) for entry in pages
    ]
    assert filled.cli("audit", "--csv").stdout == text.replace("\r\n", "\n")
    assert [json.loads(line) for line in filled.cli("audit", "--json").stdout.splitlines()] == pages
    assert len(filled.cli("audit").stdout.splitlines()) == len(pages)


def test_no_cell_is_a_formula_and_every_entry_is_there_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "staff:=1", 'staff:"a",b', "staff:\u202eevil"]
    with database.writing() as connection:
        for name in names:
            audit_trail.append(
                connection, at=utc_now(), actor=Actor(name), verb="x", record="staff", record_id="1"
            )

    def entries() -> Iterator[str]:
        after = None
        while True:
            with database.reading() as connection:
                page = audit_trail.page(connection, Window(3, newest_first=False, after=after))
            yield audit_trail.as_lines(page.rows, "csv")
            if (after := page.next) is None:
                return

    actors = [row[1] for row in csv.reader(io.StringIO("".join(entries()), newline=""))]
    assert actors == [f"'{name}" if name[0] in "=+-@\t" else name for name in names]


def test_a_long_trail_is_sent_as_it_is_read(filled: Crm, tokens: Mapping[Role, str]) -> None:
    headers = {"authorization": f"Bearer {tokens['admin']}"}
    with httpx.stream("GET", f"{filled.staff_url}/audit/export", headers=headers) as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.headers["x-content-type-options"] == "nosniff"
