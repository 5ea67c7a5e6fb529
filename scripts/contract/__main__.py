"""Compare today's webhook contract with its releases: what changed, who would break, which number is due.

python -m scripts.contract

Exit code 0 when nobody breaks and `info.version` is the number that is due, 1 otherwise, 2 when it was used wrongly.
"""

from __future__ import annotations

import argparse
import sys

from scripts import documents
from scripts.contract.comparison import Comparison, Finding, compare
from scripts.generate import CONTRACT, ROOT, Contract, deprecations, released
from scripts.processes import Broken
from scripts.source import ContractError

SHOWN = CONTRACT.relative_to(ROOT)
REFUSED = (
    "v1 only grows: no number makes this fine. Leave what is there and add beside it, or begin another contract, "
    "openapi/webhooks/v2.yaml."
)


def main(argv: list[str] | None = None) -> int:
    """Print the comparison; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="contract", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(argv)
    try:
        today = documents.read(CONTRACT)
        return report(today["info"]["version"], against_releases(today))
    except (ContractError, Broken) as error:
        print(f"contract: {error}", file=sys.stderr)
        return 1


def against_releases(today: Contract) -> dict[str, Comparison]:
    """Compare today's contract with every accepted release; return it by release, oldest first.

    Raises ContractError when a released file was changed, or when what today's gives up is no release; Broken when
    Redocly's diff does not run.
    """
    releases = released()
    # Which raises. By no number, for today's may still bear the last release's, and give that one up.
    tuple(deprecations(releases | {"today": today}, "today"))
    compared = compare([(release, today) for release in releases.values()])
    return dict(zip(releases, compared, strict=True))


def report(version: str, comparisons: dict[str, Comparison]) -> int:
    """Print what changed, who breaks, and the number that is due; return 0 when all is well, else 1."""
    *older, last = comparisons
    tell(last, comparisons[last], comparisons[last].findings)
    for release in reversed(older):
        # What was refused since an older release was not refused by the last one, and need not be told twice.
        known = {finding.sentence for finding in comparisons[last].breaks}
        new = tuple(finding for finding in comparisons[release].breaks if finding.sentence not in known)
        if new:
            tell(release, comparisons[release], new)
    fault = fault_of(version, comparisons)
    if fault:
        print(f"\n{fault}", file=sys.stderr)
    else:
        print(f"\nNobody breaks. {SHOWN} is {version}, as is due.")
    return int(bool(fault))


def tell(release: str, comparison: Comparison, findings: tuple[Finding, ...]) -> None:
    """Print findings since a release, who breaks by them, and what would be refused."""
    print(f"Since {release}:" if findings else f"Nothing changed since {release}.")
    for finding in findings:
        print(f"  {'BREAK' if finding.breaks else finding.part:<7}{finding.sentence}")
        for side, why in finding.breaks.items():
            print(f"         {side}: {why}.")
    for proof in comparison.proofs:
        print(f"\nFor example, {proof}")
    for where in comparison.undecided:
        print(f"\nNot proved, but all examples passed: {where}.")


def fault_of(version: str, comparisons: dict[str, Comparison]) -> str | None:
    """Return why today's contract cannot bear its number, or None when it can."""
    last = list(comparisons)[-1]
    if any(comparison.breaks for comparison in comparisons.values()):
        return REFUSED
    due = comparisons[last].due(last)
    if version != due:
        return f"{SHOWN} says {version}; due is {due}. Set info.version to {due}."
    return None


if __name__ == "__main__":
    sys.exit(main())
