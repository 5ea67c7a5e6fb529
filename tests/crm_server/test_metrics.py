"""What `/metrics` says, asked of a real server by Prometheus' own reader of its format."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from crm_server.approval_queue import depths
from crm_server.database import Database
from crm_server.metrics import Counter, Histogram, Memory
from crm_server.webhook_keys import fingerprint
from tests.crm_server.answers import ask, post, send, until
from tests.crm_server.conftest import assert_nothing_private
from tests.factories import customer_registration, payment_status, repair_request
from tests.servers import KEY, NO_TLS, Crm, clean_environment, start_crm

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def page(crm: Crm) -> str:
    """Return what `/metrics` answers."""
    answer = httpx.get(f"http://127.0.0.1:{crm.port}/metrics", timeout=10, verify=NO_TLS)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return answer.text


def scrape(crm: Crm) -> Samples:
    """Return every number, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page(crm))
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    """A server with limits that can be reached, both doors open."""
    directory = tmp_path_factory.mktemp("counting")
    with start_crm(directory, only=None, WEBHOOK_AUTH_FAILURE_LIMIT="2/minute") as crm:
        yield crm
    assert_nothing_private(crm)


def test_what_becomes_of_events_is_counted(counting: Crm) -> None:
    first, other = repair_request(), repair_request()
    before = scrape(counting)
    assert post(counting, "repair-request", first).status == 202
    assert post(counting, "repair-request", first).status == 202
    first["repair"]["deviceType"] = "Another"
    assert post(counting, "repair-request", first).status == 409
    assert post(counting, "repair-request", other, webhook_test="true").status == 200
    after = scrape(counting)
    for outcome in ("accepted", "duplicate", "conflict", "test"):
        labels = {"event": "repair-request", "outcome": outcome}
        assert value(after, "crm_events_total", **labels) - value(before, "crm_events_total", **labels) == 1
    for digit, count in {"2xx": 3, "4xx": 1}.items():
        labels = {"operation": "repair-request", "code": digit}
        name = "crm_http_responses_total"
        assert value(after, name, **labels) - value(before, name, **labels) == count
    assert value(after, "crm_refused_total", type="conflict") == 1
    uses = "crm_key_uses_total"
    key = fingerprint(KEY)
    assert value(after, uses, key=key) - value(before, uses, key=key) == 4


def test_receipts_are_counted_by_their_operation_and_never_by_their_id(counting: Crm) -> None:
    before = scrape(counting)
    receipt = post(counting, "payment-status", payment_status()).json["id"]
    assert send(counting, "GET", f"/receipts/{receipt}").status == 200
    assert send(counting, "GET", "/receipts/Sentinel-none").status == 404
    after = scrape(counting)
    for digit in ("2xx", "4xx"):
        labels = {"operation": "receipt", "code": digit}
        name = "crm_http_responses_total"
        assert value(after, name, **labels) - value(before, name, **labels) == 1
    assert value(after, "crm_refused_total", type="unknown-receipt") == 1
    labels = {"event": "payment-status", "outcome": "accepted"}
    assert value(after, "crm_events_total", **labels) - value(before, "crm_events_total", **labels) == 1
    assert receipt not in page(counting) + counting.log


def test_commits_and_answers_are_timed(counting: Crm) -> None:
    before = scrape(counting)
    assert post(counting, "customer-registration", customer_registration()).status == 202
    after = scrape(counting)
    grown = {name: after[name] - before[name] for name in after if name in before}
    assert value(grown, "crm_commit_seconds_count") == 1
    assert 0 < value(grown, "crm_commit_seconds_sum") < 10
    assert value(grown, "crm_batch_size_sum") == 1
    assert value(grown, "crm_batch_size_bucket", le="1.0") == 1
    operation = {"operation": "customer-registration"}
    assert value(grown, "crm_http_request_seconds_count", **operation) == 1
    assert value(grown, "crm_http_request_seconds_bucket", le="+Inf", **operation) == 1


def test_too_many_wrong_keys_are_counted_as_refused_and_as_limited(counting: Crm) -> None:
    before = scrape(counting)
    statuses = [
        send(counting, "POST", "/repair-request", b"{}", authorization="Bearer wrong").status
        for _ in range(3)
    ]
    after = scrape(counting)
    assert statuses == [401, 401, 429]
    for name, labels, count in [
        ("crm_refused_total", {"type": "unauthorized"}, 2),
        ("crm_refused_total", {"type": "too-many-requests"}, 1),
        ("crm_rate_limited_total", {"limit": "failure"}, 1),
        ("crm_rate_limited_total", {"limit": "key"}, 0),
    ]:
        assert value(after, name, **labels) - value(before, name, **labels) == count


def test_the_queue_is_seen_by_event_and_state_and_by_its_oldest(counting: Crm, tmp_path: Path) -> None:
    with start_crm(tmp_path) as crm:
        assert value(scrape(crm), "crm_oldest_pending_seconds", event="repair-request") == 0
        assert post(crm, "repair-request", repair_request()).status == 202
        labels = {"event": "repair-request", "status": "pending_approval"}
        until(lambda: value(scrape(crm), "crm_approvals", **labels) == 1)
        samples = scrape(crm)
        assert value(samples, "crm_oldest_pending_seconds", event="repair-request") > 0
        assert value(samples, "crm_approvals", **labels | {"status": "approved"}) == 0


def test_the_queue_is_counted_no_further_than_lists_are(database: Database) -> None:
    add = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10500) INSERT INTO approvals"
        " (id, event, natural_key, contract, payload, digest, status, received_at)"
        " SELECT i, 'repair-request', i, '1.0.0', '{}', printf('%064d', i), 'pending_approval',"
        " '2026-01-01T00:00:00.000000Z' FROM n"
    )
    with database.writing() as connection:
        connection.exec_driver_sql(add)
    with database.reading() as connection:
        found = {(depth.event, depth.status): depth for depth in depths(connection)}
    pending = found["repair-request", "pending_approval"]
    assert (pending.count, pending.oldest) == (10_001, "2026-01-01T00:00:00.000000Z")
    assert found["customer-registration", "pending_approval"].count == 0


def test_a_key_has_an_age_once_it_was_used(counting: Crm) -> None:
    assert post(counting, "repair-request", repair_request()).status == 202
    key = fingerprint(KEY)
    until(lambda: value(scrape(counting), "crm_key_age_seconds", key=key) > 0)


def test_the_server_says_what_it_is_and_that_it_is_well(counting: Crm) -> None:
    samples = scrape(counting)
    assert value(samples, "crm_contract_info", release="1.0.0") == 1
    assert value(samples, "crm_healthy") == 1
    assert value(samples, "crm_committer_alive") == 1
    until(lambda: value(scrape(counting), "crm_waiting") == 0)  # the index waits for the committer, too
    assert [name for name, _ in samples if name == "crm_build_info"] == ["crm_build_info"]
    assert value(samples, "process_resident_memory_bytes") > 0


def test_staff_are_counted_by_operation_and_an_unknown_path_by_none(counting: Crm) -> None:
    unknown = {"operation": "unknown", "code": "4xx"}
    before = value(scrape(counting), "crm_http_responses_total", **unknown)
    path = "/approvals/ada-at-example.com"
    assert ask(counting, "wrong", "GET", path).status == 401
    assert httpx.get(f"http://127.0.0.1:{counting.port}/ada@example.com?q=Lovelace").status_code == 404
    samples = scrape(counting)
    assert value(samples, "crm_http_responses_total", operation="show-approval", code="4xx") == 1
    assert value(samples, "crm_http_responses_total", **unknown) == before + 1
    assert "ada" not in page(counting)


def test_nothing_but_get_is_answered(counting: Crm) -> None:
    answer = httpx.post(f"http://127.0.0.1:{counting.port}/metrics")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


def test_metrics_are_for_those_from_whom_webhooks_may_come(tmp_path: Path) -> None:
    with start_crm(tmp_path, WEBHOOK_ALLOWED_NETWORKS="10.0.0.0/8") as crm:
        assert httpx.get(f"http://127.0.0.1:{crm.port}/metrics").status_code == 403
        assert httpx.get(f"{crm.url}/health").status_code == 200


def test_metrics_are_answered_while_the_database_is_away(own_crm: Crm) -> None:
    assert ("crm_approvals", frozenset({("event", "repair-request"), ("status", "approved")})) in scrape(
        own_crm
    )
    own_crm.database.rename(own_crm.database.with_suffix(".gone"))
    until(lambda: value(scrape(own_crm), "crm_healthy") == 0)
    samples = until(lambda: found if not stored(found := scrape(own_crm)) else None)
    assert post(own_crm, "repair-request", repair_request()).status == 503
    samples = scrape(own_crm)
    assert value(samples, "crm_commit_failures_total") > 0
    assert value(samples, "crm_refused_total", type="unavailable") == 1


def stored(samples: Samples) -> list[str]:
    """Return the names of what only the database knows."""
    return [name for name, _ in samples if name in {"crm_approvals", "crm_key_age_seconds"}]


FORKED = """
import os
from crm_server.metrics import Counter, Histogram, Memory
memory = Memory(3)
counter, sizes = Counter(memory, ["a", "b"]), Histogram(memory, [1.0, 2.0])
for process in (1, 2):
    if not os.fork():
        memory.be(process)
        for _ in range(1000):
            counter.add("b")
        sizes.observe(process)
        os._exit(0)
counter.add("a")
os.wait(), os.wait()
print(dict(counter.totals()), sizes.totals())
"""


def test_processes_that_were_forked_are_counted_together() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED], env=clean_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str({"a": 1.0, "b": 2000.0}) + " " + str(
        ([("1.0", 1.0), ("2.0", 2.0), ("+Inf", 2.0)], 3.0)
    )


def test_a_label_that_was_not_named_cannot_come_up() -> None:
    counter = Counter(Memory(), ["known"])
    with pytest.raises(KeyError):
        counter.add("made up by whoever asks")


def test_a_value_is_counted_within_the_bound_that_it_meets() -> None:
    histogram = Histogram(Memory(), [1.0, 2.0])
    for number in (0.5, 1.0, 2.0, 2.5):
        histogram.observe(number)
    assert histogram.totals() == ([("1.0", 2.0), ("2.0", 3.0), ("+Inf", 4.0)], 6.0)
