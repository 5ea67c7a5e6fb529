"""A `crm-server` whose clock a test moves: `python -m tests.faults.shifted_server SECONDS_FILE serve …`."""

import sys
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

from crm_server import cli, database

SECONDS = Path(sys.argv[1])


class ShiftedDatetime(datetime):
    """Tells the time that it would be so many seconds from now."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        """Return the shifted time."""
        return datetime.now(tz) + timedelta(seconds=float(SECONDS.read_text()))


if __name__ == "__main__":
    database.datetime = ShiftedDatetime  # type: ignore[attr-defined]
    sys.exit(cli.main(sys.argv[2:]))
