"""The staff API on the queue, records and trail, over HTTP; each answer is held against the contract."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from crm_server.staff import Role
from crm_server.webhook_keys import fingerprint
from generated.operations import CURRENT, RELEASES
from tests.crm_server.answers import Answer, ask, post
from tests.crm_server.conftest import ON_BOTH
from tests.factories import customer_registration, repair_request
from tests.servers import Crm

pytestmark = ON_BOTH

Tokens = Mapping[Role, str]


def receive(crm: Crm, **over: Any) -> str:
    return str(post(crm, "repair-request", repair_request(**over)).json["id"])


def decide(crm: Crm, tokens: Tokens, approval: str, verb: str, *payload: Any) -> Answer:
    return ask(crm, tokens["approver"], "POST", f"/approvals/{approval}/{verb}", *payload)


def all_items(crm: Crm, token: str, path: str, *, limit: int) -> list[dict[str, Any]]:
    """Follow a list from its first page to its last."""
    items: list[dict[str, Any]] = []
    query = f"limit={limit}"
    while True:
        page = ask(crm, token, "GET", f"{path}{'&' if '?' in path else '?'}{query}").json
        assert len(page["items"]) <= limit
        items += page["items"]
        if page["next"] is None:
            return items
        query = f"limit={limit}&after={page['next']}"


def test_items_are_what_the_command_line_prints(crm: Crm, tokens: Tokens) -> None:
    receive(crm)
    post(crm, "customer-registration", customer_registration())
    printed = json.loads(crm.cli("approvals", "list", "--json").stdout)
    assert all_items(crm, tokens["admin"], "/approvals?order=oldest", limit=200) == printed


@pytest.mark.parametrize("path", ["/approvals", "/customers", "/tickets", "/audit"])
def test_pages_joined_are_the_whole_list_in_both_orders(crm: Crm, tokens: Tokens, path: str) -> None:
    for _ in range(3):
        decide(crm, tokens, receive(crm), "approve")
    newest = all_items(crm, tokens["viewer"], path, limit=2)
    oldest = all_items(crm, tokens["viewer"], f"{path}?order=oldest", limit=3)
    assert newest == oldest[::-1]
    page = ask(crm, tokens["viewer"], "GET", path).json
    assert (page["total"], page["total_exact"]) == (len(newest), True)


def test_what_arrives_meanwhile_moves_no_page(crm: Crm, tokens: Tokens) -> None:
    wanted = [receive(crm) for _ in range(4)][::-1]
    first = ask(crm, tokens["viewer"], "GET", "/approvals?limit=2").json
    receive(crm)
    second = ask(crm, tokens["viewer"], "GET", f"/approvals?limit=2&after={first['next']}").json
    assert [item["id"] for item in first["items"] + second["items"]] == wanted


def test_lists_are_filtered_by_state_and_event(crm: Crm, tokens: Tokens) -> None:
    rejected = receive(crm)
    decide(crm, tokens, rejected, "reject", {"reason": "Spam"})
    registered = post(crm, "customer-registration", customer_registration()).json["id"]
    path = "/approvals?status=rejected&event=repair-request"
    found = all_items(crm, tokens["admin"], path, limit=200)
    assert {(item["status"], item["event"]) for item in found} == {("rejected", "repair-request")}
    assert found[0]["id"] == rejected
    assert ask(crm, tokens["admin"], "GET", path).json["total"] == len(found)
    newest = ask(crm, tokens["admin"], "GET", "/approvals?event=customer-registration&limit=1").json
    assert newest["items"][0]["id"] == registered


def test_an_approval_writes_ticket_and_trail_with_who_and_from_where(crm: Crm, tokens: Tokens) -> None:
    payload = repair_request()
    approval = post(crm, "repair-request", payload).json["id"]
    decided = decide(crm, tokens, approval, "approve").json
    assert (decided["status"], decided["decided_by"]) == ("approved", "staff:Approver")
    assert [(e["verb"], e["actor"], e["origin"]) for e in decided["history"]] == [
        ("approve", "staff:Approver", "127.0.0.1")
    ]
    ticket = ask(crm, tokens["admin"], "GET", "/tickets?limit=1").json["items"][0]
    assert ticket["ticket_number"] == payload["repair"]["ticketNumber"]
    assert ticket["photos"] == payload["repair"]["photos"]
    customer = ask(crm, tokens["admin"], "GET", "/customers?limit=1").json["items"][0]
    assert customer["id"] == ticket["customer_id"]
    trail = ask(crm, tokens["viewer"], "GET", f"/audit?record_id={approval}").json["items"]
    assert trail[:-1] == decided["history"]
    received = trail[-1]
    assert (received["verb"], received["at"]) == ("receive", decided["received_at"])
    assert (received["actor"], received["origin"]) == (f"webhook:{fingerprint(crm.key)}", "127.0.0.1")


@pytest.mark.parametrize("body", [None, b"{}"])
def test_approving_takes_no_body_or_an_empty_object(crm: Crm, tokens: Tokens, body: bytes | None) -> None:
    path = f"/approvals/{receive(crm)}/approve"
    assert ask(crm, tokens["approver"], "POST", path, body=body).json["status"] == "approved"


def test_a_rejection_keeps_its_reason(crm: Crm, tokens: Tokens) -> None:
    approval = receive(crm)
    answer = decide(crm, tokens, approval, "reject", {"reason": "  Sentinel reason\n"})
    assert (answer.json["status"], answer.json["reason"]) == ("rejected", "Sentinel reason")
    shown = ask(crm, tokens["viewer"], "GET", f"/approvals/{approval}").json
    assert shown["reason"] == "•••"


def test_who_comes_second_is_told_who_decided_what_and_when(crm: Crm, tokens: Tokens) -> None:
    approval = receive(crm)
    first = decide(crm, tokens, approval, "reject", {"reason": "Spam"}).json
    second = decide(crm, tokens, approval, "approve")
    assert (second.status, second.type) == (409, "already-decided")
    assert second.json["decided"] == {
        "status": "rejected",
        "by": first["decided_by"],
        "at": first["decided_at"],
    }
    assert "ERROR" not in crm.log


def test_of_many_at_once_one_decides(crm: Crm, tokens: Tokens) -> None:
    approval = receive(crm)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: decide(crm, tokens, approval, "approve").status, range(8)))
    assert sorted(answers) == [200] + [409] * 7


def test_a_viewer_sees_no_personal_data_and_everything_else(crm: Crm, tokens: Tokens) -> None:
    payload = customer_registration(customer__firstName="Sentinel-v")
    approval = post(crm, "customer-registration", payload).json["id"]
    decide(crm, tokens, approval, "approve")
    seen = ask(crm, tokens["viewer"], "GET", f"/approvals/{approval}").json["payload"]
    for block, name in RELEASES[CURRENT]["customer-registration"].personal:
        if name in payload[block]:
            assert seen[block][name] in ("•••", {}, []), name
            payload[block][name] = seen[block][name]
    assert seen == payload
    customer = ask(crm, tokens["viewer"], "GET", "/customers?limit=1").json["items"][0]
    assert customer["website_user_id"] == payload["customer"]["websiteUserId"]
    assert (customer["first_name"], customer["preferences"], customer["language"]) == ("•••", {}, "en")
    lists = [
        ask(crm, tokens["viewer"], "GET", path).body for path in ("/approvals", "/customers", "/tickets")
    ]
    for private in (b"Sentinel-v", b"Lovelace", b"ada@example.com", b"20 7946", b"cracked"):
        assert not [body for body in lists if private in body], private


@pytest.mark.parametrize(
    ("path", "pointers"),
    [
        ("/approvals?status=open", ["?status"]),
        ("/approvals?limit=0", ["?limit"]),
        ("/approvals?limit=201", ["?limit"]),
        ("/approvals?limit=1.5&order=random", ["?limit", "?order"]),
        ("/approvals?after=x", ["?after"]),
        ("/approvals?statsu=approved", ["?"]),
        ("/approvals?status=approved&status=rejected", ["?"]),
        ("/approvals?id=1", ["?"]),
        ("/approvals?status=%ff", ["?status"]),
        ("/approvals?limit=", ["?limit"]),
        pytest.param(f"/approvals?limit={'9' * 5000}", ["?limit"], id="a number that Python does not read"),
        ("/audit?record_id=%00", ["?record_id"]),
        *(
            (f"/{one}/x?fields=all", ["?"])
            for one in ("approvals", "approvals/decisions", "customers", "tickets")
        ),
    ],
)
def test_a_parameter_that_is_not_the_contracts_is_refused(
    crm: Crm, tokens: Tokens, path: str, pointers: list[str]
) -> None:
    answer = ask(crm, tokens["viewer"], "GET", path)
    assert (answer.status, answer.type) == (400, "malformed-request")
    assert sorted(answer.pointers) == sorted(pointers)


@pytest.mark.parametrize(
    ("body", "type_"),
    [
        (b"", "invalid-request"),
        (b"{", "invalid-json"),
        (b"[]", "invalid-request"),
        (b"null", "invalid-request"),
        (b"{}", "invalid-request"),
        (b'{"reason": " \\n\\t"}', "invalid-request"),
        (b'{"reason": "x", "more": 1}', "invalid-request"),
        (b'{"reason": "x", "reason": "y"}', "invalid-json"),
        (b'{"reason": "\\u0000"}', "invalid-json"),
        (b'{"reason": 1}', "invalid-request"),
    ],
)
def test_a_rejection_without_a_proper_reason_is_refused(
    crm: Crm, tokens: Tokens, body: bytes, type_: str
) -> None:
    approval = receive(crm)
    answer = ask(crm, tokens["approver"], "POST", f"/approvals/{approval}/reject", body=body)
    assert answer.type == type_
    assert ask(crm, tokens["viewer"], "GET", f"/approvals/{approval}").json["status"] == "pending_approval"


@pytest.mark.parametrize("id_", ["no-such-id", "%00", "a" * 65, "%F0%9F%92%A9", ".."])
def test_what_is_not_there_is_not_found(crm: Crm, tokens: Tokens, id_: str) -> None:
    for method, path in (("GET", f"/approvals/{id_}"), ("POST", f"/approvals/{id_}/approve")):
        answer = ask(crm, tokens["admin"], method, path)
        assert (answer.status, answer.type) == (404, "not-found")


def test_checks_come_in_their_order(crm: Crm, tokens: Tokens) -> None:
    path, large = f"/approvals/{receive(crm)}/reject", b"x" * (1048576 + 1)
    wrong: dict[str, Any] = {"body": large, "content_type": "text/plain"}
    assert ask(crm, "", "GET", "/nothing").status == 404
    assert ask(crm, "", "PUT", path, **wrong).status == 405
    assert ask(crm, "wrong", "POST", path, **wrong).status == 401
    assert ask(crm, tokens["viewer"], "POST", path, **wrong).status == 403
    assert ask(crm, tokens["approver"], "POST", path, **wrong).status == 413
    assert ask(crm, tokens["approver"], "POST", path, body=b"{", content_type="text/plain").status == 415
    assert ask(crm, tokens["approver"], "POST", path, body=b"{").status == 400
