"""The command line of `crm-server`, as staff use it."""

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from crm_server import cli
from tests.crm_server.answers import post
from tests.crm_server.conftest import ON_BOTH
from tests.factories import customer_registration, repair_request
from tests.programs import Program, interrupt
from tests.servers import PROGRAM, Crm, clean_environment, start_crm


@pytest.fixture
def empty(tmp_path: Path) -> Crm:
    """A directory in which nothing has been done."""
    return Crm(tmp_path, clean_environment())


@pytest.fixture
def migrated(empty: Crm) -> Crm:
    empty.migrate()
    return empty


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_migrate_creates_a_database_for_its_owner_alone_and_may_be_repeated(empty: Crm, umask: int) -> None:
    empty.database.parent.mkdir()
    for _ in range(2):
        done = subprocess.run(
            [*PROGRAM, "migrate"],
            cwd=empty.directory,
            env=empty.env,
            umask=umask,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert str(empty.database) in done.stdout
    assert {path.stat().st_mode & 0o777 for path in empty.database.parent.iterdir()} == {0o600}


def test_the_files_of_a_running_server_are_for_its_owner_alone(crm: Crm) -> None:
    post(crm, "repair-request", repair_request())
    files = list(crm.database.parent.iterdir())
    name = crm.database.name
    assert {name, f"{name}-wal", f"{name}-shm"} <= {path.name for path in files}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_the_queue_is_listed_oldest_first_with_every_state(crm: Crm) -> None:
    ids = [post(crm, "repair-request", repair_request()).json["id"] for _ in range(3)]
    assert crm.cli("approvals", "reject", ids[1], "--reason", "spam").returncode == 0
    rows = json.loads(crm.cli("approvals", "list", "--json").stdout)
    mine = [row for row in rows if row["id"] in ids]
    assert [row["id"] for row in mine] == ids
    assert [row["status"] for row in mine] == ["pending_approval", "rejected", "pending_approval"]
    assert [row["received_at"] for row in rows] == sorted(row["received_at"] for row in rows)
    only = json.loads(crm.cli("approvals", "list", "--json", "--status", "rejected").stdout)
    assert {row["status"] for row in only} == {"rejected"}


def test_a_listed_request_has_the_documented_keys_and_its_payload_as_json(crm: Crm) -> None:
    payload = customer_registration()
    receipt = post(crm, "customer-registration", payload, webhook_id="the-id", webhook_contract="1.0.0").json
    (row,) = [
        row for row in json.loads(crm.cli("approvals", "list", "--json").stdout) if row["id"] == receipt["id"]
    ]
    assert row["payload"] == payload
    assert (row["event"], row["webhook_id"], row["contract"]) == ("customer-registration", "the-id", "1.0.0")
    assert (row["natural_key"], row["status"]) == (receipt["natural_key"], "pending_approval")
    assert row["received_at"].endswith("Z")


def test_the_table_shows_no_personal_data(crm: Crm) -> None:
    receipt = post(crm, "repair-request", repair_request(customer__firstName="Sentinel-c0")).json
    table = crm.cli("approvals", "list").stdout
    assert receipt["id"] in table
    assert receipt["natural_key"] in table
    assert "Sentinel-c0" not in table
    assert "@" not in table


def test_an_empty_queue_is_an_empty_list(migrated: Crm) -> None:
    assert migrated.cli("approvals", "list", "--json").stdout == "[]\n"
    assert migrated.cli("approvals", "list").stdout.startswith("ID")


def test_a_long_list_is_printed_as_it_would_be_at_once_and_a_slow_reader_keeps_no_erased_bytes(
    own_crm: Crm,
) -> None:
    emails = [f"{number}@example.com" for number in range(250)]
    sent = [repair_request(customer__email=email, repair__notes="one\u2028two") for email in emails]
    ids = [post(own_crm, "repair-request", payload).json["id"] for payload in sent]
    listing = Program("crm_server", ["approvals", "list", "--json"], cwd=own_crm.directory, env=own_crm.env)
    assert listing.stdout is not None
    try:
        text = listing.stdout.read(1)  # it prints now, and the pipe does not hold all of it
        done = own_crm.cli("erase-person", "--email", emails[-1], "--yes")
        assert (done.returncode, done.stderr) == (0, "")
        for file in own_crm.database.parent.iterdir():
            assert emails[-1].encode() not in file.read_bytes()
        text += listing.stdout.read()
        assert listing.communicate(timeout=20) == ("", "")
    finally:
        listing.kill()
    rows = json.loads(text)
    assert text == json.dumps(rows, ensure_ascii=False, indent=2) + "\n"
    assert [row["id"] for row in rows] == ids
    assert [row["payload"] for row in rows] == [*sent[:-1], None]
    table = own_crm.cli("approvals", "list", "--status", "pending_approval").stdout
    assert [line.split()[0] for line in table.splitlines()] == ["ID", *ids[:-1]]


def test_what_is_not_there_cannot_be_decided(migrated: Crm) -> None:
    for command in (["approve", "no-such-id"], ["reject", "no-such-id", "--reason", "x"]):
        done = migrated.cli("approvals", *command)
        assert done.returncode == 1
        assert "no-such-id" in done.stderr


def test_a_rejection_needs_a_reason(crm: Crm) -> None:
    approval = post(crm, "repair-request", repair_request()).json["id"]
    assert crm.cli("approvals", "reject", approval).returncode == 2
    assert crm.cli("approvals", "reject", approval, "--reason", "").returncode == 2
    assert crm.cli("approvals", "reject", approval, "--reason", "  ").returncode == 2
    assert crm.cli("approvals", "reject", approval, "--reason", "-", stdin=" \n").returncode == 1
    done = crm.cli("approvals", "reject", approval, "--reason", "-", "--json", stdin="Sentinel reason\n")
    assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "rejected")
    (row,) = crm.rows("SELECT reason FROM rejection_reasons WHERE approval_id = ?", approval)
    assert row["reason"] == "Sentinel reason"


@pytest.mark.parametrize("reason", ["Sentinel" * 1000, "Sentinel \x1b[2J", "Sentinel\x00"])
def test_a_reason_is_one_that_the_staff_api_takes(crm: Crm, reason: str) -> None:
    approval = post(crm, "repair-request", repair_request()).json["id"]
    given = crm.cli("approvals", "reject", approval, "--reason", reason)
    read = crm.cli("approvals", "reject", approval, "--reason", "-", stdin=reason)
    assert (given.returncode, read.returncode) == (2, 1)
    assert read.stderr.startswith("crm-server: A rejection needs a reason, of at most 5,000 characters")
    assert "Sentinel" not in given.stderr + read.stderr
    longest = f"{'x' * 2500}\n{'y' * 2499}"
    done = crm.cli("approvals", "reject", approval, "--reason", "-", stdin=f"{longest}\n")
    assert done.returncode == 0, done.stderr
    (row,) = crm.rows("SELECT reason FROM rejection_reasons WHERE approval_id = ?", approval)
    assert row["reason"] == longest


def test_an_empty_customer_id_approves_nothing(crm: Crm) -> None:
    approval = post(crm, "repair-request", repair_request()).json["id"]
    assert crm.cli("approvals", "approve", approval, "--customer-id", "").returncode == 2
    (row,) = crm.rows("SELECT status FROM approvals WHERE id = ?", approval)
    assert row["status"] == "pending_approval"


@pytest.mark.parametrize("command", ["export-person", "erase-person"])
def test_what_is_no_address_is_wrong_usage(migrated: Crm, command: str) -> None:
    for given in ("", "Sentinel"):
        done = migrated.cli(command, "--email", given)
        assert done.returncode == 2
        assert "An e-mail address is wanted" in done.stderr
        assert "Sentinel" not in done.stderr
    for read in ("", "Sentinel\n", "-\n", "Sentinel@\0\n"):
        done = migrated.cli(command, "--email", "-", stdin=read)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "crm-server: An e-mail address is wanted: it has an @.\n"


LATIN = "Sentinel-ü".encode("latin-1")
ESCAPED = LATIN.decode(errors="surrogateescape")
"""As Python hands the bytes of an argument on."""


@pytest.mark.parametrize(
    "arguments",
    [
        ["approvals", "approve", ESCAPED],
        ["approvals", "reject", "x", "--reason", ESCAPED],
        ["staff", "add", ESCAPED, "--role", "viewer"],
        ["export-person", "--email", f"{ESCAPED}@example.com"],
        ["retire", ESCAPED],
        [ESCAPED],
    ],
    ids=lambda arguments: " ".join(arguments[:2]).replace(ESCAPED, "…"),
)
def test_an_argument_that_is_no_text_is_wrong_usage(migrated: Crm, arguments: list[str]) -> None:
    done = migrated.cli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("crm-server: error: an argument is not UTF-8\n")
    assert "Sentinel" not in done.stderr


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["approvals", "reject", "x", "--reason", "-"],
        ["export-person", "--email", "-"],
        ["erase-person", "--email", "-"],
        ["staff", "add", "Grace", "--role", "viewer", "--password-stdin"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_input_that_is_no_text_is_named(migrated: Crm, arguments: list[str], locale: str) -> None:
    done = subprocess.run(
        [*PROGRAM, *arguments],
        cwd=migrated.directory,
        env={**migrated.env, "LC_ALL": locale},
        input=LATIN + b"@example.com\n",
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"crm-server: Standard input is not UTF-8: convert it.\n"


def test_a_terminal_that_lacks_a_character_of_a_name_is_shown_its_number(migrated: Crm) -> None:
    added = migrated.cli(
        "staff", "add", "Zoë", "--role", "viewer", "--password-stdin", stdin="correct horse battery"
    )
    assert added.returncode == 0, added.stderr
    env = {**migrated.env, "PYTHONIOENCODING": "ascii"}
    command = [*PROGRAM, "staff", "list"]
    done = subprocess.run(
        command, cwd=migrated.directory, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Zo\\xeb" in done.stdout


def test_settings_that_are_no_text_are_named(migrated: Crm) -> None:
    (migrated.directory / ".env").write_bytes(b"WEBHOOK_API_KEY=" + LATIN)
    done = migrated.cli("approvals", "list")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "crm-server: .env is not UTF-8: save it as UTF-8.\n"


@pytest.mark.parametrize("made", [os.mkdir, partial(os.symlink, "nowhere")])
def test_settings_that_are_no_file_are_named(migrated: Crm, made: Callable[[Path], None]) -> None:
    made(migrated.directory / ".env")
    done = migrated.cli("approvals", "list")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("crm-server: .env is no file")


def test_ctrl_c_at_the_question_erases_nothing(crm: Crm) -> None:
    payload = repair_request(customer__email="interrupted@example.com")
    approval = post(crm, "repair-request", payload).json["id"]
    arguments = ["erase-person", "--email", "interrupted@example.com"]
    done = interrupt("crm_server", *arguments, cwd=crm.directory, env=crm.env, question="Type yes: ")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    (row,) = crm.rows("SELECT payload FROM approvals WHERE id = ?", approval)
    assert json.loads(row["payload"]) == payload


@pytest.mark.parametrize("error", ["KeyError", "OSError"])  # before Python 3.13, and since
def test_who_has_no_name_is_their_number_on_the_trail(migrated: Crm, error: str) -> None:
    program = (
        "import getpass, sys\n"
        "def getuser(): raise {}('No username set in the environment')\n"
        "getpass.getuser = getuser\n"
        "from crm_server.cli import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program.format(error), "staff", "add", "Grace", "--role", "viewer"],
        cwd=migrated.directory,
        env=migrated.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["actor"] for row in migrated.rows("SELECT actor FROM audit_trail")] == [
        f"cli:uid {os.getuid()}"
    ]


def test_an_error_of_the_system_that_names_no_file_is_shown_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cli, "load_settings", fail)
    assert cli.main(["migrate"]) == 1
    assert capsys.readouterr().err == f"crm-server: [Errno {errno.ENOSPC}] No space left on device\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["serve", "--port", "70000"], ["approvals"]])
def test_wrong_usage_exits_with_2(empty: Crm, arguments: list[str]) -> None:
    done = empty.cli(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage:")


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_a_file_without_a_name_is_wrong_usage(migrated: Crm, command: str) -> None:
    done = migrated.cli(command, "")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("argument FILE: A file's name is wanted.\n")


@pytest.mark.parametrize("command", [["--help"], ["serve", "--help"]])
def test_every_command_explains_itself(empty: Crm, command: list[str]) -> None:
    done = empty.cli(*command)
    assert done.returncode == 0
    assert "usage: crm-server" in done.stdout


def test_nothing_starts_on_a_database_that_is_not_there(empty: Crm) -> None:
    empty.env["WEBHOOK_API_KEY"] = "0123456789abcdef"
    for command in (["serve"], ["approvals", "list"], ["approvals", "approve", "x"]):
        done = empty.cli(*command)
        assert done.returncode == 1
        assert "crm-server migrate" in done.stderr
        assert "Traceback" not in done.stderr
    assert not empty.database.exists()


def test_nothing_starts_on_a_database_that_is_not_migrated(empty: Crm) -> None:
    empty.env["WEBHOOK_API_KEY"] = "0123456789abcdef"
    empty.database.parent.mkdir()
    sqlite3.connect(empty.database).close()
    for command in (["serve"], ["approvals", "list"]):
        done = empty.cli(*command)
        assert done.returncode == 1
        assert "crm-server migrate" in done.stderr


def test_a_database_of_a_newer_server_is_left_alone(migrated: Crm) -> None:
    connection = sqlite3.connect(migrated.database)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    for command in (["migrate"], ["approvals", "list"], ["backup", "crm.backup"]):
        done = migrated.cli(*command)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"crm-server: {migrated.database} is at step 9999, which is newer than this crm-server: install the newer"
            " release again, or go back to a backup of before the update. See docs/backup.md.\n"
        )


NOTED = "INSERT INTO release_uses VALUES ('1.900.0', '', '2026-11-27', 1, '2026-11-27T10:00:00.000000Z')"
JUST_CAME = "UPDATE approvals SET contract = '1.900.0'"


@ON_BOTH
@pytest.mark.parametrize("statement", [NOTED, JUST_CAME], ids=["noted", "just came"])
def test_a_database_with_events_of_a_newer_release_is_left_alone(
    statement: str, engine: str, tmp_path: Path
) -> None:
    with start_crm(tmp_path, engine=engine) as crm:
        assert crm.post("repair-request", repair_request()).status_code == 202
        crm.stop()
        backup = crm.directory / "crm.backup"
        crm.rows(statement)
        if engine == "sqlite":
            shutil.copy(crm.database, backup)
        where = crm.database if engine == "sqlite" else "The database"
        commands = [
            ["migrate"],
            ["serve"],
            ["approvals", "list"],
            ["export-person", "--email", "a@example.com"],
        ]
        commands += [["backup", "another.backup"], ["restore", "crm.backup"]] if engine == "sqlite" else []
        for command in commands:
            done = crm.cli(*command)
            named = backup if command[0] == "restore" else where
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr == (
                f"crm-server: {named} has events of the contract's release 1.900.0, which is newer than this"
                " crm-server: install the newer release again, or go back to a backup of before the update."
                " See docs/backup.md.\n"
            )


def test_a_place_where_no_database_can_be_is_named(empty: Crm) -> None:
    (empty.directory / "file").touch()
    empty.env["CRM_DATABASE_URL"] = "sqlite:///file/crm.sqlite3"
    done = empty.cli("migrate")
    assert done.returncode == 1
    assert str(empty.directory / "file") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_database_is_named_without_a_traceback(empty: Crm) -> None:
    empty.database.parent.mkdir()
    empty.database.write_text("no database, " * 500)
    for command in (["migrate"], ["approvals", "list"]):
        done = empty.cli(*command)
        assert done.returncode == 1
        assert done.stderr.startswith("crm-server: ")
        assert "Traceback" not in done.stderr


def test_the_server_does_not_start_without_a_key(migrated: Crm) -> None:
    done = migrated.cli("serve")
    assert done.returncode == 1
    assert "WEBHOOK_API_KEY" in done.stderr


def run_closed(crm: Crm, stream: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `crm-server` with a stream closed, as a shell writes it."""
    return subprocess.run(
        ["bash", "-c", f'exec "$0" -m crm_server "$@" {stream}', sys.executable, *command],
        cwd=crm.directory,
        env=crm.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_closed_standard_input_is_named(migrated: Crm) -> None:
    command = ["staff", "add", "Grace", "--role", "viewer", "--password-stdin"]
    done = run_closed(migrated, "<&-", *command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "crm-server: Standard input is closed, and something is to be read from it.\n"


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (">/dev/full", "crm-server: [Errno 28] No space left on device\n"),
        ("> >(exec sleep 0)", ""),  # whoever read it has seen enough
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_standard_output_that_takes_nothing_is_a_failure(
    migrated: Crm, unbuffered: str, stream: str, words: str
) -> None:
    migrated.env["PYTHONUNBUFFERED"] = unbuffered
    done = run_closed(migrated, stream, "staff", "list", "--json")
    assert (done.returncode, done.stderr) == (1, words)


@pytest.mark.parametrize(
    "command", [["audit", "--json"], ["audit", "--csv"], ["approvals", "list", "--json"]], ids=" ".join
)
def test_a_closed_standard_output_is_named(migrated: Crm, command: list[str]) -> None:
    done = run_closed(migrated, ">&-", *command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "crm-server: Standard output is closed, and all of this goes there.\n"
