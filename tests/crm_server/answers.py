"""Asks a server, and holds every answer against its contract: status, headers and body documented."""

import contextlib
import functools
import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import jsonschema_rs

from crm_server.validation import STAFF_CONTRACT, load_contract
from generated.operations import CURRENT
from tests.servers import NO_TLS, Crm

JSON = {"content-type": "application/json"}
PROBLEM = "application/problem+json"
GIVEN_UP = {"Deprecation", "Sunset"}
"""There when a release is given up; the other headers of the contract always are."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def type(self) -> str:
        """The problem's type."""
        assert self.headers["content-type"] == PROBLEM, self
        return str(self.json["type"])

    @property
    def pointers(self) -> list[str]:
        return [fault["pointer"] for fault in self.json["errors"]]


def send(crm: Crm, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    """Send a request with the right key unless `authorization` says otherwise; empty leaves a header out."""
    given = {"authorization": f"Bearer {crm.key}", **(JSON if body is not None else {})}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    wanted = {name: value for name, value in given.items() if value}
    response = httpx.request(
        method, f"{crm.url}{path}", content=body, headers=wanted, timeout=30, verify=NO_TLS
    )
    return checked(method, path, Answer(response.status_code, dict(response.headers), response.content))


def post(crm: Crm, event: str, payload: Any, **headers: str) -> Answer:
    """Send a webhook; `payload` is a JSON value, or bytes as they are."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return send(crm, "POST", f"/{event}", body, **headers)


def ask(
    crm: Crm,
    token: str,
    method: str,
    path: str,
    payload: Any = ...,
    *,
    body: bytes | None = None,
    **headers: str,
) -> Answer:
    """Ask the staff API with a token, which may be empty; `payload` is a JSON value, `body` bytes as they are."""
    if payload is not ...:
        body = json.dumps(payload).encode()
    given = {"authorization": f"Bearer {token}" if token else "", **(JSON if body is not None else {})}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    wanted = {name: value for name, value in given.items() if value}
    response = httpx.request(
        method, f"{crm.staff_url}{path}", content=body, headers=wanted, timeout=30, verify=NO_TLS
    )
    answer = Answer(response.status_code, dict(response.headers), response.content)
    return checked(method, path.partition("?")[0], answer, STAFF_CONTRACT, "/approvals/{id}/approve")


def raw(crm: Crm, request: bytes, *, seconds: float = 20, source: str = "127.0.0.1") -> Answer:
    """Send bytes over a socket from an address; return the first answer that is not an interim one."""
    method, target, _ = request.split(b"\r\n")[0].decode("latin-1").split(" ", 2)
    with socket.create_connection(("127.0.0.1", crm.port), seconds, (source, 0)) as connection:
        # The server may answer, and close, before it has read all.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
        answer = read_answer(connection)
    return checked(method, target.removeprefix("/webhooks"), answer)


def read_answer(connection: socket.socket) -> Answer:
    """Read one answer with a Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        assert part, f"The connection ended after {data!r}"
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    status = int(lines[0].split(" ")[1])
    if status == 100:
        return read_answer(connection)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    return Answer(status, headers, body)


def exchange(crm: Crm, request: bytes, *, half_close: bool = False, seconds: float = 20) -> list[Answer]:
    """Send bytes over a socket; return every answer until the server closes, which it must."""
    data = b""
    with socket.create_connection(("127.0.0.1", crm.port), timeout=seconds) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                data += part
    return list(split_answers(data))


def split_answers(data: bytes) -> Iterator[Answer]:
    """Yield the answers of one connection; none may be one to HEAD."""
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        size = int(headers.get("content-length", 0))
        yield Answer(int(status.split(" ")[1]), headers, rest[:size])
        data = rest[size:]


def head(crm: Crm, method: str, path: str, *lines: str) -> bytes:
    """Return a request's head with the right key."""
    fields = ["Host: crm", f"Authorization: Bearer {crm.key}", *lines]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *fields, "", ""]).encode("latin-1")


def webhook(crm: Crm, payload: Any, *lines: str) -> bytes:
    """Return a whole repair request with the right key, and other header lines."""
    body = json.dumps(payload).encode()
    kinds = ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return head(crm, "POST", "/webhooks/repair-request", *kinds, *lines) + body


def chunked(body: bytes, size: int = 700) -> bytes:
    """Write a body in chunks (RFC 9112, section 7.1)."""
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def checked(
    method: str, path: str, answer: Answer, contract: str = CURRENT, like: str = "/repair-request"
) -> Answer:
    """Return the answer when the contract documents it.

    A path or method that is not in the contract is answered as the path `like` documents.
    """
    paths = load_contract(contract)["paths"]
    template = next((known for known in paths if re.fullmatch(re.sub(r"{\w+}", "[^/]+", known), path)), like)
    operation = paths[template].get(method.lower()) or paths[like]["post"]
    response = resolve(operation["responses"][str(answer.status)], contract)
    for name, header in response.get("headers", {}).items():
        if name in GIVEN_UP and name.lower() not in answer.headers:
            continue
        rule = jsonschema_rs.validator_for(resolve(header, contract)["schema"])
        text = answer.headers[name.lower()]
        assert rule.is_valid(int(text) if text.isdecimal() else text), (name, text)
    if method != "HEAD":
        kind = answer.headers["content-type"].partition(";")[0]
        validator = schema_validator(answer.status, response, kind, contract)
        validator.validate(answer.json if kind in ("application/json", PROBLEM) else answer.body.decode())
    return answer


def schema_validator(status: int, response: Any, media_type: str, contract: str) -> Any:
    assert media_type in response["content"], (status, media_type)
    return compiled(json.dumps(response["content"][media_type]["schema"]), contract)


@functools.cache
def compiled(schema: str, contract: str) -> Any:
    whole = {**json.loads(schema), "components": load_contract(contract)["components"]}
    return jsonschema_rs.Draft202012Validator(with_null(whole), validate_formats=True)


def with_null(schema: Any) -> Any:
    """Return a schema in which OpenAPI 3.0's `nullable` is JSON Schema's own type."""
    if isinstance(schema, list):
        return [with_null(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: with_null(part) for name, part in schema.items()}
    if found.get("nullable") is not True:
        return found
    return (
        found | {"type": [found["type"], "null"]} if "type" in found else {"anyOf": [found, {"type": "null"}]}
    )


def resolve(value: Any, contract: str) -> Any:
    found: Any = value
    if "$ref" in value:
        found = load_contract(contract)
        for step in value["$ref"].removeprefix("#/").split("/"):
            found = found[step]
    return found


def until(condition: Any, seconds: float = 45) -> Any:
    """Poll until a condition is true; return what it returned."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "It did not happen in time."
        time.sleep(0.02)
    return found
