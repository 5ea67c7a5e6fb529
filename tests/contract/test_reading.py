"""A contract that the programs would pass over, or understand differently, is refused with its line and the cure."""

from __future__ import annotations

from typing import Any

import pytest

from crm_server.staff import RANKS
from scripts import documents
from scripts.documents import STAFF_CONTRACT
from scripts.generate import INTEGRATION_CONTRACT, RELEASES, webhook_facts, webhooks
from scripts.source import ContractError

SHOWN = "openapi/webhooks/v1.yaml"
VERSION = "1.1.0"
TEXT = (RELEASES / f"{VERSION}.yaml").read_text(encoding="utf-8")
"""A release, for today's contract has another text tomorrow."""
FIELDS = "        issueDescription:\n"
"""Before what a field of a repair goes."""
SCHEMAS = "    RepairCustomer:\n"
"""Before what a schema goes."""
POST = "  /customer-registration:\n    post:\n"
OF_REPAIR = ("repair",)

Edit = tuple[str, str]

CONTACT = """\
    TestContact:
      type: object
      description: Somebody.
      additionalProperties: false
      required: [name]
      properties:
        name: { type: string, description: Who., x-personal-data: true, maxLength: 40, pattern: *line }
"""
PLAIN = """\
    TestPlain:
      type: object
      description: Somebody.
      additionalProperties: false
      required: [name]
      properties:
        name: { type: string, description: Who., maxLength: 40, pattern: *line }
"""
VISIT = """\
    TestVisit:
      type: object
      description: A visit.
      additionalProperties: false
      required: [at]
      properties:
        at: { type: string, format: date-time, description: When., maxLength: 32, pattern: *time }
"""
CALL = PLAIN.replace("TestPlain", "TestCall").replace(
    "description: Who.", "description: Who., x-identity: false"
)
OPEN = """\
    TestOpen:
      type: object
      description: Some settings.
      maxProperties: 9
      x-property-names: { pattern: *line }
      additionalProperties: { type: string, description: One., maxLength: 9, pattern: *line }
"""


def of(name: str, kind: str = "items", beside: str = "") -> str:
    """Return a field of a repair that has a schema in a list, a map or a choice."""
    reference = f'{{ $ref: "#/components/schemas/{name}" }}'
    held = {
        "items": f"type: array, maxItems: 9, items: {reference}",
        "additionalProperties": f"type: object, maxProperties: 9, x-property-names: {{ pattern: *line }}, additionalProperties: {reference}",
        "oneOf": f"oneOf: [{reference}, {{ type: boolean }}]",
    }[kind]
    return f"        testSome: {{ description: Some., {beside}{held} }}\n"


def field(text: str, *schemas: str) -> list[Edit]:
    """Return the edits that give a repair a field, and the schemas that it is made of."""
    return [(FIELDS, text + FIELDS), (SCHEMAS, "".join(schemas) + SCHEMAS)]


def one(text: str) -> list[Edit]:
    """Return the edits that give a repair one field of a schema."""
    return field(f"        testSome: {text}\n")


def edited(edits: list[Edit], text: str = TEXT) -> str:
    """Return the contract with texts, which must be there, replaced where each stands first."""
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def read(text: str) -> Any:
    """Return the checked webhook contract of a text."""
    return documents.checked(text, SHOWN, is_webhooks=True)


def facts(edits: list[Edit]) -> dict[str, Any]:
    """Return what both sides know of a repair request by an edited contract."""
    contract = read(edited(edits))
    [found] = [
        webhook_facts(contract, path, operation)
        for name, path, operation in webhooks(contract)
        if name == "repair-request"
    ]
    return found


COLLECTOR = """\
        testCollector:
          description: Who brings it.
          x-personal-data: true
          allOf: [{ $ref: "#/components/schemas/TestPlain" }]
"""
NICKNAME = """\
        testNickname:
          x-personal-data: true
          allOf: [{ $ref: "#/components/schemas/SettingText" }]
"""


def refusal(edits: list[Edit]) -> str:
    """Return why a contract with these edits is refused, which begins with where that stands."""
    with pytest.raises(ContractError, match=f"^{SHOWN}:[0-9]+: ") as refused:
        read(edited(edits))
    return str(refused.value)


MARKS: dict[str, tuple[list[Edit], str]] = {
    "a name in a list": (field(of("TestContact"), CONTACT), "x-personal-data beside `items`"),
    "a name in a map": (
        field(of("TestContact", "additionalProperties"), CONTACT),
        "x-personal-data beside `additionalProperties`",
    ),
    "a name in a choice": (field(of("TestContact", "oneOf"), CONTACT), "x-personal-data beside `oneOf`"),
    "a time in a list": (field(of("TestVisit"), VISIT), "components.schemas.TestVisit.properties.at is a date-time in a list"),
    "a time in a map": (field(of("TestVisit", "additionalProperties"), VISIT), "is a date-time in a map"),
    "what may differ in a list": (field(of("TestCall"), CALL), "x-identity beside `items`"),
    "an open map in a list": (field(of("TestOpen"), OPEN), "is open in a list"),
    "a mark beside a reference": (
        one('{ x-personal-data: true, $ref: "#/components/schemas/SettingText" }'),
        'Write `allOf: [{ $ref: "#/components/schemas/SettingText" }]`',
    ),
    "a limit beside allOf": (
        one('{ description: Some., maxLength: 9, allOf: [{ $ref: "#/components/schemas/SettingText" }] }'),
        "is not read beside `allOf`",
    ),
    "a mark that is a text": (
        one('{ type: string, description: Some., maxLength: 9, x-personal-data: "true" }'),
        "can be true; otherwise leave it out",
    ),
    "a mistyped mark": (
        one("{ type: string, description: Some., maxLength: 9, x-personel-data: true }"),
        "x-personel-data is read by nobody",
    ),
    "a mark in an answer": (
        [("          description: The approval request's id in the CRM.\n", "          description: The id.\n          x-personal-data: true\n")],
        "x-personal-data is read by nobody here",
    ),
    "a mark of an operation": ([("      x-order-key:", "      x-orderkey:")], "x-orderkey is read by nobody here"),
    "a whole block": (
        [("          description: What is to be repaired.\n", "          description: What.\n          x-personal-data: true\n")],
        "Mark the fields in it",
    ),
    "a field beside the blocks": (
        [("        repair:\n          description: What", "        channel: { type: string, description: It., pattern: *id }\n        repair:\n          description: What")],
        "has `channel` in its body, which is no object",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MARKS)
def test_a_mark_that_would_be_missed_is_refused_by_name(case: str) -> None:
    edits, told = MARKS[case]
    assert told in refusal(edits)


def test_a_mark_beside_a_reference_in_allof_is_read() -> None:
    personal = facts(field(COLLECTOR + NICKNAME, PLAIN))["personal"]
    assert {("repair", "testCollector"), ("repair", "testNickname")} <= set(personal)


def test_a_mark_on_a_whole_list_holds_for_what_is_in_it() -> None:
    marked = of("TestContact", beside="x-personal-data: true, ")
    assert ("repair", "testSome") in facts(field(marked, CONTACT))["personal"]
    free = of("TestVisit", beside="x-identity: false, ")
    assert ("repair", "testSome") in facts(field(free, VISIT))["not_identity"]


LOOKS: dict[str, tuple[list[Edit], str]] = {
    "a name twice": ([("          maxLength: 400\n", "          maxLength: 400\n          maxLength: 500\n")], "`maxLength` stands here and in line "),
    "a path twice": ([("  /repair-request:\n", "  /repair-request: {}\n  /repair-request:\n")], "`/repair-request` stands here and in line "),
    "off in an enum": ([("[low, normal, high, urgent]", "[low, normal, high, urgent, off]")], "`off` needs quotes: YAML takes it for true or false"),
    "true in an enum": ([("[low, normal, high, urgent]", "[low, true]")], "has true, which is no string: put it in quotes."),
    "a number in an enum": ([("[low, normal, high, urgent]", "[low, 1]")], "has 1, which is no string: put it in quotes."),
    "a time of day": (one("{ type: string, description: Some., maxLength: 9, example: 10:30 }"), "`10:30` needs quotes: YAML takes it for a number"),
    "a day in an example": ([('registrationDate: "2024-12-13T10:00:00Z"', "registrationDate: 2024-12-13")], "`2024-12-13` needs quotes: YAML takes it for a day"),
    "a day of a release": ([("x-deprecated: {}", 'x-deprecated: {"1.0.0": {since: 2027-01-01}}')], "`2027-01-01` needs quotes: YAML takes it for a day"),
    "a status without quotes": ([('"200": { $ref', "200: { $ref")], "`200` is a name, and no text to YAML. Put it in quotes."),
    "a version of two numbers": ([(f"  version: {VERSION}\n", "  version: 1.10\n")], 'needs quotes: YAML takes it for the number 1.1. It has three parts, as in "1.10.0".'),
    "a value left out": ([("x-deprecated: {}", "x-deprecated:")], "Nothing stands after the name here"),
}  # fmt: skip


@pytest.mark.parametrize("case", LOOKS)
def test_what_yaml_reads_otherwise_than_it_looks_is_refused(case: str) -> None:
    edits, told = LOOKS[case]
    assert told in refusal(edits)


def test_a_fault_names_its_line() -> None:
    text = edited(LOOKS["a name twice"][0])
    line = text.splitlines().index("          maxLength: 500") + 1
    with pytest.raises(ContractError, match=f"^{SHOWN}:{line}: .* in line {line - 1}\\."):
        read(text)


BODY = "{ type: object, description: It., additionalProperties: false }"
DELIVERY = "      x-delivery: delivered\n"
BROKEN: dict[str, tuple[str, str]] = {
    "no YAML": (edited([("paths:\n", "paths: [\n")]), "This is no YAML: "),
    "a tab": (edited([("  title:", "\ttitle:")]), "A tab does not indent"),
    "a merge's marks": (edited([("info:\n", "<<<<<<< HEAD\ninfo:\n=======\ninfo:\n>>>>>>> other\n")]), "A merge left its marks here"),
    "an unknown alias": (edited([("pattern: *line", "pattern: *lines")]), "is no anchor: none above"),
    "an anchor twice": (edited([("pattern: *line", "pattern: &line x")]), "The name of this anchor"),
    "an alias in itself": (edited([("info:\n", "info: &info\n  x: *info\n")]), "This stands in itself"),
    "a foreign tag": (edited([("  title:", "  title: !name")]), "is not read. Take it out."),
    "two documents": (TEXT + "---\na: b\n", "but found another document"),
    "an empty file": ("", "is empty"),
    "a list": ("- openapi\n", "is no map of names"),
    "no version": (edited([(f"  version: {VERSION}\n", "")]), "info.version is missing"),
    "another OpenAPI": (edited([("openapi: 3.0.3", "openapi: 3.1.0")]), "openapi must be 3.0.3"),
    "no paths": (edited([("paths:\n", "ways:\n")]), "paths is missing"),
    "no components": (edited([("\ncomponents:\n", "\nparts:\n")]), "components is missing"),
    "no schemas": (edited([("\n  schemas:\n", "\n  shapes:\n")]), "components.schemas is missing"),
    "a reference to nothing": (edited([("parameters/WebhookId", "parameters/WebhookIdd")]), "and must name something of components.parameters"),
    "a reference to a file": (edited(one('{ $ref: "other.yaml" }')), "and must name something of components.schemas"),
    "a reference to another kind": (edited(one('{ $ref: "#/components/headers/Allow" }')), "and must name something of components.schemas"),
    "a schema in itself": (edited(field(of("Circle"), '    Circle: { type: array, description: It., maxItems: 1, items: { $ref: "#/components/schemas/Circle" } }\n')), "without an end"),
    "a mistyped type": (edited(one("{ type: strng, description: Some. }")), "must be one of: string, number"),
    "a mistyped keyword": (edited(one("{ type: string, description: Some., pattern: *line, maxLenght: 9 }")), "maxLenght is read by nobody"),
    "a bad pattern": (edited(one('{ type: string, description: Some., pattern: "^[a-z$" }')), "is no regular expression"),
    "a pattern that looks ahead": (edited(one('{ type: string, description: Some., pattern: "^(?!a)" }')), "is no regular expression"),
    "a bound of OpenAPI 3.0": (edited(one("{ type: number, description: Some., minimum: 0, maximum: 1, exclusiveMaximum: true }")), "Write `maximum`."),
    "a length that is a text": (edited(one('{ type: string, description: Some., pattern: *line, maxLength: "9" }')), "must be a whole number"),
    "a list of nothing": (edited(one("{ type: array, description: Some., maxItems: 9 }")), "items is missing"),
    "a text of any characters": (edited(one("{ type: string, description: Some., maxLength: 9 }")), "testSome has no `pattern`, and would take U+0000"),
    "names of any characters": (edited(one("{ type: object, description: Some., maxProperties: 9, additionalProperties: { type: boolean } }")), "testSome has no `x-property-names`, and its names would take U+0000"),
    "a limit of another type": (edited(one("{ type: integer, description: Some., minimum: 0, maximum: 9, maxLength: 9 }")), "maxLength is not read where the type is integer. Its limits are: minimum, maximum, multipleOf."),
    "a limit of a yes or no": (edited(one("{ type: boolean, description: Some., maxLength: 9 }")), "maxLength is not read where the type is boolean. Its limits are: none."),
    "limits that cross": (edited(one("{ type: integer, description: Some., minimum: 9, maximum: 1 }")), "minimum is above `maximum`: no value is right by both."),
    "lengths that cross": (edited(one("{ type: string, description: Some., minLength: 9, maxLength: 1, pattern: *line }")), "minLength is above `maxLength`"),
    "a path without a slash": (edited([("  /payment-status:\n", "  payment-status:\n")]), "paths.payment-status must be words of small letters"),
    "a path with a slash behind": (edited([("  /payment-status:\n", "  /payment-status/:\n")]), "paths./payment-status/ must be words of small letters"),
    "a path to be filled in": (edited([("  /payment-status:\n", "  /payment-status/{id}:\n")]), "has braces, which no sender fills in"),
    "a required name that is none": (edited([("required: [customer, metadata]", "required: [custmer, metadata]")]), "has custmer, which is none of the properties"),
    "a summary of a path": (edited([(POST, POST.replace("    post", "    summary: It.\n    post"))]), "summary is not read on a path"),
    "parameters of a path": (edited([(POST, POST.replace("    post", "    parameters: []\n    post"))]), "parameters is not read on a path"),
    "parameters that are no list": (edited([("parameters: *webhookParameters", "parameters: It.")]), "must be a list of maps"),
    "a schema without a capital": (edited(field("", PLAIN.replace("TestPlain", "plain"))), "must have a capital first"),
    "an operation without a name": (edited([("      operationId: repair-request\n", "")]), "operationId is missing"),
    "a name that is a way": (edited([("operationId: repair-request", "operationId: ../repair")]), "files are called by it"),
    "a name twice": (edited([("operationId: repair-request", "operationId: receipt")]), "is receipt, as another's is"),
    "an answer written inline": (edited([('"200": { $ref: "#/components/responses/TestOk" }', '"200": { description: It. }')]), "must be a `$ref`: write the answer under components.responses"),
    "an answer to all else": (edited([('"200": { $ref', "default: { $ref")]), "is no status"),
    "a body written inline": (edited([('              $ref: "#/components/schemas/RepairRequest"\n', f"              {BODY[2:-2].replace(', ', chr(10) + ' ' * 14)}\n")]), "must be a `$ref`: models and schemas are called by its name"),
    "a body without JSON": (edited([("          application/json:\n", "          application/cbor:\n")]), "application/json is missing"),
    "no key": (edited([("      x-natural-key: customer.websiteUserId\n", "")]), "x-natural-key is missing"),
    "a key that is not there": (edited([("x-natural-key: customer.websiteUserId", "x-natural-key: customer.userId")]), "userId is not there or not required"),
    "a key that is personal": (edited([("x-natural-key: customer.websiteUserId", "x-natural-key: customer.email")]), "marked x-personal-data"),
    "no delivery": (edited([(DELIVERY, "")]), "has no `x-delivery`"),
    "a delivery without default": (edited([("{ default: fail, unsupported", "{ unsupported")]), "has no `default`"),
    "a mistyped delivery": (edited([(DELIVERY, "      x-delivery: deliverd\n")]), "says deliverd, and can say: delivered, retry, hold, fail"),
    "no health": (edited([("operationId: health", "operationId: well")]), "no `get` with the operationId `health`"),
}  # fmt: skip


SEVERAL = {
    "info.version is 2.0.0": (f"  version: {VERSION}\n", "  version: 2.0.0\n"),
    "operationId is receipt": ("operationId: repair-request", "operationId: receipt"),
    "colour.maxLenght is read by nobody": (
        FIELDS,
        "        colour: { type: string, description: Some., pattern: *line, maxLenght: 9, nullable: true }\n"
        + FIELDS,
    ),
    "colour.nullable is not read by validators": ("", ""),
    "weight.type must be one of": (
        FIELDS,
        f"        weight: {{ type: nmber, description: Some. }}\n{FIELDS}",
    ),
    "names #/components/schemas/Nobody": (
        FIELDS,
        f'        owner: {{ $ref: "#/components/schemas/Nobody" }}\n{FIELDS}',
    ),
    "has custmer": ("required: [customer, metadata]", "required: [custmer, metadata]"),
    "says deliverd": (DELIVERY, "      x-delivery: deliverd\n"),
}
"""What is told, and the edit that it is told of."""


def lines_of(refused: pytest.ExceptionInfo[ContractError]) -> list[int]:
    """Return the lines that a refusal names."""
    return [int(line.split(":")[1]) for line in str(refused.value).splitlines()]


def test_all_that_is_wrong_by_itself_is_told_at_once() -> None:
    with pytest.raises(ContractError) as refused:
        read(edited(list(SEVERAL.values())))
    told = str(refused.value).splitlines()
    assert [what for what in SEVERAL if what not in str(refused.value)] == []
    assert len(told) == len(SEVERAL)
    assert lines_of(refused) == sorted(lines_of(refused))


def test_all_that_parts_mean_wrongly_together_is_told_at_once() -> None:
    edits = field(of("TestContact") + of("TestVisit").replace("testSome", "testMore"), CONTACT, VISIT)
    edits.append(("x-natural-key: customer.websiteUserId", "x-natural-key: customer.email"))
    with pytest.raises(ContractError) as refused:
        read(edited(edits))
    assert len(str(refused.value).splitlines()) == 3
    for what in ("in a list (/repair-request", "is a date-time", "is customer.email"):
        assert what in str(refused.value)


def test_all_that_yaml_reads_otherwise_is_told_at_once() -> None:
    edits = [("  title:", "  titel: off\n  since: 2027-01-01\n  title:"), ('"200": { $ref', "200: { $ref")]
    with pytest.raises(ContractError) as refused:
        read(edited(edits))
    for what in ("`off` needs quotes", "`2027-01-01` needs quotes", "`200` is a name, and no text"):
        assert what in str(refused.value)
    assert lines_of(refused) == sorted(lines_of(refused))
    assert len(lines_of(refused)) == 3


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_told_in_a_line_or_two(case: str) -> None:
    text, told = BROKEN[case]
    with pytest.raises(ContractError, match=f"^{SHOWN}(:[0-9]+: | is )") as refused:
        read(text)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("raw", [b"\xff\xfe\xfa", b"openapi: \x01\n", b"openapi: \xe9\n"])
def test_what_is_no_text_is_told(raw: bytes) -> None:
    with pytest.raises(ContractError, match="This is no text in UTF-8, or one that YAML forbids"):
        documents.checked(raw, SHOWN, is_webhooks=True)


def test_the_documents_beside_the_webhooks_are_read_as_carefully() -> None:
    text = STAFF_CONTRACT.read_text(encoding="utf-8")
    wrong = edited([("#/components/parameters/Id", "#/components/parameters/Idd")], text)
    with pytest.raises(
        ContractError, match=r"^openapi/approvals.yaml:[0-9]+: .*Idd, and must name something"
    ):
        documents.checked(wrong, "openapi/approvals.yaml", is_webhooks=False)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("      x-role: approvr\n", "x-role must say the least role that may do it, one of: viewer, approver, admin"),
        ("      x-roles: approver\n", "x-role is missing"),
        ("      x-role: [approver, admin]\n", "x-role must say the least role"),
    ],
)  # fmt: skip
def test_an_operation_without_a_known_role_is_told_before_a_server_does_not_start(
    wrong: str, told: str
) -> None:
    text = STAFF_CONTRACT.read_text(encoding="utf-8")
    role = "      operationId: approve\n"
    start = text.index("      x-role: approver\n", text.index(role))
    wrong = text[:start] + wrong + text[start:].removeprefix("      x-role: approver\n")
    with pytest.raises(ContractError, match=rf"^openapi/approvals.yaml:[0-9]+: paths\.\S+\.post\.{told}"):
        documents.checked(wrong, "openapi/approvals.yaml", is_webhooks=False, has_roles=True)


def test_the_roles_of_the_documents_are_those_that_staff_have() -> None:
    assert list(RANKS) == list(documents.ROLES)


def test_a_role_that_nobody_reads_is_refused() -> None:
    text = INTEGRATION_CONTRACT.read_text(encoding="utf-8")
    name = "      operationId: get-status\n"
    with pytest.raises(ContractError, match=r"x-role is read by nobody here"):
        documents.checked(
            edited([(name, f"{name}      x-role: admin\n")], text),
            "openapi/integration.yaml",
            is_webhooks=False,
        )


UNLIKE = {
    "nullable": ("{ type: string, description: Some., maxLength: 9, nullable: true }", "is not read by validators"),
    "a default": ("{ type: string, description: Some., maxLength: 9, default: x }", "would be filled in by the models"),
    **{
        name: (f"{{ type: string, description: Some., maxLength: 99, format: {name} }}", f"is {name}, by which models rewrite")
        for name in ("uri", "uuid", "byte", "binary", "email", "ipv4", "hostname", "password", "time", "duration", "date")
    },
    "an int32": ("{ type: integer, description: Some., minimum: 0, maximum: 9, format: int32 }", "is int32, by which models"),
    "what is not taken": ("{ type: string, description: Some., maxLength: 9, not: { enum: [x] } }", "not is not read by models"),
    "any digit": ("{ type: string, description: Some., maxLength: 9, pattern: '^\\d+$' }", "means other characters to models"),
    "fractions in an enum": ("{ type: number, description: Some., enum: [0.5, 1] }", "enum is not read by models"),
    "lists in an enum": ("{ description: Some., enum: [[a]] }", "enum is not read by models"),
    "limits without a type": ("{ description: Some., maxLength: 9 }", "has no `type`"),
    "properties without a type": (
        "{ description: Some., additionalProperties: false, properties: { a: { type: boolean, description: It. } } }",
        "has no `type`",
    ),
    "names without a pattern": (
        "{ type: object, description: Some., maxProperties: 9, x-property-names: { maxLength: 9 }, "
        "additionalProperties: { type: boolean } }",
        "has no `pattern`",
    ),
    "two in an allOf": (
        '{ description: Some., allOf: [{ $ref: "#/components/schemas/SettingText" }, { type: string, maxLength: 9 }] }',
        "can have one schema here",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNLIKE)
def test_what_validators_and_models_understand_differently_is_refused(case: str) -> None:
    text, told = UNLIKE[case]
    assert told in refusal(one(text))


@pytest.mark.parametrize("number", ["2.0.0", "v1.2.0", "1.2.0-rc1", "1.2", "1.02.0", "../../x", "1.2.0/../x"])
def test_a_number_that_is_no_release_of_v1_is_refused(number: str) -> None:
    with pytest.raises(ContractError, match=r"info.version (is .*; it must be 1\.N\.N|needs quotes)"):
        read(edited([(f"  version: {VERSION}\n", f"  version: {number}\n")]))


@pytest.mark.parametrize("pattern", [r"^\\d$", r"^\.d$", "^d$"])
def test_a_pattern_without_a_class_is_fine(pattern: str) -> None:
    read(edited(one(f"{{ type: string, description: Some., maxLength: 9, pattern: '{pattern}' }}")))
