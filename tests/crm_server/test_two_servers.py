"""Two server processes over one database stay exactly-once."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.crm_server.answers import Answer, ask, post
from tests.crm_server.conftest import ON_BOTH, staff_token
from tests.factories import customer_registration, repair_request
from tests.servers import Crm, start_crm

pytestmark = ON_BOTH


@pytest.fixture
def pair(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[tuple[Crm, Crm]]:
    directory = tmp_path_factory.mktemp("pair")
    with (
        start_crm(directory, only=None, engine=engine) as one,
        start_crm(directory, only=None, CRM_DATABASE_URL=one.database_url) as other,
    ):
        yield one, other


def test_of_64_at_once_exactly_one_is_new(pair: tuple[Crm, Crm]) -> None:
    payload = repair_request()
    other = {**payload, "repair": {**payload["repair"], "notes": "Other notes"}}
    gate = threading.Barrier(64)

    def one(number: int) -> Answer:
        gate.wait()
        return post(pair[number % 2], "repair-request", payload if number % 4 < 2 else other)

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(one, range(64)))
    accepted = [answer.json for answer in answers if answer.status == 202]
    assert [answer.status for answer in answers].count(409) == 64 - len(accepted) == 32
    assert [receipt["duplicate"] for receipt in accepted].count(False) == 1
    (row,) = pair[0].rows("SELECT id, digest FROM approvals")
    assert {(receipt["id"], receipt["digest"]) for receipt in accepted} == {(row["id"], row["digest"])}


def test_many_events_through_both_are_all_there_once(pair: tuple[Crm, Crm]) -> None:
    payloads = [repair_request() for _ in range(60)]

    def both(payload: dict[str, object]) -> set[str]:
        return {post(server, "repair-request", payload).json["id"] for server in pair}

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(both, payloads))
    assert all(len(pair_of_ids) == 1 for pair_of_ids in ids)
    assert len(pair[0].rows("SELECT 1 FROM approvals")) == 60


def test_two_decisions_at_one_instant_on_a_new_customer_make_one_customer(pair: tuple[Crm, Crm]) -> None:
    token = staff_token(pair[0], "Ann", "approver")
    for number in range(10):
        user = f"new-{number}"
        sent = {
            "customer-registration": customer_registration(customer__websiteUserId=user),
            "repair-request": repair_request(customer__websiteUserId=user),
        }
        ids = [post(pair[0], event, payload).json["id"] for event, payload in sent.items()]
        gate = threading.Barrier(2)

        def approve(server: Crm, approval_id: str, gate: threading.Barrier = gate) -> int:
            gate.wait()
            return ask(server, token, "POST", f"/approvals/{approval_id}/approve").status

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(approve, pair, ids)) == [200, 200]
        assert len(pair[0].rows("SELECT 1 FROM customers WHERE website_user_id = ?", user)) == 1


def test_of_two_decisions_at_one_instant_on_one_request_one_is_told_of_the_other(
    pair: tuple[Crm, Crm],
) -> None:
    token = staff_token(pair[0], "Ben", "approver")
    for _ in range(10):
        approval = post(pair[0], "repair-request", repair_request()).json["id"]
        gate = threading.Barrier(2)

        def approve(server: Crm, approval: str = approval, gate: threading.Barrier = gate) -> int:
            gate.wait()
            return ask(server, token, "POST", f"/approvals/{approval}/approve").status

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(approve, pair)) == [200, 409]
        assert len(pair[0].rows("SELECT 1 FROM decision_records WHERE approval_id = ?", approval)) == 2
