"""How outbox, relay and CRM are: what `crm-sender status` prints, and the test of the way to the CRM."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from sqlalchemy import Engine

from generated.operations import CURRENT, WEBHOOKS
from sender import outbox
from sender.database import reading, time_of
from sender.deliveries import holds, shown
from sender.settings import SenderSettings
from sender.transport import Transport


def status_of(settings: SenderSettings, engine: Engine) -> dict[str, Any]:
    """Return the state of the integration: counts, relay, CRM; no personal data.

    Asks the CRM, for two seconds at most. Raises NotMigrated when the outbox is not there.
    """
    with reading(engine) as connection:
        outbox.outbox_id(connection)
        counts = outbox.counts(connection)
        relays, seen_at = outbox.running_relays(connection, time_of(connection, time.time), settings.lease)
        oldest = outbox.oldest_pending(connection)
        erasing_since, _ = outbox.erasing_since(connection)
        held = holds(connection)
        by_release = outbox.by_release(connection)
    with Transport(settings) as transport:
        health = transport.health()
    return {
        **asdict(counts),
        "crm": {
            "reachable": health.ok,
            "answer": health.words,
            "contract_versions": list(health.versions or ()),
            "deprecated": dict(health.deprecated),
            "url": settings.webhook_url,
        },
        "relay": {"running": relays > 0, "relays": relays, "seen_at": shown(seen_at)},
        "outbox": {
            "url": settings.shown_outbox,
            "oldest_pending": shown(oldest),
            "held_for": sorted({hold["held_for"] for hold in held}),
            "erasing_since": shown(erasing_since),
        },
        "holds": held,
        "releases": by_release,
        "contract": CURRENT,
    }


def test_integration(settings: SenderSettings) -> dict[str, Any]:
    """Try the way to the CRM with test webhooks, of which it stores nothing: `{ok, steps}`."""
    with Transport(settings) as transport:
        health = transport.health()
        steps = [{"step": "health", "ok": health.ok, "answer": health.words}]
        spoken = health.versions is not None and CURRENT in health.versions
        answer = f"contract {CURRENT} is {'spoken' if spoken else 'not spoken'}"
        steps.append({"step": "handshake", "ok": spoken, "answer": answer})
        for name, webhook in WEBHOOKS.items():
            passed, words = transport.probe(webhook.path)
            steps.append({"step": name, "ok": passed, "answer": words})
    return {"ok": all(step["ok"] for step in steps), "steps": steps}
