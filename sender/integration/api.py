"""The integration API: how the whole is, the test of the way to the CRM, and failed deliveries sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from starlette.types import Scope

from generated.integration import RetryingFailed
from sender.deliveries import retry_matching
from sender.integration.contract import Answer, Handler
from sender.integration.site import Site
from sender.outbox import Failures

ACTOR = "api"
"""Who retries, on the trail: whoever has the admin token."""


def api_operations(site: Site) -> Mapping[str, Handler]:
    """Return the contract's operations, by operationId."""

    async def get_status(_: Scope) -> Answer:
        """Say how the whole is, to anybody: counts, and not where outbox and CRM are."""
        return Answer(200, without_addresses(await site.status.get()))

    async def test(_: Scope) -> Answer:
        """Try the way to the CRM; also when it is away that is an answer."""
        return Answer(200, await site.test.get())

    async def retry_failed(scope: Scope) -> Answer:
        """Put the failed deliveries that match back to pending."""
        wanted = failures_of(RetryingFailed.model_validate_json(scope["link.json"], by_alias=True))
        done = await asyncio.to_thread(retry_matching, site.engine, wanted, ACTOR)
        return Answer(200, {"retried": done.retried, "refused": len(done.refused)})

    return {"get-status": get_status, "test-integration": test, "retry-failed": retry_failed}


def without_addresses(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return a status without the addresses in it, which are nobody's business who has no token."""
    parts = {name: part for name, part in status.items() if isinstance(part, dict)}
    return {
        **status,
        **{name: {key: value for key, value in part.items() if key != "url"} for name, part in parts.items()},
    }


def failures_of(asked: RetryingFailed) -> Failures:
    """Return which failed deliveries are meant."""
    since: datetime | None = asked.since
    return Failures(
        event=asked.event,
        answer=asked.answer,
        since=since.timestamp() if since else None,
        ids=asked.ids,
        reference=asked.reference,
    )
