"""The queue's pages: the list, a search, one request, and decisions on one or some."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from crm_server import approval_queue, figures, search, website_statuses
from crm_server.api.approvals import detail, item, unknown
from crm_server.approval_queue import EVENTS, STATUSES, Filter
from crm_server.audit_trail import Actor
from crm_server.database import utc_now
from crm_server.errors import AlreadyDecided, CrmError, NumberTaken, Refused, UnknownApproval
from crm_server.frontend.choices import choice_of, known_customer, suggested_customers
from crm_server.frontend.lists import ID, NUMBER, PAGE_SIZE
from crm_server.frontend.payload import blocks_of, is_link, label
from crm_server.frontend.rendering import PAGE_HEADERS, cost, page, see_other, words
from crm_server.frontend.visits import Visit
from crm_server.pages import Page, Window
from crm_server.problems import Problem
from crm_server.staff import Staff
from generated.approvals import Rejecting, SearchWords
from generated.operations import RELEASES

ALL = "all"
DATE_CHARACTERS = 10
"""Of a time, those of its day."""
Decide = Callable[[Any, str, Actor], Any]


@dataclass(frozen=True, slots=True)
class View:
    """Which part of the queue somebody looks at; every link and form of it keeps it."""

    status: str = STATUSES[0]
    event: str = ALL
    order: str = "oldest"
    search: str = ""
    """The id of a saved search."""
    after: str = ""

    @property
    def query(self) -> str:
        """The view in a URL, without what is as ever."""
        shown = {name: getattr(self, name) for name in self.__slots__}
        return urlencode({n: v for n, v in shown.items() if v != getattr(START, n)})

    @property
    def path(self) -> str:
        """Where it is to be seen."""
        return f"/approvals?{self.query}" if self.query else "/approvals"

    @property
    def path_of_all(self) -> str:
        """Where everything that waits of it is decided."""
        query = self.but(status=START.status).query
        return f"/approvals/bulk{'?' if query else ''}{query}"

    def but(self, **other: str) -> "View":
        """Return another view, from its beginning unless told otherwise."""
        return replace(self, **{"after": "", **other})

    def window(self, limit: int, after: str | None = None) -> Window:
        """Return which page of it is wanted."""
        key = after or self.after
        return Window(limit, newest_first=self.order == "newest", after=int(key) if key else None)


START = View()
ALLOWED = {
    "status": "|".join((*STATUSES, ALL)),
    "event": "|".join((*EVENTS, ALL)),
    "order": "oldest|newest",
    "search": ID,
    "after": NUMBER,
}


def view_of(visit: Visit) -> View:
    """Return the view in a request's URL; what is no part of one is as ever."""
    asked = visit.request.query_params
    return View(**{n: asked[n] for n, rule in ALLOWED.items() if re.fullmatch(rule, asked.get(n, ""))})


def filter_of(connection: Any, staff: Staff, view: View) -> Filter | None:
    """Return which requests a view shows, None when its search is over."""
    words = search.saved(connection, staff.id, view.search, utc_now()) if view.search else None
    if words is None and view.search:
        return None
    status, event = (None if value == ALL else value for value in (view.status, view.event))
    return Filter(status, event, words, personal=staff.may("approver"))


async def list_requests(visit: Visit) -> Response:
    """Show a page of the queue."""
    return await listed(visit)


async def listed(visit: Visit, status: int = HTTPStatus.OK, *, fault: str = "") -> Response:
    """Show a page of the queue as it is now, and why what was wanted could not be done, with what was given."""
    view = view_of(visit)

    def read(connection: Any) -> tuple[Page, Filter, int]:
        wanted = filter_of(connection, visit.staff, view)
        if wanted is None:
            raise Problem("not-found", "This search is over, or somebody else's. Search again.")
        found = approval_queue.page(connection, view.window(PAGE_SIZE), wanted)
        return found, wanted, figures.newest(connection)

    found, wanted, newest = await visit.queue.read(read)
    done = visit.request.query_params.get("done", "")
    return page(
        visit,
        "approvals.html",
        status,
        view=view,
        found=found,
        requests=[summary(item(visit.staff, row)) for row in found.rows],
        words_asked=wanted.words or "",
        newest=newest,
        statuses=(*STATUSES, ALL),
        events=(*EVENTS, ALL),
        done=int(done) if re.fullmatch("[0-9]{1,3}", done) else None,
        fault=fault,
        is_fault_of_reason=fault == NO_REASON,
        chosen=visit.form.get("id", []),
        reason=visit.field("reason"),
    )


def summary(request: dict[str, Any]) -> dict[str, Any]:
    """Return what a list shows of a request, which may be erased."""
    payload = request["payload"] or {}
    customer, repair = payload.get("customer", {}), payload.get("repair", {})
    names = [customer.get("firstName"), customer.get("lastName")]
    who = repair.get("customerName") or " ".join(name for name in names if name)
    what = repair.get("deviceType") or customer.get("email") or ""
    said = repair.get("issueDescription") or ""
    # Of a profile only what changed is sent, and of a status not even a name.
    if request["event"] == "customer-profile" and payload:
        who = who or customer["websiteUserId"]
        what = ", ".join(label(name, {}).lower() for name in customer if name != "websiteUserId")
    elif payment := payload.get("payment"):
        who, what = f"Payment {words(payment['status'])}", cost(payment["amount"], payment["currency"])
    elif booking := payload.get("booking"):
        day = booking.get("scheduledFor", "")[:DATE_CHARACTERS]
        who, what = f"Booking {words(booking['status'])}", f"for {day}" if day else ""
        said = booking.get("reason") or ""
    return {**request, "who": who, "what": what, "words": said, "reference": reference(request)}


def reference(request: dict[str, Any]) -> str:
    """Return the number that people use for a request."""
    value = request["payload"]
    for name in RELEASES[request["contract"]][request["event"]].reference:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else request["natural_key"]


async def arrived(visit: Visit) -> Response:
    """Say how many requests of a view came after one, as JSON."""
    view, since = view_of(visit), visit.request.query_params.get("since", "")
    if not re.fullmatch("[0-9]{1,18}", since):
        raise Problem("malformed-request", "since is the sequence of a request.")

    def read(connection: Any) -> int:
        wanted = filter_of(connection, visit.staff, view)
        return approval_queue.count_since(connection, wanted, int(since)) if wanted else 0

    return JSONResponse({"count": await visit.queue.read(read)}, headers=dict(PAGE_HEADERS))


async def search_requests(visit: Visit) -> Response:
    """Save the words of a search, and show what is found."""
    # From a spreadsheet a row is pasted with tabs between its cells.
    view, text = view_of(visit), visit.field("text").replace("\t", " ")
    if not text:
        return see_other(view.but(search="").path)
    try:
        wanted = SearchWords(text=text).text
    except ValidationError:
        raise Problem("malformed-request", "A search has one line of at most 200 characters.") from None
    staff_id = visit.staff.id
    saved = await visit.queue.write(lambda connection: search.save(connection, staff_id, wanted, utc_now()))
    return see_other(view.but(search=saved).path)


async def show_request(visit: Visit) -> Response:
    """Show one request."""
    return await shown(visit)


async def shown(visit: Visit, refused: Refused | None = None, *, fault: str = "") -> Response:
    """Show one request as it is now, and why what was wanted could not be done."""
    view = view_of(visit).but()

    def read(connection: Any) -> tuple[Any, str | None, str | None]:
        found = approval_queue.show(connection, visit.id)
        wanted = filter_of(connection, visit.staff, view)
        backwards = view.but(order="newest" if view.order == "oldest" else "oldest")
        following = neighbour(connection, wanted, view, found.row.sequence)
        return found, following, neighbour(connection, wanted, backwards, found.row.sequence)

    try:
        found, following, previous = await visit.queue.read(read)
    except UnknownApproval:
        raise unknown() from None
    request = detail(visit.staff, found)
    payload = request["payload"]
    status = HTTPStatus.CONFLICT if refused else HTTPStatus.BAD_REQUEST if fault else HTTPStatus.OK
    return page(
        visit,
        "approval.html",
        status,
        view=view,
        approval=summary(request),
        blocks=blocks_of(request["contract"], request["event"], payload) if payload else [],
        is_link=is_link,
        refused=refused,
        decided=refused if isinstance(refused, AlreadyDecided) else None,
        number_taken=isinstance(refused, NumberTaken),
        fault=fault,
        is_status=found.row.event in website_statuses.STATUSES,
        about=request,
        ticket=found.ticket,
        changes=labelled(request["changes"]),
        outdated=[label(name, {}) for name in found.comparison.outdated],
        known=known_customer(visit.staff, found.comparison),
        suggested=suggested_customers(visit.staff, found.comparison),
        field=visit.field,
        following=following,
        previous=previous,
    )


def labelled(changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what a changed profile changes, as pages show it."""

    def value(field: str, text: str | None) -> Any:
        try:
            return json.loads(text) if field == "/preferences" and text else text
        except ValueError:
            return text  # masked

    return [
        {
            "label": label(each["field"].removeprefix("/"), {}),
            **{name: value(each["field"], each[name]) for name in ("on_record", "sent")},
        }
        for each in changes
    ]


def neighbour(connection: Any, wanted: Filter | None, view: View, sequence: int) -> str | None:
    """Return the id of the request that a view shows after another."""
    if wanted is None:
        return None
    rows = approval_queue.page(connection, view.window(1, str(sequence)), wanted).rows
    return rows[0].id if rows else None


async def approve(visit: Visit) -> Response:
    """Approve a request as it is chosen."""
    try:
        choice = choice_of(visit)
    except ValidationError:
        return await shown(visit, fault=NO_CHOICE)
    return await decided(visit, partial(approval_queue.approve, choice=choice))


async def reject(visit: Visit) -> Response:
    """Reject a request for a reason."""
    reason = reason_of(visit)
    if reason is None:
        return await shown(visit, fault=NO_REASON)
    return await decided(visit, partial(approval_queue.reject, reason=reason))


async def reopen(visit: Visit) -> Response:
    """Take a decision back."""
    return await decided(visit, approval_queue.reopen)


NO_CHOICE = "A ticket number has letters, digits and . _ : - alone, 64 at most."
NOTHING_CHOSEN = f"Choose a decision, and up to {PAGE_SIZE} requests."
NO_REASON = "To reject needs a reason, of at most 5,000 characters."


def reason_of(visit: Visit) -> str | None:
    """Return the reason of a rejection, None for what is none."""
    try:
        return str(Rejecting(reason=visit.field("reason")).reason)
    except ValidationError:
        return None


async def decided(visit: Visit, decide: Decide) -> Response:
    """Decide a request; show it as it is then."""
    try:
        await visit.queue.write(lambda connection: decide(connection, visit.id, visit.actor))
    except UnknownApproval:
        raise unknown() from None
    except Refused as error:
        return await shown(visit, error)
    query = view_of(visit).query
    return see_other(f"/approvals/{visit.id}{'?' if query else ''}{query}")


async def decide_selected(visit: Visit) -> Response:
    """Decide some requests, each for itself: what cannot be decided holds up no other."""
    view, verb, chosen = view_of(visit), visit.field("decision"), visit.form.get("id", [])
    reason = reason_of(visit)
    if verb not in ("approve", "reject") or not chosen or len(chosen) > PAGE_SIZE:
        return await listed(visit, HTTPStatus.BAD_REQUEST, fault=NOTHING_CHOSEN)
    if verb == "reject" and reason is None:
        return await listed(visit, HTTPStatus.BAD_REQUEST, fault=NO_REASON)
    decide: Decide = approval_queue.approve
    if verb == "reject":
        decide = partial(approval_queue.reject, reason=str(reason))
    refused = [(each, error) for each in chosen if (error := await decide_one(visit, each, decide))]
    if not refused:
        query = f"{view.query}&" if view.query else ""
        return see_other(f"/approvals?{query}done={len(chosen)}")
    done = len(chosen) - len(refused)
    return page(visit, "refused.html", HTTPStatus.CONFLICT, view=view, refused=refused, done=done)


async def decide_one(visit: Visit, approval_id: str, decide: Decide) -> CrmError | None:
    """Decide one of several requests; return why it could not be."""
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", approval_id):
        return UnknownApproval("There is no such request.")
    try:
        await visit.queue.write(lambda connection: decide(connection, approval_id, visit.actor))
    except Refused as error:
        return error
    return None
