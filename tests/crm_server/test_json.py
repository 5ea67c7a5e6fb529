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
    "CESU-8": with_notes('"X"').replace(b'"X"', b'"\xed\xa0\xbd\xed\xb8\x80"'),
    "U+0000 in two bytes": with_notes('"X"').replace(b'"X"', b'"\xc0\x80"'),
    "beyond U+10FFFF": with_notes('"X"').replace(b'"X"', b'"\xf4\x90\x80\x80"'),
    "half a character at the end": VALID.encode() + b"\xf0\x9f",
    "UTF-32": VALID.encode("utf-32"),
    "UTF-7": b"+AHs-" + VALID.encode()[1:],
    "line separator around": "\u2028{}".encode(),
    "form feed around": b"\x0c{}",
    "U+0000 behind": VALID.encode() + b"\x00",
    "a line a value": VALID.encode() + b"\n" + VALID.encode(),
    "hash comment": b"# no\n{}",
    "a name without quotes": b"{a: 1}",
    "a name of a number": b"{1: 1}",
    "a comma too many": b'{"a": 1,, "b": 2}',
    "no comma": b'{"a": 1 "b": 2}',
    "no colon": b'{"a" 1}',
    "an unknown escape": with_notes('"\\x41"'),
    "half an escape": with_notes('"\\u12"'),
    "a tab in a string": with_notes('"a\tb"'),
    "an escape character in a string": with_notes('"a\x1bb"'),
    "True": with_notes("True"),
    "undefined": with_notes("undefined"),
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
    "a plus": with_notes("+1"),
    "nothing before the point": with_notes(".5"),
    "nothing after the point": with_notes("1."),
    "nothing after the e": with_notes("1e"),
    "hexadecimal": with_notes("0x1F"),
    "an underscore": with_notes("1_000"),
    "two signs": with_notes("--1"),
    "full-width digits": with_notes("\uff11"),
    "Arabic digits": with_notes("\u0661"),
    "1e999999999": with_notes("1e999999999"),
    "a mantissa of 500,000 digits": with_notes("1" * 500_000 + "." + "1" * 400_000),
    "minus an integer of 500,000 digits": with_notes("-" + "1" * 500_000),
    "a bare minus": with_notes("-"),
    "65 levels of both": b'[{"a":' * 33 + b"1" + b"}]" * 33,
    "65 levels in a field": with_notes("[" * 63 + "]" * 63),
    "500,000 brackets in pieces of text": b'["[",' * 100_000,
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
    "a price as 3E+2": VALID.replace("299.99", "3E+2").encode(),
    "a price as 0": VALID.replace("299.99", "-0").encode(),
    "a price below the smallest double": VALID.replace("299.99", "1e-400").encode(),
    "a price of 1,000 decimals": VALID.replace("299.99", "2." + "9" * 1000).encode(),
    "U+FEFF in a text": with_notes('"\ufeff"'),
    "a line separator in a text": with_notes('"\u2028\u2029\x85"'),
    "an escaped solidus": with_notes('"<\\/script>"'),
    "a price as 3e2": VALID.replace("299.99", "3e2").encode(),
    "a price as -0.0": VALID.replace("299.99", "-0.0").encode(),
}


@pytest.mark.parametrize("body", ACCEPTED.values(), ids=ACCEPTED)
def test_unusual_but_clear_json_is_taken(crm: Crm, body: bytes) -> None:
    fresh = body.replace(b'"booking-', f'"b{abs(hash(body)) % 10**9}-'.encode())
    assert post(crm, "repair-request", fresh).status == 202


def test_deep_json_within_the_bound_is_judged_by_the_contract(crm: Crm) -> None:
    assert post(crm, "repair-request", b"[" * 64 + b"]" * 64).type == "invalid-event"
