"""Who may do what: every operation of the staff's contract, by everybody there is."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from crm_server.app import STAFF_OPERATIONS, require_same_operations
from crm_server.middleware.contract import each_operation
from crm_server.middleware.staff_access import required_roles
from crm_server.staff import RANKS, Role
from crm_server.validation import STAFF_CONTRACT, load_contract
from tests.crm_server.answers import ask, post
from tests.crm_server.conftest import staff_token
from tests.factories import repair_request
from tests.servers import Crm

ROLES: list[str] = list(RANKS)
STRANGERS = ("no one", "a wrong token", "a webhook key", "one who is disabled")


def matrix() -> Iterator[Any]:
    """Yield everybody with every operation."""
    for path, method, operation in each_operation(load_contract(STAFF_CONTRACT)):
        for who in (*STRANGERS, *RANKS):
            yield pytest.param(
                who, method.upper(), path, operation, id=f"{operation['operationId']} by {who}"
            )


@pytest.fixture(scope="session")
def everybody(crm: Crm, tokens: Mapping[Role, str]) -> Mapping[str, str]:
    """What each of them would send as a bearer token."""
    disabled = staff_token(crm, "Disabled", "admin")
    assert ask(crm, disabled, "GET", "/approvals").status == 200
    assert crm.cli("staff", "disable", "Disabled").returncode == 0
    strangers = dict(zip(STRANGERS, ("", "staff_wrong", crm.key, disabled), strict=True))
    return strangers | {str(role): token for role, token in tokens.items()}


@pytest.fixture(scope="session")
def approval(crm: Crm) -> str:
    return str(post(crm, "repair-request", repair_request()).json["id"])


@pytest.mark.parametrize(("who", "method", "path", "operation"), [*matrix()])
def test_everybody_may_do_what_their_role_allows_and_nothing_else(
    crm: Crm,
    everybody: Mapping[str, str],
    approval: str,
    who: str,
    method: str,
    path: str,
    operation: dict[str, Any],
) -> None:
    payload = (
        operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example", ...)
    )
    answer = ask(crm, everybody[who], method, path.replace("{id}", approval), payload)
    if who in STRANGERS:
        assert (answer.status, answer.type) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    elif ROLES.index(who) < ROLES.index(operation["x-role"]):
        assert (answer.status, answer.type) == (403, "forbidden")
    else:
        assert answer.status in (200, 201, 404, 409)


def test_a_staff_token_opens_no_webhook(crm: Crm, everybody: Mapping[str, str]) -> None:
    answer = post(crm, "repair-request", repair_request(), authorization=f"Bearer {everybody['admin']}")
    assert answer.status == 401


def test_contract_and_handlers_name_the_same_operations() -> None:
    contract = load_contract(STAFF_CONTRACT)
    require_same_operations(contract, STAFF_OPERATIONS)
    contract["paths"]["/payments"] = {"post": {"operationId": "pay"}}
    with pytest.raises(RuntimeError, match="pay"):
        require_same_operations(contract, STAFF_OPERATIONS)


@pytest.mark.parametrize("role", [None, "boss"])
def test_an_operation_without_a_known_role_stops_the_start(role: str | None) -> None:
    contract = load_contract(STAFF_CONTRACT)
    contract["paths"]["/audit"]["get"]["x-role"] = role
    with pytest.raises(RuntimeError, match="list-audit"):
        required_roles(contract)
