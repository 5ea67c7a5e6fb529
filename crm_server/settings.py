"""The CRM's settings, from the environment and `.env` in the working directory (the environment wins)."""

import logging
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from crm_server.errors import ConfigurationError

SHORT_KEY = 16
"""Below so many characters a key is easy to guess."""

log = logging.getLogger(__name__)


class Settings(BaseSettings):
    """What the CRM server is told from outside; each field is named after its variable."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    webhook_keys: Annotated[tuple[SecretStr, ...], NoDecode, Field(alias="WEBHOOK_API_KEY")] = ()
    """Keys that a sender may use; several, separated by commas, so that they rotate without a gap."""
    database_url: Annotated[SecretStr, Field(alias="CRM_DATABASE_URL")] = SecretStr(
        "sqlite:///var/crm.sqlite3"
    )
    """A SQLAlchemy URL, `sqlite:///…` or `postgresql://…`."""
    max_body_bytes: Annotated[int, Field(alias="WEBHOOK_MAX_BODY_BYTES", ge=1, le=1 << 30)] = 1048576
    """The largest body that is taken, in bytes."""

    @field_validator("webhook_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        keys = value.split(",")
        if not all(re.fullmatch(r"[!-+\--~]+", key) for key in keys):
            raise ValueError("each key is printable ASCII without spaces, and no part of the list is empty")
        return tuple(keys)

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr) -> SecretStr:
        try:
            url = make_url(value.get_secret_value())
        except ArgumentError:
            url = URL.create("nothing")
        is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
        if not is_file and url.get_backend_name() != "postgresql":
            raise ValueError("must be sqlite:///FILE or postgresql://…")
        return value

    @property
    def url(self) -> URL:
        """The database's address, a relative SQLite path made absolute, with the driver that we chose."""
        url = make_url(self.database_url.get_secret_value())
        if url.get_backend_name() == "postgresql":
            return url.set(drivername="postgresql+psycopg")
        return url.set(drivername="sqlite", database=str(Path(url.database or "").resolve()))


def load_settings() -> Settings:
    """Read the settings.

    Raises ConfigurationError with one line that names the variable, never its value.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        faults = [
            f"{fault['loc'][0]}: {fault['msg'].removeprefix('Value error, ')}" for fault in error.errors()
        ]
        raise ConfigurationError("; ".join(faults)) from None
    if any(len(key.get_secret_value()) < SHORT_KEY for key in settings.webhook_keys):
        log.warning("WEBHOOK_API_KEY holds a key of fewer than %d characters; use a longer one.", SHORT_KEY)
    return settings
