"""Single changes of the contract, each with its right verdict and the reason for it.

Who breaks follows from who writes and who reads. A body is written by senders of every release, and read by the
CRM: by today's release where the sender names none, and as today's after the upcast where it does; staff read
what was stored under every release. An answer is written by today's CRM and read by senders of every release.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]
Edit = Callable[[Document], None]

NOBODY: frozenset[str] = frozenset()
WRITERS = frozenset({"sender", "staff"})
"""Whoever wrote or keeps a body that is refused or read wrongly today."""
SENDER = frozenset({"sender"})
EVERYBODY = frozenset({"sender", "CRM", "staff"})
IDENTITY = frozenset({"sender", "CRM"})
STAFF = frozenset({"staff"})


@dataclass(frozen=True)
class Case:
    """One change: its name, the edit, the part of the version that is due, who breaks, and why."""

    name: str
    edit: Edit
    due: str
    breaks: frozenset[str]
    because: str


def at(document: Document, place: str) -> tuple[Any, str]:
    """Return what holds the last name of a place, and that name; names are separated by spaces."""
    *way, last = place.split()
    node: Any = document
    for name in way:
        node = node[name]
    return node, last


def put(place: str, value: Any) -> Edit:
    """Return an edit that puts a value at a place."""

    def edit(document: Document) -> None:
        node, last = at(document, place)
        node[last] = value

    return edit


def drop(place: str) -> Edit:
    """Return an edit that removes what is at a place."""

    def edit(document: Document) -> None:
        node, last = at(document, place)
        del node[last]

    return edit


def change(place: str, how: Callable[[Any], Any]) -> Edit:
    """Return an edit that makes something else of what is at a place."""

    def edit(document: Document) -> None:
        node, last = at(document, place)
        node[last] = how(node[last])

    return edit


def all_of(*edits: Edit) -> Edit:
    """Return an edit that makes several."""

    def edit(document: Document) -> None:
        for one in edits:
            one(document)

    return edit


def on_each_webhook(part: str, how: Callable[[Any], Any]) -> Edit:
    """Return an edit that makes something else of a part of each webhook."""

    def edit(document: Document) -> None:
        for item in document["paths"].values():
            if "x-natural-key" in item.get("post", {}):
                item["post"][part] = how(item["post"][part])

    return edit


def move(place: str, name: str) -> Edit:
    """Return an edit that gives what is at a place another name."""

    def edit(document: Document) -> None:
        node, last = at(document, place)
        node[name] = node.pop(last)

    return edit


def rename_photo(document: Document) -> None:
    """Give a schema another name, wherever it is named."""
    text = json.dumps(document).replace("PhotoAddress", "PictureAddress")
    document.clear()
    document.update(json.loads(text))


def name_schema(field: str, name: str) -> Edit:
    """Return an edit that has the schema of a repair's field among the components too."""

    def edit(document: Document) -> None:
        schemas = document["components"]["schemas"]
        schemas[name] = copy.deepcopy(schemas["Repair"]["properties"][field])

    return edit


def named(name: str) -> Document:
    """Return a reference to one of the schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def described(name: str) -> Document:
    """Return a schema as one of the components has it, with a description of its own."""
    return listed(named(name)) | {"description": "In other words."}


def listed(schema: Document) -> Document:
    """Return a schema as the only one of a list."""
    return {"allOf": [schema]}


def without(value: str) -> Callable[[list[str]], list[str]]:
    """Return what takes a value out of a list."""
    return lambda values: [one for one in values if one != value]


def with_more(value: Any) -> Callable[[list[Any]], list[Any]]:
    """Return what adds a value to a list."""
    return lambda values: [*values, value]


REPAIR = "components schemas Repair"
FIELD = f"{REPAIR} properties"
CUSTOMER = "components schemas RegisteredCustomer"
RECEIPT = "components schemas Receipt"
POST = "paths /repair-request post"
EXAMPLE = f"{POST} requestBody content application/json examples guide value"
COLOUR = {"type": "string", "description": "The device's colour.", "minLength": 1, "maxLength": 40}
COLOUR |= {"pattern": r"^[^\x00-\x1f\x7f]*$"}
WORD = {"type": "string", "minLength": 1, "maxLength": 64}
SHOP = {
    "name": "webhook-shop",
    "in": "header",
    "description": "Which shop.",
    "schema": WORD,
    "example": "one",
}

BODIES = [
    Case("an optional field is added", put(f"{FIELD} colour", COLOUR), "minor", NOBODY,
         "older bodies lack it, which today's schema takes; newer ones wait for a newer CRM"),
    Case("a required field is added",
         all_of(put(f"{FIELD} colour", COLOUR), change(f"{REPAIR} required", with_more("colour"))),
         "major", WRITERS, "no older body has it"),
    Case("an optional field is removed", drop(f"{FIELD} notes"), "major", WRITERS,
         "bodies are closed: an older one that has it is refused"),
    Case("a required field is removed",
         all_of(drop(f"{FIELD} deviceType"), change(f"{REPAIR} required", without("deviceType"))),
         "major", WRITERS, "every older body has it, and is refused"),
    Case("a field is renamed", move(f"{FIELD} notes", "remarks"), "major", WRITERS,
         "to a reader that is one field removed and another added"),
    Case("an optional field becomes required", change(f"{REPAIR} required", with_more("address")),
         "major", WRITERS, "older bodies may lack it"),
    Case("a required field becomes optional", change(f"{REPAIR} required", without("deviceType")),
         "minor", NOBODY, "older bodies have it still"),
    Case("a length is shortened", put(f"{FIELD} issueDescription maxLength", 4999), "major", WRITERS,
         "an older body may be one character longer"),
    Case("a length is allowed to grow", put(f"{FIELD} issueDescription maxLength", 6000), "minor", NOBODY,
         "older bodies are shorter"),
    Case("a length's limit is given up", drop(f"{FIELD} notes maxLength"), "minor", NOBODY,
         "older bodies are shorter"),
    Case("a length must be more", put(f"{FIELD} deviceType minLength", 2), "major", WRITERS,
         "an older body may have one character"),
    Case("a length may be less", put(f"{FIELD} issueDescription minLength", 0), "minor", NOBODY,
         "older bodies are longer"),
    Case("a limit is set where there was none", put(f"{FIELD} notes minLength", 1), "major", WRITERS,
         "an older body may have empty notes"),
    Case("an enum is narrowed", change(f"{FIELD} priority enum", without("urgent")), "major", WRITERS,
         "an older body may be urgent"),
    Case("an enum is widened", change(f"{FIELD} priority enum", with_more("whenever")), "minor", NOBODY,
         "older bodies have the old words"),
    Case("an enum becomes free text", all_of(drop(f"{FIELD} priority enum"), put(f"{FIELD} priority maxLength", 64)),
         "minor", NOBODY, "the old words are text too"),
    Case("free text becomes an enum", put(f"{FIELD} deviceType enum", ["Apple MacBook Pro"]), "major", WRITERS,
         "an older body may name another device"),
    Case("a pattern is narrowed", put(f"{FIELD} serviceType pattern", "^[A-Z][A-Z_]{0,63}$"), "major", WRITERS,
         "an older body may have a digit in it"),
    Case("a pattern takes fewer characters", put(f"{FIELD} ticketNumber pattern", "^[A-Za-z0-9._:-]{1,32}$"),
         "major", WRITERS, "an older number may be longer"),
    Case("a pattern is widened", put(f"{FIELD} serviceType pattern", "^[A-Z][A-Z0-9_]{0,99}$"), "minor", NOBODY,
         "older words are shorter"),
    Case("a type is changed", put(f"{FIELD} estimatedCost", {"type": "string", "maxLength": 9}), "major", WRITERS,
         "an older body has a number"),
    Case("a number becomes an integer", put(f"{FIELD} estimatedCost type", "integer"), "major", WRITERS,
         "an older body may have pence"),
    Case("a number must be more", put(f"{FIELD} estimatedCost minimum", 1), "major", WRITERS,
         "an older estimate may be nothing"),
    Case("a number must be less", put(f"{FIELD} estimatedCost maximum", 999999), "major", WRITERS,
         "an older estimate may be a million"),
    Case("a number may be more", put(f"{FIELD} estimatedCost maximum", 2000000), "minor", NOBODY,
         "older estimates are less"),
    Case("a number must be a multiple", put(f"{FIELD} estimatedCost multipleOf", 5), "major", WRITERS,
         "an older estimate may be any"),
    Case("a list takes fewer items", put(f"{FIELD} photos maxItems", 49), "major", WRITERS,
         "an older body may have fifty photos"),
    Case("a list takes more items", put(f"{FIELD} photos maxItems", 60), "minor", NOBODY,
         "older bodies have fewer photos"),
    Case("an item of a list is shortened", put("components schemas PhotoAddress maxLength", 2000), "major", WRITERS,
         "an older address may be longer"),
    Case("an open map takes fewer names", put(f"{CUSTOMER} properties preferences maxProperties", 99),
         "major", WRITERS, "an older customer may have a hundred settings"),
    Case("an open map's names are narrowed",
         put(f"{CUSTOMER} properties preferences x-property-names", {"pattern": "^[a-z]{1,64}$"}),
         "major", WRITERS, "an older setting may have a capital in its name"),
    Case("an open map's names are widened",
         put(f"{CUSTOMER} properties preferences x-property-names", {"pattern": r"^[^\x00-\x1f\x7f]{1,80}$"}),
         "minor", NOBODY, "older names are shorter"),
    Case("a choice is taken away",
         change(f"{CUSTOMER} properties preferences additionalProperties oneOf", lambda choices: choices[1:]),
         "major", WRITERS, "an older setting may be true or false"),
    Case("a choice is added",
         change(f"{CUSTOMER} properties preferences additionalProperties oneOf",
                with_more({"type": "array", "maxItems": 9, "items": {"type": "boolean"}})),
         "minor", NOBODY, "older settings are of the old kinds"),
    Case("a format is asked for", put(f"{FIELD} deviceModel format", "date-time"), "major", WRITERS,
         "an older model is no date"),
    Case("a format is given up", drop("components schemas RepairMetadata properties timestamp format"),
         "minor", NOBODY, "older times have the pattern still"),
    Case("a closed object is opened", drop("components schemas RepairMetadata additionalProperties"),
         "minor", NOBODY, "older bodies have nothing more (another test keeps it closed)"),
]  # fmt: skip

EXTENSIONS = [
    Case("the natural key is another field", put(f"{POST} x-natural-key", "repair.ticketNumber"), "major", IDENTITY,
         "what was sent before is not known again, and is queued twice"),
    Case("the order key is another field", put(f"{POST} x-order-key", "repair.customerEmail"), "major", IDENTITY,
         "events of one customer that are under way overtake each other"),
    Case("a field no longer counts for identity", put(f"{FIELD} notes x-identity", False), "major", IDENTITY,
         "digests of what is stored are of other content"),
    Case("a field counts for identity again", drop("components schemas RepairMetadata properties timestamp x-identity"),
         "major", IDENTITY, "a second sending becomes a conflict"),
    Case("a field becomes personal", put(f"{FIELD} deviceModel x-personal-data", True), "minor", NOBODY,
         "it is hidden and erased from now on; no payload changes"),
    Case("a field is no longer personal", drop(f"{FIELD} notes x-personal-data"), "major", STAFF,
         "customers' words that are stored would be shown, and outlive their erasure"),
    Case("another number is used on the telephone", put(f"{POST} x-reference", "repair.websiteRepairId"),
         "minor", NOBODY, "only what is shown changes"),
    Case("a webhook tells of another's repair request", put(f"{POST} x-about", "repair.websiteRepairId"),
         "minor", NOBODY, "what is stored stays as it was"),
    Case("an answer asks for another try", put("components responses Conflict x-delivery", "retry"),
         "minor", NOBODY, "older senders go by their own release; nothing is lost"),
    Case("a problem type gets a meaning of its own",
         put("components responses Forbidden x-delivery", {"default": "hold", "gone": "fail"}),
         "minor", NOBODY, "older senders take it as the default"),
    Case("a refusal counts as delivered", put("components responses Conflict x-delivery", "delivered"),
         "major", SENDER, "payloads are erased that nobody has"),
    Case("a receipt no longer counts as delivered", put("components responses Accepted x-delivery", "retry"),
         "major", SENDER, "what was stored is sent for ever"),
]  # fmt: skip

ANSWERS = [
    Case("a receipt gets one more field", put(f"{RECEIPT} properties queue", {**WORD, "description": "Which queue."}),
         "minor", NOBODY, "answers are open: older senders do not look at it"),
    Case("a receipt promises one more field",
         all_of(put(f"{RECEIPT} properties queue", {**WORD, "description": "Which queue."}),
                change(f"{RECEIPT} required", with_more("queue"))),
         "minor", NOBODY, "the writer promises more than older senders ask for"),
    Case("a promised field becomes optional", change(f"{RECEIPT} required", without("natural_key")), "major", SENDER,
         "older senders take a receipt without it for none"),
    Case("a promised field is removed",
         all_of(drop(f"{RECEIPT} properties digest"), change(f"{RECEIPT} required", without("digest"))),
         "major", SENDER, "older senders take a receipt without it for none"),
    Case("an optional field of an answer is removed", drop("components schemas Problem properties existing"),
         "major", SENDER, "somebody may show it; v1 only grows"),
    Case("an optional field of an answer becomes promised", change("components schemas Problem required", with_more("errors")),
         "minor", NOBODY, "older senders read it where it is"),
    Case("an answer's enum is widened", change("components schemas TestReceipt properties status enum", with_more("ok")),
         "major", SENDER, "older senders do not know the new word"),
    Case("an answer's value is of another type", put(f"{RECEIPT} properties duplicate", {"type": "string", "description": "Whether."}),
         "major", SENDER, "older senders read true or false"),
    Case("an answer's pattern is widened", put(f"{RECEIPT} properties digest pattern", "^[0-9A-Fa-f]{64}$"),
         "major", SENDER, "older senders compare lower-case letters"),
    Case("an answer's pattern is narrowed", put(f"{RECEIPT} properties id", {"type": "string", "pattern": "^[0-9a-f-]{36}$"}),
         "minor", NOBODY, "the writer promises more than older senders ask for"),
    Case("an answer is added", put(f"{POST} responses 422", {"$ref": "#/components/responses/BadRequest"}),
         "minor", NOBODY, "older senders treat an unknown 4xx as 400"),
    Case("the receipt's answer is removed", drop(f"{POST} responses 202"), "major", SENDER,
         "older senders wait for it for ever"),
    Case("an answer says no longer how long to wait", drop("components responses TooManyRequests headers Retry-After"),
         "major", SENDER, "older senders wait as long as it says"),
    Case("an answer comes as another media type",
         change("components responses Accepted content",
                lambda content: {"application/cbor": content["application/json"]}),
         "major", SENDER, "older senders read JSON"),
]  # fmt: skip

REQUESTS = [
    Case("a webhook is added", lambda document: document["paths"].update(
        {"/repair-cancelled": {"post": document["paths"]["/repair-request"]["post"] | {"operationId": "repair-cancelled"}}}),
         "minor", NOBODY, "older senders do not send it"),
    Case("a path is removed", drop("paths /customer-registration"), "major", EVERYBODY,
         "older senders post to it, and rows of its event are stored"),
    Case("a path is renamed", move("paths /repair-request", "/repair-requests"), "major", EVERYBODY,
         "older senders post to the old one"),
    Case("a method is changed", move(POST, "put"), "major", EVERYBODY, "older senders post"),
    Case("an operation is renamed", put(f"{POST} operationId", "repair"), "major", EVERYBODY,
         "the name is the event's in outboxes, queues and code"),
    Case("a header becomes required", put("components parameters WebhookId required", True), "major", SENDER,
         "the guide's curl has none"),
    Case("a header's pattern is narrowed", put("components parameters WebhookId schema pattern", "^[a-f0-9-]{36}$"),
         "major", SENDER, "an older sender may send another"),
    Case("an optional header is added",
         change(f"{POST} parameters", with_more(SHOP)),
         "minor", NOBODY, "older senders send none"),
    Case("an optional header is added to every webhook", on_each_webhook("parameters", with_more(SHOP)), "minor", NOBODY,
         "older senders send none"),
    Case("a header of every webhook is removed", on_each_webhook("parameters", lambda parameters: parameters[:-1]),
         "major", SENDER, "what older senders sign is no longer checked"),
    Case("an answer is added to every webhook",
         on_each_webhook("responses", lambda answers: {**answers, "422": {"$ref": "#/components/responses/BadRequest"}}),
         "minor", NOBODY, "older senders treat an unknown 4xx as 400"),
    Case("a header is added before the others, of which one takes more",
         all_of(on_each_webhook("parameters", lambda parameters: [SHOP, *parameters]),
                put("components parameters WebhookSignature schema maxLength", 4096)),
         "minor", NOBODY, "older senders send none, and shorter signatures"),
    Case("a header is added before the others, of which one takes less",
         all_of(on_each_webhook("parameters", lambda parameters: [SHOP, *parameters]),
                put("components parameters WebhookTimestamp schema pattern", "^[0-9]{1,11}$"),
                put("components parameters WebhookSignature schema maxLength", 1024)),
         "major", SENDER, "an older sender's signature may be longer"),
    Case("the first header is removed, and another takes more",
         all_of(on_each_webhook("parameters", lambda parameters: parameters[1:]),
                put("components parameters WebhookSignature schema maxLength", 4096)),
         "major", SENDER, "what older senders sign is no longer checked"),
    Case("a required header is added",
         change(f"{POST} parameters", with_more({**SHOP, "required": True})),
         "major", SENDER, "older senders send none"),
    Case("a header is removed", change(f"{POST} parameters", lambda parameters: parameters[:-1]), "major", SENDER,
         "what older senders sign is no longer checked"),
    Case("the body comes as another media type",
         change(f"{POST} requestBody content", lambda content: {"application/cbor": content["application/json"]}),
         "major", SENDER, "older senders write JSON"),
    Case("the webhooks move", put("servers", [{"url": "/hooks"}]), "major", SENDER,
         "older senders post to the old address"),
    Case("health asks for a key", drop("paths /health get security"), "major", SENDER,
         "monitors and probes have none"),
    Case("the key is sent in another way",
         put("components securitySchemes webhookKey", {"type": "apiKey", "in": "header", "name": "x-key", "description": "The key."}),
         "major", SENDER, "older senders send a bearer token"),
]  # fmt: skip

SPLIT = [
    Case("a field's schema becomes one of the components and keeps its description",
         all_of(name_schema("priority", "Priority"), put(f"{FIELD} priority", described("Priority"))),
         "patch", NOBODY, "it takes the same"),
    Case("a personal field's schema becomes one of the components",
         all_of(name_schema("notes", "Notes"), put(f"{FIELD} notes", described("Notes"))),
         "patch", NOBODY, "it takes the same, and is personal there too"),
    Case("a body's schema is named in a list of one", change(f"{POST} requestBody content application/json schema", listed),
         "patch", NOBODY, "it takes the same"),
    Case("an item's schema is named in a list of one", change(f"{FIELD} photos items", listed), "patch", NOBODY,
         "it takes the same"),
    Case("a header's schema becomes one of the components",
         all_of(lambda document: document["components"]["schemas"].update(
                    Id=document["components"]["parameters"]["WebhookId"]["schema"]),
                put("components parameters WebhookId schema", described("Id"))),
         "patch", NOBODY, "it takes the same"),
    Case("a schema is no longer in a list of one",
         put("components schemas RepairRequest properties repair", {"$ref": "#/components/schemas/Repair"}),
         "patch", NOBODY, "it takes the same"),
    Case("a part of an answer is no longer in a list of one",
         put("components schemas Problem properties existing", {"$ref": "#/components/schemas/Existing"}),
         "patch", NOBODY, "it says the same"),
    Case("a field's schema becomes one of the components and takes more",
         all_of(name_schema("priority", "Priority"), put(f"{FIELD} priority", described("Priority")),
                change("components schemas Priority enum", with_more("whenever"))),
         "minor", NOBODY, "older bodies have the old words"),
    Case("a field's schema becomes one of the components and takes less",
         all_of(name_schema("priority", "Priority"), put(f"{FIELD} priority", described("Priority")),
                change("components schemas Priority enum", without("urgent"))),
         "major", WRITERS, "an older body may be urgent"),
    Case("a part of an answer is no longer in a list of one and says less",
         all_of(put("components schemas Problem properties existing", {"$ref": "#/components/schemas/Existing"}),
                change("components schemas Existing required", without("event"))),
         "major", SENDER, "older senders ask for it"),
    Case("a personal field's schema becomes one of the components and is personal no more",
         all_of(name_schema("notes", "Notes"), drop("components schemas Notes x-personal-data"),
                put(f"{FIELD} notes", described("Notes"))),
         "major", WRITERS, "customers' words that are stored would be shown, and outlive their erasure"),
    Case("a schema gets a limit beside a list of one",
         all_of(name_schema("notes", "Notes"), put(f"{FIELD} notes", {**described("Notes"), "maxLength": 9})),
         "major", WRITERS, "a reader of the document takes it for one"),
]  # fmt: skip

WORDS = [
    Case("a description is better", put(f"{FIELD} notes description", "What staff should know."), "patch", NOBODY,
         "no payload changes"),
    Case("an example is another", put("components parameters WebhookId example", "another-id"), "patch", NOBODY,
         "no payload changes"),
    Case("a summary is better", put(f"{POST} summary", "A repair was booked"), "patch", NOBODY, "no payload changes"),
    Case("a schema gets another name", rename_photo, "patch", NOBODY, "names of schemas are on no wire"),
    Case("a body's example is another", put(f"{EXAMPLE} repair notes", "Handle with gloves"), "patch", NOBODY,
         "no payload changes"),
    Case("an answer's example is another", put("components responses Conflict content application/problem+json example title", "Another"),
         "patch", NOBODY, "no payload changes"),
    Case("a field's schema moves into the components", all_of(name_schema("priority", "Priority"), put(f"{FIELD} priority", named("Priority"))),
         "patch", NOBODY, "where a schema stands is on no wire"),
    Case("required fields stand in another order", change(f"{REPAIR} required", lambda names: names[::-1]), "patch", NOBODY,
         "they are a set"),
    Case("the words of an enum stand in another order", change(f"{FIELD} priority enum", lambda words: words[::-1]),
         "patch", NOBODY, "they are a set"),
    Case("a tag is added before another, which has better words",
         change("tags", lambda tags: [{"name": "first", "description": "First."}, {**tags[0], "description": "Better."}, *tags[1:]]),
         "patch", NOBODY, "no payload changes"),
    Case("headers stand in another order", change(f"{POST} parameters", lambda parameters: parameters[::-1]), "patch", NOBODY,
         "a request has no order of headers"),
    Case("tags stand in another order", change("tags", lambda tags: tags[::-1]), "patch", NOBODY, "no payload changes"),
    Case("a release is given up", put("info x-deprecated", {"1.0.0": {"since": "2027-01-01"}}), "patch", NOBODY,
         "it is accepted until it is retired"),
]  # fmt: skip

WORDS_OF_OPENAPI = [
    "contact", "description", "example", "examples", "headers", "info", "items", "key", "license", "name", "parameters",
    "properties", "requestBody", "responses", "schema", "security", "servers", "tags", "x-delivery", "x-identity",
    "x-natural-key", "x-property-names",
]  # fmt: skip

NAMES = [
    Case(
        f"an optional field named {name} is {what}", edit, due, breaks, "a field's name is no word of OpenAPI"
    )
    for name in WORDS_OF_OPENAPI
    for what, edit, due, breaks in [
        ("added to a body", put(f"{FIELD} {name}", COLOUR), "minor", NOBODY),
        ("added to an answer", put(f"{RECEIPT} properties {name}", COLOUR), "minor", NOBODY),
        ("put for another in a body", move(f"{FIELD} notes", name), "major", WRITERS),
        (
            "put for another in an answer",
            move("components schemas Problem properties existing", name),
            "major",
            SENDER,
        ),
    ]
]

CASES = [*NAMES, *BODIES, *EXTENSIONS, *ANSWERS, *REQUESTS, *SPLIT, *WORDS]
