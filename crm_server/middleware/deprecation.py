"""Says in every answer to a webhook of a release that is given up, that it is (RFC 9745), and until when (RFC 8594)."""

import calendar
from collections.abc import Collection, Mapping
from datetime import date
from email.utils import formatdate

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from generated.operations import Deprecated

CONTRACT = b"webhook-contract"


class Deprecation:
    """Adds the headers; one app of these is made only where there is a release to tell of."""

    def __init__(self, app: ASGIApp, *, given_up: Mapping[str, Deprecated], paths: Collection[str]) -> None:
        """Wrap an app; `paths` are the webhooks'."""
        self.app, self._paths = app, frozenset(paths)
        self._headers = {release.encode(): headers(days) for release, days in given_up.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add to its answer."""
        named = [value for name, value in scope.get("headers", ()) if name == CONTRACT]
        if scope.get("path") not in self._paths or len(named) != 1 or named[0] not in self._headers:
            await self.app(scope, receive, send)
            return

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers[named[0]]]
            await send(message)

        await self.app(scope, receive, telling)


def headers(days: Deprecated) -> list[tuple[bytes, bytes]]:
    """Return the headers of a release; days begin at midnight UTC."""
    since = [(b"deprecation", f"@{seconds(days.since)}".encode())]
    return since + (
        [(b"sunset", formatdate(seconds(days.sunset), usegmt=True).encode())] if days.sunset else []
    )


def seconds(day: date) -> int:
    """Return when a day begins, in seconds since 1970."""
    return calendar.timegm(day.timetuple())
