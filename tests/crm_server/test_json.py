"""Bodies that JSON readers would understand differently, or not at all, are refused and never a 500."""

import json

import pytest

from tests.crm_server.answers import post
from tests.factories import repair_request
from tests.servers import Crm

VALID = json.dumps(repair_request())


def with_notes(text: str) -> bytes:
    """Return a valid body whose notes are the given JSON text."""
    return VALID.replace('"Handle with care"', text).encode("utf-8", "surrogatepass")


REFUSED = {
    "nothing": b"",
    "white space": b" \r\n\t",
    "text": b"nope",
    "half": VALID[:-1].encode(),
    "something behind": VALID.encode() + b" x",
    "two values": b"{}{}",
    "no-break space": b"\xc2\xa0{}",
    "comment": b"{} // no",
    "single quotes": b"{'a': 1}",
    "comma at the end": b'{"a": 1,}',
    "byte order mark": b"\xef\xbb\xbf" + VALID.encode(),
    "UTF-16": VALID.encode("utf-16"),
    "UTF-16 without a mark": VALID.encode("utf-16-le"),
    "latin-1": with_notes('"caf\u00e9"').decode().encode("latin-1"),
    "overlong UTF-8": with_notes('"X"').replace(b'"X"', b'"\xc0\xaf"'),
    "raw surrogate": with_notes('"\ud800"'),
    "lone high surrogate": with_notes('"\\ud800"'),
    "lone low surrogate": with_notes('"\\uDC00 x"'),
    "surrogates in the wrong order": with_notes('"\\udc00\\ud800"'),
    "surrogate in a name": b'{"\\ud83d": 1}',
    "escaped U+0000": with_notes('"a\\u0000b"'),
    "U+0000 in a name": b'{"a\\u0000": 1}',
    "raw U+0000": with_notes('"X"').replace(b'"X"', b'"\x00"'),
    "raw line end in a string": with_notes('"a\nb"'),
    "a name twice": VALID.replace('"notes":', '"notes": "first", "notes":').encode(),
    "a name twice at the top": b'{"repair": {}, "repair": {}}',
    "a name twice by its escape": b'{"a": 1, "\\u0061": 2}',
    "NaN": with_notes("NaN"),
    "Infinity": with_notes("Infinity"),
    "minus Infinity": with_notes("-Infinity"),
    "1e400": with_notes("1e400"),
    "-1e400": with_notes("-1e400"),
    "an integer beyond a double": with_notes("1" + "0" * 309),
    "an integer of 5,000 digits": with_notes("1" * 5000),
    "a leading zero": with_notes("01"),
    "a bare minus": with_notes("-"),
    "65 levels": b"[" * 65 + b"]" * 65,
    "100,000 brackets": b"[" * 100_000,
    "100,000 objects": b'{"a":' * 100_000,
    "deep and closed": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "500,000 escaped quotes without an end": b'[{"' + b'\\"' * 500_000 + b"[" * 70,
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_a_body_that_readers_could_differ_on_is_invalid_json(crm: Crm, body: bytes) -> None:
    answer = post(crm, "repair-request", body)
    assert (answer.status, answer.type) == (400, "invalid-json")


ACCEPTED = {
    "an escaped pair": with_notes('"\\ud83e\\udd8a"'),
    "the pair itself": with_notes('"\U0001f98a"'),
    "many brackets in a text": with_notes('"' + "[{" * 200 + '"'),
    "an escaped quote before brackets": with_notes('"\\"' + "[" * 100 + '\\\\"'),
    "white space around": b"\r\n\t " + VALID.encode() + b" \n",
    "a price as 3e2": VALID.replace("299.99", "3e2").encode(),
    "a price as -0.0": VALID.replace("299.99", "-0.0").encode(),
}


@pytest.mark.parametrize("body", ACCEPTED.values(), ids=ACCEPTED)
def test_unusual_but_clear_json_is_taken(crm: Crm, body: bytes) -> None:
    fresh = body.replace(b'"booking-', f'"b{abs(hash(body)) % 10**9}-'.encode())
    assert post(crm, "repair-request", fresh).status == 202


def test_deep_json_within_the_bound_is_judged_by_the_contract(crm: Crm) -> None:
    assert post(crm, "repair-request", b"[" * 64 + b"]" * 64).type == "invalid-event"
