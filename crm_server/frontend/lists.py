"""Lists on pages that are long: which page of which part, kept by every link."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from crm_server.frontend.visits import Visit
from crm_server.pages import Window

PAGE_SIZE = 50
ORDERS = ("newest", "oldest")
ID = "[A-Za-z0-9-]{1,64}"
NUMBER = "[0-9]{1,18}"


@dataclass(frozen=True, slots=True)
class Listing:
    """The part of a list that somebody looks at."""

    path: str
    chosen: Mapping[str, str]
    """The filters that are set, by name."""
    order: str
    after: str

    def link(self, after: str = "") -> str:
        """Return where a page of it is to be seen, the first unless told otherwise."""
        order = "" if self.order == ORDERS[0] else self.order
        given = {**self.chosen, "order": order, "after": after}
        query = urlencode({name: value for name, value in given.items() if value})
        return f"{self.path}?{query}" if query else self.path

    def first(self) -> "Listing":
        """Return its first page."""
        return replace(self, after="")

    def window(self) -> Window:
        """Return which page is wanted."""
        return Window(PAGE_SIZE, self.order == ORDERS[0], self.after or None)


def listing_of(visit: Visit, path: str, after: str, **filters: str) -> Listing:
    """Return what a URL asks for: `after` and each filter by its rule; what is none is left out."""
    asked = visit.request.query_params

    def read(name: str, rule: str) -> str:
        return asked.get(name, "") if re.fullmatch(rule, asked.get(name, "")) else ""

    chosen = {name: value for name, rule in filters.items() if (value := read(name, rule))}
    return Listing(path, chosen, read("order", "|".join(ORDERS)) or ORDERS[0], read("after", after))
