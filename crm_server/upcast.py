"""Read a body of an older contract release as today's: a chain of pure functions, one a release."""

from collections.abc import Callable, Mapping
from typing import Any

from generated.operations import CURRENT, RELEASES

Body = dict[str, Any]
Step = Callable[[str, Body], Body]

STEPS: Mapping[str, Step] = {}
"""By release: how its bodies, of the named webhook, are read as the next release's. The newest has none."""


def upcast(release: str, webhook: str, body: Body) -> Body:
    """Return a valid body of `release` as a body of the current one."""
    releases = list(RELEASES)
    for older in releases[releases.index(release) : releases.index(CURRENT)]:
        if older in STEPS:
            body = STEPS[older](webhook, body)
    return body
