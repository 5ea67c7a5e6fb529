"""What the page for Next.js sites shows compiles and does what it says."""

from __future__ import annotations

import json
import re
import shutil

from tests.docs.documents import Block, blocks
from tests.factories import repair_request
from tests.receiver import Receiver, problem
from tests.servers import KEY, ROOT
from tests.typescript.site import NAME, PACKAGE, Site

PAGE = ROOT / "docs" / "typescript.md"
EXAMPLE = "CRMIntegrationStatus.tsx"
TELL = """
import {{ readFileSync }} from "node:fs";
import {{ tell }} from "./{file}";
process.stdout.write(JSON.stringify(await tell(JSON.parse(readFileSync(0, "utf8")))));
"""


def test_what_the_page_and_the_readme_show_compiles(site: Site) -> None:
    shown = [write(site, block) for block in blocks(PAGE) if block.language in {"ts", "tsx"}]
    [readme] = re.findall(r"```ts\n(.*?)```", (PACKAGE / "README.md").read_text(), re.S)
    given = 'declare const event: import("revivatech-crm-link").RepairRequest;\n'
    (site.folder / "readme.ts").write_text(given + readme)
    (site.folder / "node.d.ts").write_text(
        "declare const process: { env: Record<string, string | undefined> };"
    )
    shutil.copy(site.folder / "node_modules" / NAME / "examples" / EXAMPLE, site.folder)
    done = site.check_types("node.d.ts", "readme.ts", EXAMPLE, *shown)
    assert done.stdout == ""
    assert done.returncode == 0
    assert len(shown) == 4


def write(site: Site, block: Block) -> str:
    """Put what a page shows into the site; return its name there."""
    assert block.file
    (site.folder / block.file).write_text(block.text)
    return block.file


def test_the_page_tells_of_a_booking_until_it_is_told_or_refused(site: Site, receiver: Receiver) -> None:
    [block] = [block for block in blocks(PAGE) if block.file == "tell.ts"]
    (site.folder / "telling.mjs").write_text(TELL.format(file=write(site, block)))
    environment = {"CRM_WEBHOOK_URL": receiver.url, "CRM_API_KEY": KEY, "CRM_RETRY_SCHEDULE": "0"}
    told = []
    for answer in (receiver.event, problem(400, "invalid-event"), problem(401, "unauthorized")):
        receiver.event = answer
        told.append(json.loads(site.run("telling.mjs", json.dumps(repair_request()), **environment)))
    assert told == [True, True, False]
