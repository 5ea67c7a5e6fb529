"""The staff pages: server-rendered, complete without JavaScript, and by the same domain as the staff API."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from urllib.parse import parse_qs

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route, Router
from starlette.types import Receive, Scope, Send

from crm_server.approval_queue import ApprovalQueue
from crm_server.frontend import (
    approvals,
    audit,
    bulk_decisions,
    front_page,
    keys,
    people,
    records,
    staff,
)
from crm_server.frontend.login import LogIn, log_in_page, log_out, to_log_in
from crm_server.frontend.rendering import static_file
from crm_server.frontend.visits import Page, Visit
from crm_server.middleware.bodies import Bodies, Hurry, check_transfer_coding, content_length
from crm_server.middleware.rate_limit import Limit
from crm_server.middleware.sessions import SAFE_METHODS, require_csrf, require_own_origin
from crm_server.problems import Problem

LARGEST_FORM = 64 << 10
"""In bytes; a page of requests with a reason has a fifth of it."""
MOST_FIELDS = 500
FORM = b"application/x-www-form-urlencoded"

PAGES: tuple[Page, ...] = (
    Page("GET", "/static/{name}", static_file, None),
    Page("GET", "/login", log_in_page, None),
    Page("POST", "/logout", log_out, "viewer"),
    Page("GET", "/", front_page.show, "viewer"),
    Page("GET", "/approvals", approvals.list_requests, "viewer"),
    Page("GET", "/approvals/arrived", approvals.arrived, "viewer"),
    Page("POST", "/approvals/search", approvals.search_requests, "viewer"),
    Page("POST", "/approvals/decide", approvals.decide_selected, "approver"),
    Page("GET", bulk_decisions.PATH, bulk_decisions.show_preview, "approver"),
    Page("POST", bulk_decisions.PATH, bulk_decisions.decide_all, "approver"),
    Page("GET", f"{bulk_decisions.PATH}/{{id}}", bulk_decisions.show_job, "approver"),
    Page("GET", "/approvals/{id}", approvals.show_request, "viewer"),
    Page("POST", "/approvals/{id}/approve", approvals.approve, "approver"),
    Page("POST", "/approvals/{id}/reject", approvals.reject, "approver"),
    Page("POST", "/approvals/{id}/reopen", approvals.reopen, "approver"),
    Page("GET", "/customers", records.list_customers, "viewer"),
    Page("GET", "/customers/{id}", records.show_customer, "viewer"),
    Page("POST", "/customers/{id}/corrections", records.correct_customer, "approver"),
    Page("GET", "/tickets", records.list_tickets, "viewer"),
    Page("GET", "/tickets/{id}", records.show_ticket, "viewer"),
    Page("POST", "/tickets/{id}/status", records.move_ticket, "approver"),
    Page("POST", "/tickets/{id}/notes", records.add_note, "approver"),
    Page("POST", "/tickets/{id}/corrections", records.correct_ticket, "approver"),
    Page("GET", "/tickets/{id}/job-sheet", records.job_sheet, "viewer"),
    Page("GET", "/audit", audit.list_audit, "viewer"),
    Page("GET", "/staff", staff.list_staff, "admin"),
    Page("POST", "/staff/add", staff.add, "admin"),
    Page("POST", "/staff/role", staff.set_role, "admin"),
    Page("POST", "/staff/password", staff.set_password, "admin"),
    Page("POST", "/staff/token", staff.make_token, "admin"),
    Page("POST", "/staff/revoke", staff.revoke, "admin"),
    Page("POST", "/staff/disable", staff.disable, "admin"),
    Page("GET", "/people", people.ask, "admin"),
    Page("POST", "/people", people.find, "admin"),
    Page("POST", "/people/export", people.export, "admin"),
    Page("POST", "/people/erase", people.erase, "admin"),
    Page("GET", "/keys", keys.list_webhook_keys, "admin"),
)
"""Every page and what it needs, in the order in which paths are looked for; `POST /login` stands apart."""


class Pages:
    """The pages as an ASGI app; raises Problems. It needs `scope["crm.session"]` and `scope["crm.address"]`."""

    def __init__(
        self, queue: ApprovalQueue, attempts: Limit, hurry: Hurry, webhook_keys: Sequence[SecretStr]
    ) -> None:
        """Prepare; `attempts` is how often somebody may try to log in."""
        self._queue, self._webhook_keys = queue, webhook_keys
        self._bodies = Bodies(self, largest=LARGEST_FORM, hurry=hurry)
        pages = [*PAGES, Page("POST", "/login", LogIn(attempts, self.is_page), None)]
        by_path = {page.path: [other for other in pages if other.path == page.path] for page in pages}
        self._routes = [
            Route(path, self.answering(here), methods=[page.method for page in here])
            for path, here in by_path.items()
        ]
        self._router = Router(self._routes, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        scope["app"] = self  # has the router raise 404 and 405, not answer them
        await self._router(scope, receive, send)

    def is_page(self, path: str) -> bool:
        """Tell whether there is a page at a path, and not only what a form of one does."""
        scope = {"type": "http", "method": "GET", "path": path}
        found = (match for route in self._routes if (match := route.matches(scope)[0]) is not Match.NONE)
        return next(found, Match.NONE) is Match.FULL

    def answering(self, pages: Iterable[Page]) -> Callable[[Request], Awaitable[Response]]:
        """Return what answers the requests for one path."""
        by_method = {page.method: page for page in pages}

        async def answer(request: Request) -> Response:
            page = by_method["GET" if request.method == "HEAD" else request.method]
            return await self.answer(page, request)

        return answer

    async def answer(self, page: Page, request: Request) -> Response:
        """Answer with a page those who may see it."""
        session, is_safe = request.scope["crm.session"], request.method in SAFE_METHODS
        if page.role is not None:
            if session is None:
                return to_log_in(request)
            if not session.staff.may(page.role):
                raise Problem("forbidden", f"This needs the role {page.role}.")
        if is_safe:
            return await page.handler(Visit(request, self._queue, {}, self._webhook_keys))
        require_own_origin(request.scope)
        form = await self.read_form(request)
        if page.role is not None:
            require_csrf(session, "".join(form.get("csrf", [])))
        return await page.handler(Visit(request, self._queue, form, self._webhook_keys))

    async def read_form(self, request: Request) -> Mapping[str, list[str]]:
        """Return the fields of a form; raise 400, 408, 413 and 415."""
        headers = request.scope["headers"]
        kinds = [value.partition(b";")[0].strip().lower() for n, value in headers if n == b"content-type"]
        if kinds != [FORM]:
            raise Problem("unsupported-media-type", "Send a form, as a browser does.")
        check_transfer_coding(headers)
        body = await self._bodies.read(request.receive, content_length(headers))
        self._bodies.held -= len(body)
        try:
            text = body.decode("ascii")
            form = parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
            if any("\0" in value for values in form.values() for value in values):
                raise ValueError  # PostgreSQL stores none
        except ValueError:
            raise Problem("malformed-request", "The form cannot be read.") from None
        return {name: [value.replace("\r\n", "\n") for value in values] for name, values in form.items()}
