"""The sender's settings: the environment's `CRM_*`, or `.env` for the programs."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from sender.errors import SettingsError

Network = IPv4Network | IPv6Network

SHORT_TOKEN = 16
"""Below so many characters a token is easy to guess."""

LEASE_MARGIN = 5.0
"""Seconds by which a lease outlives one attempt."""

UNTOUCHED_DAYS = 7
"""Days after which people are told of failed and held events that nobody touched: their retention is longer."""


class SenderSettings(BaseModel):
    """What the sender must know. `CRM()` reads the environment; give an instance to say otherwise.

    What an instance is not given it takes from the environment, and else by default. pydantic-settings
    would do that too, but it takes longer to import than pydantic itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)

    webhook_url: str = Field("http://localhost:5001/webhooks", pattern=r"^https?://[^\s?#]+$")
    """Where the CRM's webhooks are."""
    api_key: SecretStr | None = None
    """The key that the CRM has as `WEBHOOK_API_KEY`: printable ASCII without space or comma."""
    outbox_url: str = "sqlite:///var/outbox.sqlite3"
    """The database of the bookings, as SQLAlchemy writes it."""
    retry_schedule: tuple[float, ...] = (1.0, 2.0, 3.0)
    """Seconds before each retry; as many retries as entries."""
    timeout: float = Field(5.0, gt=0, le=300)
    """Seconds of one attempt, from connect to the last byte."""
    ca_file: str | None = None
    """A PEM file of the authorities that may vouch for the CRM at an https:// address, in place of those that the
    system and browsers trust."""
    when_away: Literal["wait", "fail"] = "wait"
    """`fail` counts attempts also while the CRM is away."""
    signing_secret: SecretStr | None = None
    """What webhooks are signed by (Standard Webhooks): base64, with `whsec_` before it or without."""
    admin_token: SecretStr | None = None
    """What opens `/admin` and the integration API: printable ASCII without space or comma."""
    trusted_proxies: tuple[Network, ...] = ()
    """The proxies of a site that passes `/admin` and the integration API on; they are believed whom they ask for."""
    alert_url: SecretStr | None = None
    """Where alerts are posted, as JSON that receivers made for Slack take; a secret."""
    alert_pending_seconds: float = Field(900.0, gt=0)
    """Seconds after which an event that still waits, though the CRM is well, is an alert."""
    outbox_retention_days: int = Field(90, gt=UNTOUCHED_DAYS)
    """Days after which the payloads of failed and held events are erased."""
    log_format: Literal["text", "json"] = "text"
    """How the programs log: for people, or an object a line."""

    @classmethod
    def read(cls, env_file: str | None = None) -> SenderSettings:
        """Read the environment, and below it a file of settings.

        Raises SettingsError that names each wrong variable, without its value, or the file when it is no text, or none.
        """
        try:
            return cls.model_validate({name: value for name, (value, _) in given(env_file).items()})
        except ValidationError as error:
            lines = (
                f"CRM_{str(fault['loc'][0]).upper() if fault['loc'] else 'settings'}: "
                f"{fault['msg'].removeprefix('Value error, ')}"
                for fault in error.errors(include_input=False, include_url=False)
            )
            raise SettingsError("; ".join(lines)) from None

    @model_validator(mode="before")
    @classmethod
    def _of_environment(cls, given: Any) -> Any:
        return {**_set_in(os.environ), **given} if isinstance(given, dict) else given

    @field_validator("webhook_url")
    @classmethod
    def _plain(cls, url: str) -> str:
        """Refuse what no request can be made for, and a user name, for it would be sent in the key's place."""
        try:
            parsed = urlsplit(url)
            has_host = bool(parsed.hostname) and parsed.port != 0
        except ValueError:
            raise ValueError("is not a URL such as http://localhost:5001/webhooks") from None
        if "@" in parsed.netloc or not has_host:
            raise ValueError("names a host, and neither user nor password; the key goes into CRM_API_KEY")
        if not _is_host(url, str(parsed.hostname)):
            raise ValueError("no request can be sent to this URL: check its host")
        return url.rstrip("/")

    @field_validator("api_key", "admin_token")
    @classmethod
    def _printable(cls, key: SecretStr | None) -> SecretStr | None:
        text = key.get_secret_value() if key else ""
        if not text.isascii() or not text.isprintable() or " " in text or "," in text:
            raise ValueError("must be printable ASCII without space or comma")
        return key

    @field_validator("signing_secret")
    @classmethod
    def _base64(cls, secret: SecretStr | None) -> SecretStr | None:
        encoded = secret.get_secret_value().removeprefix("whsec_") if secret else "AA"
        try:
            is_empty = not base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except ValueError:
            is_empty = True
        if is_empty:
            raise ValueError("must be base64, with whsec_ before it or without")
        return secret

    @field_validator("alert_url")
    @classmethod
    def _address(cls, url: SecretStr | None) -> SecretStr | None:
        text = url.get_secret_value() if url else "http://localhost"
        try:
            parsed = urlsplit(text)
            is_address = parsed.scheme in {"http", "https"} and bool(parsed.hostname) and parsed.port != 0
        except ValueError:
            is_address = False
        if (
            not is_address
            or "@" in parsed.netloc
            or not text.isascii()
            or not text.isprintable()
            or " " in text
        ):
            raise ValueError("must be an http:// or https:// URL in ASCII, without user and password")
        if not _is_host(text, str(parsed.hostname)):
            raise ValueError("no request can be sent to this URL: check its host")
        return url

    @field_validator("outbox_url")
    @classmethod
    def _absolute(cls, url: str) -> str:
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):  # the second for a port that is none
            raise ValueError("is not a database URL such as sqlite:///var/outbox.sqlite3") from None
        backend = parsed.drivername.partition("+")[0]
        if backend not in {"sqlite", "postgresql"}:
            raise ValueError("is neither a sqlite:// nor a postgresql:// URL")
        if backend == "sqlite" and (parsed.host or parsed.port or parsed.username):
            raise ValueError("names a host, and SQLite has none: write sqlite:///var/outbox.sqlite3")
        if backend == "sqlite" and "uri" in parsed.query:  # by which the driver would open another file
            raise ValueError("has a uri=, which is not taken: write sqlite:///var/outbox.sqlite3 alone")
        if "@" in (parsed.host or ""):  # which would be looked up, and shown
            raise ValueError("has an @ in its user or password: write it as %40")
        parsed = parsed.set(drivername=backend)  # the driver is ours
        if backend == "sqlite" and parsed.database and parsed.database != ":memory:":
            parsed = parsed.set(database=str(Path(parsed.database).absolute()))
        return parsed.render_as_string(hide_password=False)

    @field_validator("ca_file")
    @classmethod
    def _file(cls, path: str | None) -> str | None:
        if path is None:
            return None
        try:
            is_file = Path(path).is_file()
        except OSError:  # a certificate itself is too long for a name, and a folder may be closed to us
            is_file = False
        if not is_file:
            raise ValueError("names no file")
        return str(Path(path).absolute())

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return tuple(_network(part) for part in value.split(","))
        except ValueError:
            raise ValueError("each part is an address or a network, as 10.0.0.0/8 or 2001:db8::/32") from None

    @field_validator("retry_schedule", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value

    @field_validator("retry_schedule")
    @classmethod
    def _positive(cls, schedule: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 <= delay <= 86_400 for delay in schedule):
            raise ValueError("each delay is between 0 and 86400 seconds")
        return schedule

    @property
    def lease(self) -> float:
        """Seconds for which a relay may hold an event before another takes it over."""
        return self.timeout + LEASE_MARGIN

    @property
    def shown_outbox(self) -> str:
        """`CRM_OUTBOX_URL` without its password."""
        return without_secrets(make_url(self.outbox_url))


def without_secrets(url: URL) -> str:
    """Return a database's address as it may be shown: a driver may be given passwords in the query, too."""
    secrets = [name for name in url.query if "password" in name.lower()]
    return url.difference_update_query(secrets).render_as_string(hide_password=True)


def given(env_file: str | None = None) -> dict[str, tuple[str, str]]:
    """Return what is set, by field: the value, and whether the environment or the file says so.

    Raises SettingsError for a file that is no text, or none.
    """
    of_file = {name: (value, str(env_file)) for name, value in _set_in(_read(env_file)).items()}
    return of_file | {name: (value, "environment") for name, value in _set_in(os.environ).items()}


def _is_host(url: str, host: str) -> bool:
    """Say whether the client takes an address's host.

    It is asked only of names that are not plain ASCII, or encoded so: booking code is spared its import.
    """
    if host.isascii() and "xn--" not in host:
        return True
    import httpx  # noqa: PLC0415

    try:
        _ = httpx.URL(url).host
    except (httpx.InvalidURL, UnicodeError):
        return False
    return True


def _network(text: str) -> Network:
    """Return a network; one of IPv4 that is written as IPv6 (RFC 4291, section 2.5.5.2) is one of IPv4."""
    network = ip_network(text.strip())
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    return IPv4Network((mapped, network.prefixlen - 96)) if mapped and network.prefixlen >= 96 else network


def _set_in(variables: Mapping[str, str | None]) -> dict[str, str]:
    """Return our settings among variables, by field; an empty one is not set."""
    found = {field: variables.get(f"CRM_{field.upper()}") for field in SenderSettings.model_fields}
    return {field: value for field, value in found.items() if value}


def _read(env_file: str | None) -> dict[str, str | None]:
    # dotenv takes a folder, which a container gets for a file that is not there, and a link to nothing for no settings.
    if env_file and os.path.lexists(env_file) and (os.path.isdir(env_file) or not os.path.exists(env_file)):
        raise SettingsError(
            f"{env_file} is no file, but a folder or a link to nothing: make it one, or remove it"
        )
    try:
        return dotenv_values(env_file, encoding="utf-8") if env_file else {}
    except UnicodeDecodeError:
        raise SettingsError(f"{env_file} is not UTF-8: save it as UTF-8") from None
