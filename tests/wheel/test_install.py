"""The wheel, installed in empty environments as a user does it: the sender alone, then the CRM beside it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.contracts import GUIDE

ROOT = Path(__file__).resolve().parents[2]
KEY = "a-key-of-the-wheel-test-0123456789"

SITE_BEFORE = """
import json, os, pathlib
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

class Base(DeclarativeBase):
    pass

class Booking(Base):
    __tablename__ = "bookings"
    id: Mapped[str] = mapped_column(primary_key=True)

engine = create_engine(os.environ["CRM_OUTBOX_URL"])
Base.metadata.create_all(engine)
Session = sessionmaker(engine)
booking = Booking(id="booking_uuid")
given = json.loads(pathlib.Path(os.environ["GUIDE"], "repair-request.json").read_text())
"""


def readme_lines() -> str:
    """Return the booking code that the README shows first."""
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert found
    return found[1]


@dataclass
class Environment:
    """A virtual environment that holds our wheel, and a folder to work in."""

    bin: Path
    folder: Path

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment in the folder; return what it prints."""
        command = [str(self.bin / program), *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.variables(), text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def variables(self, **more: str) -> dict[str, str]:
        """Return the environment variables of a user who has set ours only."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CRM_", "WEBHOOK_", "PYTHON"))
        }
        ours = {
            "CRM_API_KEY": KEY,
            "CRM_DATABASE_URL": "sqlite:///crm.sqlite3",
            "CRM_OUTBOX_URL": "sqlite:///site.sqlite3",
            "GUIDE": str(GUIDE),
            "WEBHOOK_API_KEY": KEY,
        }
        return kept | ours | more


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel that `make build` makes."""
    folder = tmp_path_factory.mktemp("dist")
    hatchling = str(Path(sys.executable).with_name("hatchling"))
    subprocess.run(
        [hatchling, "build", "--target", "wheel", "--directory", str(folder)], cwd=ROOT, check=True
    )
    [wheel] = folder.iterdir()
    return wheel


def install(wheel: Path, extra: str, folder: Path) -> Environment:
    """Install a wheel in a new environment, with the releases of other packages that the lock names."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(re.findall(r"^[a-z0-9][^\\\n]*", lock, re.M)))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    # Compiled is what is imported, when it is.
    options = ["--quiet", "--no-compile", "--constraint", str(constraints)]
    done = pip(folder / "venv", "install", *options, f"{wheel}{extra}")
    assert done.returncode == 0, done.stderr
    return Environment(folder / "venv" / "bin", folder)


def pip(environment: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run our own pip on another environment."""
    command = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), *arguments]
    return subprocess.run(command, text=True, capture_output=True, check=False)


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Return an environment with the wheel and no extra, and a migrated outbox."""
    environment = install(wheel, "", tmp_path_factory.mktemp("alone"))
    environment.run("crm-sender", "migrate")
    return environment


@pytest.fixture(scope="module")
def crm(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Environment, str]]:
    """Return an environment with the extra `server`, and the address of its CRM."""
    environment = install(wheel, "[server]", tmp_path_factory.mktemp("crm"))
    environment.run("crm-server", "migrate")
    command = [str(environment.bin / "crm-server"), "serve", "--only", "webhooks", "--port", "0"]
    with subprocess.Popen(
        command, cwd=environment.folder, env=environment.variables(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            address = process.stdout.readline().split()[-1]
            yield environment, address
        finally:
            process.terminate()


@pytest.mark.long
def test_the_sender_alone_brings_no_web_framework(alone: Environment) -> None:
    installed = pip(alone.bin.parent, "list", "--format", "freeze").stdout
    assert "httpx==" in installed
    assert (
        re.findall(
            r"(?im)^(?:connexion|granian|starlette|flask|uvicorn|fastapi|jsonschema|pyyaml)==", installed
        )
        == []
    )


def test_the_readmes_lines_bring_a_booking_to_the_crm_of_another_environment(
    alone: Environment, crm: tuple[Environment, str]
) -> None:
    server, address = crm
    alone.run("python", "-c", SITE_BEFORE + readme_lines())
    [pending] = [json.loads(alone.run("crm-sender", "status", "--json"))["pending"]]
    assert pending == 1
    relay = subprocess.run(
        [str(alone.bin / "crm-sender"), "relay", "--drain"],
        cwd=alone.folder,
        env=alone.variables(CRM_WEBHOOK_URL=address),
        text=True,
        capture_output=True,
        check=False,
    )
    assert relay.returncode == 0, relay.stderr
    [approval] = json.loads(server.run("crm-server", "approvals", "list", "--json"))
    assert approval["payload"]["repair"]["websiteRepairId"] == "booking_uuid"
