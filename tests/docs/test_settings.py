"""The settings that the README and .env.example name are the settings that there are, with their defaults."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crm_server.settings import Settings
from sender import SenderSettings
from tests.docs.documents import README, table
from tests.servers import ROOT

EXAMPLE = ROOT / ".env.example"

OF_THE_WEBSITE = {f"CRM_{name.upper()}" for name in SenderSettings.model_fields}
OF_THE_CRM = {str(field.alias) for field in Settings.model_fields.values()}


def documented(header: str) -> dict[str, str]:
    """Return each setting's default as the README shows it; an empty one where there is none."""
    return {
        name: "" if default == "none" else default.strip("`")
        for name, (default, _) in table(README, header).items()
    }


def exemplified() -> dict[str, str]:
    lines = EXAMPLE.read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def test_the_readme_names_every_setting_of_the_website() -> None:
    assert set(documented("the website's")) == OF_THE_WEBSITE


def test_the_readme_names_every_setting_of_the_crm() -> None:
    assert set(documented("the CRM's")) == OF_THE_CRM


def test_the_example_shows_what_the_readme_says() -> None:
    assert exemplified() == documented("the website's") | documented("the CRM's")


def test_the_defaults_are_those_that_are_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in OF_THE_WEBSITE | OF_THE_CRM:
        monkeypatch.delenv(name, raising=False)
    defaults = SenderSettings.read(), Settings()
    os.symlink(EXAMPLE, tmp_path / ".env")
    assert (SenderSettings.read(".env"), Settings()) == defaults
