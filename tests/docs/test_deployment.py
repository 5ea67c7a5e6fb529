"""The systemd units and the containers start what there is, and it works as they say."""

from __future__ import annotations

import configparser
import ipaddress
import json
import shlex
import shutil
import subprocess
import sys
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from tests.docs.test_commands import PROGRAMS, Terminal, commands
from tests.end_to_end.chaos import wait_until
from tests.factories import repair_request
from tests.servers import KEY, ROOT

UNITS = sorted((ROOT / "docs" / "operating").glob("*.service"))
COMPOSE = ROOT / "compose.yaml"
CONTENT: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
SERVICES: dict[str, Any] = CONTENT["services"]


def read_unit(path: Path) -> configparser.ConfigParser:
    """Read a unit's sections; its names are case-sensitive."""
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(path.read_text())
    return unit


@pytest.mark.parametrize("path", UNITS, ids=[path.name for path in UNITS])
def test_a_unit_starts_a_command_that_there_is(path: Path) -> None:
    service = read_unit(path)["Service"]
    for name in ("ExecStartPre", "ExecStart"):
        program, command, *_ = shlex.split(service[name])
        assert program.startswith(f"{service['WorkingDirectory']}/.venv/bin/")
        assert command in commands(PROGRAMS[Path(program).name])
    # The website's bookings may be on PostgreSQL: systemd starts no unit of which a folder is missing, but for a dash.
    dash = "-" if Path(program).name == "crm-sender" else ""
    assert service["ReadWritePaths"] == f"{dash}{service['WorkingDirectory']}/var"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
@pytest.mark.parametrize("path", UNITS, ids=[path.name for path in UNITS])
def test_systemd_finds_no_fault_in_a_unit(path: Path, tmp_path: Path) -> None:
    folder = read_unit(path)["Service"]["WorkingDirectory"]
    text = path.read_text().replace(f"{folder}/.venv/bin/crm-", "/bin/true #crm-").replace("User=", "#User=")
    unit = tmp_path / path.name
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert [line for line in done.stderr.splitlines() if path.name in line] == []


def test_the_containers_are_what_compose_can_read() -> None:
    compose_spec.PyOptions(apply_merge=True).from_yaml(COMPOSE.read_text()).validate()


def test_containers_and_networks_have_the_guides_names() -> None:
    names = {service.get("container_name") for service in SERVICES.values()}
    assert {"crm_backend_dev", "revivatech_new_backend"} <= names
    assert {"crm-network", "revivatech-new-network"} <= set(CONTENT["networks"])
    assert SERVICES["crm"]["ports"] == ["127.0.0.1:5001:5001", "127.0.0.1:3001:3001"]
    assert SERVICES["revivatech-dashboard"]["ports"] == ["127.0.0.1:3010:3010"]
    assert "dashboard" in SERVICES["revivatech-dashboard"]["build"]["args"]["EXTRAS"]


def test_the_containers_meet_in_one_network_from_which_webhooks_may_come() -> None:
    crm, site = SERVICES["crm"], SERVICES["revivatech"]
    [shared] = set(crm["networks"]) & set(site["networks"])
    network = CONTENT["networks"][shared]
    assert network["internal"] is True
    allowed = [ipaddress.ip_network(n) for n in crm["environment"]["WEBHOOK_ALLOWED_NETWORKS"].split(",")]
    assert ipaddress.ip_network(network["ipam"]["config"][0]["subnet"]) in allowed
    gateway = CONTENT["networks"]["crm-network"]["ipam"]["config"][0]["gateway"]
    assert ipaddress.ip_network(gateway) in allowed
    assert crm["container_name"] in site["environment"]["CRM_WEBHOOK_URL"]
    [both] = [name for name in CONTENT["networks"] if sum(name in s["networks"] for s in (crm, site)) == 2]
    assert both == shared


def test_the_wheel_is_made_of_what_the_images_copy(tmp_path: Path) -> None:
    for line in SERVICES["crm"]["build"]["dockerfile_inline"].splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            *sources, target = line.split()[1:]
            for source in (ROOT / name for name in sources):
                there = tmp_path / target / (source.name if target == "./" else "")
                there.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if source.is_dir() else shutil.copy)(source, there)
    hatchling = Path(sys.executable).with_name("hatchling")
    done = subprocess.run(
        [hatchling, "build", "--target", "wheel"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [wheel] = (tmp_path / "dist").iterdir()
    assert zipfile.ZipFile(wheel).testzip() is None


def test_what_the_containers_run_delivers_an_event(tmp_path: Path) -> None:
    with ExitStack() as running:
        crm = container(tmp_path / "crm", running, "crm", WEBHOOK_API_KEY=KEY)
        site = container(tmp_path / "site", running, "revivatech", CRM_API_KEY=KEY)
        site.port = crm.port
        site.environment["CRM_WEBHOOK_URL"] = site.on_our_ports(site.environment["CRM_WEBHOOK_URL"])
        for side, service in ((crm, "crm"), (site, "revivatech")):
            side.type(shlex.join(SERVICES[f"{service}-migrate"]["command"]))
            side.leave_running(here(shlex.join(SERVICES[service]["command"])))
        wait_until(lambda: is_well(crm, "crm"), 30, "the CRM to be well")
        wait_until(lambda: is_well(site, "revivatech"), 30, "the relay to be well")
        site.write("event.json", json.dumps(repair_request()))
        site.leave_running(here(shlex.join([*SERVICES["revivatech-dashboard"]["command"], "--port", "3010"])))
        wait_until(lambda: is_well(site, "revivatech-dashboard"), 30, "the dashboard to be well")
        site.type("crm-sender enqueue repair-request event.json")
        wait_until(lambda: "repair-request" in crm.type("crm-server approvals list"), 20, "the request")


def container(folder: Path, running: ExitStack, service: str, **secrets: str) -> Terminal:
    """Return a shell with a service's environment, in a folder of which var/ is its volume."""
    folder.mkdir()
    side = Terminal(folder, running)
    given = {name: here(str(value)) for name, value in SERVICES[service].get("environment", {}).items()}
    side.environment |= given | secrets
    return side


def here(text: str) -> str:
    """Return a text with this machine's loopback in the place of the containers' addresses."""
    replaced = {"0.0.0.0": "127.0.0.1", "crm_backend_dev": "127.0.0.1", "10.201.50.0/29": "127.0.0.0/8"}
    for there, ours in replaced.items():
        text = text.replace(there, ours)
    return text


def is_well(side: Terminal, service: str) -> bool:
    """Say whether a service's health check passes."""
    kind, *words = SERVICES[service]["healthcheck"]["test"]
    line = words[0] if kind == "CMD-SHELL" else shlex.join(words)
    try:
        side.type(line)
    except AssertionError:
        return False
    return True
