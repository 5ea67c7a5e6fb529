"""What every test shares: hypothesis searches the same examples on each run, unless asked to search on.

`HYPOTHESIS_PROFILE=search python -m pytest tests/contract` looks for new ones, longer.
"""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import postgresql

ROOT = Path(__file__).parent

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=30, database=None)
settings.register_profile(
    "search", deadline=None, max_examples=1_000, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


LONGEST = ("wheel", "demo", "end_to_end", "docs", "browser", "contract")
"""Where a test may take half a minute: begun last, one of them would run on alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the longest begin first."""
    turns = {folder: turn for turn, folder in enumerate(LONGEST)}
    items.sort(key=lambda item: turns.get(item.path.parts[len(ROOT.parts)], len(turns)))


def pytest_sessionfinish() -> None:
    """End PostgreSQL while there is time: when its tests are told of, a process of xdist has ten seconds left."""
    postgresql.end_clusters()
