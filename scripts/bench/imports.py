"""How long `import sender` takes."""

from __future__ import annotations

import subprocess
import sys
from time import perf_counter

from scripts.bench.processes import environment
from scripts.bench.report import Measurement

IMPORTS = {
    "ours": "import sender",
    "httpx + SQLAlchemy + pydantic": "import httpx, sqlalchemy, pydantic",
}


def measure(rounds: int, seconds: float) -> list[Measurement]:
    """Measure each import in a new process, in turn."""
    found = []
    for number in range(3 * rounds):
        for name, statement in IMPORTS.items():
            started = perf_counter()
            subprocess.run([sys.executable, "-c", statement], env=environment(), check=True)
            found.append(Measurement("import", name, "s", perf_counter() - started, number))
    return found
