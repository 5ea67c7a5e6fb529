"""The admin dashboard: the pages below `/admin`."""

from __future__ import annotations

from starlette.responses import PlainTextResponse
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from sender.integration.problems import Problem, send_json
from sender.integration.site import Site


class Dashboard:
    """The pages as an ASGI app; raises Problems.

    `scope["root_path"]` is the base path, with which `scope["path"]` begins: every link and form does too.
    All of it, static files too, is below `/admin`: a site passes nothing else on. `scope["link.address"]`
    is whose failures are counted by `site.failures`, `scope["scheme"]` and Host are those of the browser.
    """

    def __init__(self, site: Site) -> None:
        """Prepare the pages."""
        self._site = site
        self._router = Router([Route("/admin", show)], redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        scope["app"] = self  # has the router raise 404 and 405, not answer them
        await self._router(scope, receive, send)

    async def admits(self, scope: Scope) -> bool:
        """Say whether a request to the API comes from a page of ours, by somebody who has logged in.

        Raise the 403 when it comes from another page, or without the session's CSRF token.
        """
        return False


async def show(_: object) -> PlainTextResponse:
    """Show that there is a dashboard."""
    return PlainTextResponse("CRM Integration")


async def send_problem(problem: Problem, scope: Scope, send: Send) -> None:
    """Send a problem as a page."""
    await send_json(problem, scope, send)
