"""The admin dashboard at `/admin`: server-rendered, complete without JavaScript, for who has the admin token."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from http import HTTPStatus
from urllib.parse import parse_qs, urlencode

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from sender.integration import deliveries, overview
from sender.integration.bodies import BODY_SECONDS, check_transfer_coding
from sender.integration.keys import digest
from sender.integration.problems import Problem, problem_of
from sender.integration.rendering import page, see_other, send_problem, static_file
from sender.integration.sessions import COOKIE, Session, is_csrf, is_own_origin
from sender.integration.site import Site
from sender.integration.visits import Memory, Page, Visit

log = logging.getLogger("crm_sender.dashboard")

LARGEST_FORM = 64 << 10
"""In bytes; a page of deliveries has a tenth of it."""
MOST_FIELDS = 500
FORM = "application/x-www-form-urlencoded"
HOME = "/admin"


async def log_in_page(visit: Visit) -> Response:
    """Show the form."""
    return page(visit, "login.html", next=local(visit.request.query_params.get("next", "")), fault="")


async def log_out(visit: Visit) -> Response:
    """Log somebody out."""
    visit.memory.sessions.end(visit.request.scope)
    response = see_other(visit, f"{HOME}/login")
    response.delete_cookie(COOKIE, path=visit.base or "/", httponly=True, samesite="lax")
    return response


async def log_in(visit: Visit) -> Response:
    """Log somebody in who has the admin token, and show what they wanted to see."""
    wanted, token = local(visit.field("next")), visit.site.settings.admin_token
    if token is None or not hmac.compare_digest(
        digest(visit.field("token").encode("utf-8", "replace")), digest(token.get_secret_value().encode())
    ):
        visit.site.failures.count(visit.request.scope["link.address"])
        log.warning("a log-in without the admin token")
        fault = "This is not the admin token. It is the CRM_ADMIN_TOKEN with which this was started."
        return page(visit, "login.html", HTTPStatus.FORBIDDEN, next=wanted, fault=fault)
    response = see_other(visit, wanted)
    response.set_cookie(
        COOKIE,
        visit.memory.sessions.start(),
        path=visit.base or "/",
        secure=visit.request.scope["scheme"] == "https",
        httponly=True,
        samesite="lax",
    )
    return response


PAGES: tuple[Page, ...] = (
    Page("GET", "/static/{name}", static_file, is_open=True),
    Page("GET", "/login", log_in_page, is_open=True),
    Page("POST", "/login", log_in, is_open=True),
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
"""Every page, in the order in which paths are looked for."""


class Dashboard:
    """The pages as an ASGI app; raises Problems when it has written them.

    `scope["root_path"]` is the base path, with which every link and form begins; `scope["link.address"]`
    is whose failures are counted, `scope["scheme"]` and Host are those of the browser.
    """

    def __init__(self, site: Site) -> None:
        """Prepare the pages."""
        self._site, self._memory = site, Memory()
        by_path = {page.path: [other for other in PAGES if other.path == page.path] for page in PAGES}
        routes = [
            Route(f"{HOME}{path}", self._answering(here), methods=[page.method for page in here])
            for path, here in by_path.items()
        ]
        self._router = Router(routes, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        scope["app"] = self  # has the router raise 404 and 405, not answer them
        scope["link.session"] = self._memory.sessions.find(scope)
        try:
            await self._router(scope, receive, send)
        except Exception as error:
            # Written here, where it is known whose page it is and where links go; drained further out.
            problem = problem_of(error)
            scope["link.seen"].problem = problem.type
            await send_problem(problem, scope, send)
            raise problem from None

    async def admits(self, scope: Scope) -> bool:
        """Say whether a request to the API comes from a page of ours, by somebody who has logged in.

        Raise the 403 when it comes from another page, or without the session's CSRF token.
        """
        session = self._memory.sessions.find(scope)
        if session is None:
            return False
        require_own_page(scope, session, Request(scope).headers.get("x-csrf-token", ""))
        return True

    def _answering(self, pages: Iterable[Page]) -> Callable[[Request], Awaitable[Response]]:
        by_method = {page.method: page for page in pages}

        async def answer(request: Request) -> Response:
            page = by_method["GET" if request.method == "HEAD" else request.method]
            visit = Visit(request, self._site, self._memory, {})
            session = request.scope["link.session"]
            if session is None and not page.is_open:
                return to_log_in(visit)
            if page.method == "GET":
                return await page.handler(visit)
            form = await read_form(request)
            if page.is_open:
                require_own_origin(request.scope)
            else:
                require_own_page(request.scope, session, "".join(form.get("csrf", [])))
            return await page.handler(replace(visit, form=form))

        return answer


def to_log_in(visit: Visit) -> Response:
    """Have somebody log in who must; then they are where they wanted to be."""
    if visit.request.method in {"GET", "HEAD"}:
        query = visit.request.url.query
        path = visit.request.scope["path"].removeprefix(visit.base)
        wanted = local(path + (f"?{query}" if query else ""))
        asking = "" if wanted == HOME else f"?{urlencode({'next': wanted})}"
        return see_other(visit, f"{HOME}/login{asking}")
    response = page(visit, "session_over.html", HTTPStatus.UNAUTHORIZED)
    response.headers["www-authenticate"] = "Bearer"
    return response


def local(path: str) -> str:
    """Return a path of the dashboard, its front page for what leads anywhere else."""
    return path if re.fullmatch(r"/admin(?!/log|/static)[/?][!-\[\]-~]*", path) else HOME


def require_own_origin(scope: Scope) -> None:
    """Raise the 403 unless a request that changes something comes from a page of this very server."""
    if not is_own_origin(scope):
        detail = (
            "The request does not come from a page of this server. Behind a site, let it pass on"
            " X-Forwarded-Host and X-Forwarded-Proto, and name it in CRM_TRUSTED_PROXIES."
        )
        raise Problem("forbidden", detail)


def require_own_page(scope: Scope, session: Session, csrf: str) -> None:
    """Raise the 403 unless a request comes from a page of this session."""
    require_own_origin(scope)
    if not is_csrf(session, csrf):
        raise Problem("forbidden", "The page was of another session. Open it again, and try once more.")


async def read_form(request: Request) -> Mapping[str, list[str]]:
    """Return the fields of a form; raise 400, 408, 413 and 415."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise Problem("unsupported-media-type", "Send a form, as a browser does.")
    check_transfer_coding(request.scope["headers"])
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > LARGEST_FORM:
                    raise Problem("content-too-large", f"A form may have at most {LARGEST_FORM} bytes.")
        text = body.decode("ascii")
        form = parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
        if any("\0" in value for values in form.values() for value in values):
            raise ValueError  # PostgreSQL compares nothing with it
    except (TimeoutError, ClientDisconnect):
        raise Problem("request-timeout", "The form did not come whole. Send it again.") from None
    except ValueError:
        raise Problem("malformed-request", "The form cannot be read.") from None
    return form
