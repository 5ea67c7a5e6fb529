"""Read a contract document, or say what is wrong with it, where, and what to write instead.

What is read is refused here when the programs would pass over it, or understand it differently from each other:
YAML that is not what it looks like, words that nobody reads, marks in places that no path of names leads to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema_rs
from pydantic import StringConstraints, TypeAdapter
from pydantic_core import SchemaError

from scripts.source import Contract, ContractError, Fault, Faults, Names, Source

ROOT = Path(__file__).resolve().parent.parent
WEBHOOKS = ROOT / "openapi" / "webhooks"
STAFF_CONTRACT = ROOT / "openapi" / "approvals.yaml"

Schema = dict[str, Any]


def read(path: Path) -> Contract:
    """Return the checked document of a file. Raises ContractError with file and line."""
    is_webhooks, has_roles = WEBHOOKS in path.parents, path == STAFF_CONTRACT
    return checked(
        path.read_bytes(), str(path.relative_to(ROOT)), is_webhooks=is_webhooks, has_roles=has_roles
    )


def read_all(paths: Iterable[Path]) -> dict[Path, Contract]:
    """Return the checked documents of files. Raises ContractError with the faults of all of them."""
    found, faults = {}, []
    for path in paths:
        try:
            found[path] = read(path)
        except ContractError as error:
            faults.append(str(error))
    if faults:
        raise ContractError("\n".join(faults))
    return found


def checked(text: bytes | str, shown: str, *, is_webhooks: bool, has_roles: bool = False) -> Contract:
    """Return the checked document that a text holds. Raises ContractError with file and line.

    Where it has roles, each operation says whose it is.
    """
    source = Source(shown, text)
    _Check(source, is_webhooks=is_webhooks, has_roles=has_roles).document()
    return source.content


def named(contract: Contract, reference: str) -> Any:
    """Return what a reference names. Raises KeyError where it names nothing."""
    node: Any = contract
    for name in reference.removeprefix("#/").split("/"):
        node = node[name]
    return node


def merged(contract: Contract, schema: Schema) -> Schema:
    """Return a schema as it is meant: what it refers to, with the marks that stand beside an `allOf` of one."""
    if "$ref" in schema:
        return merged(contract, named(contract, schema["$ref"]))
    if len(schema.get("allOf", ())) == 1:
        beside = {key: value for key, value in schema.items() if key != "allOf"}
        return merged(contract, schema["allOf"][0]) | beside
    return schema


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _is_maps(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_map, value))


@cache
def _is_pattern(value: Any) -> bool:
    """Tell whether both the validators and the models can read a pattern."""
    try:
        jsonschema_rs.validator_for({"pattern": value})
        TypeAdapter(Annotated[str, StringConstraints(pattern=value)])
    except (jsonschema_rs.ValidationError, SchemaError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Rule:
    holds: Callable[[Any], bool]
    words: str


TYPES: dict[str, Callable[[Any], bool]] = {
    "string": _is_text,
    "number": _is_number,
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "object": _is_map,
    "array": lambda value: isinstance(value, list),
}
COUNT = _Rule(_is_count, "must be a whole number, and not below 0")
NUMBER = _Rule(_is_number, "must be a number")
TEXT = _Rule(_is_text, "must be a text")
MAP = _Rule(_is_map, "must be a map of names")
MAPS = _Rule(_is_maps, "must be a list of maps, one at least")
ANYTHING = _Rule(lambda value: True, "")

KEYWORDS = {
    "type": _Rule(lambda value: value in list(TYPES), f"must be one of: {', '.join(TYPES)}"),
    "description": TEXT,
    "format": TEXT,
    "pattern": _Rule(
        lambda value: _is_text(value) and _is_pattern(value),
        "is no regular expression that both validators and models read. They know no look-around and no \\1",
    ),
    "enum": _Rule(lambda value: isinstance(value, list) and bool(value), "must be a list, of one value at least"),
    "items": MAP,
    "properties": MAP,
    "required": _Rule(_is_texts, "must be a list of names, one at least"),
    "additionalProperties": _Rule(
        lambda value: isinstance(value, bool | dict), "must be true, false or a schema"
    ),
    "oneOf": MAPS,
    "allOf": MAPS,
    "not": MAP,
    "minimum": NUMBER,
    "maximum": NUMBER,
    "multipleOf": _Rule(lambda value: _is_number(value) and value > 0, "must be a number above 0"),
    "nullable": _Rule(lambda value: isinstance(value, bool), "must be true or false"),
    "default": ANYTHING,
    "example": ANYTHING,
    "x-personal-data": _Rule(lambda value: value is True, "can be true; otherwise leave it out"),
    "x-identity": _Rule(lambda value: value is False, "can be false; otherwise leave it out"),
    "x-property-names": MAP,
} | dict.fromkeys(
    ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), COUNT
)  # fmt: skip
"""What a schema may say, and how."""
LIMITS: dict[str, tuple[str, ...]] = {
    "string": ("minLength", "maxLength", "pattern"),
    "number": ("minimum", "maximum", "multipleOf"),
    "integer": ("minimum", "maximum", "multipleOf"),
    "boolean": (),
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    "array": ("items", "minItems", "maxItems"),
}
"""What each type has, and no other: elsewhere validators pass over it."""
BOUNDS = (
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
)
INSTEAD = {
    "exclusiveMaximum": "Write `maximum`",
    "exclusiveMinimum": "Write `minimum`",
    "const": "Write an `enum` of one value",
    "propertyNames": "Write `x-property-names`, for OpenAPI 3.0 lacks it",
    "patternProperties": "Write `x-property-names` and `additionalProperties`",
    "anyOf": "Write `oneOf`",
    "examples": "Write `example`",
}
"""What to write for a keyword that a schema may not say."""
FORMATS = ("date-time", "date")
SENT_FORMATS = ("date-time",)
"""Of a request. Models rewrite the values of others, or refuse what validators take."""
CLASS = re.compile(r"(?<!\\)(\\\\)*\\[dDwWsSbB]")
"""What has a pattern mean Unicode's characters to models, and ASCII's to validators."""
BESIDE_ALL_OF = {"allOf", "description", "example", "x-personal-data", "x-identity"}
NAME = _Rule(
    lambda value: _is_text(value) and re.fullmatch("[a-z][a-z0-9-]*", value) is not None,
    "must be a word of small letters, digits and hyphens: files are called by it",
)
PATH = re.compile(r"(/([a-z0-9-]+|\{[a-z_]+\}))+")
NAMED = ("paths", "parameters", "headers", "responses", "securitySchemes", "content")
"""What has names that are free in it."""
METHODS = ("get", "put", "post", "patch", "delete")
KEYS = ("x-natural-key", "x-order-key", "x-reference", "x-about")
ASKED = ("health", "receipt")
Inside = Literal["list", "map", "choice"]
HOLDERS: dict[Inside, str] = {"list": "items", "map": "additionalProperties", "choice": "oneOf"}
"""The keyword that each is made by."""
DELIVERIES = ("delivered", "retry", "hold", "fail")
ROLES = ("viewer", "approver", "admin")
ROLE = _Rule(
    lambda value: value in ROLES, f"must say the least role that may do it, one of: {', '.join(ROLES)}"
)


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a webhook's body, and what is so of all that it stands in."""

    name: str
    inside: Inside | None = None
    """The outermost thing on its way that names alone do not lead through."""
    is_personal: bool = False
    is_free: bool = False
    """Whether two sendings of one event may differ in it."""


class _Check:
    """Goes through a document and raises ContractError with its faults.

    It looks at each part by itself, then at what parts mean together, for which each must be right.
    """

    def __init__(self, source: Source, *, is_webhooks: bool, has_roles: bool) -> None:
        self.source = source
        self.contract = source.content
        self.is_webhooks = is_webhooks
        self.has_roles = has_roles
        self.faults = Faults()
        self.noted = self.faults.noted
        self.methods: dict[str, str] = {}
        """By `operationId`."""
        self.webhooks: list[tuple[Names, dict[str, Any]]] = []
        """Where they stand, and their operations."""
        self.schemas: list[tuple[Names, Schema]] = []
        self.places: dict[int, Names] = {}
        """Of the schemas."""
        self.read: set[tuple[int, str]] = set()
        """The `x-` marks that somebody reads: what they stand in, and their names."""

    def document(self) -> None:
        """Check all of it."""
        self.expect(("openapi",), _Rule(lambda value: str(value).startswith("3.0."), "must be 3.0.3"))
        for part in ("info", "paths", "components"):
            self.expect((part,), MAP)
        self.expect(("components", "schemas"), MAP)
        for part in self.contract["components"]:
            for name in self.expect(("components", part), MAP):
                self.expect(("components", part, name), MAP)
        self.parts()
        self.faults.tell()
        for name in self.contract["components"]["schemas"]:
            with self.noted():
                self.end(name, name, frozenset())
        self.faults.tell()
        for at, operation in self.webhooks:
            with self.noted():
                self.webhook(at, operation)
        for name in ASKED if self.is_webhooks else ():
            with self.noted():
                if self.methods.get(name) != "get":
                    raise self.error(
                        ("paths",), f"has no `get` with the operationId `{name}`: both sides ask it."
                    )
        self.faults.tell()
        self.marks()
        self.faults.tell()

    def parts(self) -> None:
        """Check each part by itself."""
        with self.noted():
            self.info()
        for part, names in self.contract["components"].items():
            for name in names if part != "securitySchemes" else ():
                with self.noted():
                    if not re.fullmatch("[A-Z][A-Za-z0-9]*", name):
                        raise self.error(
                            ("components", part, name),
                            "must have a capital first, then letters and digits: models are called so.",
                        )
        for at, node in self.references((), self.contract):
            with self.noted():
                self.reference(at, node)
        sent = self.sent()
        for name in self.contract["components"]["schemas"]:
            self.schema(("components", "schemas", name), is_sent=name in sent)
        for part in ("parameters", "headers"):
            for name in self.contract["components"].get(part, {}):
                self.parameter(("components", part, name))
        for name in self.contract["components"].get("responses", {}):
            self.answer(("components", "responses", name))
        for path in self.contract["paths"]:
            with self.noted():
                self.path(("paths", path))

    def error(self, at: Names, what: str) -> Fault:
        """Return the fault of a part."""
        return self.source.error(at, what)

    def at(self, at: Names) -> Any:
        """Return what stands at a place, or None."""
        node: Any = self.contract
        for name in at:
            node = node.get(name) if isinstance(node, dict) else node[name]
        return node

    def expect(self, at: Names, rule: _Rule) -> Any:
        """Return what stands at a place. Raises ContractError where nothing does, or what must not."""
        value = self.at(at)
        if value is None:
            raise self.error(at, "is missing.")
        if not rule.holds(value):
            raise self.error(at, f"{rule.words}.")
        return value

    def info(self) -> None:
        """Check the number, by which files and folders are called, and the releases that are given up."""
        at = ("info", "version")
        number = self.at(at)
        if _is_number(number):
            raise self.error(
                at,
                f'needs quotes: YAML takes it for the number {number}. It has three parts, as in "1.10.0".',
            )
        self.expect(at, TEXT)
        if self.is_webhooks and not re.fullmatch(r"1(\.(0|[1-9][0-9]*)){2}", number):
            raise self.error(at, f"is {number}; it must be 1.N.N, as in 1.10.0, for v1 only grows.")
        if self.is_webhooks and "x-deprecated" in self.contract["info"]:
            self.expect(("info", "x-deprecated"), MAP)
            self.reads(self.contract["info"], "x-deprecated")

    def references(self, at: Names, node: Any) -> Iterator[tuple[Names, dict[str, Any]]]:
        """Yield all references below a place."""
        if isinstance(node, dict) and "$ref" in node and at[-1:] != ("properties",):
            yield at, node
        for name, part in _parts(at, node):
            yield from self.references((*at, name), part)

    def reference(self, at: Names, node: dict[str, Any]) -> None:
        """Check what a reference names, and that it stands alone."""
        is_schema = at[:2] == ("components", "schemas") or "schema" in at
        kind = "schemas" if is_schema else "".join(map(str, at[-2:-1]))
        if kind not in ("schemas", "parameters", "headers", "responses"):
            raise self.error((*at, "$ref"), "is not read here. Write out what it names.")
        known = [f"#/components/{kind}/{name}" for name in self.contract["components"].get(kind, {})]
        if node["$ref"] not in known:
            raise self.error(
                (*at, "$ref"), f"names {node['$ref']}, and must name something of components.{kind}."
            )
        for beside in node.keys() - {"$ref"}:
            raise self.error(
                (*at, beside), f'is not read beside a `$ref`. Write `allOf: [{{ $ref: "{node["$ref"]}" }}]`.'
            )

    def end(self, name: str, first: str, above: frozenset[str]) -> None:
        """Refuse a schema that is made of itself, which cannot be written out."""
        for at, node in self.references(
            ("components", "schemas", name), self.contract["components"]["schemas"][name]
        ):
            inner = node["$ref"].rpartition("/")[2]
            if inner == first:
                raise self.error(at, f"makes {first} of itself, without an end.")
            if inner not in above:
                self.end(inner, first, above | {inner})

    def sent(self) -> set[str]:
        """Return the names of the schemas that requests' bodies are made of."""
        bodies = [
            operation.get("requestBody")
            for item in self.contract["paths"].values()
            for operation in (item.values() if isinstance(item, dict) else ())
            if isinstance(operation, dict)
        ]
        names: set[str] = set()
        while bodies:
            for _, node in self.references(("requestBody",), bodies.pop()):
                name = str(node["$ref"]).rpartition("/")[2]
                if name not in names:
                    names.add(name)
                    bodies.append(self.contract["components"]["schemas"].get(name))
        return names

    def schema(self, at: Names, *, is_sent: bool = False) -> None:
        """Check a schema and those in it. One that is sent, or a webhook's answer, may say less."""
        with self.noted():
            schema = self.expect(at, MAP)
            self.schemas.append((at, schema))
            self.places.setdefault(id(schema), at)
            if "$ref" not in schema:
                self.written_out(at, schema, is_sent=is_sent)

    def written_out(self, at: Names, schema: Schema, *, is_sent: bool) -> None:
        """Check a schema that is no reference, and those in it."""
        for key in schema:
            with self.noted():
                if key not in KEYWORDS:
                    cure = INSTEAD.get(key) or f"A schema has: {', '.join(KEYWORDS)}"
                    raise self.error((*at, key), f"is read by nobody. {cure}.")
                self.expect((*at, key), KEYWORDS[key])
                if is_sent or self.is_webhooks:
                    self.plain(at, key, is_sent=is_sent)
        right = {
            key: value for key, value in schema.items() if key in KEYWORDS and KEYWORDS[key].holds(value)
        }
        kind = right.get("type")
        for value in right.get("enum", ()):
            with self.noted():
                if kind and not TYPES[kind](value):
                    quotes = ": put it in quotes" if kind == "string" else ""
                    raise self.error((*at, "enum"), f"has {json.dumps(value)}, which is no {kind}{quotes}.")
        others = {key for keys in LIMITS.values() for key in keys} - set(LIMITS.get(str(kind), ()))
        for key in sorted(right.keys() & others) if kind else ():
            with self.noted():
                has = ", ".join(LIMITS[str(kind)]) or "none"
                raise self.error((*at, key), f"is not read where the type is {kind}. Its limits are: {has}.")
        for least, most in BOUNDS:
            with self.noted():
                if least in right and most in right and right[least] > right[most]:
                    raise self.error((*at, least), f"is above `{most}`: no value is right by both.")
        for name in right.get("required", ()):
            with self.noted():
                if name not in right.get("properties", {name: {}}):
                    raise self.error((*at, "required"), f"has {name}, which is none of the properties.")
        with self.noted():
            if kind == "array":
                self.expect((*at, "items"), MAP)
            is_typed = schema.keys() & {"type", "enum", "allOf", "oneOf"} or at[-1] == "x-property-names"
            if is_sent and self.is_webhooks and not is_typed:
                raise self.error(
                    at, "has no `type`: models and validators would each take something else. Write one."
                )
        if is_sent and self.is_webhooks:
            self.writable(at, schema)
        for mark in ("x-property-names",) if self.is_webhooks else ("x-property-names", "x-personal-data"):
            self.reads(schema, mark)
        for below in _schemas_in(at, right):
            self.schema(below, is_sent=is_sent)

    def writable(self, at: Names, schema: Schema) -> None:
        """Refuse texts and names that may have any character: no database holds U+0000, so that the CRM refuses it."""
        with self.noted():
            if schema.get("type") == "string" and not schema.keys() & {"pattern", "enum"}:
                raise self.error(
                    at,
                    "has no `pattern`, and would take U+0000, which the CRM refuses. Write one, such as *line.",
                )
            if schema.get("additionalProperties") and "x-property-names" not in schema:
                raise self.error(
                    at,
                    "has no `x-property-names`, and its names would take U+0000, which the CRM refuses. Write a pattern there.",
                )

    def plain(self, at: Names, key: str, *, is_sent: bool) -> None:
        """Refuse what validators and models of a webhook would not understand alike."""
        schema = self.at(at)
        match key:
            case "nullable":
                raise self.error(
                    (*at, key),
                    "is not read by validators. Leave the field out of `required`: it is absent then.",
                )
            case "default":
                raise self.error(
                    (*at, key),
                    "would be filled in by the models, and not by the validators. Say in `description` what holds without it.",
                )
            case "format" if schema[key] not in (SENT_FORMATS if is_sent else FORMATS):
                raise self.error(
                    (*at, key),
                    f"is {schema[key]}, by which models rewrite a value or refuse what validators take. Write a `pattern`.",
                )
            case "not" if is_sent and self.is_webhooks:
                raise self.error(
                    (*at, key), "is not read by models. Write an `enum` or a `pattern` of what is taken."
                )
            case "pattern" if is_sent and CLASS.search(schema[key]):
                raise self.error(
                    (*at, key),
                    "means other characters to models than to validators, by \\d, \\w, \\s or \\b. Write them out: [0-9].",
                )
            case "enum" if is_sent and not all(isinstance(value, str | int) for value in schema[key]):
                raise self.error(
                    (*at, key), "is not read by models. It can have texts, whole numbers, true and false."
                )
            case "x-property-names" if is_sent and "pattern" not in schema[key]:
                raise self.error((*at, key), "has no `pattern`, by which a wrong name is told.")
            case "allOf" if len(schema[key]) > 1:
                raise self.error((*at, key), "can have one schema here. Write what they say into one.")
            case "allOf" if beside := schema.keys() - BESIDE_ALL_OF:
                raise self.error(
                    (*at, min(beside)), "is not read beside `allOf`. Write it into what that names."
                )

    def parameter(self, at: Names) -> None:
        """Check a parameter or a header."""
        with self.noted():
            if "$ref" not in self.expect(at, MAP):
                self.schema((*at, "schema"))

    def answer(self, at: Names) -> None:
        """Check an answer, and what it means for the sender, where it says that."""
        with self.noted():
            answer = self.expect(at, MAP)
            for name in self.expect((*at, "headers"), MAP) if "headers" in answer else ():
                self.parameter((*at, "headers", name))
            if "content" in answer:
                self.content((*at, "content"))
            if self.is_webhooks and "x-delivery" in answer:
                self.reads(answer, "x-delivery")
                self.delivery((*at, "x-delivery"))

    def content(self, at: Names) -> None:
        """Check the bodies that something has, by media type."""
        for kind in self.expect(at, MAP):
            with self.noted():
                self.expect((*at, kind), MAP)
                self.schema((*at, kind, "schema"))

    def delivery(self, at: Names) -> None:
        """Check what an answer means for the sender."""
        meaning = self.at(at)
        if isinstance(meaning, dict) and "default" not in meaning:
            raise self.error(at, "has no `default`, for problem types that it does not name.")
        for word in meaning.values() if isinstance(meaning, dict) else (meaning,):
            if word not in DELIVERIES:
                raise self.error(at, f"says {word}, and can say: {', '.join(DELIVERIES)}.")

    def path(self, at: Names) -> None:
        """Check a path and its operations."""
        with self.noted():
            if not PATH.fullmatch(str(at[-1])):
                raise self.error(
                    at,
                    "must be words of small letters, digits and hyphens, each after a `/`: it is put behind an address.",
                )
        for method in self.expect(at, MAP):
            with self.noted():
                if method not in METHODS:
                    raise self.error(
                        (*at, method),
                        f"is not read on a path. Write it in each of its operations: {', '.join(METHODS)}.",
                    )
                self.operation((*at, method))

    def operation(self, at: Names) -> None:
        """Check an operation, and a webhook's bodies and answers."""
        operation = self.expect(at, MAP)
        with self.noted():
            name = self.expect((*at, "operationId"), NAME)
            if name in self.methods:
                raise self.error((*at, "operationId"), f"is {name}, as another's is.")
            self.methods[name] = str(at[-1])
        with self.noted():
            for index, _ in enumerate(
                self.expect((*at, "parameters"), MAPS) if "parameters" in operation else ()
            ):
                self.parameter((*at, "parameters", index))
        with self.noted():
            for status in self.expect((*at, "responses"), MAP):
                if not re.fullmatch("[1-5][0-9]{2}", status):
                    raise self.error(
                        (*at, "responses", status),
                        'is no status. Write each answer under its own, as in "400".',
                    )
                self.answer((*at, "responses", status))
        if "requestBody" in operation:
            media = (*at, "requestBody", "content", "application/json")
            for end in range(len(at) + 1, len(media) + 1):
                self.expect(media[:end], MAP)
            self.content(media[:-1])
            if "$ref" not in self.expect((*media, "schema"), MAP):
                raise self.error(
                    (*media, "schema"),
                    "must be a `$ref`: models and schemas are called by its name. Write it under components.schemas.",
                )
        if self.has_roles:
            self.reads(operation, "x-role")
            with self.noted():
                self.expect((*at, "x-role"), ROLE)
        if self.is_webhooks and ("requestBody" in operation or operation.keys() & set(KEYS)):
            self.webhooks.append((at, operation))

    def webhook(self, at: Names, operation: dict[str, Any]) -> None:
        """Check what both sides must know of a webhook."""
        if at[-1] != "post":
            raise self.error(at, "has a body or a key, and is no `post`. Webhooks are posted.")
        if "{" in str(at[1]):
            raise self.error(
                at[:2], "has braces, which no sender fills in. What tells events apart is in the body."
            )
        self.expect((*at, "requestBody"), MAP)
        for status in operation["responses"]:
            here = (*at, "responses", status)
            with self.noted():
                if "$ref" not in self.at(here):
                    raise self.error(here, "must be a `$ref`: write the answer under components.responses.")
                if "x-delivery" not in named(self.contract, self.at(here)["$ref"]):
                    raise self.error(
                        here,
                        f"has no `x-delivery`, which says what it means for the sender: {', '.join(DELIVERIES)}.",
                    )
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        self.field(_Field(str(at[1])), named(self.contract, reference))
        body = merged(self.contract, {"$ref": reference})
        for name, block in body.get("properties", {}).items():
            if "properties" not in merged(self.contract, block):
                raise self.error(
                    at,
                    f"has `{name}` in its body, which is no object with properties. Put it into one that is.",
                )
            if merged(self.contract, block).get("x-personal-data"):
                raise self.error(
                    at,
                    f"has `{name}` in its body marked x-personal-data. Mark the fields in it: search goes by those.",
                )
        self.expect((*at, "x-natural-key"), TEXT)
        for key in KEYS:
            if key in operation:
                with self.noted():
                    self.reads(operation, key)
                    self.key((*at, key), self.expect((*at, key), TEXT).split("."), body)

    def key(self, at: Names, path: list[str], schema: Schema) -> None:
        """Check that a path leads to a text that each body has, and that may be shown."""
        for name in path:
            schema = merged(self.contract, schema)
            if name not in schema.get("required", ()) or name not in schema.get("properties", {}):
                raise self.error(at, f"is {'.'.join(path)}, and {name} is not there or not required.")
            schema = schema["properties"][name]
        schema = merged(self.contract, schema)
        if schema.get("type") != "string" or schema.get("x-personal-data"):
            raise self.error(at, f"is {'.'.join(path)}, which is no text, or marked x-personal-data.")

    def field(self, field: _Field, schema: Schema) -> None:
        """Note the marks of a field and of those in it, and refuse what a path of names does not lead to."""
        self.reads(schema, "x-personal-data")
        self.reads(schema, "x-identity")
        if field.inside:
            with self.noted():
                self.unreachable(field, field.inside, schema)
        field = replace(
            field,
            is_personal=field.is_personal or "x-personal-data" in schema,
            is_free=field.is_free or "x-identity" in schema,
        )
        if "$ref" in schema:
            self.field(field, named(self.contract, schema["$ref"]))
        for part in schema.get("allOf", ()):
            self.field(field, part)
        for name, part in schema.get("properties", {}).items():
            self.field(replace(field, name=f"{field.name}.{name}"), part)
        for part in schema.get("oneOf", ()):
            self.field(replace(field, inside=field.inside or "choice"), part)
        if "items" in schema:
            self.field(replace(field, name=f"{field.name}[]", inside=field.inside or "list"), schema["items"])
        if isinstance(schema.get("additionalProperties"), dict):
            below = replace(field, name=f"{field.name}.*", inside=field.inside or "map")
            self.field(below, schema["additionalProperties"])

    def unreachable(self, field: _Field, inside: Inside, schema: Schema) -> None:
        """Refuse what is not read in a list, a map or a choice."""
        at, where = self.places[id(schema)], f"in a {inside} ({field.name})"
        holder = HOLDERS[inside]
        if "x-personal-data" in schema and not field.is_personal:
            raise self.error(
                at,
                f"is marked x-personal-data {where}, where nobody masks it. Mark the {inside} itself: "
                f"x-personal-data beside `{holder}`.",
            )
        if "x-identity" in schema and not field.is_free:
            raise self.error(
                at,
                f"is marked x-identity {where}, where nobody leaves it out. Mark the {inside} itself: "
                f"x-identity beside `{holder}`.",
            )
        if schema.get("format") == "date-time" and not field.is_free:
            raise self.error(
                at,
                f"is a date-time {where}, where one moment in two spellings would be a conflict. Leave the format out and "
                "have a `pattern` that takes one spelling, such as seconds and Z.",
            )
        if schema.get("additionalProperties") and inside != "map":
            raise self.error(
                at,
                f"is open {where}, where refusals would show its names. Name its properties, and no others.",
            )

    def reads(self, node: dict[str, Any], mark: str) -> None:
        """Note that a mark is read, should it be there."""
        self.read.add((id(node), mark))

    def marks(self) -> None:
        """Refuse marks that nobody reads: what one was meant for would silently not be so."""
        for at, node in [*_outside_schemas((), self.contract), *self.schemas]:
            for name in node:
                with self.noted():
                    if name.startswith("x-") and (id(node), name) not in self.read:
                        raise self.error(
                            (*at, name), "is read by nobody here. Mend its name, or take it out."
                        )


def _parts(at: Names, node: Any) -> Iterator[tuple[str | int, Any]]:
    """Yield what a place has below it, examples left out, for they are payloads."""
    if isinstance(node, list):
        yield from enumerate(node)
    elif isinstance(node, dict):
        for name, part in node.items():
            if at[-1:] == ("properties",) or name not in ("example", "examples", "enum", "default"):
                yield name, part


def _schemas_in(at: Names, schema: Schema) -> Iterator[Names]:
    """Yield the places of the schemas in a schema."""
    for name in schema.get("properties", {}):
        yield (*at, "properties", name)
    for key in ("oneOf", "allOf"):
        for index, _ in enumerate(schema.get(key, ())):
            yield (*at, key, index)
    for key in ("items", "additionalProperties", "x-property-names", "not"):
        if isinstance(schema.get(key), dict):
            yield (*at, key)


def _outside_schemas(at: Names, node: Any) -> Iterator[tuple[Names, dict[str, Any]]]:
    """Yield every map of a document that is no part of a schema, and none of names of parts."""
    if isinstance(node, dict) and at[-1:] not in {(name,) for name in NAMED}:
        yield at, node
    for name, part in _parts(at, node):
        if name != "schema" and (*at, name) != ("components", "schemas"):
            yield from _outside_schemas((*at, name), part)
