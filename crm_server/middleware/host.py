"""A request names one host (RFC 9112, section 3.2): of two, a proxy may have believed the other."""

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from crm_server.problems import Problem


class OneHost:
    """Refuses a request without a Host, or with several; before HTTP/1.1 none is needed."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an app."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or raise the 400."""
        if scope["type"] == "http" and scope["http_version"] == "1.1" and not names_one(scope["headers"]):
            raise Problem("malformed-request", "Send one Host header (RFC 9112, section 3.2).")
        await self.app(scope, receive, send)


def names_one(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether there is one Host; where there is none, granian puts an empty one."""
    hosts = [value for name, value in headers if name == b"host"]
    return len(hosts) == 1 and bool(hosts[0])
