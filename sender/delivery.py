"""A delivery's life: its states and transitions as a table, and what an answer means (pure).

pending → delivered   a receipt of this event
pending → pending     an answer of class retry, at the schedule's next delay
pending → held        the key, an address, a proxy or a release is wrong, not the event
held    → pending     a probe of the path passed, or the CRM speaks the release
pending → failed      an answer of class fail, or of class retry after the last delay
failed  → pending     retry
failed  → closed      close
pending, held, failed → erased
delivered, closed, failed → pending   enqueued again with resend
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Literal

from generated.operations import CURRENT, RELEASES, WEBHOOKS, Webhook
from generated.operations import Answer as Documented
from generated.operations import Delivery as DeliveryClass

Status = Literal["pending", "delivered", "failed", "held", "closed", "erased"]

TRANSITIONS: dict[Status, frozenset[Status]] = {
    "pending": frozenset({"pending", "delivered", "held", "failed", "erased"}),
    "held": frozenset({"pending", "erased"}),
    "failed": frozenset({"pending", "closed", "erased"}),
    "delivered": frozenset({"pending"}),
    "closed": frozenset({"pending"}),
    "erased": frozenset(),
}

SHORTEST_WAIT, LONGEST_WAIT = 1.0, 3600.0
"""Seconds that a Retry-After may ask for: none at all would make the relay hammer."""

JITTER = 0.1
"""The part of a delay by which it may grow, so that relays do not beat in time."""

RELEASE_PROBLEM = "unsupported-contract-version"


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event that a relay has leased."""

    id: str
    event: str
    contract: str
    natural_key: str
    order_key: str
    payload: str = field(repr=False)
    digest: str
    attempts: int
    """Those that counted so far."""
    held_by: int | None
    """The answer that held it before the last passed probe."""
    lease_token: str
    traceparent: str | None = None
    """The trace that it belongs to (W3C Trace Context)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read to a bound."""

    status: int
    content_type: str
    body: bytes = field(repr=False)
    retry_after: float | None = None
    """Seconds."""
    given_up: str | None = None
    """What it says of the release that was sent, in words, when that is deprecated (RFC 9745, RFC 8594)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """No answer: why not."""

    kind: Literal["refused", "timeout", "network"]
    words: str


Outcome = Answer | Fault


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an outcome means for its event, before time and attempts are looked at."""

    meaning: DeliveryClass
    words: str
    """In the integration guide's words: `401 Unauthorized`, `timeout`, `Connection refused`."""
    problem: dict[str, Any] | None = None
    """The problem document (RFC 9457), where the answer is one."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to record of an attempt."""

    status: Status
    words: str
    attempts: int
    due_in: float = 0.0
    """Seconds until the event is due again."""
    held_for: str | None = None
    """A webhook's path, or a contract release."""
    held_by: int | None = None
    """The answer's status, 0 for none: the same again after a passed probe is the event's own fault."""
    reason: str | None = None
    answer: str | None = None
    """What the CRM said, as JSON."""
    away: bool = False
    """The CRM is away: send nothing until it is back."""
    wait: float | None = None
    """The CRM asks the whole relay to wait, in seconds."""
    counted: bool = True
    receipt_id: str | None = None
    """The `id` of the CRM's receipt, by which it says what becomes of the event."""


def judge(outcome: Outcome, delivery: Delivery, webhook: Webhook) -> Judgement:
    """Say what an outcome means by the contract's `x-delivery`."""
    if isinstance(outcome, Fault):
        return Judgement("retry", outcome.words)
    words = status_words(outcome.status)
    if outcome.status == HTTPStatus.ACCEPTED and not is_receipt(outcome, delivery):
        return Judgement("retry", f"{words}, but not this event's receipt")
    problem = read_problem(outcome)
    documented = webhook.answers.get(outcome.status)
    if outcome.status < 300:
        return Judgement("delivered" if outcome.status == HTTPStatus.ACCEPTED else "retry", words)
    if outcome.status >= 500 or outcome.status in {408, 425, 429}:
        return Judgement("retry", words, problem)
    if problem is None or documented is None:
        return Judgement("hold", words)
    return Judgement(meaning_of(documented, problem), words, problem)


def meaning_of(documented: Documented, problem: dict[str, Any]) -> DeliveryClass:
    """Return the class of a documented problem."""
    return documented.by_type.get(str(problem.get("type")), documented.default)


def decide(
    outcome: Outcome,
    delivery: Delivery,
    webhook: Webhook,
    *,
    healthy: bool,
    schedule: Sequence[float],
    wait_when_away: bool,
    jitter: float,
) -> Decision:
    """Return what to record of an attempt.

    `healthy`: whether, right after this answer, the CRM was well: its health after one of class retry
    (a 429 says that it is), a test of the path after the answer that had held the event before.
    `jitter`: between 0 and 1, how much of `JITTER` to add to the delay.
    """
    judgement = judge(outcome, delivery, webhook)
    attempts = delivery.attempts + 1
    if judgement.meaning == "delivered":
        return Decision("delivered", judgement.words, attempts, receipt_id=receipt_id_of(outcome))
    answer = answer_of(outcome, judgement, delivery)
    if judgement.meaning == "hold" and isinstance(outcome, Answer):
        if delivery.held_by == outcome.status and healthy and not is_of_release(judgement):
            reason = f"{judgement.words}, though a test of {webhook.path} passes"
            return Decision("failed", judgement.words, attempts, reason=reason, answer=answer)
        return _hold(outcome.status, judgement, delivery, webhook, answer)
    if judgement.meaning == "fail":
        return Decision("failed", judgement.words, attempts, reason=judgement.words, answer=answer)

    wait = asked_to_wait(outcome)
    if not healthy and wait_when_away:
        return Decision("pending", judgement.words, delivery.attempts, away=True, wait=wait, counted=False)
    if wait is not None and healthy:
        return Decision("pending", judgement.words, delivery.attempts, wait=wait, counted=False)
    if attempts > len(schedule):
        return Decision("failed", judgement.words, attempts, reason=judgement.words, answer=answer)
    due_in = schedule[attempts - 1] * (1 + JITTER * jitter)
    return Decision("pending", judgement.words, attempts, due_in=max(due_in, wait or 0.0))


def _hold(status: int, judgement: Judgement, delivery: Delivery, webhook: Webhook, answer: str) -> Decision:
    if is_of_release(judgement):
        return hold_for_release(delivery, judgement.words)
    cause = cause_of(webhook.path, status, str((judgement.problem or {}).get("type")))
    return Decision(
        "held",
        judgement.words,
        delivery.attempts,
        held_for=webhook.path,
        held_by=status,
        reason=f"{judgement.words}: {cause.what}; {cause.cure}",
        answer=answer,
        counted=False,
    )


def is_of_release(judgement: Judgement) -> bool:
    """Say whether the CRM refuses a contract release, and no event."""
    return judgement.problem is not None and judgement.problem.get("type") == RELEASE_PROBLEM


def hold_for_release(delivery: Delivery, words: str = "release not spoken") -> Decision:
    """Return the decision for an event whose contract release the CRM does not speak."""
    cause = cause_of(delivery.contract)
    return Decision(
        "held",
        words,
        delivery.attempts,
        held_for=delivery.contract,
        reason=f"{cause.what}: {cause.cure}",
        counted=False,
    )


def hold_for_sender(delivery: Delivery) -> Decision:
    """Return the decision for an event whose webhook only a newer sender knows, as after a step back."""
    cause = cause_of(delivery.event)
    return Decision(
        "held",
        "webhook not known here",
        delivery.attempts,
        held_for=delivery.event,
        reason=f"{cause.what}: {cause.cure}",
        counted=False,
    )


def give_up_damaged(delivery: Delivery) -> Decision:
    """Return the decision for an event whose payload is no longer the one that was committed."""
    reason = "its payload in the outbox is damaged; restore the outbox from a backup, or send it anew and close this"
    return Decision("failed", "damaged payload", delivery.attempts, reason=reason, counted=False)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why events are held."""

    waits_for: str
    """What they wait for, in a word or two."""
    what: str
    cure: str


_KEY = Cause(
    "the key",
    "the CRM refuses the key or the signature",
    "check CRM_API_KEY and the CRM's WEBHOOK_API_KEY; where webhooks are signed, the secrets too",
)
_SIGNATURE = Cause(
    "the signature",
    "the CRM refuses the signature",
    "check CRM_SIGNING_SECRET and the CRM's WEBHOOK_SIGNING_SECRET, and both clocks",
)
_NETWORK = Cause(
    "the network",
    "the CRM does not take webhooks from this address",
    "check its WEBHOOK_ALLOWED_NETWORKS",
)
_PATH = Cause("the path", "the path is wrong, or a proxy answers", "check CRM_WEBHOOK_URL")
_LOOP = Cause(
    "the path",
    "the outbox's own door answers, not the CRM",
    "check CRM_WEBHOOK_URL: it names the CRM's webhooks",
)
_STRANGER = Cause(
    "the CRM's own answer",
    "something other than the CRM answers",
    "check CRM_WEBHOOK_URL and what stands before the CRM",
)
_CAUSES = {401: _KEY, 403: _NETWORK, 404: _PATH, 405: _PATH}
_OF_PROBLEMS = {"delivery-loop": _LOOP, "invalid-signature": _SIGNATURE}


def is_path(waited_for: str) -> bool:
    """Say whether held events wait for a webhook's path, not for a release or a newer sender."""
    return waited_for.startswith("/")


def stops_all(waited_for: str) -> bool:
    """Say whether nothing is sent meanwhile: a path that only a newer sender knows, as after a step back, is its own."""
    return waited_for in _PATHS


_PATHS = {webhook.path for webhook in WEBHOOKS.values()}


def is_webhook(waited_for: str) -> bool:
    """Say whether held events wait for a sender that knows their webhook; a release begins with a digit."""
    return waited_for[:1].isalpha()


def cause_of(held_for: str, held_by: int | None = None, problem: str | None = None) -> Cause:
    """Return why events are held, by what they wait for, and for a path by the answer's status and problem type."""
    if is_webhook(held_for):
        return Cause(
            "a newer sender", f"this sender does not know the webhook {held_for}", "update the sender"
        )
    if not is_path(held_for):
        # A CRM speaks every older release, until it is told not to.
        cures = ["update the CRM"] if held_for == CURRENT or held_for not in RELEASES else []
        if held_for in RELEASES:
            cures.append(f"have it accepted again: crm-server unretire {held_for}")
        cure = ", or where that speaks newer releases only ".join(cures)
        return Cause(f"contract {held_for}", f"the CRM does not speak contract {held_for}", cure)
    if cause := _OF_PROBLEMS.get(str(problem)):
        return cause
    status = held_by or 0
    return _PATH if 300 <= status < 400 else _CAUSES.get(status, _STRANGER)


def is_receipt(answer: Answer, delivery: Delivery) -> bool:
    """Say whether an answer is the CRM's receipt for this very event."""
    receipt = read_json(answer)
    return (
        receipt is not None
        and receipt.get("status") == "pending_approval"
        and receipt.get("natural_key") == delivery.natural_key
        and receipt.get("digest") == delivery.digest
    )


_RECEIPT_ID = re.compile("[A-Za-z0-9._-]{1,128}")
"""What the contract can ask about; it stands in a URL, and on an operator's terminal."""


def receipt_id_of(outcome: Outcome) -> str | None:
    """Return the id of a receipt, None where nothing could be asked by it."""
    receipt = read_json(outcome) if isinstance(outcome, Answer) else None
    receipt_id = (receipt or {}).get("id")
    return receipt_id if isinstance(receipt_id, str) and _RECEIPT_ID.fullmatch(receipt_id) else None


def read_problem(answer: Answer) -> dict[str, Any] | None:
    """Return an answer's problem document (RFC 9457), or None where it is something else."""
    media_type = answer.content_type.partition(";")[0].strip().lower()
    problem = read_json(answer) if media_type == "application/problem+json" else None
    if problem is None or problem.get("status") != answer.status:
        return None
    # "about:blank" says no more than the status (RFC 9457, section 4.2.1): a proxy's, for ours name their type.
    return problem if problem.get("type", "about:blank") != "about:blank" else None


def read_json(answer: Answer) -> dict[str, Any] | None:
    """Return an answer's JSON object, or None where it is something else."""
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def is_busy(outcome: Outcome) -> bool:
    """Say whether the CRM is well, and only wants fewer requests."""
    return isinstance(outcome, Answer) and outcome.status == HTTPStatus.TOO_MANY_REQUESTS


def asked_to_wait(outcome: Outcome) -> float | None:
    """Return the seconds for which the CRM asks the whole relay to wait, or None."""
    if not isinstance(outcome, Answer):
        return None
    if outcome.status == HTTPStatus.TOO_MANY_REQUESTS:
        return outcome.retry_after or SHORTEST_WAIT
    return outcome.retry_after if outcome.status == HTTPStatus.SERVICE_UNAVAILABLE else None


def read_retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, section 10.2.3), within bounds; None without one.

    Where it is neither form it still asks for patience: the shortest.
    """
    if value is None:
        return None
    try:
        seconds = float(value) if value.isascii() and value.isdigit() else _until(value, now)
    except (ValueError, OverflowError):
        return SHORTEST_WAIT
    return min(max(seconds, SHORTEST_WAIT), LONGEST_WAIT)


def read_given_up(deprecation: str | None, sunset: str | None) -> str | None:
    """Return since when a release should no longer be sent, and until when it may be, in words; None if it may."""
    if deprecation is None or not re.fullmatch("@[0-9]{1,11}", deprecation):
        return None
    words = f"should no longer be sent from {_day(float(deprecation[1:]))} on"
    try:
        return f"{words}, and may be refused from {_day(_until(sunset, 0.0))}" if sunset else words
    except (ValueError, OverflowError):
        return words


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _until(date: str, now: float) -> float:
    return parsedate_to_datetime(date).timestamp() - now


def status_words(status: int) -> str:
    """Return a status as the guide writes it: `401 Unauthorized`."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


_POINTER = re.compile(r"(/[A-Za-z0-9_-]{1,64}){1,8}|#webhook-[a-z]{1,16}")
"""What a pointer to a field or a header looks like; anything else may be a value."""


def answer_of(outcome: Outcome, judgement: Judgement, delivery: Delivery) -> str:
    """Return what to keep of an answer: status, type, the pointers at fault, the release; never a value."""
    if isinstance(outcome, Fault):
        return json.dumps({"fault": outcome.words, "contract": delivery.contract})
    problem = judgement.problem or {}
    kept: dict[str, Any] = {"status": outcome.status, "contract": delivery.contract}
    if isinstance(problem.get("type"), str):
        kept["type"] = problem["type"][:64]
    if isinstance(problem.get("errors"), list):
        kept["pointers"] = _pointers_of(problem["errors"])
    if isinstance(problem.get("existing"), dict):
        kept["existing"] = {key: str(problem["existing"].get(key, ""))[:64] for key in ("id", "event")}
    return json.dumps(kept)


def _pointers_of(faults: Sequence[Any]) -> list[str]:
    pointers = [fault.get("pointer") for fault in faults if isinstance(fault, dict)]
    return [at for at in pointers if isinstance(at, str) and _POINTER.fullmatch(at)][:100]


def read_answer(kept: str | None) -> dict[str, Any] | None:
    """Return what was kept of an answer: `{status | fault, contract, type?, pointers?, existing?}`."""
    if kept is None:
        return None
    answer: dict[str, Any] = json.loads(kept)
    if told := answer.pop("errors", None):
        # So the first releases kept the CRM's faults, with words that may be the customer's.
        answer["pointers"] = _pointers_of(told)
    return answer
