"""Where webhooks may come from: the peer's address, or what a trusted proxy says of whom it asks for."""

import logging
from collections.abc import Iterator

import pytest

from crm_server.app import Part
from crm_server.cli import warn_if_exposed
from crm_server.settings import Settings
from tests.crm_server.answers import head, raw, webhook
from tests.factories import repair_request
from tests.servers import Crm, start_crm

SHOP = "127.0.0.2"
PROXY = "127.0.0.9"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server for one address of the shop, two networks of the internet, and two proxies."""
    networks = f"{SHOP}, ::ffff:10.0.0.0/104, 2001:db8::/32"
    with start_crm(
        tmp_path_factory.mktemp("guarded"),
        WEBHOOK_ALLOWED_NETWORKS=networks,
        CRM_TRUSTED_PROXIES="127.0.0.8/31",
    ) as crm:
        yield crm


@pytest.mark.parametrize(
    ("source", "lines", "status"),
    [
        (SHOP, [], 202),
        ("127.0.0.1", [], 403),
        ("127.0.0.1", ["X-Forwarded-For: 10.1.2.3"], 403),
        (SHOP, ["X-Forwarded-For: 192.0.2.1"], 202),
        (PROXY, [], 403),
        (PROXY, ["X-Forwarded-For: 10.1.2.3"], 202),
        (PROXY, ["X-Forwarded-For: 192.0.2.1"], 403),
        (PROXY, ["X-Forwarded-For: 10.1.2.3, 192.0.2.1"], 403),
        (PROXY, ["X-Forwarded-For: 192.0.2.1, 10.1.2.3"], 202),
        (PROXY, ["X-Forwarded-For: 192.0.2.1, 10.1.2.3,127.0.0.8"], 202),
        (PROXY, ["X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 10.1.2.3"], 202),
        (PROXY, ["X-Forwarded-For: 10.1.2.3", "X-Forwarded-For: 192.0.2.1"], 403),
        (PROXY, ["X-Forwarded-For: 2001:db8::7"], 202),
        (PROXY, ["X-Forwarded-For: 2001:db9::7"], 403),
        (PROXY, ["X-Forwarded-For: ::ffff:10.1.2.3"], 202),
        (PROXY, ["X-Forwarded-For: ::ffff:192.0.2.1"], 403),
        (PROXY, ["X-Forwarded-For: 10.1.2.3, nonsense"], 403),
        (PROXY, ["X-Forwarded-For: 10.1.2.3:4711"], 403),
        (PROXY, ["X-Forwarded-For: "], 403),
        (PROXY, ["X-Forwarded-For: 127.0.0.8"], 403),
        (PROXY, ["Forwarded: for=10.1.2.3"], 403),
    ],
)
def test_only_allowed_addresses_are_taken(guarded: Crm, source: str, lines: list[str], status: int) -> None:
    answer = raw(guarded, webhook(guarded, repair_request(), *lines), source=source)
    assert answer.status == status
    assert status == 202 or answer.type == "forbidden-network"


def test_health_is_open_to_every_address_and_nothing_else_is(guarded: Crm) -> None:
    assert raw(guarded, head(guarded, "GET", "/webhooks/health")).status == 200
    for method, path in [
        ("POST", "/webhooks/health"),
        ("GET", "/webhooks/health/"),
        ("GET", "/webhooks/nope"),
        ("GET", "/"),
    ]:
        assert raw(guarded, head(guarded, method, path)).status == 403


def test_a_forwarded_address_is_not_believed_where_no_proxy_is_trusted(tmp_path: object, crm: Crm) -> None:
    assert raw(crm, webhook(crm, repair_request(), "X-Forwarded-For: nonsense")).status == 202


@pytest.mark.parametrize(
    ("host", "networks", "warns"),
    [
        ("127.0.0.1", "", False),
        ("::1", "", False),
        ("0.0.0.0", "", True),
        ("::", "", True),
        ("192.0.2.1", "", True),
        ("fe80::1%eth0", "", True),
        ("0.0.0.0", "10.0.0.0/8", False),
    ],
)
@pytest.mark.parametrize(
    ("part", "name"), [("webhooks", "WEBHOOK_ALLOWED_NETWORKS"), ("staff", "STAFF_ALLOWED_NETWORKS")]
)
def test_a_listener_beyond_loopback_without_networks_is_warned_of(
    part: Part, name: str, host: str, networks: str, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings.model_validate({name: networks} if networks else {})
    with caplog.at_level(logging.WARNING):
        warn_if_exposed(part, host, settings)
    assert (name in caplog.text) == warns
    assert len(caplog.records) == warns
