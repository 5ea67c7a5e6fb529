"""Throw what the contract allows and forbids at a real CRM server, with schemathesis.

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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from scripts.generate import CONTRACT, ROOT, with_property_names

SETTINGS = Path(__file__).with_name("schemathesis.toml")
REPORT = ROOT / "var" / "fuzz" / "junit.xml"
SEED_BITS = 32


def main(argv: list[str] | None = None) -> int:
    """Fuzz a server of our own; return 0 when it kept to the contract, else 1."""
    parser = argparse.ArgumentParser(
        prog="fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--max-examples", type=int, default=100, help="per operation (default: %(default)s)")
    parser.add_argument("--seed", default="1", help="a number, or `random` (default: %(default)s)")
    options = parser.parse_args(argv)
    seed = secrets.randbits(SEED_BITS) if options.seed == "random" else int(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        environment = os.environ | {
            "WEBHOOK_API_KEY": secrets.token_hex(),
            "CRM_DATABASE_URL": f"sqlite:///{folder}/crm.sqlite3",
            # Schemathesis asks as fast as it can, and without the key too.
            "WEBHOOK_RATE_LIMIT": "1000000/second",
            "WEBHOOK_AUTH_FAILURE_LIMIT": "1000000/second",
        }
        with server(environment, Path(folder), log) as address:
            contract = Path(folder) / "contract.json"
            contract.write_text(json.dumps(readable_contract()))
            code = schemathesis(contract, environment, address, seed, options.max_examples)
        return complaints(log) or code


@contextmanager
def server(environment: Mapping[str, str], folder: Path, log: Path) -> Iterator[str]:
    """Run a migrated CRM server in a folder, writing its log; yield the address of its webhooks.

    Raises subprocess.CalledProcessError when it cannot be migrated or does not start.
    """
    program = [sys.executable, "-m", "crm_server"]
    path = {"PYTHONPATH": str(ROOT)}
    with log.open("w") as file:
        subprocess.run(
            [*program, "migrate"], cwd=folder, env={**environment, **path}, stdout=file, check=True
        )
        command = [*program, "serve", "--only", "webhooks", "--port", "0"]
        with subprocess.Popen(
            command, cwd=folder, env={**environment, **path}, stdout=subprocess.PIPE, stderr=file, text=True
        ) as process:
            try:
                assert process.stdout  # noqa: S101  (asked for by PIPE)
                line = process.stdout.readline()
                if not line:
                    raise subprocess.CalledProcessError(process.wait(), command, stderr=log.read_text())
                yield line.split()[-1]
            finally:
                process.terminate()


def readable_contract() -> dict[str, Any]:
    """Return the contract as OpenAPI 3.1, which has `propertyNames`: what else it says means the same there."""
    contract: dict[str, Any] = with_property_names(yaml.safe_load(CONTRACT.read_bytes()))
    return contract | {"openapi": "3.1.0"}


def schemathesis(
    contract: Path, environment: Mapping[str, str], address: str, seed: int, max_examples: int
) -> int:
    """Run schemathesis against a server; return its exit code."""
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    program = Path(sys.executable).with_name("schemathesis")
    options = {
        "--url": address,
        "--seed": seed,
        "--max-examples": max_examples,
        "--report-junit-path": REPORT,
    }
    command = [program, "--config-file", SETTINGS, "run", contract]
    line = [str(part) for part in (*command, *(word for option in options.items() for word in option))]
    return subprocess.run(line, cwd=REPORT.parent, env=environment, check=False).returncode


def complaints(log: Path) -> int:
    """Print what the server's log holds of faults of its own; return 1 when there are any."""
    lines = log.read_text().splitlines()
    found = [line for line in lines if " ERROR " in line or " CRITICAL " in line or "Traceback" in line]
    if found:
        print("\nThe server complained in its log:", *lines[-50:], sep="\n", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
