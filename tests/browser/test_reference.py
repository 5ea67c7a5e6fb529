"""The reference of the contracts, built and opened as a person opens it: from the disk, without any network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from generated.operations import RELEASES
from scripts import reference
from tests.contract.contracts import contract, package_json

PAGES = [*(f"webhooks-{release}" for release in RELEASES), "approvals", "integration"]
QUIETLY = ("file:", "blob:", "data:")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built once."""
    folder = tmp_path_factory.mktemp("reference")
    assert reference.main(["--into", str(folder)]) == 0
    return folder


def test_there_is_a_page_for_each_contract_and_release_and_the_index_leads_to_it(folder: Path) -> None:
    built = {path.name for path in folder.iterdir()}
    linked = set(re.findall('href="([^"]+)"', (folder / "index.html").read_text()))
    assert linked == {f"{name}.html" for name in (*PAGES, "changes")} == built - {"index.html"}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_every_operation_and_fetches_nothing(folder: Path, chromium: Browser, name: str) -> None:
    _, _, release = name.partition("-")
    document = contract(release) if release else package_json(name, "openapi.json")
    page = chromium.new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((folder / f"{name}.html").as_uri())
    expect(page.get_by_role("heading", name=document["info"]["title"]).first).to_be_visible()
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    for operation in operations[:: max(1, len(operations) // 4)]:
        page.goto(f"{(folder / name).as_uri()}.html#/{operation['tags'][0]}/{operation['operationId']}")
        expect(page.get_by_role("heading", name=operation["summary"]).first).to_be_visible()
    assert [url for url in asked if not url.startswith(QUIETLY)] == []
    assert errors == []
    page.close()


def test_what_each_release_changed_is_told_as_make_contract_does(folder: Path, chromium: Browser) -> None:
    page = chromium.new_page()
    page.goto((folder / "changes.html").as_uri())
    shown = page.inner_text("main")
    assert "1.1.0, since 1.0.0" in shown
    assert "GET /receipts/{id} was added: What became of an event." in shown
    assert "`" not in shown
    page.close()
