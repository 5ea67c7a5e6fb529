"""The admin dashboard at `/admin`: server-rendered, complete without JavaScript, for who has the admin token."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from urllib.parse import parse_qs, urlencode

from sqlalchemy.exc import DBAPIError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from sender.database import words_of
from sender.errors import NotMigrated
from sender.integration import deliveries, overview
from sender.integration.rendering import page, refused, see_other, static_file
from sender.integration.sessions import COOKIE, is_csrf, is_own_origin
from sender.integration.visits import Page, Refusal, Site, Visit

log = logging.getLogger("crm_sender.dashboard")

LARGEST_FORM = 64 << 10
"""In bytes; a page of deliveries has a tenth of it."""
FORM_SECONDS = 10.0
MOST_FIELDS = 500
FORM = "application/x-www-form-urlencoded"
HOME = "/admin"


async def log_in_page(visit: Visit) -> Response:
    """Show the form."""
    return page(visit, "login.html", next=local(visit.request.query_params.get("next", "")), fault="")


async def log_out(visit: Visit) -> Response:
    """Log somebody out."""
    visit.site.sessions.end(visit.request.scope)
    response = see_other(visit, f"{HOME}/login")
    response.delete_cookie(COOKIE, path=visit.base or "/", httponly=True, samesite="lax")
    return response


class LogIn:
    """Lets somebody in by the admin token."""

    def __init__(self, token: str) -> None:
        """Remember what opens the door."""
        self._digest = hashlib.sha256(token.encode()).digest()

    async def __call__(self, visit: Visit) -> Response:
        """Log somebody in, and show what they wanted to see."""
        given = visit.field("token").encode("utf-8", "replace")
        wanted = local(visit.field("next"))
        if not hmac.compare_digest(hashlib.sha256(given).digest(), self._digest):
            log.warning("401 Unauthorized: a log-in on the dashboard")
            fault = "This is not the admin token: it is in CRM_ADMIN_TOKEN, where the dashboard was started."
            return page(visit, "login.html", HTTPStatus.FORBIDDEN, next=wanted, fault=fault)
        response = see_other(visit, wanted)
        response.set_cookie(
            COOKIE,
            visit.site.sessions.start(),
            path=visit.base or "/",
            secure=visit.request.scope["scheme"] == "https",
            httponly=True,
            samesite="lax",
        )
        return response


PAGES: tuple[Page, ...] = (
    Page("GET", "/static/{name}", static_file, is_open=True),
    Page("GET", "/login", log_in_page, is_open=True),
    Page("POST", "/logout", log_out),
    Page("GET", "", overview.show),
    Page("POST", "/test", overview.test),
    Page("GET", "/deliveries", deliveries.show_list),
    Page("POST", "/deliveries/search", deliveries.search),
    Page("POST", "/deliveries/retry", deliveries.retry_selected),
    Page("GET", "/deliveries/all", deliveries.show_all),
    Page("POST", "/deliveries/all", deliveries.retry_all),
    Page("GET", "/deliveries/all/{id}", deliveries.show_work),
    Page("GET", "/deliveries/{id}", deliveries.show_one),
    Page("POST", "/deliveries/{id}/retry", deliveries.retry_one),
    Page("POST", "/deliveries/{id}/close", deliveries.close_one),
    Page("GET", "/find", deliveries.ask),
    Page("POST", "/find", deliveries.find),
)
"""Every page, in the order in which paths are looked for; `POST /login` stands apart."""


class Dashboard:
    """The pages as an ASGI app."""

    def __init__(self, site: Site, token: str) -> None:
        """Prepare; `token` is the admin token."""
        self._site = site
        pages = [*PAGES, Page("POST", "/login", LogIn(token), is_open=True)]
        by_path = {page.path: [other for other in pages if other.path == page.path] for page in pages}
        routes = [
            Route(f"{HOME}{path}", self._answering(here), methods=[page.method for page in here])
            for path, here in by_path.items()
        ]
        self._router = Router(routes, redirect_slashes=False, default=self._nowhere)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._router(scope, receive, send)

    async def _nowhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        visit = Visit(request, self._site, {}, self._site.sessions.find(scope))
        response = refused(visit, Refusal(HTTPStatus.NOT_FOUND, "There is no such page."))
        await response(scope, receive, send)

    def _answering(self, pages: Iterable[Page]) -> Callable[[Request], Awaitable[Response]]:
        by_method = {page.method: page for page in pages}

        async def answer(request: Request) -> Response:
            found = self._site.sessions.find(request.scope)
            visit = Visit(request, self._site, {}, found)
            try:
                return await self._answer(by_method["GET" if request.method == "HEAD" else request.method], visit)
            except Refusal as refusal:
                return refused(visit, refusal)
            except DBAPIError as error:
                log.error("the outbox cannot be used: %s", words_of(error))
                return refused(visit, unavailable("The outbox's database cannot be used now. Try again."))
            except NotMigrated as error:
                return refused(visit, unavailable(f"{error}."))

        return answer

    async def _answer(self, page: Page, visit: Visit) -> Response:
        request = visit.request
        if visit.found is None and not page.is_open:
            return to_log_in(visit)
        if page.method == "GET":
            return await page.handler(visit)
        if not is_own_origin(request.scope):
            raise Refusal(
                HTTPStatus.FORBIDDEN,
                "The request does not come from a page of this server. Behind a proxy, pass on Host and"
                " X-Forwarded-Proto, and name the proxy in CRM_TRUSTED_PROXIES.",
            )
        form = await read_form(request)
        if visit.found and not page.is_open and not is_csrf(visit.found, "".join(form.get("csrf", []))):
            raise Refusal(
                HTTPStatus.FORBIDDEN, "The page was of another session. Open it again, and try once more."
            )
        return await page.handler(Visit(request, self._site, form, visit.found))


def unavailable(detail: str) -> Refusal:
    """Return the page for an outbox that cannot be used."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"retry-after": "1"})


def to_log_in(visit: Visit) -> Response:
    """Have somebody log in who must; then they are where they wanted to be."""
    if visit.request.method in {"GET", "HEAD"}:
        query = visit.request.url.query
        wanted = local(visit.request.scope["path"].removeprefix(visit.base) + (f"?{query}" if query else ""))
        return see_other(visit, f"{HOME}/login" + ("" if wanted == HOME else f"?{urlencode({'next': wanted})}"))
    response = page(visit, "session_over.html", HTTPStatus.UNAUTHORIZED)
    response.headers["www-authenticate"] = "Bearer"
    return response


def local(path: str) -> str:
    """Return a path of the dashboard, its front page for what leads anywhere else."""
    return path if re.fullmatch(r"/admin(?!/log|/static)[/?][!-\[\]-~]*", path) else HOME


async def read_form(request: Request) -> Mapping[str, list[str]]:
    """Return the fields of a form; refuse what is too large, too slow, or none."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send a form, as a browser does.")
    body = bytearray()
    try:
        async with asyncio.timeout(FORM_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > LARGEST_FORM:
                    raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The form is too large.", CLOSE)
        text = body.decode("ascii")
        form = parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
        if any("\0" in value for values in form.values() for value in values):
            raise ValueError  # PostgreSQL compares with none
    except TimeoutError:
        raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "The form did not come in time.", CLOSE) from None
    except (ValueError, ClientDisconnect):
        raise Refusal(HTTPStatus.BAD_REQUEST, "The form cannot be read.") from None
    return form


CLOSE = {"connection": "close"}
