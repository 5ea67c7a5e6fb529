"""HTTP only: each handler parses, calls one function of the domain, and renders."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

from crm_server.approval_queue import ApprovalQueue


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is no problem: a status and a JSON value."""

    status: int
    content: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stream:
    """A long answer, which is a file to whoever asked."""

    media_type: str
    filename: str
    parts: AsyncIterator[bytes]


Handler = Callable[[ApprovalQueue, Scope], Awaitable[Answer | Stream]]
"""What answers an operation whose request has passed every check."""
