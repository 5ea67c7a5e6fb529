"""One attempt over HTTP: it returns what came back, and never raises for it."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cache
from importlib.resources import files
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

import httpcore
import httpx
from standardwebhooks import Webhook

from generated.operations import CURRENT, HEALTH_PATH, RECEIPT_PATH, WEBHOOKS, Path
from sender.delivery import (
    Answer,
    Delivery,
    Fault,
    Outcome,
    read_given_up,
    read_json,
    read_retry_after,
    status_words,
)
from sender.errors import SettingsError
from sender.events import TEST_KEY, uuid7
from sender.settings import SenderSettings
from sender.tracing import Tracing

MAX_ANSWER = 65_536
"""Bytes of an answer that are read."""

WRITE = 16_384
"""Bytes of a request that are written at once."""

REFUSED = "Connection refused"

NOT_ACCEPTED, NO_TLS, TLS_FAILED = "Certificate not accepted", "No TLS", "TLS failed"

USER_AGENT = "revivatech-crm-link/"
"""How a relay's `user-agent` begins; the outbox's own door knows it by that."""

HEALTH_TIMEOUT = 2.0
"""Seconds that a health probe may take."""


@dataclass(frozen=True, slots=True)
class Health:
    """What the CRM says of itself."""

    ok: bool
    words: str
    versions: tuple[str, ...] | None = None
    """The contract releases that it speaks, where it said so."""
    clock: float | None = None
    """Its time of day, where it said so."""
    deprecated: Mapping[str, str | None] = field(default_factory=dict)
    """Releases that should no longer be sent: the day from which on each may be refused, where it said so."""


class Transport:
    """A connection to the CRM, for one thread.

    Raises SettingsError when httpx cannot send to the address that the settings name, or nobody can be trusted by
    the file that they name.
    """

    def __init__(self, settings: SenderSettings) -> None:
        try:
            _ = httpx.URL(settings.webhook_url).host
        except (httpx.InvalidURL, UnicodeError):  # the second for a host such as xn--a
            raise SettingsError("CRM_WEBHOOK_URL: no request can be sent to this URL") from None
        self._settings = settings
        secret = settings.signing_secret
        self._signer = Webhook(secret.get_secret_value()) if secret else None
        self._urls: dict[str, httpx.URL] = {}
        self._tracing = Tracing()
        self._network = _DeadlineBackend()
        is_tls = settings.webhook_url.startswith("https:")
        tls = _tls(settings.ca_file) if is_tls or settings.ca_file else None
        # Without httpx's Client, which costs as much again: no proxy or .netrc of the environment sees or
        # replaces the key, no cookie is kept, no redirect followed, no URL logged.
        self._http = _DeadlineTransport(self._network, tls)
        self._headers = {
            **_authorization(settings),
            "user-agent": f"{USER_AGENT}{CURRENT}",
            "accept": "application/json, application/problem+json",
            "accept-encoding": "identity",
            "connection": "keep-alive",
        }

    def __enter__(self) -> Transport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def send(self, delivery: Delivery) -> Outcome:
        """Make one attempt to deliver an event."""
        headers = {"webhook-id": delivery.id, "webhook-contract": delivery.contract}

        def send(traceparent: str | None) -> Outcome:
            if traceparent:
                headers["traceparent"] = traceparent
            return self._post(WEBHOOKS[delivery.event].path, delivery.payload.encode(), headers)

        return self._tracing.attempt(delivery, send)

    def probe(self, path: str) -> tuple[bool, str]:
        """Send a test webhook to a path. Return whether the CRM takes webhooks there, and its words.

        A refusal of the test itself passes too: it is our CRM that answers, and it knows the key.
        """
        name = next(name for name, webhook in WEBHOOKS.items() if webhook.path == path)
        headers = {"webhook-id": str(uuid7()), "webhook-contract": CURRENT, "webhook-test": "true"}
        outcome = self._post(path, probe_body(name).encode(), headers)
        return passes(outcome), words_of(outcome)

    def health(self, timeout: float = HEALTH_TIMEOUT) -> Health:
        """Ask the CRM how it is."""
        outcome = self._exchange("GET", HEALTH_PATH, None, {}, timeout)
        if isinstance(outcome, Fault):
            return Health(False, outcome.words)
        body = read_json(outcome) or {}
        contract = body.get("contract")
        versions = contract.get("versions") if isinstance(contract, dict) else None
        spoken = tuple(map(str, versions)) if isinstance(versions, list) else None
        if outcome.status == httpx.codes.OK and not isinstance(body.get("status"), str):
            return Health(False, f"{words_of(outcome)}, but not the CRM's health")
        deprecated = _deprecated(contract.get("deprecated")) if isinstance(contract, dict) else {}
        is_well = outcome.status == httpx.codes.OK
        return Health(is_well, words_of(outcome), spoken, _time(body.get("time")), deprecated)

    def receipt(self, receipt_id: str, timeout: float) -> Outcome:
        """Ask the CRM what became of an event, by its receipt's id, for so many seconds."""
        return self._exchange("GET", RECEIPT_PATH.format(id=receipt_id), None, {}, timeout)

    def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        kinds = {
            "content-type": "application/json",
            **headers,
            **self._signature(body, headers["webhook-id"]),
        }
        return self._exchange("POST", path, body, kinds, self._settings.timeout)

    def _signature(self, body: bytes, webhook_id: str) -> dict[str, str]:
        """Return the headers that vouch for a body, of this moment: an old signature is refused."""
        if self._signer is None:
            return {}
        now = datetime.now(UTC)
        signature = self._signer.sign(webhook_id, now, body.decode())
        return {"webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> Outcome:
        self._network.start(timeout)
        request = httpx.Request(method, self._url(path), content=body, headers={**self._headers, **headers})
        try:
            return self._read(request)
        except httpx.TransportError as error:
            # A kept connection that the CRM closed meanwhile says nothing of the CRM: once more, on a
            # fresh one. The webhook-id makes it safe.
            if self._network.connected or self._network.answered or self._network.expired:
                return _fault(error, self._network)
        try:
            return self._read(request)
        except httpx.TransportError as error:
            return _fault(error, self._network)

    def _url(self, path: str) -> httpx.URL:
        if path not in self._urls:
            self._urls[path] = httpx.URL(self._settings.webhook_url + path)
        return self._urls[path]

    def _read(self, request: httpx.Request) -> Answer:
        return _read(self._http, request)


def _read(http: httpx.HTTPTransport, request: httpx.Request) -> Answer:
    """Send a request, and read its answer to a bound."""
    response = http.handle_request(request)
    try:
        body = bytearray()
        for part in response.iter_raw():
            body += part
            if len(body) > MAX_ANSWER:
                break
    finally:
        response.close()
    return Answer(
        response.status_code,
        response.headers.get("content-type", ""),
        bytes(body[:MAX_ANSWER]),
        read_retry_after(response.headers.get("retry-after"), time.time()),
        read_given_up(response.headers.get("deprecation"), response.headers.get("sunset")),
    )


def post_json(url: str, body: bytes, timeout: float) -> Outcome:
    """POST JSON once to an address that is not the CRM's, with no key, within a deadline in seconds.

    As with the CRM no redirect is followed, no proxy of the environment used, no URL logged.
    """
    network = _DeadlineBackend()
    network.start(timeout)
    headers = {"content-type": "application/json", "accept-encoding": "identity", "connection": "close"}
    with _DeadlineTransport(network) as http:
        try:
            return _read(http, httpx.Request("POST", url, content=body, headers=headers))
        except httpx.InvalidURL:
            return Fault("network", "no request can be sent to this URL")
        except httpx.TransportError as error:
            return _fault(error, network)


def _time(text: object) -> float | None:
    """Return an RFC 3339 time in seconds since 1970, None for what is none."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError):
        return None


def _deprecated(told: object) -> dict[str, str | None]:
    """Return which releases should no longer be sent, and each one's last day, of what health says of them."""
    given = told.items() if isinstance(told, dict) else ()
    return {name[:32]: _date(days.get("sunset")) for name, days in given if isinstance(days, dict)}


def _date(text: object) -> str | None:
    try:
        return date.fromisoformat(str(text)).isoformat()
    except ValueError:
        return None


def _authorization(settings: SenderSettings) -> dict[str, str]:
    """Return the header with the key; none without a key, for health is open."""
    return {"authorization": f"Bearer {settings.api_key.get_secret_value()}"} if settings.api_key else {}


REFUSED_TESTS = {"reserved-natural-key", "unsupported-contract-version"}
"""The problems of a test, not of key and path: a proxy took its header, or the CRM is older than this sender."""


def passes(outcome: Outcome) -> bool:
    """Say whether the answer to a test webhook came from our CRM, to a key that it knows."""
    if isinstance(outcome, Fault):
        return False
    body = read_json(outcome) or {}
    if outcome.status == httpx.codes.OK:
        return body.get("status") == "test_ok"
    if outcome.status == httpx.codes.ACCEPTED:
        return body.get("natural_key") == TEST_KEY
    return outcome.status == httpx.codes.BAD_REQUEST and str(body.get("type")) in REFUSED_TESTS


def words_of(outcome: Outcome) -> str:
    """Return an outcome in the guide's words."""
    return outcome.words if isinstance(outcome, Fault) else status_words(outcome.status)


@cache
def probe_body(name: str) -> str:
    """Return a test webhook's body: the contract's own example under the reserved natural key."""
    source = files("generated").joinpath("contracts", CURRENT, "openapi.json").read_text("utf-8")
    webhook = WEBHOOKS[name]
    operation = json.loads(source)["paths"][webhook.path]["post"]
    [example, *_] = operation["requestBody"]["content"]["application/json"]["examples"].values()
    body: dict[str, Any] = example["value"]
    for path in (webhook.order_key, webhook.reference, webhook.natural_key):
        _put(body, path, TEST_KEY)
    return json.dumps(body)


def _put(body: dict[str, Any], path: Path, value: str) -> None:
    for name in path[:-1]:
        body = body[name]
    body[path[-1]] = value


def _fault(error: httpx.TransportError, network: _DeadlineBackend) -> Fault:
    causes = list(_causes(error))
    if isinstance(error, httpx.TimeoutException) or network.expired:
        return Fault("timeout", "timeout")
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return Fault("refused", REFUSED)
    if any(isinstance(cause, ConnectionResetError | BrokenPipeError) for cause in causes):
        return Fault("network", "Connection reset")
    if tls := next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None):
        return Fault("network", _tls_words(tls))
    if isinstance(error, httpx.ConnectError):
        return Fault("network", "Cannot connect")
    if isinstance(error, httpx.RemoteProtocolError):
        return Fault("network", "Connection closed before the whole answer")
    return Fault("network", type(error).__name__)


def _tls_words(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        # What follows the comma names the host, and who may not know it sees the words too.
        return f"{NOT_ACCEPTED}: {error.verify_message.partition(',')[0]}"
    reason = str(getattr(error, "reason", None) or "ended by the other side")
    words = reason.replace("_", " ").lower()
    return f"{NO_TLS}: {words}" if reason == "WRONG_VERSION_NUMBER" else f"{TLS_FAILED}: {words}"


def _tls(ca_file: str | None) -> ssl.SSLContext:
    """Return what says who is trusted: the authorities of a PEM file, or those of the system and of browsers.

    For one thread: httpcore writes to it at each connection, while another may be read from it.
    """
    if ca_file is None:
        return httpcore.default_ssl_context()
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise SettingsError("CRM_CA_FILE: holds no certificate in PEM") from None
    except OSError as error:
        raise SettingsError(f"CRM_CA_FILE: {error.strerror}") from None


def _causes(error: BaseException | None) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def addresses(host: str, port: int, seconds: float) -> list[str]:
    """Return the addresses of a host, in the order in which they are to be tried.

    Nothing can interrupt the system's resolver: one that is asked for too long is left to end by itself. Raises
    TimeoutError then, and OSError, or UnicodeError for a name that is none.
    """
    answers: SimpleQueue[list[Any] | Exception] = SimpleQueue()

    def resolve() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # whoever waits is to have it, whatever it is
            answers.put(error)

    try:
        threading.Thread(target=resolve, name="resolver", daemon=True).start()
        found = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError("the addresses did not come in time") from None
    except RuntimeError as error:  # there can be no more threads
        raise OSError(str(error)) from None
    if isinstance(found, Exception):
        raise found
    return [str(address[0]) for *_, address in found]


class _DeadlineTransport(httpx.HTTPTransport):
    """httpx's transport over a network that keeps one deadline for a whole exchange."""

    def __init__(self, network: _DeadlineBackend, tls: ssl.SSLContext | None = None) -> None:
        pool = _OneConnection(network, tls)
        self._pool = pool  # type: ignore[assignment]  # for the one that httpx would make


class _OneConnection:
    """As much of httpcore's pool as one connection needs; the whole takes a tenth of an attempt."""

    def __init__(self, network: _DeadlineBackend, tls: ssl.SSLContext | None) -> None:
        self._network, self._tls = network, tls
        self._connection: httpcore.HTTPConnection | None = None

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        if self._connection is None or self._connection.is_closed() or self._connection.has_expired():
            self.close()
            self._connection = httpcore.HTTPConnection(
                request.url.origin, self._tls, keepalive_expiry=30.0, network_backend=self._network
            )
        return self._connection.handle_request(request)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.close()


class _DeadlineBackend(httpcore.NetworkBackend):
    """A network whose every operation ends by one deadline: httpx's time-outs are per operation."""

    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()
        self._deadline = 0.0
        self.connected = False
        self.answered = False

    def start(self, timeout: float) -> None:
        """Begin an exchange that may take so many seconds."""
        self._deadline = time.monotonic() + timeout
        self.connected = self.answered = False

    @property
    def expired(self) -> bool:
        """Whether the deadline is past."""
        return time.monotonic() >= self._deadline

    def left(self, error: type[Exception]) -> float:
        """Return the seconds that are left, or raise the operation's time-out."""
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise error("the attempt's time is over")
        return seconds

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        self.connected = True
        try:
            found = addresses(host, port, self.left(httpcore.ConnectTimeout))
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(error) from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(error) from error
        failure: Exception = httpcore.ConnectError("the name has no address")
        for untried, address in zip(range(len(found), 0, -1), found, strict=True):
            # Left to itself each address would get the whole time, and a silent one leave none to the next.
            share = self.left(httpcore.ConnectTimeout) / untried
            try:
                stream = self._backend.connect_tcp(address, port, share, local_address, socket_options)
                return _DeadlineStream(self, stream)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, network: _DeadlineBackend, stream: httpcore.NetworkStream) -> None:
        self._network = network
        self._stream = stream
        self._kept_back = b""
        self._unsent = bytearray()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._send()
        if self._kept_back:
            data, self._kept_back = self._kept_back, b""
            return data
        data = self._stream.read(max_bytes, self._network.left(httpcore.ReadTimeout))
        self._network.answered |= bool(data)
        # A byte that nobody asks for after the end of an answer came beyond it. httpcore would take what
        # is beyond for the start of the next answer; a connection that has something to read it drops.
        if len(data) > 1:
            data, self._kept_back = data[:-1], data[-1:]
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # Head and body go as one packet when the answer is asked for: a call into the system for each would
        # take a tenth of an attempt, and have the CRM wake up twice.
        self._unsent += buffer

    def _send(self) -> None:
        unsent, self._unsent = bytes(self._unsent), bytearray()
        # A CRM may answer and close before it has read all: what it says counts, as httpcore has it.
        with suppress(httpcore.WriteError):
            for start in range(0, len(unsent), WRITE):  # a time-out is per part when the CRM reads slowly
                self._stream.write(unsent[start : start + WRITE], self._network.left(httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(
            ssl_context, server_hostname, self._network.left(httpcore.ConnectTimeout)
        )
        return _DeadlineStream(self._network, stream)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and self._kept_back:
            return True
        return self._stream.get_extra_info(info)
