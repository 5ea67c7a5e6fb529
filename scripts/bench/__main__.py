"""Measure, print the table of ratios, and write table and plot under `var/bench/`."""

from __future__ import annotations

import argparse
import importlib
import sys

from scripts.bench.processes import ROOT
from scripts.bench.report import Measurement, Target, write

WORKS = (
    *("webhooks", "postgresql", "protection", "decisions", "staff"),
    *("parse", "enqueue", "relay", "latency", "million", "imports"),
)

BY_HAND = "by hand (FastAPI + SQLAlchemy)"
CEILING = "ceiling (parses the model only)"
TARGETS = [
    *(
        target
        for n in (8, 32)
        for target in (
            Target(f"webhooks, {n} connections", "rate", BY_HAND, 4, 8, True),
            Target(f"webhooks, {n} connections", "rate", CEILING, 0, 1 / 3, True),
            Target(f"webhooks, {n} connections", "p99", BY_HAND, 1, 1, False, "p50"),
        )
    ),
    *(Target(f"webhooks on PostgreSQL, {n} connections", "rate", BY_HAND, 3, 6, True) for n in (8, 32)),
    *(
        Target(f"protected webhooks, {n} connections", "rate", "the key alone", 0.8, 0.9, True)
        for n in (8, 32)
    ),
    Target("a decision under full load", "p99", "in quiet", 5, 3, False),
    *(
        target
        for engine in ("SQLite", "PostgreSQL")
        for target in (
            *(
                Target(f"{work} ({engine})", "ms", "a thousand", 2, 1.2, False)
                for work in ("a page of the queue", "a search", "a decision")
            ),
            Target(f"an exact count ({engine})", "ms", "a second", 1, 0.5, False),
        )
    ),
    # 20 µs and 12 µs where jsonschema took 197 and pydantic 61: ratios travel, microseconds do not.
    Target("parse, schema, model", "µs", "json + jsonschema", 20 / 197, 12 / 197, False),
    Target("parse, schema, model", "µs", "pydantic with EmailStr", 20 / 61, 12 / 61, False),
    Target("a booking's transaction", "µs", "bare booking", 2, 1.5, False),
    Target("a booking's transaction", "µs on top", "post inline with httpx", 1 / 5, 1 / 10, False),
    Target("relay", "deliveries/s", "bare httpx loop", 0.6, 0.8, True),
    Target("relay", "deliveries/s", "procrastinate + httpx", 3, 6, True),
    Target("relay on PostgreSQL", "deliveries/s", "bare httpx loop", 0.7, 0.9, True),
    Target("relay on PostgreSQL", "deliveries/s", "procrastinate + httpx", 4, 7, True),
    Target("commit to receipt at 50 events/s", "p99 ms", "one plain post", 5, 3, False),
    Target("commit to receipt at 50 events/s, on PostgreSQL", "p99 ms", "one plain post", 4, 3, False),
    *(
        Target(f"a million rows: {work}", "µs", "empty", 1.3, 1.1, False)
        for work in ("enqueue", "claim", "status", "dashboard", "webhook")
    ),
    *(
        Target(f"a million rows: {work} on PostgreSQL", "µs", "empty", 1.3, 1.1, False)
        for work in ("enqueue", "claim", "status")
    ),
    Target("import", "s", "httpx + SQLAlchemy + pydantic", 1.3, 1.1, False),
]


def main() -> int:
    """Run the benchmarks that are named, or all."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "works",
        nargs="*",
        metavar="WORK",
        help=f"which of {', '.join(WORKS)} (default: all)",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    options = parser.parse_args()
    found: list[Measurement] = []
    try:
        for work in options.works or WORKS:
            print(f"measuring {work} …", file=sys.stderr, flush=True)
            found += importlib.import_module(f"scripts.bench.{work}").measure(options.rounds, options.seconds)
    finally:
        if found:  # the failure of one work does not cost the others
            print(write(found, TARGETS, ROOT / "var" / "bench"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
