"""Lists: which page is asked for, and how it is answered."""

from collections.abc import Callable, Mapping
from typing import Any

from crm_server.api import Answer
from crm_server.pages import Page, Window


def window_of(asked: Mapping[str, Any], key: type[int] | type[str]) -> Window:
    """Return which page the parameters ask for; `key` is what `after` holds."""
    after = key(asked["after"]) if "after" in asked else None
    return Window(limit=asked["limit"], newest_first=asked["order"] == "newest", after=after)


def page_answer(page: Page, render: Callable[[Any], dict[str, Any]]) -> Answer:
    """Answer with a page, each of its rows as `render` makes it."""
    content = {
        "items": [render(row) for row in page.rows],
        "next": page.next,
        "total": page.total,
        "total_exact": page.total_exact,
    }
    return Answer(200, content)
