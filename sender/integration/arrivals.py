"""Whence a request comes: the address behind trusted proxies, the path below the base path, and what a site passes on."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from sender.integration.observation import ID, ID_HEADER
from sender.integration.problems import Problem
from sender.settings import Network

PASSED_ON = ("/admin", "/api/crm/integration")
"""What a site passes on to us. The rest is for programs beside us, whatever a proxy lets through."""
REMEMBERED = 4096
"""Of so many addresses it is remembered whether they are proxies."""


class Arrivals:
    """Puts `scope["link.address"]`, and leaves path, scheme and Host as the client meant them.

    `X-Forwarded-For`, `-Proto`, `-Host` and `X-Request-Id` are believed only when the peer is a trusted
    proxy; `Forwarded` (RFC 7239) never is. `scope["root_path"]` is the base path, which paths may begin with.
    """

    def __init__(self, app: ASGIApp, *, proxies: Iterable[Network], base_path: str) -> None:
        """Wrap an app; `base_path` has no slash at its end."""
        self._app, self._base_path = app, base_path
        networks = tuple(proxies)
        self._is_proxy = lru_cache(REMEMBERED)(lambda address: is_in(address, networks))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or raise the 404 for what a site does not pass on, or the 400 for not one Host."""
        if scope["http_version"] == "1.1" and not names_one_host(scope["headers"]):
            # Of two, a proxy may have believed the other (RFC 9112, section 3.2).
            raise Problem("malformed-request", "Send one Host header (RFC 9112, section 3.2).")
        peer = scope["client"][0] if scope.get("client") else ""
        path = scope["path"]
        if self._base_path and is_below(self._base_path, path):
            path = path[len(self._base_path) :] or "/"
        arrived = {**scope, "path": path, "root_path": self._base_path, "link.address": peer}
        if self._is_proxy(peer):
            if not any(is_below(passed, path) for passed in PASSED_ON):
                detail = "This is not passed on behind a site (CRM_TRUSTED_PROXIES)."
                raise Problem("not-found", detail)
            self._believe(arrived)
        await self._app(arrived, receive, send)

    def _believe(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        scope["link.address"] = self._behind_proxies(scope)
        if first(headers.get(b"x-forwarded-proto")) == b"https":
            scope["scheme"] = "https"
        if host := first(headers.get(b"x-forwarded-host")):
            others = [(name, value) for name, value in scope["headers"] if name != b"host"]
            scope["headers"] = [*others, (b"host", host)]
        if ID.fullmatch(given := headers.get(ID_HEADER, b"")):
            scope["link.seen"].id = given.decode("ascii")

    def _behind_proxies(self, scope: Scope) -> str:
        """Return whom a proxy asks for: the rightmost address that is no trusted proxy.

        What stands left of it anybody could have written. Where what decides is no address, it is the proxy.
        """
        peer: str = scope["link.address"]
        lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        address = peer
        for hop in reversed(b",".join(lines).decode("latin-1").split(",") if lines else []):
            if read_address(hop.strip()) is None:
                return peer
            address = hop.strip()
            if not self._is_proxy(address):
                break
        return address


def names_one_host(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether there is one Host; where there is none, granian puts an empty one."""
    hosts = [value for name, value in headers if name == b"host"]
    return len(hosts) == 1 and bool(hosts[0])


def first(value: bytes | None) -> bytes:
    """Return the first of what proxies have appended to each other: the one nearest to the client.

    The client may have written it itself, and gains nothing: it is its own cookie and its own Origin that
    would not fit.
    """
    return (value or b"").partition(b",")[0].strip()


def is_below(prefix: str, path: str) -> bool:
    """Tell whether a path is a prefix or below it."""
    return path == prefix or path.startswith(f"{prefix}/")


def is_in(text: str, networks: Iterable[Network]) -> bool:
    """Tell whether an address is in one of some networks; what is no address is in none."""
    address = read_address(text)
    return address is not None and any(address in network for network in networks)


def read_address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address; an IPv4 one that is written as IPv6 (RFC 4291, section 2.5.5.2) is an IPv4 one."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def counted_as(text: str) -> str:
    """Return what an address is counted by; whoever has an IPv6 address has its /64."""
    address = read_address(text)
    return address.packed[:8].hex() if isinstance(address, IPv6Address) else str(address)
