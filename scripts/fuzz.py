"""Throw what the contracts allow and forbid at real servers, the CRM's and the website's, with schemathesis.

python -m scripts.fuzz                                   the same requests each time, as CI does
python -m scripts.fuzz --seed random --max-examples 2000 search on
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts import documents
from scripts.documents import STAFF_CONTRACT
from scripts.generate import CONTRACT, INTEGRATION_CONTRACT, ROOT, with_property_names

SETTINGS = Path(__file__).with_name("schemathesis.toml")
STAFF_SETTINGS = Path(__file__).with_name("schemathesis_staff.toml")
INTEGRATION_SETTINGS = Path(__file__).with_name("schemathesis_integration.toml")
REPORTS = ROOT / "var" / "fuzz"
SEED_BITS = 32


def main(argv: list[str] | None = None) -> int:
    """Fuzz servers of our own; return 0 when they kept to the contracts, else 1."""
    parser = argparse.ArgumentParser(
        prog="fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--max-examples", type=int, default=40, help="per operation (default: %(default)s)")
    parser.add_argument("--seed", default="1", help="a number, or `random` (default: %(default)s)")
    options = parser.parse_args(argv)
    seed = secrets.randbits(SEED_BITS) if options.seed == "random" else int(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        key = secrets.token_hex()
        environment = os.environ | {
            "WEBHOOK_API_KEY": key,
            "WEBHOOK_CONTRACT": readable_contract()["info"]["version"],
            "CRM_API_KEY": key,
            "CRM_ADMIN_TOKEN": secrets.token_hex(),
            "CRM_OUTBOX_URL": f"sqlite:///{folder}/outbox.sqlite3",
            "CRM_DATABASE_URL": f"sqlite:///{folder}/crm.sqlite3",
            # Schemathesis asks as fast as it can, and without the key too.
            "WEBHOOK_RATE_LIMIT": "1000000/second",
            "WEBHOOK_AUTH_FAILURE_LIMIT": "1000000/second",
        }
        with (
            server(environment, Path(folder), log) as (webhooks, staff),
            dashboard(environment | {"CRM_WEBHOOK_URL": webhooks}, Path(folder), log) as site,
            ThreadPoolExecutor() as sides,
        ):

            def fuzz(contract: dict[str, Any], name: str, settings: Path, address: str, **secret: str) -> int:
                path = Path(folder) / f"{name}.json"
                path.write_text(json.dumps(contract))
                return schemathesis(path, settings, environment | secret, address, seed, options.max_examples)

            def fuzz_crm() -> int:
                code = fuzz(readable_contract(), "webhooks", SETTINGS, webhooks)
                # What the webhooks brought, staff now decide.
                token = staff_token(environment, Path(folder))
                contract = documents.read(STAFF_CONTRACT)
                return code | fuzz(contract, "staff", STAFF_SETTINGS, staff, STAFF_TOKEN=token)

            def fuzz_site() -> int:
                code = fuzz(readable_contract(), "door", SETTINGS, f"{site}/webhooks")
                contract = documents.read(INTEGRATION_CONTRACT)
                return code | fuzz(contract, "integration", INTEGRATION_SETTINGS, f"{site}/api/crm")

            codes = [side.result() for side in (sides.submit(fuzz_crm), sides.submit(fuzz_site))]
        return complaints(log) or max(codes)


@contextmanager
def server(environment: Mapping[str, str], folder: Path, log: Path) -> Iterator[tuple[str, str]]:
    """Run a migrated CRM server in a folder; yield the addresses of webhooks and staff API."""
    command = ["crm_server", "serve", "--port", "0", "--frontend-port", "0"]
    with running(command, 2, environment, folder, log) as (webhooks, pages):
        yield webhooks, f"{pages}api"


@contextmanager
def dashboard(environment: Mapping[str, str], folder: Path, log: Path) -> Iterator[str]:
    """Run the website's server on a migrated outbox in a folder; yield its address."""
    command = ["sender", "dashboard", "--port", "0"]
    with running(command, 1, environment, folder, log) as (pages,):
        yield pages.removesuffix("/admin")


@contextmanager
def running(
    command: list[str], count: int, environment: Mapping[str, str], folder: Path, log: Path
) -> Iterator[list[str]]:
    """Run a module's command, its database migrated, writing its log; yield the addresses that it prints.

    Raises subprocess.CalledProcessError when it cannot be migrated or does not start.
    """
    program, env = [sys.executable, "-m"], {**environment, "PYTHONPATH": str(ROOT)}
    with log.open("a") as file:
        subprocess.run([*program, command[0], "migrate"], cwd=folder, env=env, stdout=file, check=True)
        with subprocess.Popen(
            [*program, *command], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=file, text=True
        ) as process:
            try:
                assert process.stdout  # noqa: S101  (asked for by PIPE)
                lines = [process.stdout.readline() for _ in range(count)]
                if not all(lines):
                    raise subprocess.CalledProcessError(process.wait(), command, stderr=log.read_text())
                yield [line.split()[-1] for line in lines]
            finally:
                process.terminate()


def staff_token(environment: Mapping[str, str], folder: Path) -> str:
    """Add an administrator beside the running server; return a token of theirs."""
    program, path = [sys.executable, "-m", "crm_server", "staff"], {"PYTHONPATH": str(ROOT)}
    for arguments in (["add", "fuzz", "--role", "admin"], ["token", "fuzz"]):
        done = subprocess.run(
            [*program, *arguments],
            cwd=folder,
            env={**environment, **path},
            text=True,
            stdout=subprocess.PIPE,
            check=True,
        )
    return done.stdout.strip()


def readable_contract() -> dict[str, Any]:
    """Return the contract as OpenAPI 3.1, which has `propertyNames`: what else it says means the same there."""
    contract: dict[str, Any] = with_property_names(documents.read(CONTRACT))
    return contract | {"openapi": "3.1.0"}


def schemathesis(
    contract: Path,
    settings: Path,
    environment: Mapping[str, str],
    address: str,
    seed: int,
    max_examples: int,
) -> int:
    """Run schemathesis against a server; print what it says, and return its exit code."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    program = Path(sys.executable).with_name("schemathesis")
    options = {
        "--url": address,
        "--seed": seed,
        "--max-examples": max_examples,
        "--report-junit-path": REPORTS / f"{contract.stem}.xml",
    }
    command = [program, "--config-file", settings, "run", contract]
    line = [str(part) for part in (*command, *(word for option in options.items() for word in option))]
    done = subprocess.run(line, cwd=REPORTS, env=environment, text=True, stdout=subprocess.PIPE, check=False)
    print(done.stdout, flush=True)  # whole, for two run at once
    return done.returncode


def complaints(log: Path) -> int:
    """Print what the server's log holds of faults of its own; return 1 when there are any."""
    lines = log.read_text().splitlines()
    found = [line for line in lines if " ERROR " in line or " CRITICAL " in line or "Traceback" in line]
    if found:
        print("\nThe server complained in its log:", *lines[-50:], sep="\n", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
