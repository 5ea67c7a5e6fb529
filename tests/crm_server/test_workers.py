"""Several processes on one port and one PostgreSQL are one server: exactly-once, one decision, one end."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.crm_server.answers import Answer, ask, post, until
from tests.crm_server.conftest import staff_token
from tests.crm_server.test_metrics import scrape, value
from tests.factories import customer_registration, repair_request
from tests.servers import Crm, start_crm, start_serve


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server of three processes."""
    directory = tmp_path_factory.mktemp("workers")
    with start_crm(directory, engine="postgresql", workers=3, only=None) as crm:
        yield crm


def worker_ids(crm: Crm) -> list[int]:
    """Return the ids of a server's processes (proc(5))."""
    listed = Path(f"/proc/{crm.process.pid}/task/{crm.process.pid}/children").read_text()
    return [int(number) for number in listed.split()]


def test_of_64_at_once_one_is_new_and_every_process_answers(many: Crm) -> None:
    payload = repair_request()
    gate = threading.Barrier(64)

    def one(_: int) -> Answer:
        gate.wait()
        return post(many, "repair-request", payload)

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(one, range(64)))
    assert {answer.status for answer in answers} == {202}
    assert [answer.json["duplicate"] for answer in answers].count(False) == 1
    assert len({answer.json["id"] for answer in answers}) == 1
    assert len(worker_ids(many)) == 3


def test_whichever_worker_is_asked_the_metrics_are_those_of_all(many: Crm) -> None:
    labels = {"event": "customer-registration", "outcome": "accepted"}
    assert value(scrape(many), "crm_events_total", **labels) == 0
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: post(many, "customer-registration", customer_registration()), range(48)))
        found = list(pool.map(lambda _: scrape(many), range(32)))
    assert {value(samples, "crm_events_total", **labels) for samples in found} == {48}


def test_of_many_decisions_at_once_one_stands(many: Crm) -> None:
    token = staff_token(many, "Approver", "approver")
    approval = post(many, "repair-request", repair_request()).json["id"]

    def decide(number: int) -> int:
        verb, payload = [("approve", {}), ("reject", {"reason": "Spam"})][number % 2]
        return ask(many, token, "POST", f"/approvals/{approval}/{verb}", payload).status

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(decide, range(16)))
    assert sorted(statuses) == [200] + [409] * 15
    assert len(many.rows("SELECT 1 FROM audit_trail WHERE record_id = ?", approval)) == 1


def test_two_tickets_never_get_one_number(many: Crm) -> None:
    token = staff_token(many, "Second approver", "approver")
    payloads = [repair_request(repair__ticketNumber="REV-ONE") for _ in range(8)]
    approvals = [post(many, "repair-request", payload).json["id"] for payload in payloads]

    def approve(approval: str) -> int:
        return ask(many, token, "POST", f"/approvals/{approval}/approve").status

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(approve, approvals))
    assert sorted(statuses) == [200] + [409] * 7


@pytest.mark.long
def test_receipt_has_one_order_and_the_index_holds_all(many: Crm) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: post(many, "repair-request", repair_request()), range(100)))
    times = [row["received_at"] for row in many.rows("SELECT received_at FROM approvals ORDER BY sequence")]
    assert times == sorted(times)
    missing = "SELECT sequence FROM approvals EXCEPT SELECT sequence FROM search_documents"
    until(lambda: many.rows(missing) == [])


def test_whoever_is_asked_for_figures_gives_those_of_all(many: Crm) -> None:
    def accepted() -> float:
        lines = httpx.get(f"http://127.0.0.1:{many.port}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if 'outcome="accepted"' in line)

    before = accepted()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: post(many, "repair-request", repair_request()), range(40)))
    assert {accepted() - before for _ in range(12)} == {40.0}


def test_the_limits_of_each_process_are_its_own_and_that_is_said(many: Crm) -> None:
    assert "RATE_LIMIT_STORAGE_URL" in many.log
    assert many.log.count("receiving webhooks on") == 1


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Crm]:
    """A server of two processes that the test may end."""
    with start_crm(tmp_path, engine="postgresql", workers=2) as crm:
        yield crm


def post_until_it_ends(crm: Crm, answered: list[str]) -> None:
    while True:
        try:
            answer = crm.post("repair-request", repair_request())
        except httpx.TransportError:
            return
        if answer.status_code == 202:
            answered.append(answer.json()["id"])


@pytest.mark.long
def test_a_process_killed_under_load_ends_all_and_loses_nothing(two: Crm) -> None:
    answered: list[str] = []
    with ThreadPoolExecutor(6) as pool:
        posting = [pool.submit(post_until_it_ends, two, answered) for _ in range(6)]
        until(lambda: len(answered) >= 60)
        worker = worker_ids(two)[0]
        os.kill(worker, signal.SIGKILL)
        assert two.process.wait(30) == 1
    for one in posting:
        one.result()
    assert "A worker ended (SIGKILL)" in two.log
    two.start()
    assert set(answered) <= {row["id"] for row in two.rows("SELECT id FROM approvals")}
    assert post(two, "repair-request", repair_request()).status == 202


def test_sigterm_ends_all_with_0(two: Crm) -> None:
    workers = worker_ids(two)
    assert two.stop() == 0
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]


def test_sigterm_ends_processes_that_are_just_starting_with_0_too(two: Crm) -> None:
    two.stop()
    log = two.directory / "starting.log"
    two.process = start_serve(two.directory, two.env, two.port, log, workers=2)
    until(lambda: len(worker_ids(two)) == 2)
    assert two.stop() == 0, log.read_text()


def test_when_the_first_process_is_killed_the_others_end_and_free_the_port(two: Crm) -> None:
    workers = worker_ids(two)
    two.kill()
    until(lambda: not [worker for worker in workers if Path(f"/proc/{worker}").exists()])
    two.start()
    assert post(two, "repair-request", repair_request()).status == 202


def test_sqlite_has_one_process(tmp_path: Path) -> None:
    with start_crm(tmp_path) as crm:
        done = crm.cli("serve", "--workers", "2")
    assert done.returncode == 2
    assert done.stderr == (
        "crm-server: --workers above 1 needs PostgreSQL, for SQLite has one writer: see CRM_DATABASE_URL.\n"
    )
