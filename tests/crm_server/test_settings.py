"""Settings: from the environment or `.env`, refused in one line that names the variable and no value."""

import json
import subprocess
from pathlib import Path

import pytest

from crm_server.errors import ConfigurationError
from crm_server.settings import load_settings
from tests.crm_server.answers import post
from tests.factories import repair_request
from tests.postgresql import shared_postgresql
from tests.servers import PROGRAM, Crm, clean_environment, start_crm


@pytest.fixture
def empty(tmp_path: Path) -> Crm:
    return Crm(tmp_path, clean_environment())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WEBHOOK_API_KEY", "secret-one-12345,,secret-two-12345"),
        ("WEBHOOK_API_KEY", "secret one 12345"),
        ("WEBHOOK_API_KEY", "sécret-one-12345"),
        ("WEBHOOK_MAX_BODY_BYTES", "secret"),
        ("CRM_DATABASE_URL", "mysql://user:secret@host/db"),
        ("CRM_DATABASE_URL", "sqlite:///:memory:"),
        ("CRM_DATABASE_URL", "postgresql://user:first@secret@127.0.0.1:1/crm"),
    ],
)
def test_a_wrong_setting_is_named_without_its_value(empty: Crm, name: str, value: str) -> None:
    empty.env[name] = value
    done = empty.cli("migrate")
    assert done.returncode == 1
    assert done.stderr.startswith(f"crm-server: {name}: ")
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr
    assert "sécret" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WEBHOOK_ALLOWED_NETWORKS", "10.0.0.0/8,secret"),
        ("WEBHOOK_ALLOWED_NETWORKS", "10.0.0.0/8,,10.1.0.0/16"),
        ("WEBHOOK_ALLOWED_NETWORKS", "10.0.0.1/8"),
        ("WEBHOOK_ALLOWED_NETWORKS", "2001:db8::/129"),
        ("CRM_TRUSTED_PROXIES", "secret.example"),
        ("WEBHOOK_RATE_LIMIT", "secret"),
        ("WEBHOOK_RATE_LIMIT", "100"),
        ("WEBHOOK_RATE_LIMIT", "0/second"),
        ("WEBHOOK_RATE_LIMIT", "10/second;100/minute"),
        ("WEBHOOK_AUTH_FAILURE_LIMIT", "-1/minute"),
        ("RATE_LIMIT_STORAGE_URL", "memcached://secret"),
        ("RATE_LIMIT_STORAGE_URL", "redis://:secret@host:port/0"),
        ("RATE_LIMIT_STORAGE_URL", "redis://:secret@host"),
        ("RATE_LIMIT_STORAGE_URL", "redis://host:6379/secret"),
        ("RATE_LIMIT_STORAGE_URL", "redis://host:6379/1/secret"),
        ("RATE_LIMIT_STORAGE_URL", "redis://host:6379/-1"),
        ("WEBHOOK_SIGNING_SECRET", "whsec_secret secret"),
        ("WEBHOOK_SIGNING_SECRET", "whsec_"),
        ("WEBHOOK_SIGNING_SECRET", "c2VjcmV0c2VjcmV0,"),
        ("WEBHOOK_SIGNING_SECRET", "not-base64-secret"),
    ],
)
def test_a_wrong_protection_stops_every_command_without_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert str(caught.value).startswith(f"{name}: ")
    assert "secret" not in str(caught.value)


def test_several_keys_are_right_at_once_so_that_they_rotate_without_a_gap(tmp_path: Path) -> None:
    with start_crm(tmp_path, WEBHOOK_API_KEY="the-old-key-0123456789,the-new-key-0123456789") as crm:
        for key, status in [
            ("the-old-key-0123456789", 202),
            ("the-new-key-0123456789", 202),
            ("the-old-key", 401),
        ]:
            answer = post(crm, "repair-request", repair_request(), authorization=f"Bearer {key}")
            assert answer.status == status
        both = "Bearer the-old-key-0123456789,the-new-key-0123456789"
        assert post(crm, "repair-request", repair_request(), authorization=both).status == 401


def test_a_short_key_is_warned_of_and_not_shown(tmp_path: Path) -> None:
    with start_crm(tmp_path, WEBHOOK_API_KEY="brief-key") as crm:
        assert "WEBHOOK_API_KEY" in crm.log
        assert "brief-key" not in crm.log


def test_a_short_signing_secret_is_warned_of_and_not_shown(empty: Crm) -> None:
    empty.env["WEBHOOK_SIGNING_SECRET"] = "whsec_c2VjcmV0"
    done = empty.cli("migrate")
    assert "WEBHOOK_SIGNING_SECRET" in done.stderr
    assert "c2VjcmV0" not in done.stderr


def start_alone(crm: Crm, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `crm-server` that makes its imports itself, in its directory first."""
    command = [*PROGRAM, *arguments]
    return subprocess.run(
        command, cwd=crm.directory, env=crm.env, capture_output=True, text=True, timeout=60, check=False
    )


def test_redis_without_its_driver_says_what_to_install(empty: Crm) -> None:
    empty.migrate()
    (empty.directory / "redis.py").write_text("raise ModuleNotFoundError")
    empty.env |= {"RATE_LIMIT_STORAGE_URL": "redis://127.0.0.1:6379", "WEBHOOK_API_KEY": "0123456789abcdef"}
    done = start_alone(empty, "serve", "--port", "0")
    assert done.returncode == 1
    assert done.stderr == "crm-server: RATE_LIMIT_STORAGE_URL needs a driver: install redis.\n"


def test_a_host_that_is_none_is_named(empty: Crm) -> None:
    empty.migrate()
    empty.env["WEBHOOK_API_KEY"] = "0123456789abcdef"
    done = empty.cli("serve", "--host", "ü..", "--port", "0")
    assert done.returncode == 1
    words = "Cannot listen on ü..:0: this is no host's name. Choose another with --port or --host."
    assert done.stderr == f"crm-server: {words}\n"


def test_an_option_that_redis_does_not_take_stops_the_start(empty: Crm) -> None:
    empty.migrate()
    url = "redis://:sentinel@127.0.0.1:6379/0?socket_timeout=sentinel"
    empty.env |= {"RATE_LIMIT_STORAGE_URL": url, "WEBHOOK_API_KEY": "0123456789abcdef"}
    done = empty.cli("serve", "--port", "0")
    assert (done.returncode, done.stderr) == (1, "crm-server: RATE_LIMIT_STORAGE_URL: is no Redis URL\n")


def test_the_largest_body_can_be_set(tmp_path: Path) -> None:
    with start_crm(tmp_path, WEBHOOK_MAX_BODY_BYTES="2000") as crm:
        payload = repair_request()
        assert post(crm, "repair-request", payload).status == 202
        answer = post(crm, "repair-request", json.dumps(payload).encode() + b" " * 2000)
        assert (answer.status, answer.json["detail"]) == (413, "The body may have at most 2000 bytes.")


def test_settings_are_read_from_env_in_the_working_directory_and_the_environment_wins(empty: Crm) -> None:
    (empty.directory / ".env").write_text("CRM_DATABASE_URL=sqlite:///from-file.sqlite3\nOTHER=1\n")
    empty.migrate()
    assert (empty.directory / "from-file.sqlite3").exists()
    empty.env["CRM_DATABASE_URL"] = "sqlite:///deeper/from-environment.sqlite3"
    empty.migrate()
    assert (empty.directory / "deeper" / "from-environment.sqlite3").exists()


def test_postgresql_without_its_driver_says_what_to_install(empty: Crm) -> None:
    (empty.directory / "psycopg.py").write_text("raise ModuleNotFoundError")
    empty.env["CRM_DATABASE_URL"] = "postgresql://someone:secret@127.0.0.1/crm"
    done = start_alone(empty, "migrate")
    assert done.returncode == 1
    assert done.stderr == "crm-server: PostgreSQL needs a driver: install psycopg[binary].\n"


def test_a_password_in_the_query_of_an_address_is_not_shown(empty: Crm) -> None:
    cluster = shared_postgresql()
    empty.env["CRM_DATABASE_URL"] = f"{cluster.url(cluster.create())}&password=sentinel"
    done = empty.cli("migrate")
    assert done.returncode == 0
    assert "sentinel" not in done.stdout + done.stderr


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
@pytest.mark.parametrize("command", [("migrate",), ("approvals", "list")])
def test_a_database_that_cannot_hold_every_name_is_refused(
    empty: Crm, encoding: str, command: tuple[str, ...]
) -> None:
    cluster = shared_postgresql()
    name = cluster.create(more=f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'")
    empty.env["CRM_DATABASE_URL"] = cluster.url(name)
    done = empty.cli(*command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"crm-server: The database's encoding is {encoding}, which cannot hold every text."
        " Create another: createdb --encoding UTF8 --template template0 NAME.\n"
    )


def test_what_the_client_would_speak_otherwise_is_utf8(empty: Crm) -> None:
    cluster = shared_postgresql()
    empty.env |= {"CRM_DATABASE_URL": cluster.url(cluster.create()), "PGCLIENTENCODING": "LATIN1"}
    empty.migrate()
    assert empty.cli("staff", "add", "Zoë €", "--role", "viewer").returncode == 0
    assert "Zoë €" in empty.cli("staff", "list").stdout


def test_a_relative_path_is_shown_as_an_absolute_one(empty: Crm) -> None:
    empty.env["CRM_DATABASE_URL"] = "sqlite:///here.sqlite3"
    assert str(empty.directory / "here.sqlite3") in empty.cli("migrate").stdout


def test_a_path_with_odd_characters_is_one_path(empty: Crm) -> None:
    empty.env["CRM_DATABASE_URL"] = "sqlite:///a b?c#d%20e.sqlite3".replace("?", "%3F").replace("#", "%23")
    done = empty.cli("migrate")
    assert done.returncode == 0, done.stderr
    assert empty.cli("approvals", "list").returncode == 0
