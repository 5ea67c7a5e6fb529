"""Decisions on everything that matches a filter: exactly what was seen, each once, whatever happens meanwhile."""

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection

from crm_server import approval_queue, bulk_decisions
from crm_server.approval_queue import Filter, ReceivedEvent
from crm_server.audit_trail import Actor
from crm_server.bulk_decisions import MOST_SHOWN, PART, Report
from crm_server.database import Database
from crm_server.errors import PreviewChanged
from crm_server.idempotency import Identity
from crm_server.settings import Settings
from crm_server.staff import Role, add, disable, set_role
from tests.crm_server.answers import Answer, ask, post, until
from tests.crm_server.conftest import ON_BOTH_IN_TIME, assert_nothing_private, staff_token
from tests.factories import customer_registration, repair_request
from tests.servers import Crm, start_crm

pytestmark = ON_BOTH_IN_TIME

PENDING = Filter(status="pending_approval")
ME = Actor("staff:Me", "192.0.2.1")
CLI = Actor("cli:tests")


@pytest.fixture(scope="module")
def bulk(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Crm]:
    """A server whose queue these tests may empty."""
    with start_crm(tmp_path_factory.mktemp("bulk"), only=None, engine=engine) as crm:
        yield crm
    assert_nothing_private(crm)


@pytest.fixture(scope="module")
def staff(bulk: Crm) -> Mapping[Role, str]:
    roles: tuple[Role, ...] = ("viewer", "approver")
    return {role: staff_token(bulk, role.title(), role) for role in roles}


def receive(crm: Crm, device: str = "Tablet") -> str:
    return str(post(crm, "repair-request", repair_request(repair__deviceType=device)).json["id"])


def look(crm: Crm, token: str, query: str = "") -> dict[str, Any]:
    answer = ask(crm, token, "GET", f"/approvals/decisions{query}")
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.json
    return found


def decide(crm: Crm, token: str, verb: str, preview: Any, **over: Any) -> Answer:
    body = {"verb": verb, "preview": preview, **({"reason": "Spam"} if verb == "reject" else {}), **over}
    return ask(crm, token, "POST", "/approvals/decisions", body)


def finished(crm: Crm, token: str, job: Answer) -> dict[str, Any]:
    """Wait for a decision to be done; return its report."""
    assert job.status == 202, job
    path = f"/approvals/decisions/{job.json['id']}"
    until(lambda: ask(crm, token, "GET", path).json["state"] == "done")
    report: dict[str, Any] = ask(crm, token, "GET", path).json
    return report


def test_what_matches_a_search_is_decided_and_nothing_else(bulk: Crm, staff: Mapping[Role, str]) -> None:
    wanted, others = [receive(bulk, "Zeppelin") for _ in range(3)], [receive(bulk) for _ in range(2)]
    newest = bulk.rows("SELECT max(sequence) FROM approvals")[0][0]
    until(lambda: (bulk.rows("SELECT max(sequence) FROM search_documents")[0][0] or 0) >= newest)
    search = ask(bulk, staff["approver"], "POST", "/searches", {"text": "zeppelin"}).json["id"]
    preview = look(bulk, staff["approver"], f"?search={search}")
    assert (preview["count"], preview["as_of"]) == (3, newest)
    later = receive(bulk, "Zeppelin")
    report = finished(
        bulk, staff["viewer"], decide(bulk, staff["approver"], "reject", preview, search=search)
    )
    assert (report["total"], report["decided"], report["refused"]) == (3, 3, [])
    assert report["by"] == "staff:Approver"
    for approval in wanted:
        shown = ask(bulk, staff["approver"], "GET", f"/approvals/{approval}").json
        assert (shown["status"], shown["reason"], shown["decided_by"]) == (
            "rejected",
            "Spam",
            "staff:Approver",
        )
        assert [(e["verb"], e["origin"]) for e in shown["history"]] == [("reject", "127.0.0.1")]
    for approval in (*others, later):
        shown = ask(bulk, staff["viewer"], "GET", f"/approvals/{approval}").json
        assert shown["status"] == "pending_approval", "what was not seen is not decided"
    trail = ask(bulk, staff["viewer"], "GET", f"/audit?record_id={report['id']}").json["items"]
    assert [entry["verb"] for entry in trail] == ["reject-all"]
    assert bulk.rows("SELECT reason FROM bulk_jobs WHERE id = ?", report["id"])[0]["reason"] is None


def test_a_set_that_has_changed_is_shown_anew_and_nothing_is_decided(
    bulk: Crm, staff: Mapping[Role, str]
) -> None:
    token = staff["approver"]
    first = receive(bulk)
    registered = post(bulk, "customer-registration", customer_registration()).json["id"]
    seen = look(bulk, token, "?event=repair-request")
    ask(bulk, token, "POST", f"/approvals/{first}/approve")
    answer = decide(bulk, token, "approve", seen, event="repair-request")
    assert (answer.status, answer.type) == (409, "preview-changed")
    assert answer.json["preview"]["count"] == seen["count"] - 1
    assert decide(bulk, token, "approve", {**seen, "count": 0}).type == "preview-changed"
    assert decide(bulk, token, "approve", {**seen, "count": 0.0}).type == "preview-changed"
    assert decide(bulk, token, "approve", answer.json["preview"]).type == "preview-changed", "another filter"
    report = finished(
        bulk, token, decide(bulk, token, "approve", answer.json["preview"], event="repair-request")
    )
    assert report["decided"] == report["total"] == answer.json["preview"]["count"]
    assert look(bulk, token, "?event=repair-request")["count"] == 0
    assert ask(bulk, token, "GET", f"/approvals/{registered}").json["status"] == "pending_approval"


def test_a_decision_that_is_sent_twice_is_one(bulk: Crm, staff: Mapping[Role, str]) -> None:
    token = staff["approver"]
    wanted = [receive(bulk) for _ in range(2 * PART)]
    seen, before = look(bulk, token), jobs(bulk)
    with ThreadPoolExecutor() as threads:
        first, second = threads.map(lambda _: decide(bulk, token, "approve", seen), range(2))
    report = finished(bulk, token, first)
    again = decide(bulk, token, "approve", seen)
    assert (second.status, again.status) == (202, 202)
    assert first.json["id"] == second.json["id"] == again.json["id"]
    assert jobs(bulk) == before + 1
    assert again.json == report, "also when all is done"
    assert report["total"] >= len(wanted)
    trail = ask(bulk, token, "GET", f"/audit?record_id={report['id']}").json["items"]
    assert [entry["verb"] for entry in trail] == ["approve-all"]


def jobs(crm: Crm) -> int:
    return int(crm.rows("SELECT count(*) AS n FROM bulk_jobs")[0]["n"])


def test_of_two_decisions_on_one_preview_the_second_is_shown_anew_and_does_nothing(
    bulk: Crm, staff: Mapping[Role, str]
) -> None:
    wanted = [receive(bulk) for _ in range(2 * PART)]
    other = staff_token(bulk, "Other", "approver")
    seen, before = look(bulk, other), jobs(bulk)
    with ThreadPoolExecutor() as threads:
        approved = threads.submit(decide, bulk, staff["approver"], "approve", seen)
        rejected = threads.submit(decide, bulk, other, "reject", seen)
        answers = (approved.result(), rejected.result())
    (first,) = [answer for answer in answers if answer.status == 202]
    (second,) = [answer for answer in answers if answer.status != 202]
    assert (second.status, second.type) == (409, "preview-changed")
    assert not second.json["preview"]["count"], "what is being decided is not seen as what waits"
    assert jobs(bulk) == before + 1
    report = finished(bulk, other, first)
    assert (report["decided"] >= len(wanted), report["refused"]) == (True, [])


def test_nothing_at_all_can_be_decided(bulk: Crm, staff: Mapping[Role, str]) -> None:
    everything = look(bulk, staff["approver"])
    finished(bulk, staff["approver"], decide(bulk, staff["approver"], "reject", everything))
    nothing = look(bulk, staff["approver"])
    report = finished(bulk, staff["approver"], decide(bulk, staff["approver"], "approve", nothing))
    assert (report["total"], report["decided"]) == (0, 0)


@pytest.mark.parametrize(
    ("over", "pointers"),
    [
        ({"reason": " "}, ["/reason"]),
        ({"verb": "reopen"}, ["/verb"]),
        ({"preview": {"count": 1, "as_of": 1}}, ["/preview/digest"]),
        ({"verb": "reject"}, ["/reason"]),
        ({"verb": "reject", "status": "approved"}, ["/reason", "/status"]),
    ],
)
def test_what_the_contract_does_not_allow_is_refused(
    bulk: Crm, staff: Mapping[Role, str], over: dict[str, Any], pointers: list[str]
) -> None:
    body = {"verb": "approve", "preview": look(bulk, staff["approver"]), **over}
    answer = ask(bulk, staff["approver"], "POST", "/approvals/decisions", body)
    assert (answer.status, answer.type) == (400, "invalid-request")
    assert sorted(answer.pointers) == pointers


def test_what_is_not_there_is_not_found(bulk: Crm, staff: Mapping[Role, str]) -> None:
    token = staff["approver"]
    assert ask(bulk, token, "GET", "/approvals/decisions/none").status == 404
    assert ask(bulk, token, "GET", "/approvals/decisions?search=none").status == 404
    assert decide(bulk, token, "approve", look(bulk, token), search="none").status == 404
    assert " ERROR " not in bulk.log, "who asks wrongly is no fault of the database"
    assert ask(bulk, token, "DELETE", "/approvals/decisions").headers["allow"] == "GET, HEAD, POST"


def stored(database: Database, *payloads: dict[str, Any]) -> list[str]:
    """Receive events in a database without a server; return the requests' ids."""
    events = []
    for payload in payloads:
        event = "repair-request" if "repair" in payload else "customer-registration"
        key = (
            payload["repair"]["websiteRepairId"]
            if "repair" in payload
            else payload["customer"]["websiteUserId"]
        )
        identity = Identity(event, key, None, "0" * 64)
        events.append(ReceivedEvent(identity, "1.0.0", json.dumps(payload)))
    with database.writing() as connection:
        return [approval_queue.receive(connection, [event])[0].id for event in events]  # type: ignore[union-attr]


def begun(database: Database, verb: Any, reason: str | None = None, actor: Actor = ME) -> str:
    """Begin to decide all that waits; return the job's id."""
    with database.writing() as connection:
        add(connection, "Me", "approver", None, CLI)
        seen = bulk_decisions.preview(connection, PENDING)
        return bulk_decisions.begin(connection, PENDING, seen, verb, reason, actor)


def ended(database: Database, job: str) -> Report:
    """Do every job, a part at a time; return the report of one."""
    while True:
        with database.writing() as connection:
            if not bulk_decisions.is_wanted(connection):
                return bulk_decisions.report(connection, job)
            bulk_decisions.decide_some(connection)


def test_what_cannot_be_decided_is_reported_and_holds_nothing_up(database: Database) -> None:
    number = "REV-ONE"
    first, taken, erased, quicker, last = stored(
        database,
        repair_request(repair__ticketNumber=number),
        repair_request(repair__ticketNumber=number),
        *(repair_request() for _ in range(3)),
    )
    job = begun(database, "approve")
    with database.writing() as connection:
        connection.exec_driver_sql(
            f"UPDATE approvals SET payload = NULL, erased_at = received_at WHERE id = '{erased}'"
        )
        approval_queue.reject(connection, quicker, Actor("staff:Quicker"), "Spam")
    report = ended(database, job)
    assert (report.job.state, report.job.decided, report.job.refused) == ("done", 2, 3)
    assert [(row.approval_id, row.why, row.status, row.by) for row in report.refusals] == [
        (taken, "number-taken", None, None),
        (erased, "erased", None, None),
        (quicker, "already-decided", "rejected", "staff:Quicker"),
    ]
    with database.reading() as connection:
        found = {row.id: row.status for row in approval_queue.list_approvals(connection)}
        assert len(connection.exec_driver_sql("SELECT * FROM tickets").all()) == 2, "nothing is done in part"
    assert found == {
        first: "approved",
        taken: "pending_approval",
        erased: "pending_approval",
        quicker: "rejected",
        last: "approved",
    }


def test_what_is_being_decided_is_left_to_that_decision_and_what_comes_later_is_not(
    database: Database,
) -> None:
    ids = stored(database, *(repair_request() for _ in range(PART + 1)))
    with database.writing() as connection:
        seen = bulk_decisions.preview(connection, PENDING)
    job = begun(database, "reject", "Spam")
    with database.writing() as connection:
        bulk_decisions.decide_some(connection)
        assert bulk_decisions.begin(connection, PENDING, seen, "reject", "Spam", ME) == job
        others: list[tuple[Any, str | None, Actor]] = [
            ("reject", "Spam", Actor("staff:Other")),
            ("approve", None, ME),
            ("reject", "Another reason", ME),
        ]
        for verb, reason, actor in others:
            with pytest.raises(PreviewChanged) as raised:
                bulk_decisions.begin(connection, PENDING, seen, verb, reason, actor)
            assert raised.value.preview["count"] == 0
    late = stored(database, repair_request(), repair_request())
    with database.writing() as connection:
        now = bulk_decisions.preview(connection, PENDING)
        assert now.count == len(late)
        second = bulk_decisions.begin(connection, PENDING, now, "approve", None, ME)
    assert second != job
    assert ended(database, second).job.decided == len(late)
    with database.reading() as connection:
        assert bulk_decisions.report(connection, job).job.decided == len(ids)


def test_what_was_taken_back_is_decided_in_bulk_once_more(database: Database) -> None:
    first, second = stored(database, repair_request(), repair_request())
    with database.writing() as connection:
        seen = bulk_decisions.preview(connection, PENDING)
    jobs = {begun(database, "reject", "Spam")}
    for job in jobs:
        ended(database, job)
    with database.writing() as connection:
        for approval in (first, second):
            approval_queue.reopen(connection, approval, ME)
        jobs.add(again := bulk_decisions.begin(connection, PENDING, seen, "reject", "Spam", ME))
    assert len(jobs) == len((first, second))
    assert ended(database, again).job.decided == seen.count
    with database.writing() as connection:
        approval_queue.reopen(connection, first, ME)
        with pytest.raises(PreviewChanged):
            bulk_decisions.begin(connection, PENDING, seen, "reject", "Spam", ME)


def shut_out(connection: Connection) -> None:
    disable(connection, "Me", CLI)


def demote(connection: Connection) -> None:
    set_role(connection, "Me", "viewer", CLI)


@pytest.mark.parametrize("verb", ["approve", "reject"])
@pytest.mark.parametrize("change", [shut_out, demote])
def test_a_job_ends_when_whoever_began_it_may_no_longer_decide(
    database: Database, change: Callable[[Connection], None], verb: str
) -> None:
    ids = stored(database, *(repair_request() for _ in range(PART + MOST_SHOWN + 5)))
    job = begun(database, verb, "Spam" if verb == "reject" else None)
    with database.writing() as connection:
        bulk_decisions.decide_some(connection)
    with database.writing() as connection:
        change(connection)
    with database.writing() as connection:
        bulk_decisions.decide_some(connection)
        assert not bulk_decisions.is_wanted(connection), "it ends at once"
        report = bulk_decisions.report(connection, job)
        decided = [row.id for row in approval_queue.list_approvals(connection) if row.decided_by]
    assert (report.job.state, report.job.decided, report.job.refused) == ("done", PART, len(ids) - PART)
    assert report.job.reason is None
    assert {row.why for row in report.refusals} == {"forbidden"}
    assert [row.approval_id for row in report.refusals] == ids[PART : PART + MOST_SHOWN]
    assert decided == ids[:PART]


@pytest.mark.parametrize("role", ["approver", "admin"])
def test_a_job_goes_on_in_another_role_that_may_decide(database: Database, role: Role) -> None:
    ids = stored(database, *(repair_request() for _ in range(PART + 1)))
    job = begun(database, "approve")
    with database.writing() as connection:
        set_role(connection, "Me", role, CLI)
    assert ended(database, job).job.decided == len(ids)


def test_a_job_of_the_command_line_goes_on(database: Database) -> None:
    stored(database, repair_request())
    assert ended(database, begun(database, "approve", actor=Actor("cli:Me"))).job.decided == 1


def test_a_fault_of_ours_spoils_one_request_and_no_other(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = stored(database, repair_request(), repair_request())
    job = begun(database, "approve")
    approve = approval_queue.approve

    def fails_for_one(connection: Any, approval_id: str, actor: Actor) -> Any:
        row = approve(connection, approval_id, actor)
        if approval_id == bad:
            raise KeyError("Sentinel")
        return row

    monkeypatch.setattr(approval_queue, "approve", fails_for_one)
    report = ended(database, job)
    assert [(row.approval_id, row.why) for row in report.refusals] == [(bad, "internal-error")]
    assert "KeyError" in caplog.text
    assert "Sentinel" not in caplog.text
    with database.reading() as connection:
        assert approval_queue.show(connection, bad).row.status == "pending_approval"
        assert approval_queue.show(connection, good).row.status == "approved"


def test_a_report_lists_the_first_that_were_refused_and_counts_all(database: Database) -> None:
    ids = stored(database, *(repair_request() for _ in range(MOST_SHOWN + 5)))
    job = begun(database, "approve")
    with database.writing() as connection:
        connection.exec_driver_sql(
            "UPDATE approvals SET status = 'rejected', decided_at = received_at, decided_by = 'staff:Quicker'"
        )
    report = ended(database, job)
    assert report.job.refused == len(ids)
    assert [row.approval_id for row in report.refusals] == ids[:MOST_SHOWN]


def test_a_killed_server_goes_on_where_it_was_and_decides_each_once(
    bulk: Crm, staff: Mapping[Role, str]
) -> None:
    token = staff["approver"]
    database = Database(Settings.model_validate({"CRM_DATABASE_URL": bulk.database_url}).url)
    stored(database, *(repair_request() for _ in range(20 * PART)))
    database.close()
    before, seen = decided(bulk), look(bulk, token)
    waiting = bulk.rows("SELECT id FROM approvals WHERE status = 'pending_approval' ORDER BY sequence")
    job = decide(bulk, token, "approve", seen)
    until(lambda: decided(bulk) > before)
    bulk.kill()
    assert bulk.rows("SELECT state FROM bulk_jobs WHERE id = ?", job.json["id"])[0]["state"] == "running"
    bulk.start()
    report = finished(bulk, token, job)
    assert (report["decided"], report["refused_total"]) == (len(waiting), 0)
    trail = bulk.rows(
        "SELECT record_id FROM audit_trail WHERE verb = 'approve' AND at >= ? ORDER BY sequence",
        report["started_at"],
    )
    assert [row["record_id"] for row in trail] == [row["id"] for row in waiting], "once, in order of receipt"


def decided(crm: Crm) -> int:
    """How many requests are decided."""
    return int(crm.rows("SELECT count(*) AS n FROM approvals WHERE status <> 'pending_approval'")[0]["n"])


def test_many_are_decided_in_transactions_of_few(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_decisions, "STORED_TOGETHER", PART + 1)
    ids = stored(database, *(repair_request() for _ in range(2 * PART + 1)))
    begun(database, "reject", "Spam")
    done = []
    while True:
        with database.writing() as connection:
            if not bulk_decisions.is_wanted(connection):
                break
            bulk_decisions.decide_some(connection)
            rows = approval_queue.list_approvals(connection, "rejected")
            done.append(len(list(rows)))
    assert done == [PART, PART + 1, 2 * PART + 1, 2 * PART + 1]
    assert len(ids) == done[-1]
