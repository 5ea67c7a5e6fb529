"""The dashboard's pages as HTML: the templates, what they say in words, and the headers that keep a page what it is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sender.integration.charts import duration
from sender.integration.problems import SAFE_HEADERS, Problem, not_found
from sender.integration.visits import Visit

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
STATIC = {name: files("sender.integration").joinpath("static", name).read_bytes() for name in STATIC_TYPES}


def words(name: str) -> str:
    """Return what an event or a state is called."""
    return name.replace("_", " ").replace("-", " ")


def time(at: str | float) -> Markup:
    """Return a time to the second; the script writes it as the reader's own."""
    if not isinstance(at, str):
        at = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    return Markup('<time datetime="{}">{} {} UTC</time>').format(at, at[:10], at[11:19])


def versioned(name: str) -> str:
    """Return a static file's path below the dashboard's, which is another when the file is."""
    return f"/admin/static/{name}?v={hashlib.sha256(STATIC[name]).hexdigest()[:12]}"


ENVIRONMENT = Environment(
    loader=PackageLoader("sender.integration"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
ENVIRONMENT.filters |= {"words": words, "time": time, "duration": duration}
ENVIRONMENT.globals |= {"static": {name.partition(".")[0]: versioned(name) for name in STATIC}}


def render(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """Return a page from a template, which also gets the base path, where it is below that, and the session."""
    scope = request.scope
    base = str(scope.get("root_path", ""))
    path = str(scope["path"]).removeprefix(base)
    given = {"base": base, "path": path, "session": scope.get("link.session"), **values}
    return Response(
        ENVIRONMENT.get_template(template).render(given), status, PAGE_HEADERS, media_type="text/html"
    )


def page(visit: Visit, template: str, status: int = 200, **values: Any) -> Response:
    """Return a page for a visit."""
    return render(visit.request, template, status, **values)


async def send_problem(problem: Problem, scope: Scope, send: Send) -> None:
    """Send a problem as a page."""
    response = render(Request(scope), "problem.html", problem.status, problem=problem)
    response.headers.update(problem.headers)

    async def nothing() -> Any:
        raise RuntimeError("An answer asks for nothing.")

    receive: Receive = nothing
    await response(scope, receive, send)


def see_other(visit: Visit, path: str) -> Response:
    """Send the browser to another page, which it GETs, so that to load it anew does nothing twice."""
    return Response(b"", HTTPStatus.SEE_OTHER, {**PAGE_HEADERS, "location": f"{visit.base}{path}"})


async def static_file(visit: Visit) -> Response:
    """Return the stylesheet or the script, to be kept by the browser under this address for ever."""
    name = visit.request.path_params["name"]
    if name not in STATIC:
        raise not_found()
    headers = {**PAGE_HEADERS, "cache-control": "public, max-age=31536000, immutable"}
    return Response(STATIC[name], 200, headers, media_type=STATIC_TYPES[name])
