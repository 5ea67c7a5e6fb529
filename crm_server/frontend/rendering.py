"""Pages as HTML: the templates, what they say in words, and the headers that keep a page what it is."""

import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from crm_server.approval_queue import EVENTS
from crm_server.frontend.visits import Visit
from crm_server.idempotency import in_utc
from crm_server.problems import SAFE_HEADERS, Problem, not_found

PAGE_HEADERS: Mapping[str, str] = {
    **SAFE_HEADERS,
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    # Not no-referrer: under that browsers send forms with `Origin: null` (Fetch, section 3.2).
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
STATIC_TYPES: Mapping[str, str] = {"style.css": "text/css", "script.js": "text/javascript"}
STATIC = {name: files("crm_server.frontend").joinpath("static", name).read_bytes() for name in STATIC_TYPES}
WORDS: Mapping[str, str] = {
    **{name: name.replace("-", " ").capitalize() for name in EVENTS},
    "pending_approval": "waiting",
    "in_repair": "in repair",
    "customer-registration": "Registration",
}
"""What the contracts' words are called on pages, where not as they are."""


def words(name: str) -> str:
    """Return what a state or an event is called."""
    return WORDS.get(name, name.replace("_", " ").replace("-", " "))


def time(at: str) -> Markup:
    """Return a time to the minute, as it is in UTC; the script writes it as the reader's own."""
    at = in_utc(at)
    return Markup('<time datetime="{}">{} {} UTC</time>').format(at, at[:10], at[11:16])


def cost(amount: float | None, currency: str | None) -> str | None:
    """Return an amount as people write it, in the shop's own currency where none is named."""
    return None if amount is None else f"{amount:.2f} {currency or ''}".strip()


def versioned(name: str) -> str:
    """Return a static file's path, which is another when the file is."""
    return f"/static/{name}?v={hashlib.sha256(STATIC[name]).hexdigest()[:12]}"


ENVIRONMENT = Environment(
    loader=PackageLoader("crm_server.frontend"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
ENVIRONMENT.filters |= {"words": words, "time": time, "cost": cost}
ENVIRONMENT.globals |= {"static": {name.partition(".")[0]: versioned(name) for name in STATIC}}


def render(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """Return a page from a template, which also gets path and session."""
    session = request.scope.get("crm.session")
    html = ENVIRONMENT.get_template(template).render(path=request.url.path, session=session, **values)
    return Response(html, status, PAGE_HEADERS, media_type="text/html")


def page(visit: Visit, template: str, status: int = 200, **values: Any) -> Response:
    """Return a page for a visit."""
    return render(visit.request, template, status, **values)


def see_other(path: str) -> Response:
    """Send the browser to another page, which it GETs, so that to load it anew does nothing twice."""
    return Response(b"", HTTPStatus.SEE_OTHER, {**PAGE_HEADERS, "location": path})


async def send_page(problem: Problem, scope: Scope, send: Send) -> None:
    """Send a problem as a page."""
    response = render(Request(scope), "problem.html", problem.status, problem=problem)
    response.headers.update({n: v for n, v in problem.headers.items() if n != "content-type"})

    async def nothing() -> Any:
        raise RuntimeError("An answer asks for nothing.")

    receive: Receive = nothing
    await response(scope, receive, send)


async def static_file(visit: Visit) -> Response:
    """Return the stylesheet or the script, to be kept by the browser under this address for ever."""
    name = visit.request.path_params["name"]
    if name not in STATIC:
        raise not_found()
    headers = {**PAGE_HEADERS, "cache-control": "public, max-age=31536000, immutable"}
    return Response(STATIC[name], 200, headers, media_type=STATIC_TYPES[name])
