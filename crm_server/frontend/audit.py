"""The audit trail's page: who did what to which record, and when."""

from starlette.responses import Response

from crm_server import audit_trail
from crm_server.api.audit import entry
from crm_server.frontend.lists import ORDERS, listing_of
from crm_server.frontend.rendering import page
from crm_server.frontend.visits import Visit

RECORD = "[A-Za-z0-9.-]{1,64}"
"""A record's id; a release's is its number."""
POSITIONS = "[0-9]{1,18}-[0-9]{1,18}"
"""How far a page has come, in what was done and in what was received."""


async def list_audit(visit: Visit) -> Response:
    """Show a page of the trail, of everything or of one record."""
    listing = listing_of(visit, "/audit", POSITIONS, record_id=RECORD)
    found = await visit.queue.read(
        lambda connection: audit_trail.page(connection, listing.window(), listing.chosen.get("record_id"))
    )
    entries = [entry(row) for row in found.rows]
    return page(visit, "audit.html", listing=listing, found=found, entries=entries, orders=ORDERS)
