"""The log: a line for each event, for people or, as JSON, for programs."""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]
LogLevel = Literal["info", "debug"]

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""What the answer of the request that is at work bears as `x-request-id`."""


class JsonLines(logging.Formatter):
    """Writes a record as one JSON object: time, level, logger, message, request_id and what `extra` names.

    A record may have a `members` attribute: what its message says, for programs.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Write a record, without anything that an exception holds."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        known = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        asked = {"request_id": request_id.get()} if request_id.get() else {}
        return json.dumps({**known, **asked, **getattr(record, "members", {})})


class Lines(logging.Formatter):
    """Writes a record for people, with the request's id at its end."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        line = super().format(record)
        return f"{line} [{request_id.get()}]" if request_id.get() else line


def start_logging(how: LogFormat = "text", level: LogLevel = "info") -> None:
    """Log to standard error from now on; `level` is what is logged of our own."""
    handler = logging.StreamHandler(sys.stderr)
    text = Lines("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if how == "json" else text)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.getLogger("crm_server").setLevel(level.upper())
    # Alembic tells of every step that it considers.
    logging.getLogger("alembic").setLevel(logging.WARNING)
