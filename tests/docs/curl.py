"""What the documents' curl commands ask, asked by Python: for machines that have no curl.

python -m tests.docs.curl [OPTION…] URL

It knows the options that the documents use, does with them what curl does, and refuses any other.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import httpx

FORM = "application/x-www-form-urlencoded"
FAILED = 22
"""curl's exit code for an answer of 400 or more, where `--fail` asks for it."""
AWAY = 7
"""curl's exit code for no connection."""


def main(argv: list[str] | None = None) -> int:
    """Make one request, and print the answer; return curl's exit code."""
    parser = argparse.ArgumentParser(prog="curl", allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("-i", "--include", action="store_true")
    parser.add_argument("-s", "--silent", action="store_true")
    parser.add_argument("-f", "--fail", action="store_true")
    parser.add_argument("-X", "--request")
    parser.add_argument("-H", "--header", action="append", default=[])
    parser.add_argument("-d", "--data")
    asked = parser.parse_args(argv)
    lines = [line for header in asked.header for line in content(header).splitlines()]
    headers = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = None if asked.data is None else content(asked.data).replace("\n", "").replace("\r", "")
    if body is not None:
        headers = {"Content-Type": FORM} | headers
    method = asked.request or ("GET" if body is None else "POST")
    try:
        answer = httpx.request(method, asked.url, headers=headers, content=body, timeout=60, trust_env=False)
    except httpx.TransportError as error:
        print(f"curl: {error}", file=sys.stderr)
        return AWAY
    if asked.fail and answer.is_error:
        print(f"curl: the answer is {answer.status_code}", file=sys.stderr)
        return FAILED
    if asked.include:
        print(f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}", end="\r\n")
        print(*(f"{name}: {value}\r\n" for name, value in answer.headers.items()), sep="", end="\r\n")
    print(answer.text, end="")
    return 0


def content(value: str) -> str:
    """Return what a value says, or the content of the file that it names after `@`."""
    return Path(value[1:]).read_text(encoding="utf-8") if value.startswith("@") else value


if __name__ == "__main__":
    sys.exit(main())
