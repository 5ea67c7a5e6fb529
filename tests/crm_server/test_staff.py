"""`crm-server staff`, as an administrator uses it, and what the server makes of it at once."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from crm_server import staff
from crm_server.errors import Refused, StaffNotAdded
from tests.crm_server.answers import ask
from tests.crm_server.conftest import ON_BOTH, staff_token
from tests.servers import Crm, clean_environment, start_crm

PASSWORD = "correct horse battery staple"


def added(crm: Crm, name: str, role: str = "approver") -> str:
    """Add somebody; return the token that is printed."""
    assert crm.cli("staff", "add", name, "--role", role).returncode == 0
    done = crm.cli("staff", "token", name)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def may_read(crm: Crm, token: str) -> bool:
    return ask(crm, token, "GET", "/audit").status == 200


def test_a_token_is_printed_alone_and_kept_as_a_digest(crm: Crm) -> None:
    token = added(crm, "Tess")
    assert may_read(crm, token)
    stored = "".join(path.read_bytes().decode("latin-1") for path in crm.database.parent.iterdir())
    assert token not in stored
    assert token[6:] not in stored


@ON_BOTH
def test_every_token_ends_at_once_when_revoked_or_its_owner_disabled_and_the_trail_tells(crm: Crm) -> None:
    tokens = [staff_token(crm, "Rhea", "viewer"), crm.cli("staff", "token", "Rhea").stdout.strip()]
    assert [may_read(crm, token) for token in tokens] == [True, True]
    assert crm.cli("staff", "revoke", "Rhea").returncode == 0
    assert [may_read(crm, token) for token in tokens] == [False, False]
    again = crm.cli("staff", "token", "Rhea").stdout.strip()
    assert may_read(crm, again)
    assert crm.cli("staff", "disable", "Rhea").returncode == 0
    assert not may_read(crm, again)
    done = crm.cli("staff", "token", "Rhea")
    assert (done.returncode, done.stdout) == (1, "")
    assert "disabled" in done.stderr
    rows = crm.rows(
        "SELECT verb, actor FROM audit_trail JOIN staff ON staff.id = record_id WHERE name = 'Rhea'"
        " ORDER BY sequence"
    )
    verbs = ["add", "add-token", "add-token", "revoke", "add-token", "revoke", "disable"]
    assert [row["verb"] for row in rows] == verbs
    assert {row["actor"][:4] for row in rows} == {"cli:"}


def test_a_password_is_kept_as_argon2_makes_it(crm: Crm) -> None:
    done = crm.cli("staff", "add", "Pat", "--role", "viewer", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert verifies(crm, "Pat", PASSWORD)
    assert (
        crm.cli("staff", "password", "Pat", "--password-stdin", stdin="another " + PASSWORD).returncode == 0
    )
    assert verifies(crm, "Pat", "another " + PASSWORD)


def verifies(crm: Crm, name: str, password: str) -> bool:
    (row,) = crm.rows("SELECT password_hash FROM staff WHERE name = ?", name)
    assert row["password_hash"].startswith("$argon2id$")
    return PasswordHasher().verify(row["password_hash"], password)


@pytest.mark.parametrize("password", ["", "short", "x" * 1025])
def test_a_password_of_the_wrong_length_is_refused(password: str) -> None:
    with pytest.raises(Refused, match="12 to 1024 characters"):
        staff.hash_password(password)


@pytest.mark.parametrize("name", ["", " Ann", "Ann\n", "x" * 65])
def test_what_is_no_name_is_refused(crm: Crm, name: str) -> None:
    with pytest.raises(StaffNotAdded, match="1 to 64 characters"):
        staff_token(crm, name, "viewer")


@ON_BOTH
def test_a_name_is_taken_once(crm: Crm) -> None:
    staff_token(crm, "Ann", "viewer")
    done = crm.cli("staff", "add", "Ann", "--role", "admin")
    assert done.returncode == 1
    assert "already" in done.stderr


@ON_BOTH
def test_the_only_admin_stays_one_until_there_is_another(own_crm: Crm) -> None:
    staff_token(own_crm, "Una", "admin")
    done = own_crm.cli("staff", "disable", "Una")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "crm-server: Una is the only admin. Make somebody else one first.\n"
    [una] = own_crm.rows("SELECT disabled_at FROM staff")
    assert una["disabled_at"] is None
    staff_token(own_crm, "Duo", "admin")
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda name: own_crm.cli("staff", "disable", name), ["Una", "Duo"]))
    assert sorted(done.returncode for done in both) == [0, 1]
    assert "is the only admin" in "".join(done.stderr for done in both)


def test_nobody_is_not_somebody(crm: Crm) -> None:
    done = crm.cli("staff", "disable", "Nemo")
    assert done.returncode == 1
    assert "Nemo" in done.stderr


def test_the_staff_are_listed_without_secrets(tmp_path: Path) -> None:
    crm = Crm(tmp_path, clean_environment())
    crm.migrate()
    assert json.loads(crm.cli("staff", "list", "--json").stdout) == []
    crm.cli("staff", "add", "Zoe", "--role", "admin", "--password-stdin", stdin=PASSWORD)
    crm.cli("staff", "add", "Ann", "--role", "viewer")
    rows = json.loads(crm.cli("staff", "list", "--json").stdout)
    assert [(row["name"], row["role"], row["disabled_at"]) for row in rows] == [
        ("Ann", "viewer", None),
        ("Zoe", "admin", None),
    ]
    table = crm.cli("staff", "list").stdout
    assert [line.split()[:2] for line in table.splitlines()[1:]] == [["Ann", "viewer"], ["Zoe", "admin"]]
    assert "argon2" not in table + json.dumps(rows)


def test_staff_are_served_alone_on_the_same_database_without_a_webhook_key(crm: Crm, tmp_path: Path) -> None:
    token = staff_token(crm, "Sam", "viewer")
    with start_crm(
        tmp_path, only="staff", WEBHOOK_API_KEY="", CRM_DATABASE_URL=f"sqlite:///{crm.database}"
    ) as alone:
        assert may_read(alone, token)
        assert alone.stop() == 0
