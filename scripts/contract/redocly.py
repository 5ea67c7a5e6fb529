"""Ask Redocly's diff, out of `node_modules`, what changed between documents."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import node
from scripts.generate import Contract
from scripts.processes import Broken

PROGRAM = node.MODULES / "@redocly" / "cli" / "lib" / "index.js"

QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}

DRIVER = """
import { pathToFileURL } from "node:url";
const [program, ...files] = process.argv.slice(1);
let asked = 0;
process.exit = () => {};
process.on("beforeExit", async () => {
    if (3 * asked === files.length) return;
    const [base, revision, report] = files.slice(3 * asked, 3 * asked + 3);
    process.argv = ["node", "redocly", "diff", base, revision, "--fail-on=none", "--format=json", "-o", report];
    await import(`${pathToFileURL(program).href}?${asked++}`);
});
"""
"""One Node for all: a new one takes half a second, another diff in it forty milliseconds."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference as Redocly sees it."""

    pointer: str
    """Where in the document, references followed."""
    kind: str
    """`added`, `removed` or `modified`."""
    property: str | None
    """What of it was modified."""
    impact: str
    """`major`, `minor` or `patch`, by Redocly's rules."""
    message: str | None
    """What its rule says, where one spoke."""
    base: Any
    revision: Any


def diff(pairs: Sequence[tuple[Contract, Contract]]) -> list[list[Change]]:
    """Return the changes from the first document to the second, for each pair. Raises Broken with the cure."""
    try:
        node.install()
    except node.NodeError as error:
        raise Broken(str(error)) from error
    with tempfile.TemporaryDirectory() as name:
        files = []
        for index, pair in enumerate(pairs):
            names = [Path(name, f"{index}-{what}.json") for what in ("base", "revision", "report")]
            for path, document in zip(names[:2], pair, strict=True):
                path.write_text(json.dumps(document), encoding="utf-8")
            files += names
        arguments = ["--input-type=module", "--eval", DRIVER, "--", str(PROGRAM), *map(str, files)]
        done = node.start(*arguments, folder=Path(name), **QUIET)
        reports = files[2::3]
        missing = [report for report in reports if not report.exists()]
        if missing:
            raise Broken("Redocly's diff gave no report:\n" + str(done.stderr))
        return [_changes(json.loads(report.read_text(encoding="utf-8"))) for report in reports]


def _changes(report: Any) -> list[Change]:
    return [
        Change(
            pointer=found["path"].removeprefix("#"),
            kind=found["kind"],
            property=found.get("property"),
            impact=found["impact"],
            message=" ".join(verdict["message"] for verdict in found["verdicts"]) or None,
            base=found.get("base", {}).get("value"),
            revision=found.get("revision", {}).get("value"),
        )
        for found in report["changes"]
    ]
