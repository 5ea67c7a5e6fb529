"""Behind a site that passes some paths on, as Next.js does by `rewrites()`: a small proxy of that kind stands in."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.sender.integration.server import ADMIN, RETRY, STATUS, TEST, Server, start_server, type_of

BASE = "/crm"
PROXY, BESIDE = "127.0.0.1", "127.0.0.2"
"""The site passes on from the first; programs beside it ask from the second."""


def rewrites(target: Server) -> type[BaseHTTPRequestHandler]:
    """Return a site with `{source: "/crm/:path*", destination: "http://…/crm/:path*"}`.

    It appends to `X-Forwarded-For` and `-Proto`, and sets `-Host` where it is not set, as http-proxy does
    with `xfwd` and `changeOrigin`, which Next.js uses.
    """

    class Site(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            for name, value in [("for", self.client_address[0]), ("proto", "http")]:
                given = headers.get(f"x-forwarded-{name}")
                headers[f"x-forwarded-{name}"] = f"{given},{value}" if given else value
            headers.setdefault("x-forwarded-host", headers["host"])
            headers["host"] = f"127.0.0.1:{target.port}"
            onwards = http.client.HTTPConnection("127.0.0.1", target.port, timeout=20)
            onwards.request(self.command, self.path, body, headers)
            response = onwards.getresponse()
            content = response.read()
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name not in {"content-length", "date", "server"}:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            onwards.close()

        do_GET = do_POST = do_PATCH = answer

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Site


@contextmanager
def passing_on(target: Server) -> Iterator[str]:
    """Run the site; yield its address."""
    site = ThreadingHTTPServer(("127.0.0.1", 0), rewrites(target))
    thread = threading.Thread(target=site.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{site.server_port}"
    finally:
        site.shutdown()
        thread.join()
        site.server_close()


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a base path, behind a site that is trusted."""
    directory = tmp_path_factory.mktemp("behind")
    with start_server(directory, "--base-path", BASE, CRM_TRUSTED_PROXIES=PROXY) as started:
        started.address = started.address.removesuffix(BASE)
        yield started


@pytest.fixture(scope="module")
def site(behind: Server) -> Iterator[httpx.Client]:
    """A browser of somebody on the internet."""
    with passing_on(behind) as address, httpx.Client(base_url=address, trust_env=False) as client:
        yield client


def test_a_site_passes_on_the_pages_and_the_integration_api(site: httpx.Client) -> None:
    assert site.get(f"{BASE}{STATUS}").json()["failed"] == 0
    assert site.get(f"{BASE}/admin").status_code < 400
    assert site.post(f"{BASE}{TEST}").status_code == 401
    assert site.post(f"{BASE}{TEST}", headers=ADMIN).status_code == 200
    assert site.patch(f"{BASE}{RETRY}", headers=ADMIN).json() == {"retried": 0, "refused": 0}


@pytest.mark.parametrize(
    "path", ["/webhooks/health", "/webhooks/repair-request", "/metrics", "/static/x", "/"]
)
def test_a_site_passes_nothing_else_on(site: httpx.Client, behind: Server, path: str) -> None:
    for below in (f"{BASE}{path}", path, f"{BASE}{BASE}{path}"):
        answer = site.get(below)
        assert (answer.status_code, type_of(answer)) == (404, "not-found")
    # Whatever a proxy writes or leaves out: it is by its address that it is known.
    assert behind.ask("GET", path, source=PROXY).status_code == 404


def test_programs_beside_the_site_have_the_door_and_the_metrics_with_and_without_the_base_path(
    behind: Server,
) -> None:
    for base in ("", BASE):
        assert behind.ask("GET", f"{base}/metrics", source=BESIDE).status_code == 200
        assert behind.ask("GET", f"{base}/webhooks/health", source=BESIDE).status_code == 200
        assert behind.ask("GET", f"{base}{STATUS}", source=BESIDE).status_code == 200
    assert behind.ask("POST", "/webhooks/repair-request", source=BESIDE).status_code == 401


@pytest.mark.parametrize(
    ("source", "forwarded", "counts_for"),
    [
        (PROXY, "192.0.2.1", "192.0.2.1"),
        (PROXY, "192.0.2.2, 198.51.100.7", "198.51.100.7"),
        (PROXY, "198.51.100.8, 127.0.0.1", "198.51.100.8"),
        (PROXY, "2001:db8::1:2", "2001:db8::3:4"),
        (BESIDE, "192.0.2.9", "127.0.0.2"),
    ],
)
def test_wrong_tokens_count_for_whom_a_trusted_proxy_asks_for(
    behind: Server, source: str, forwarded: str, counts_for: str
) -> None:
    def guess(for_: str, of: str = source) -> int:
        given = {"x_forwarded_for": for_, "authorization": "Bearer guess"}
        return behind.ask("POST", TEST, source=of, **given).status_code

    assert [guess(forwarded) for _ in range(21)] == [401] * 20 + [429]
    assert guess(counts_for) == 429
    assert guess("203.0.113.9", PROXY) == 401
    assert behind.ask("POST", TEST, source=source, x_forwarded_for=forwarded, **ADMIN).status_code == 200


def test_a_base_path_that_is_none_is_wrong_usage(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="is not a path such as /crm"),
        start_server(tmp_path, "--base-path", "crm?"),
    ):
        pass
