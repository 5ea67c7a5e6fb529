"""From where: the sender's address, also behind trusted proxies, and the networks that it may be in."""

from collections.abc import Collection, Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from crm_server.problems import Problem
from crm_server.settings import Network

LONGEST = 64
"""Of an address; the zone of one (RFC 4007) could be of any length."""
remember = lru_cache(4096)
"""Of so many addresses it is remembered what was found: to read one costs as much as to check a key."""

Address = IPv4Address | IPv6Address


class Networks:
    """Puts the sender's address into `scope["crm.address"]`, and refuses one outside the allowed networks.

    `X-Forwarded-For` is believed only when the peer is a trusted proxy, and so is `X-Forwarded-Proto`, which
    makes the scheme `https`; `Forwarded` (RFC 7239) never is.
    Without allowed networks every address is taken.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        allowed: Collection[Network],
        proxies: Collection[Network],
        open_to_all: Collection[tuple[str, str]] = (),
    ) -> None:
        """Wrap an app; `open_to_all` are methods and paths that are answered to every address."""
        self.app = app
        self._open_to_all = frozenset(open_to_all)
        self._proxies = tuple(proxies)
        self._is_allowed = remember(lambda address: not allowed or is_in(address, allowed))
        self._is_proxy = remember(lambda address: is_in(address, self._proxies))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or raise the 403."""
        if scope["type"] == "http":
            peer = scope["client"][0] if scope.get("client") else ""
            address = peer
            if self._proxies and self._is_proxy(peer):
                address = self.behind_proxies(peer, scope)
                if dict(scope["headers"]).get(b"x-forwarded-proto") == b"https":
                    scope["scheme"] = "https"
            if not self._is_allowed(address) and (scope["method"], scope["path"]) not in self._open_to_all:
                detail = "This address is not in the networks that the CRM takes requests from."
                raise Problem("forbidden-network", detail)
            scope["crm.address"] = address[:LONGEST]
        await self.app(scope, receive, send)

    def behind_proxies(self, peer: str, scope: Scope) -> str:
        """Return whom a trusted proxy asks for: the rightmost address that is no trusted proxy.

        What stands left of it anybody could have written. Without the header, or when what decides is no
        address, it is the proxy itself.
        """
        lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        hops = [hop.strip() for hop in b",".join(lines).decode("latin-1").split(",")] if lines else []
        address = peer
        for hop in reversed(hops):
            if read_address(hop) is None:
                return peer
            address = hop
            if not self._is_proxy(hop):
                break
        return address


def is_in(text: str, networks: Iterable[Network]) -> bool:
    """Tell whether an address is in one of some networks; what is no address is in none."""
    address = read_address(text)
    return address is not None and any(address in network for network in networks)


def read_address(text: str) -> Address | None:
    """Read an address; an IPv4 one that is written as IPv6 (RFC 4291, section 2.5.5.2) is an IPv4 one."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def address_bytes(text: str) -> bytes:
    """Return what an address is counted by; whoever has an IPv6 address has its /64."""
    address = read_address(text)
    return address.packed[:8] if isinstance(address, IPv6Address) else str(address).encode()
