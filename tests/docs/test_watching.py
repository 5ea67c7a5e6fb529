"""The alert rules and the board ask for metrics that there are, by labels and values that they have."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from generated.operations import WEBHOOKS
from sender import CRM, Relay, SenderSettings
from sender.database import open_engine
from sender.metrics import exposition
from tests.docs.documents import table
from tests.factories import repair_request
from tests.sender.engines import new_outbox
from tests.servers import ROOT, Crm, start_crm

FOLDER = ROOT / "docs" / "operating"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
BOARDS: dict[str, dict[str, Any]] = {
    path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("grafana*.json"))
}
OF_PROMETHEUS = {"up": {"job": {"crm", "crm-sender"}}}
"""What Prometheus itself adds: a series for each scrape, and job and instance to all."""

Series = dict[str, dict[str, set[str]]]


@pytest.fixture(scope="module")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A CRM that is sent what should wake somebody."""
    with start_crm(tmp_path_factory.mktemp("alerting")) as crm:
        yield crm


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Every metric of a server that has taken one event, and of a website with one that is held: labels, and values."""
    found: Series = defaultdict(lambda: defaultdict(set), {k: dict(v) for k, v in OF_PROMETHEUS.items()})
    with start_crm(tmp_path_factory.mktemp("watched")) as crm:
        assert crm.post("repair-request", repair_request()).status_code == 202
        pages = {"crm": httpx.get(f"http://127.0.0.1:{crm.port}/metrics").text}
        url = new_outbox("sqlite", tmp_path_factory.mktemp("website"))
        settings = SenderSettings(
            webhook_url=crm.url, outbox_url=url, api_key=SecretStr("wrong"), retry_schedule=(0.01,)
        )
        CRM(settings).repair_requested(repair_request())
        assert Relay(settings).run(drain=True).held == 1
        engine = open_engine(url)
        pages["crm-sender"] = exposition(engine, settings).decode()
        engine.dispose()
    for job, page in pages.items():
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                for name, value in (sample.labels | {"job": job, "instance": job}).items():
                    found[sample.name][name].add(value)
    return found


def selectors(text: str) -> Iterator[promql_parser.VectorSelector]:
    """Yield what an expression asks for. Raises ValueError for what is no PromQL."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(text.replace("$__rate_interval", "5m")), visit)
    yield from found


def require(expression: str, series: Series) -> None:
    """Hold an expression against the series that there are."""
    asked = list(selectors(expression))
    assert asked, expression
    for selector in asked:
        assert selector.name in series, expression
        for matcher in selector.matchers.matchers:
            known = series[str(selector.name)].get(matcher.name, set())
            wanted = set(matcher.value.split("|"))
            assert wanted <= known, f"{expression}: {matcher.name} has {sorted(known)}"


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_asks_for_what_there_is(rule: dict[str, Any], series: Series) -> None:
    require(rule["expr"], series)
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert re.fullmatch(r"[0-9]+[smhd]", rule.get("for", "0s"))
    assert rule["annotations"]["summary"]
    for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
        assert all(label in series[str(selector.name)] for selector in selectors(rule["expr"]))


def watched(alert: str, crm: Crm) -> float:
    """Return the sum of all samples of a CRM that an alert looks at now."""
    [rule] = [rule for rule in RULES if rule["alert"] == alert]
    page = list(text_string_to_metric_families(httpx.get(f"http://127.0.0.1:{crm.port}/metrics").text))
    return sum(
        sample.value
        for selector in selectors(rule["expr"])
        for family in page
        for sample in family.samples
        if sample.name == selector.name
        and all(fits(matcher, sample.labels[matcher.name]) for matcher in selector.matchers.matchers)
    )


def fits(matcher: promql_parser.Matcher, value: str) -> bool:
    """Tell whether Prometheus would say that a label's value is one that is asked for."""
    is_equal = re.fullmatch(matcher.value, value) if "Re" in str(matcher.op) else matcher.value == value
    return bool(is_equal) != ("Not" in str(matcher.op))


def test_silence_is_ended_by_an_event_and_not_by_a_test(crm: Crm) -> None:
    before = watched("CrmSilent", crm)
    assert crm.post("repair-request", repair_request(), headers={"webhook-test": "true"}).is_success
    assert watched("CrmSilent", crm) == before
    assert crm.post("repair-request", repair_request()).status_code == 202
    assert watched("CrmSilent", crm) == before + 1


@pytest.mark.parametrize("webhook", WEBHOOKS)
def test_no_webhook_is_slow_unseen(webhook: str, crm: Crm) -> None:
    before = watched("CrmSlow", crm)
    crm.post(webhook, {})
    assert watched("CrmSlow", crm) > before


def test_where_webhooks_are_named_all_of_them_are() -> None:
    expressions = [*(rule["expr"] for rule in RULES), *(target["expr"] for _, target in TARGETS)]
    named = [
        set(matcher.value.split("|"))
        for expression in expressions
        for selector in selectors(expression)
        for matcher in selector.matchers.matchers
        if matcher.name == "operation"
    ]
    assert named == [set(WEBHOOKS)] * 4


def test_whatever_fails_at_the_website_is_seen_here_as_refused(crm: Crm) -> None:
    known = repair_request()
    erased = repair_request(customer__email="erased@example.com", repair__customerEmail="erased@example.com")
    for payload in (known, erased):
        assert crm.post("repair-request", payload).status_code == 202
    assert crm.cli("erase-person", "--email", "erased@example.com", "--yes").returncode == 0
    known["repair"]["notes"] = erased["repair"]["notes"] = "other"
    refused: dict[str, Any] = {
        "invalid-event": {},
        "invalid-json": {"customer": "\0"},
        "conflict": known,
        "erased": erased,
        "content-too-large": " " * (1 << 20),
    }
    for type_, payload in refused.items():
        before = watched("CrmEventsRefused", crm)
        answer = crm.post("repair-request", payload).json()
        assert (answer["type"], watched("CrmEventsRefused", crm)) == (type_, before + 1)


def test_every_alert_is_explained() -> None:
    page = (ROOT / "docs" / "operating.md").read_text()
    assert [rule["alert"] for rule in RULES if f"`{rule['alert']}`" not in page] == []


TARGETS = [
    (panel["title"], target)
    for board in BOARDS.values()
    for panel in board["panels"]
    for target in panel["targets"]
]


@pytest.mark.parametrize(
    ("title", "target"), TARGETS, ids=[f"{title} {target['refId']}" for title, target in TARGETS]
)
def test_a_panel_shows_what_there_is(title: str, target: dict[str, str], series: Series) -> None:
    require(target["expr"], series)
    for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
        assert all(label in series[str(selector.name)] for selector in selectors(target["expr"])), title


def test_every_metric_of_ours_is_explained_and_no_other(series: Series) -> None:
    ours = {re.sub("_(bucket|sum|count|created)$", "", name) for name in series if name.startswith("crm_")}
    page = ROOT / "docs" / "operating.md"
    assert set(table(page, "metric")) | set(table(page, "metric of the website")) == ours


@pytest.mark.parametrize("board", BOARDS)
def test_no_panel_lies_over_another(board: str) -> None:
    taken = [
        (x, y)
        for panel in BOARDS[board]["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24


def test_prometheus_is_told_of_the_rules_and_of_the_ports() -> None:
    told = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert [Path(name).exists() or (FOLDER / name).exists() for name in told["rule_files"]] == [True]
    scrapes = {each["job_name"]: each["static_configs"] for each in told["scrape_configs"]}
    assert scrapes == {
        "crm": [{"targets": ["127.0.0.1:5001"]}],
        "crm-sender": [{"targets": ["127.0.0.1:3010"]}],
    }
