"""The CRM's settings, from the environment and `.env` in the working directory (the environment wins)."""

import base64
import logging
import os
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from crm_server.errors import ConfigurationError
from crm_server.logs import LogFormat, LogLevel

ENV_FILE = ".env"

SHORT_KEY = 16
"""Below so many characters a key is easy to guess."""

SHORT_SECRET = 24
"""Bytes that a signing secret should have at least (Standard Webhooks)."""

Network = IPv4Network | IPv6Network

log = logging.getLogger(__name__)


class Settings(BaseSettings):
    """What the CRM server is told from outside; each field is named after its variable."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
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
    rate_limit: Annotated[str, Field(alias="WEBHOOK_RATE_LIMIT")] = "100/second"
    """How often one key may be used, as `limits` writes it."""
    failure_limit: Annotated[str, Field(alias="WEBHOOK_AUTH_FAILURE_LIMIT")] = "20/minute"
    """How many wrong keys of one address are answered 401; then 429. A right key is never refused for it."""
    rate_limit_storage: Annotated[SecretStr, Field(alias="RATE_LIMIT_STORAGE_URL")] = SecretStr("memory://")
    """Where requests are counted: in this process, or in a Redis that several servers share."""
    login_limit: Annotated[str, Field(alias="CRM_LOGIN_LIMIT")] = "10/minute"
    """How often somebody may try to log in, by name and by address."""
    signing_secrets: Annotated[tuple[SecretStr, ...], NoDecode, Field(alias="WEBHOOK_SIGNING_SECRET")] = ()
    """Secrets that a webhook may be signed by; without one no signature is asked for."""
    allowed_networks: Annotated[tuple[Network, ...], NoDecode, Field(alias="WEBHOOK_ALLOWED_NETWORKS")] = ()
    """Where webhooks may come from; without one, from anywhere."""
    staff_networks: Annotated[tuple[Network, ...], NoDecode, Field(alias="STAFF_ALLOWED_NETWORKS")] = ()
    """Where staff may come from; without one, from anywhere."""
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, Field(alias="CRM_TRUSTED_PROXIES")] = ()
    """The proxies whose `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Request-Id` are believed."""
    retention_days: Annotated[int | None, Field(alias="CRM_RETENTION_DAYS", ge=1, le=36500)] = None
    """Days after which the payloads of rejected requests are erased; without it they stay."""
    log_format: Annotated[LogFormat, Field(alias="CRM_LOG_FORMAT")] = "text"
    """How the log is written: for people, or a JSON object on each line."""
    log_level: Annotated[LogLevel, Field(alias="CRM_LOG_LEVEL")] = "info"
    """`debug` logs what succeeds too, which makes webhooks a tenth dearer."""

    @field_validator("webhook_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: Any) -> Any:
        message = "each key is printable ASCII without spaces, and no part of the list is empty"
        return split(value, read_key, message)

    @field_validator("signing_secrets", mode="before")
    @classmethod
    def _split_secrets(cls, value: Any) -> Any:
        return split(value, read_secret, "each part is base64, with whsec_ before it or without")

    @field_validator("allowed_networks", "staff_networks", "trusted_proxies", mode="before")
    @classmethod
    def _split_networks(cls, value: Any) -> Any:
        return split(
            value, read_network, "each part is an address or a network, as 10.0.0.0/8 or 2001:db8::/32"
        )

    @field_validator("rate_limit", "failure_limit", "login_limit")
    @classmethod
    def _check_limit(cls, value: str) -> str:
        import limits  # noqa: PLC0415  # most commands never need it, and it takes 90 ms

        try:
            [limit] = limits.parse_many(value)
        except ValueError:
            raise ValueError("must be one limit such as 100/second or 20/minute") from None
        if limit.amount < 1:
            raise ValueError("must allow one at least")
        return value

    @field_validator("rate_limit_storage")
    @classmethod
    def _check_storage(cls, value: SecretStr) -> SecretStr:
        try:
            url = urlsplit(value.get_secret_value())
            # Of a path that is no number redis-py says nothing: it takes database 0.
            is_path = re.fullmatch(r"/?|/[0-9]+", url.path) is not None
            is_redis = url.scheme in ("redis", "rediss") and bool(url.hostname and url.port) and is_path
        except ValueError:
            is_redis = False
        if not is_redis and value.get_secret_value() != "memory://":
            raise ValueError("must be memory://, redis://HOST:PORT/DB or rediss://…")
        return value

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr) -> SecretStr:
        try:
            url = make_url(value.get_secret_value())
        except (ArgumentError, ValueError):  # the second for a port that is none
            url = URL.create("nothing")
        is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
        if not is_file and url.get_backend_name() != "postgresql":
            raise ValueError("must be sqlite:///FILE or postgresql://…")
        if "@" in (url.host or ""):  # which would be looked up, and shown
            raise ValueError("has an @ in its user or password, which must be written as %40")
        return value

    @property
    def url(self) -> URL:
        """The database's address, a relative SQLite path made absolute, with the driver that we chose."""
        url = make_url(self.database_url.get_secret_value())
        if url.get_backend_name() == "postgresql":
            return url.set(drivername="postgresql+psycopg")
        return url.set(drivername="sqlite", database=str(Path(url.database or "").resolve()))

    @property
    def shown_database(self) -> str:
        """The database's address as it may be shown: a driver may be given passwords in the query, too."""
        secrets = [name for name in self.url.query if "password" in name.lower()]
        return self.url.difference_update_query(secrets).render_as_string(hide_password=True)


def split(value: Any, read: Callable[[str], Any], message: str) -> Any:
    """Read each part of a list that is separated by commas; raise ValueError with a message of ours."""
    if not isinstance(value, str):
        return value
    try:
        return tuple(read(part) for part in value.split(","))
    except ValueError:
        raise ValueError(message) from None


def read_key(text: str) -> str:
    """Return a webhook key; raise ValueError for one that cannot stand in a header, or in a list."""
    if not re.fullmatch(r"[!-+\--~]+", text):
        raise ValueError
    return text


def read_secret(text: str) -> str:
    """Return a signing secret; raise ValueError for one that is no base64."""
    if not base64.b64decode(secret_part(text), validate=True):
        raise ValueError
    return text


def secret_part(text: str) -> str:
    """Return a signing secret's base64, with its padding."""
    encoded = text.removeprefix("whsec_")
    return encoded + "=" * (-len(encoded) % 4)


def read_network(text: str) -> Network:
    """Return a network; one of IPv4 that is written as IPv6 (RFC 4291, section 2.5.5.2) is one of IPv4."""
    network = ip_network(text.strip())
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    return IPv4Network((mapped, network.prefixlen - 96)) if mapped and network.prefixlen >= 96 else network


def load_settings() -> Settings:
    """Read the settings.

    Raises ConfigurationError with one line that names the variable, never its value, or `.env` when it is no text, or
    no file.
    """
    # pydantic takes a folder, which a container gets for a file that is not there, and a link to nothing for no settings.
    if os.path.lexists(ENV_FILE) and (os.path.isdir(ENV_FILE) or not os.path.exists(ENV_FILE)):
        raise ConfigurationError(
            f"{ENV_FILE} is no file, but a folder or a link to nothing: make it one, or remove it."
        )
    try:
        return Settings()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{ENV_FILE} is not UTF-8: save it as UTF-8.") from None
    except ValidationError as error:
        faults = [
            f"{fault['loc'][0]}: {fault['msg'].removeprefix('Value error, ')}" for fault in error.errors()
        ]
        raise ConfigurationError("; ".join(faults)) from None


def warn_of_weak_secrets(settings: Settings) -> None:
    """Log which settings are easy to guess."""
    if any(len(key.get_secret_value()) < SHORT_KEY for key in settings.webhook_keys):
        log.warning("WEBHOOK_API_KEY holds a key of fewer than %d characters; use a longer one.", SHORT_KEY)
    secrets = [secret_part(secret.get_secret_value()) for secret in settings.signing_secrets]
    if any(len(base64.b64decode(secret)) < SHORT_SECRET for secret in secrets):
        log.warning(
            "WEBHOOK_SIGNING_SECRET holds a secret of fewer than %d bytes; use a longer one.", SHORT_SECRET
        )
