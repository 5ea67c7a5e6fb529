"""Build the reference of all contracts as static pages, which need no server and no network.

python -m scripts.reference              into var/reference/; open index.html there
python -m scripts.reference --into DIR   somewhere else

A page for each release of the webhooks' contract, one for the staff's API, one for the website's integration API,
and one of what each release changed, in the sentences of `make contract`. Exit code 0, or 1 when it cannot be built.
"""

from __future__ import annotations

import argparse
import html
import itertools
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts import documents, node
from scripts.contract.comparison import Comparison, compare
from scripts.contract.redocly import QUIET
from scripts.generate import CONTRACT, DOCUMENTS, ROOT, Contract, frozen_releases, load_contracts
from scripts.processes import Broken
from scripts.source import ContractError

FOLDER = ROOT / "var" / "reference"
PROGRAM = node.MODULES / "@redocly" / "cli" / "bin" / "cli.js"
OPTIONS = ("--inlineBundle", "--openapi.schemasExpansionLevel=all", "--openapi.hideDownloadButtons")
FROM_THE_NETWORK = ("https://cdn.redoc.ly/redoc/logo-mini-full.svg", "data:,")
"""All that the built page would fetch, the tool's own logo, and nothing in its place."""

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }}
code {{ overflow-wrap: anywhere }}
</style>
<main>
<h1>{title}</h1>
{body}
</main>
</html>
"""


def main(argv: list[str] | None = None) -> int:
    """Build the pages; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="reference", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, default=FOLDER, metavar="DIR", help="default: var/reference")
    options = parser.parse_args(argv)
    try:
        build(options.into)
    except (ContractError, Broken, node.NodeError) as error:
        print(f"reference: {error}", file=sys.stderr)
        return 1
    print(f"Built. Open {options.into / 'index.html'}")
    return 0


def build(folder: Path) -> None:
    """Write all pages into a folder. Raises ContractError, Broken or NodeError."""
    node.install()
    today = documents.read_all(DOCUMENTS)
    releases = load_contracts(today.pop(CONTRACT))
    contracts = {f"webhooks-{version}": contract for version, contract in reversed(releases.items())}
    contracts |= {path.stem: contract for path, contract in today.items()}
    pairs = list(itertools.pairwise(releases))
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:  # which wait for programs
        comparing = pool.submit(compare, [(releases[old], releases[new]) for old, new in pairs])
        pages = dict(zip(contracts, pool.map(reference, contracts.values()), strict=True))
    pages["changes"] = changes(dict(zip(pairs, comparing.result(), strict=True)))
    pages["index"] = index(contracts, frozenset(path.stem for path, _ in frozen_releases()))
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")


def reference(contract: Contract) -> str:
    """Return the page of one contract. Raises NodeError."""
    with tempfile.TemporaryDirectory() as name:
        document, page = Path(name, "contract.json"), Path(name, "page.html")
        document.write_text(json.dumps(contract), encoding="utf-8")
        arguments = ["build-docs", str(document), "--output", str(page), *OPTIONS]
        node.run(str(PROGRAM), *arguments, folder=Path(name), **QUIET)
        return page.read_text(encoding="utf-8").replace(*FROM_THE_NETWORK)


def changes(comparisons: Mapping[tuple[str, str], Comparison]) -> str:
    """Return the page of what each release changed, the newest first."""
    parts = []
    for (old, new), comparison in reversed(list(comparisons.items())):
        lines = "".join(f"<li>{as_html(finding.sentence)}</li>\n" for finding in comparison.findings)
        parts.append(f'<h2 id="{new}">{new}, since {old}</h2>\n<ul>\n{lines}</ul>')
    parts.append('<p><a href="index.html">All contracts</a></p>')
    return PAGE.format(title="What each release of the webhooks' contract changed", body="\n".join(parts))


def index(contracts: Mapping[str, Contract], released: frozenset[str]) -> str:
    """Return the page that leads to the others."""
    lines = []
    for name, contract in contracts.items():
        info = contract["info"]
        number = f" {info['version']}" if name.startswith("webhooks-") else ""
        state = "" if not number or info["version"] in released else " (not released yet)"
        lines.append(f'<li><a href="{name}.html">{html.escape(info["title"])}{number}</a>{state}</li>')
    lines.append('<li><a href="changes.html">What each release changed</a></li>')
    return PAGE.format(title="The contracts", body="<ul>\n" + "\n".join(lines) + "\n</ul>")


def as_html(sentence: str) -> str:
    """Return a sentence of `make contract` as HTML."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(sentence, quote=False))


if __name__ == "__main__":
    sys.exit(main())
