"""Port 3001's own door: networks, trusted proxies, and who has failed too often."""

from collections.abc import Iterator

import pytest

from tests.crm_server.answers import ask
from tests.crm_server.conftest import staff_token
from tests.servers import Crm, start_crm


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server for staff in one network, behind a proxy on this machine, who may fail twice."""
    with start_crm(
        tmp_path_factory.mktemp("door"),
        only="staff",
        STAFF_ALLOWED_NETWORKS="10.0.0.0/8",
        WEBHOOK_ALLOWED_NETWORKS="127.0.0.1",
        CRM_TRUSTED_PROXIES="127.0.0.1",
        WEBHOOK_AUTH_FAILURE_LIMIT="2/hour",
    ) as crm:
        yield crm


@pytest.fixture(scope="module")
def token(door: Crm) -> str:
    return staff_token(door, "Grace", "admin")


@pytest.mark.parametrize(
    ("forwarded", "status"), [("10.1.2.3", 200), ("192.0.2.1, 10.1.2.3", 200), ("192.0.2.1", 403), ("", 403)]
)
def test_only_allowed_addresses_are_served(door: Crm, token: str, forwarded: str, status: int) -> None:
    answer = ask(door, token, "GET", "/approvals", x_forwarded_for=forwarded)
    assert answer.status == status
    assert status == 200 or answer.type == "forbidden-network"


def test_the_trail_names_who_asked_and_not_the_proxy(door: Crm, token: str) -> None:
    preview = ask(door, token, "GET", "/approvals/decisions", x_forwarded_for="10.1.2.3").json
    body = {"verb": "approve", "preview": preview}
    job = ask(door, token, "POST", "/approvals/decisions", body, x_forwarded_for="10.1.2.3").json["id"]
    (entry,) = ask(door, token, "GET", f"/audit?record_id={job}", x_forwarded_for="10.1.2.3").json["items"]
    assert entry["origin"] == "10.1.2.3"


def test_who_has_failed_too_often_waits_and_a_right_token_never_does(door: Crm, token: str) -> None:
    wrong = [ask(door, "staff_wrong", "GET", "/approvals", x_forwarded_for="10.9.9.9") for _ in range(3)]
    assert [answer.status for answer in wrong] == [401, 401, 429]
    assert 1 <= int(wrong[2].headers["retry-after"]) <= 3600
    assert ask(door, token, "GET", "/approvals", x_forwarded_for="10.9.9.9").status == 200
    assert ask(door, "staff_wrong", "GET", "/approvals", x_forwarded_for="10.7.7.7").status == 401
