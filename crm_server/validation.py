"""From the bytes of a body to a valid event, or to every fault at once, without values.

Three steps, each stricter than the last reader needs: JSON that no two readers could understand
differently; the frozen schema of the release that the sender names; today's model.
"""

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NoReturn

import jsonschema_rs
from pydantic import ValidationError

from crm_server.errors import AmbiguousJson, CrmError, Fault, InvalidEvent, InvalidJson
from crm_server.upcast import upcast
from generated.operations import CURRENT, MODELS, RELEASES, Path, Webhook

DEEPEST = 64
"""How deep objects and arrays may be nested."""
LONGEST_INTEGER = 310
"""The digits and the sign of the largest double; `int()` itself refuses some thousands."""
STAFF_CONTRACT = "approvals"
"""The staff API's contract, beside the releases of the webhooks'."""
MOST_FAULTS = 100
"""How many faults an answer lists; it says how many there are."""
MOST_JUDGED = 1000
"""How many items of a list and unknown names of an object are looked at for faults, once there is one.

A body of the largest size has room for half a million, and everybody would wait while they are named.
"""

Body = dict[str, Any]
Schema = dict[str, Any]
Place = tuple[str | int, ...]

_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_EXPECTED_JSON = "one JSON object in UTF-8"
_EXPECTED_FIELDS = "only the fields of the contract"


class ContractMismatch(CrmError):
    """Schema and model of one release disagree about a body: a bug of ours, never the sender's fault."""


@dataclass(frozen=True, slots=True)
class BodyRules:
    """What a body must be."""

    schema: Schema
    validator: jsonschema_rs.Draft202012Validator
    open_maps: tuple[Path, ...]
    """Objects whose keys are the customer's words."""


@dataclass(frozen=True, slots=True)
class Rules(BodyRules):
    """One webhook in one release: what its bodies must be."""

    webhook: Webhook


def load_rules() -> dict[str, dict[str, Rules]]:
    """Compile every release's frozen schemas; return them by release and webhook."""
    return {
        release: {
            webhook.name: Rules(*_load(release, webhook.name), webhook.open_maps, webhook)
            for webhook in webhooks.values()
        }
        for release, webhooks in RELEASES.items()
    }


def load_body_rules(contract: str, operation_id: str) -> BodyRules:
    """Compile the schema of an operation's body that has no open maps."""
    return BodyRules(*_load(contract, operation_id), open_maps=())


def load_contract(release: str = CURRENT) -> dict[str, Any]:
    """Return a bundled OpenAPI document: a release of the webhooks', or STAFF_CONTRACT."""
    text = files("generated").joinpath("contracts", release, "openapi.json").read_text("utf-8")
    contract: dict[str, Any] = json.loads(text)
    return contract


def _load(contract: str, name: str) -> tuple[Schema, jsonschema_rs.Draft202012Validator]:
    text = files("generated").joinpath("contracts", contract, f"{name}.json").read_text("utf-8")
    schema = json.loads(text)
    return schema, jsonschema_rs.Draft202012Validator(schema, validate_formats=True)


def parse_json(raw: bytes) -> tuple[str, Any]:
    """Return a body's text and its value.

    Raises InvalidJson for everything on which JSON readers differ (RFC 8259, sections 4, 6, 8 and 9):
    other encodings and depth; and AmbiguousJson for a name twice in an object, numbers beyond a double,
    NaN, lone surrogates and U+0000, of which `describe_ambiguity` tells the places.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse(f"is not UTF-8 at byte {error.start}")
    if not text.strip(" \t\r\n"):
        _refuse("is empty")
    if text.count("[") + text.count("{") > DEEPEST and _is_too_deep(text):
        _refuse("is nested too deep", f"at most {DEEPEST} levels")
    value = _decode(_STRICT, text)
    if "\\u" in text and not _is_text(value):
        _stop(_BAD_TEXT)
    return text, value


def _decode(decoder: json.JSONDecoder, text: str) -> Any:
    try:
        return decoder.decode(text)
    except json.JSONDecodeError as error:
        _refuse(f"is not JSON at line {error.lineno}, column {error.colno}")


def _refuse(detail: str, expected: str = _EXPECTED_JSON) -> NoReturn:
    raise InvalidJson((Fault("", detail, expected),), 1) from None


def _is_too_deep(text: str) -> bool:
    """Tell it at the first bracket too many: a body of the largest size may have a million."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        match match[0]:
            case "[" | "{":
                depth += 1
                if depth > DEEPEST:
                    return True
            case "]" | "}":
                depth -= 1
    return False


@dataclass(frozen=True, slots=True)
class _Ambiguous:
    """What is found where JSON readers differ."""

    detail: str
    expected: str
    members: Mapping[str, Any] | None = None
    """The object, each name with its last value, when names are there more than once."""
    repeated: tuple[str, ...] = ()


_BAD_TEXT = _Ambiguous("holds U+0000 or half a surrogate pair", "text that every database can hold")
_BAD_CHARACTER = re.compile("[\0\ud800-\udfff]")
_TOO_LARGE = _Ambiguous("is a number that is too large", "numbers that a double can hold")
_NOT_FINITE = _Ambiguous("is NaN or Infinity", "numbers as JSON writes them")


def _decoder(found: Callable[[_Ambiguous], Any]) -> json.JSONDecoder:
    """Return a decoder that takes for an ambiguous value what `found` returns for it."""

    def read_object(pairs: list[tuple[str, Any]]) -> Any:
        value = dict(pairs)
        if len(value) != len(pairs):
            repeated = tuple(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
            return found(_Ambiguous("is there more than once", "each name once", value, repeated))
        return value

    def read_float(text: str) -> Any:
        number = float(text)
        return found(_TOO_LARGE) if math.isinf(number) else number

    def read_int(text: str) -> Any:
        if len(text) > LONGEST_INTEGER or math.isinf(float(text)):
            return found(_TOO_LARGE)
        return int(text)

    return json.JSONDecoder(
        object_pairs_hook=read_object,
        parse_float=read_float,
        parse_int=read_int,
        parse_constant=lambda _: found(_NOT_FINITE),
    )


def _stop(found: _Ambiguous) -> NoReturn:
    raise AmbiguousJson((Fault("", found.detail, found.expected),), 1)


_STRICT = _decoder(_stop)
_TOLERANT = _decoder(lambda found: found)


def describe_ambiguity(rules: BodyRules, raw: bytes) -> InvalidJson:
    """Return every fault of a body that `parse_json` called ambiguous, the schema's in the rest too.

    Raises InvalidJson when there is no reading on.
    """
    second = _SecondReading(rules)
    rest = second.read(_decode(_TOLERANT, raw.decode()), ())
    # What stands for an unreadable value has faults that are not the sender's.
    judged = (fault for fault in _faults(rules, rest) if fault.pointer not in second.blanks)
    return InvalidJson(*_counted([*second.faults, *judged]))


class _SecondReading:
    """Goes through what the tolerant decoder returned: notes what is ambiguous, returns the rest."""

    def __init__(self, rules: BodyRules) -> None:
        self._rules = rules
        self.faults: list[Fault] = []
        self.blanks: set[str] = set()
        """The pointers of what could not be read."""

    def read(self, value: Any, place: Place) -> Any:
        match value:
            case _Ambiguous(members=None):
                self.blanks.add(self._note(value, place))
                return None
            case _Ambiguous():
                for name in value.repeated:
                    self._note(value, (*place, name))
                return self.read(value.members, place)
            case str():
                return self._text(value, place)
            case list():
                return [self.read(item, (*place, index)) for index, item in enumerate(value[:MOST_JUDGED])]
            case dict():
                return {self._text(name, place): self.read(v, (*place, name)) for name, v in value.items()}
        return value

    def _text(self, value: str, place: Place) -> str:
        clean = _BAD_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", value)
        if clean != value:
            self._note(_BAD_TEXT, place)
        return clean

    def _note(self, found: _Ambiguous, place: Place) -> str:
        """Note a fault; its pointer ends before the first name that may be the customer's words."""
        shown = itertools.takewhile(lambda step: isinstance(step, int) or _FIELD_NAME.fullmatch(step), place)
        pointer = _pointer(self._rules, tuple(shown))
        self.faults.append(Fault(pointer, found.detail, found.expected))
        return pointer


def _is_text(value: Any) -> bool:
    """Tell whether every string in a value, names too, is Unicode text without U+0000."""
    match value:
        case str():
            return not _BAD_CHARACTER.search(value)
        case list():
            return all(map(_is_text, value))
        case dict():
            return all(map(_is_text, value)) and all(map(_is_text, value.values()))
    return True


def validate(rules: Rules, release: str, raw: bytes, value: Any) -> Body:
    """Return the body when it is what its release says.

    Raises InvalidEvent with every fault, and ContractMismatch when schema and model disagree.
    """
    if not rules.validator.is_valid(value):
        raise describe_faults(rules, value)
    name = rules.webhook.name
    try:
        if release != CURRENT:
            raw = json.dumps(upcast(release, name, value)).encode()
        MODELS[name].model_validate_json(raw, by_alias=True, by_name=False)
    except ValidationError as error:
        kinds = {f"{fault['type']} at {_pointer(rules, fault['loc'])}" for fault in error.errors()}
        raise ContractMismatch(f"{name} {release}: {', '.join(sorted(kinds))}") from None
    body: Body = value
    return body


def describe_faults(rules: BodyRules, value: Any) -> InvalidEvent:
    """Return every fault of a body that the schema refuses."""
    return InvalidEvent(*_counted(_faults(rules, value)))


def _faults(rules: BodyRules, value: Any) -> Iterator[Fault]:
    judged = _excerpt(rules.schema, value)
    for error in rules.validator.evaluate(judged).errors():
        yield from _faults_of(rules, judged, error["schemaLocation"], error["instanceLocation"])


def _excerpt(schema: Schema, value: Any) -> Any:
    """Return a value without what is beyond MOST_JUDGED items of a list or unknown names of an object.

    One more than the contract allows is always there, for that is a fault too.
    """
    match value:
        case list():
            most = max(MOST_JUDGED, schema.get("maxItems", 0) + 1)
            return [_excerpt(schema.get("items", {}), item) for item in value[:most]]
        case dict():
            most = max(MOST_JUDGED, schema.get("maxProperties", 0) + 1)
            properties = schema.get("properties", {})
            known = {name: _excerpt(properties[name], value[name]) for name in properties if name in value}
            others = itertools.islice((name for name in value if name not in properties), most)
            return known | {name: value[name] for name in others}
    return value


def _counted(faults: Iterable[Fault]) -> tuple[tuple[Fault, ...], int]:
    """Return the faults to be shown, each once, and how many there are."""
    unique = dict.fromkeys(faults)
    return tuple(itertools.islice(unique, MOST_FAULTS)), len(unique)


def _faults_of(rules: BodyRules, value: Any, schema_location: str, location: str) -> Iterator[Fault]:
    """Describe one error by where it is: its message holds the value, and `iter_errors` copies all of it."""
    path = schema_location.split("/")[1:]
    for whole in {"not", "oneOf", "propertyNames"} & set(path):
        path = path[: path.index(whole) + 1]
    *parents, keyword = path
    parent = _at(rules.schema, parents)
    # What would have to be unescaped stands below open maps, where no pointer leads.
    place = tuple(location.split("/")[1:])
    match keyword:
        case "required" | "additionalProperties":
            # Both, whichever it is called: of one required name jsonschema-rs tells as if it were one too many.
            names = _at(value, place)
            for name in parent.get("required", ()):
                if name not in names:
                    yield Fault(_pointer(rules, (*place, name)), "is required", _type_of(parent, name))
            unknown = [name for name in names if name not in parent["properties"]]
            named = [name for name in unknown if _FIELD_NAME.fullmatch(name)]
            for name in named:
                yield Fault(_pointer(rules, (*place, name)), "is not in the contract", _EXPECTED_FIELDS)
            if unnamed := len(unknown) - len(named):
                detail = f"has {unnamed} more whose names are not in the contract, nor shown"
                yield Fault(_pointer(rules, place), detail, _EXPECTED_FIELDS)
        case "oneOf":
            kinds = " or ".join(choice.get("type", "a value") for choice in parent["oneOf"])
            yield Fault(_pointer(rules, place), "is none of what is allowed", kinds)
        case "not":
            # "If so, then required" in words that OpenAPI 3.0 has: not (so, and not required).
            for name in parent["not"]["not"]["required"]:
                yield Fault(_pointer(rules, (*place, name)), "is required here", _type_of(parent, name))
        case "propertyNames":
            wanted = f"names that match {parent['propertyNames']['pattern']}"
            yield Fault(_pointer(rules, place), "has a name of the wrong form", wanted)
        case _:
            detail, expected = _DETAILS[keyword]
            limit = parent[keyword]
            wanted = " or ".join(map(_shown, limit)) if isinstance(limit, list) else str(limit)
            yield Fault(_pointer(rules, place), detail, expected.format(wanted))


_DETAILS: Mapping[str, tuple[str, str]] = {
    "type": ("is of the wrong type", "{}"),
    "enum": ("is not one of the known values", "{}"),
    "pattern": ("has the wrong form", "text that matches {}"),
    "format": ("is no value of this format", "{}"),
    "minLength": ("is too short", "at least {} characters"),
    "maxLength": ("is too long", "at most {} characters"),
    "minimum": ("is too small", "at least {}"),
    "maximum": ("is too large", "at most {}"),
    "multipleOf": ("is between two steps", "a multiple of {}"),
    "minItems": ("has too few items", "at least {}"),
    "maxItems": ("has too many items", "at most {}"),
    "maxProperties": ("has too many names", "at most {}"),
    "minProperties": ("has too few names", "at least {}"),
}
"""By the schema's keyword: what is wrong and what was expected, around the keyword's own value.

A keyword that is not here is a KeyError, so a 500; a test holds the table against the contract.
"""


def _pointer(rules: BodyRules, place: Place) -> str:
    """Write a JSON pointer (RFC 6901); below an open map it ends at the map, for its keys are personal."""
    for path in rules.open_maps:
        if place[: len(path)] == path:
            place = path
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in place)


def _shown(value: str | int) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _at(value: Any, path: Iterable[str]) -> Any:
    for step in path:
        value = value[int(step) if isinstance(value, list) else step]
    return value


def _type_of(schema: Schema, name: str) -> str:
    return str(schema.get("properties", {}).get(name, {}).get("type", "a value"))


def field(body: Body, path: Path) -> str:
    """Return the text at a path of a valid body."""
    value: Any = body
    for name in path:
        value = value[name]
    return str(value)
