"""Search in the queue: what is found, by whom, and that the index is no more than a short cut."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, text

from crm_server import search
from crm_server.approval_queue import Filter, page
from crm_server.database import Database, new_id
from crm_server.pages import Window
from crm_server.search import Document, asked_words, document, ends_of
from crm_server.staff import Role
from crm_server.tables import approvals, search_documents, search_terms
from tests.crm_server.answers import Answer, ask, post, until
from tests.crm_server.conftest import ON_BOTH, open_new
from tests.factories import customer_registration, repair_request
from tests.servers import Crm

pytestmark = ON_BOTH

Tokens = Mapping[Role, str]


@pytest.fixture(scope="module")
def wanted(crm: Crm) -> str:
    """The id of a request that the tests look for, once the index has it."""
    payload = repair_request(
        repair__customerName="Zoë Ångström-Šimůnková",
        repair__customerEmail="Zoe.Angstrom@Example.test",
        repair__ticketNumber="ZEP-2024-77",
        repair__deviceType="Zeppelin Tablet",
        repair__issueDescription="Quokka fell into\nthe aquarium",
        customer__phone="+420 (601) 234-567",
    )
    approval = str(post(crm, "repair-request", payload).json["id"])
    post(crm, "repair-request", repair_request(repair__deviceType="Zeppelin Phone"))
    newest = crm.rows("SELECT max(sequence) FROM approvals")[0][0]
    until(lambda: (crm.rows("SELECT max(sequence) FROM search_documents")[0][0] or 0) >= newest)
    return approval


def look_for(crm: Crm, token: str, words: str, query: str = "") -> Answer:
    saved = ask(crm, token, "POST", "/searches", {"text": words})
    assert saved.status == 201
    return ask(crm, token, "GET", f"/approvals?search={saved.json['id']}{query}")


def ids(answer: Answer) -> list[str]:
    return [item["id"] for item in answer.json["items"]]


@pytest.mark.parametrize(
    "words",
    [
        "zoe",
        "ZOË",
        "angstrom simun",
        "Šimůnková",
        "tablet zepp",
        "zoe.angstrom@example.test",
        "Zoe.Ang",
        "zoe.angstrom@ex",
        "ZEP-2024-77",
        "2024-7 zep",
        "quok aquar",
        "6012",
        "0123",
        "4567",
        "234-567",
        "601234567",
        "0601 234 567",
        "2024-77",
        "  zeppelin,  (tablet)! ",
        "Zoe Angstrom <zoe.angstrom@example.test>",
        "zoe.angstrom@example.test, tablet",
    ],
)
def test_a_request_is_found_by_what_is_in_it(crm: Crm, tokens: Tokens, wanted: str, words: str) -> None:
    assert wanted in ids(look_for(crm, tokens["approver"], words))


@pytest.mark.parametrize(
    "words", ["oe", "quokka thinkpad", "zoe xyzzy", "567", "0000000", "ngstrom", "!!", "%", "_"]
)
def test_nothing_else_is_found(crm: Crm, tokens: Tokens, wanted: str, words: str) -> None:
    answer = look_for(crm, tokens["approver"], words)
    assert wanted not in ids(answer)
    assert answer.json["total"] == len(answer.json["items"])


def test_what_is_found_is_filtered_counted_and_paged_like_every_list(
    crm: Crm, tokens: Tokens, wanted: str
) -> None:
    both = look_for(crm, tokens["approver"], "zeppelin")
    assert (both.json["total"], both.json["total_exact"], len(ids(both))) == (2, True, 2)
    first = look_for(crm, tokens["approver"], "zeppelin", "&limit=1")
    second = look_for(crm, tokens["approver"], "zeppelin", f"&limit=1&after={first.json['next']}")
    assert (
        ids(first) + ids(second)
        == ids(both)
        == ids(look_for(crm, tokens["approver"], "zeppelin", "&order=oldest"))[::-1]
    )
    assert ids(look_for(crm, tokens["approver"], "zeppelin", "&status=rejected")) == []
    assert ids(look_for(crm, tokens["approver"], "zeppelin", "&event=customer-registration")) == []


@pytest.mark.parametrize("words", ["zoe", "quokka", "zoe.angstrom@example.test", "6012", "zeppelin quokka"])
def test_a_viewer_finds_nothing_by_what_is_masked(crm: Crm, tokens: Tokens, wanted: str, words: str) -> None:
    assert ids(look_for(crm, tokens["viewer"], words)) == []
    assert wanted in ids(look_for(crm, tokens["viewer"], "zeppelin tablet zep-2024-77"))


AT_HOME = "020 7946 8765"
ABROAD = "+44 20 7946 4321"
BOTH_WAYS = "+49 (0)30 901820-77"
WITHOUT_NOUGHT = "212-555-0147"
ITALIAN = "+39 06 6982 3145"
SHORT = "+298 30 12 34"


@pytest.fixture(scope="module")
def callers(crm: Crm) -> dict[str, str]:
    """The telephone numbers of customers, by the ids of their requests, once the index has them."""
    phones = [AT_HOME, ABROAD, BOTH_WAYS, WITHOUT_NOUGHT, ITALIAN, SHORT]
    found = {}
    for phone in phones:
        payload = repair_request(customer__phone=phone, repair__issueDescription="Call +441632960123")
        found[str(post(crm, "repair-request", payload).json["id"])] = phone
    newest = crm.rows("SELECT max(sequence) FROM approvals")[0][0]
    until(lambda: (crm.rows("SELECT max(sequence) FROM search_documents")[0][0] or 0) >= newest)
    return found


@pytest.mark.parametrize(
    ("phone", "asked"),
    [
        (AT_HOME, AT_HOME),
        (AT_HOME, "+44 20 7946 8765"),
        (AT_HOME, "0044 20 7946 8765"),
        (AT_HOME, "(+44) 020 7946 8765"),
        (AT_HOME, "+44 (0)20-7946-8765"),
        (AT_HOME, "2079468765"),
        (AT_HOME, "\u202a+44 20 7946 8765\u202c"),
        (ABROAD, "020 7946 4321"),
        (ABROAD, "2079464321"),
        (ABROAD, "4321"),
        (ABROAD, "0044207946 4321"),
        (ABROAD, "+44 (0)20 7946 4321"),
        (ABROAD, "+44 20 7946 43"),
        (ABROAD, "+44 (0)20 7946 43"),
        (BOTH_WAYS, BOTH_WAYS),
        (BOTH_WAYS, "+49 30 90182077"),
        (BOTH_WAYS, "004930 90182077"),
        (BOTH_WAYS, "030 90182077"),
        (BOTH_WAYS, "+49 30 90"),
        (BOTH_WAYS, "+49 (0)30 90"),
        (WITHOUT_NOUGHT, "+1 (212) 555-0147"),
        (WITHOUT_NOUGHT, "001 212 555 0147"),
        (ITALIAN, "+39 06 6982 3145"),
        (ITALIAN, "06 6982 3145"),
        (SHORT, "+298 301234"),
        (SHORT, "00298 301234"),
        (SHORT, "301234"),
    ],
)
def test_a_caller_is_found_whether_their_number_is_written_as_at_home_or_abroad(
    crm: Crm, tokens: Tokens, callers: Mapping[str, str], phone: str, asked: str
) -> None:
    assert [callers.get(found) for found in ids(look_for(crm, tokens["approver"], asked))] == [phone]
    assert ids(look_for(crm, tokens["viewer"], asked)) == []


@pytest.mark.parametrize(
    "asked",
    [
        "+44 30 12 34",
        "0044 301234",
        "+353 7946 43",
        "+49 20 79",
        "+420 20 79",
        "+44 (0)4",
        "0044 (0)4",
        "+4400",
    ],
)
def test_few_digits_after_a_countrys_code_find_no_other_country(
    crm: Crm, tokens: Tokens, callers: Mapping[str, str], asked: str
) -> None:
    assert ids(look_for(crm, tokens["approver"], asked)) == []


@pytest.mark.parametrize("asked", ["+44 1632 960123", "+44 (0)1632 960123", "00441632960123"])
def test_a_number_in_a_text_is_found_as_it_stands_there(
    crm: Crm, tokens: Tokens, callers: Mapping[str, str], asked: str
) -> None:
    assert set(ids(look_for(crm, tokens["approver"], asked))) == set(callers)


def test_a_search_is_its_owners_alone_and_ends_after_a_day(crm: Crm, tokens: Tokens, wanted: str) -> None:
    saved = ask(crm, tokens["approver"], "POST", "/searches", {"text": "zeppelin"}).json["id"]
    path = f"/approvals?search={saved}"
    assert wanted in ids(ask(crm, tokens["approver"], "GET", path))
    assert ask(crm, tokens["admin"], "GET", path).status == 404
    assert ask(crm, tokens["approver"], "GET", "/approvals?search=none").status == 404


def test_customers_and_tickets_are_found_by_the_requests_that_they_came_of(crm: Crm, tokens: Tokens) -> None:
    payload = repair_request(
        repair__deviceType="Theremin", customer__lastName="Wolpertinger", customer__email="wolp@example.test"
    )
    approval = post(crm, "repair-request", payload).json["id"]
    newest = crm.rows("SELECT max(sequence) FROM approvals")[0][0]
    until(lambda: (crm.rows("SELECT max(sequence) FROM search_documents")[0][0] or 0) >= newest)
    number = {"ticket_number": "ITS-OWN-NUMBER"}
    ask(crm, tokens["approver"], "POST", f"/approvals/{approval}/approve", number)

    def found(role: Role, kind: str, words: str) -> list[str]:
        saved = ask(crm, tokens[role], "POST", "/searches", {"text": words}).json["id"]
        answer = ask(crm, tokens[role], "GET", f"/{kind}?search={saved}").json
        assert answer["total"] == len(answer["items"])
        return [item["id"] for item in answer["items"]]

    (ticket,) = found("viewer", "tickets", "theremin")
    assert [ticket] == found("approver", "tickets", "wolpert") == found("viewer", "tickets", "ITS-OWN-NUMBER")
    (customer,) = found("approver", "customers", "wolpertinger")
    assert found("viewer", "customers", "wolpertinger") == found("viewer", "tickets", "wolpert") == []
    assert found("approver", "tickets", "theremin nothing") == []
    right = {"email": "tatzelwurm@example.test"}
    ask(crm, tokens["approver"], "POST", f"/customers/{customer}/corrections", right)
    assert found("approver", "customers", "Tatzelwurm@example.test") == [customer]
    assert found("viewer", "customers", "tatzelwurm@example.test") == []
    erased = crm.cli("erase-person", "--email", "-", "--yes", stdin="tatzelwurm@example.test")
    assert erased.returncode == 0, erased.stderr
    assert found("viewer", "customers", "nobody at all") == []
    assert ask(crm, tokens["approver"], "GET", "/tickets?search=none").status == 404


def test_words_of_a_search_are_erased_when_its_day_is_over(database: Database) -> None:
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    stamp = [
        (now + timedelta(hours=hours)).isoformat(timespec="microseconds")[:26] + "Z" for hours in range(26)
    ]
    with database.writing() as connection:
        connection.execute(
            text("INSERT INTO staff (id, name, role, created_at) VALUES ('s', 'S', 'viewer', 'now')")
        )
        saved = search.save(connection, "s", "Sentinel", stamp[0])
        for at, kept in ((stamp[23], "Sentinel"), (stamp[24], None)):
            assert search.saved(connection, "s", saved, at) == kept
            search.forget(connection, at)
            assert connection.execute(text("SELECT max(text) FROM searches")).scalar() == kept


def test_an_index_that_lags_behind_catches_up_after_a_restart(own_crm: Crm) -> None:
    for _ in range(3):
        post(own_crm, "repair-request", repair_request())
    assert own_crm.rows("SELECT * FROM search_documents") == [], "only who serves staff keeps the index"
    own_crm.only = None
    own_crm.restart()
    until(lambda: len(own_crm.rows("SELECT * FROM search_documents")) == 3)
    post(own_crm, "customer-registration", customer_registration())
    until(lambda: len(own_crm.rows("SELECT * FROM search_documents")) == 4)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Database]:
    with open_new(tmp_path_factory.mktemp("search"), engine) as database:
        yield database


NAMES = ["Ann", "Änn", "anna", "Bob", "bo%", "b_b", "Zoë", "12345", "STRASSE", "straße", "ǅ"]
WORDS = [*NAMES, "an", "b", "1234", "3456", "strass", "ann@b.example", "345", "+44 (0)12 3456 0012"]


@pytest.fixture(scope="module")
def documents(database: Database) -> list[tuple[Document, str]]:
    """Forty requests with their documents, oldest first, in database and index."""
    found = []
    for sequence in range(1, 41):
        payload = repair_request(
            repair__customerName=NAMES[sequence % len(NAMES)],
            repair__issueDescription=f"{NAMES[sequence // 4 % len(NAMES)]} {NAMES[sequence // 2 % len(NAMES)]}",
            repair__deviceType=NAMES[sequence // 3 % len(NAMES)],
            customer__phone=f"+44 {sequence:02} 3456 {sequence:04}",
        )
        row = {"sequence": sequence, "id": new_id(), "event": "repair-request", "natural_key": str(sequence)}
        row |= {"contract": "1.0.0", "payload": json.dumps(payload), "digest": "0" * 64}
        row |= {"status": "pending_approval", "received_at": "2026-11-24T12:00:00.000000Z"}
        with database.writing() as connection:
            connection.execute(insert(approvals), row)
        found.append((document(sequence, "repair-request", "1.0.0", payload), str(row["id"])))
    with database.writing() as connection:
        search.add(connection, [each for each, _ in found])
        search.add(connection, [each for each, _ in found[:5]])
        assert search.waiting(connection) == []
    return found


@pytest.mark.parametrize("common", [0, 5, 10_000])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3), personal=st.booleans())
def test_the_index_finds_what_reading_every_request_would(
    database: Database,
    documents: list[tuple[Document, str]],
    monkeypatch: pytest.MonkeyPatch,
    common: int,
    asked: list[str],
    personal: bool,
) -> None:
    monkeypatch.setattr(search, "COMMON", common)
    query = " ".join(asked)
    expected = [
        id_
        for each, id_ in reversed(documents)
        if all(
            any(word.startswith(begin) for word in each.public | (each.personal if personal else frozenset()))
            for begin in asked_words(query)
        )
    ]
    if not asked_words(query):
        expected = []
    with database.reading() as connection:
        found = page(connection, Window(limit=100), Filter(words=query, personal=personal))
    assert [row.id for row in found.rows] == expected
    assert found.total == len(expected)


def test_rows_and_document_of_a_request_hold_the_same_words(
    database: Database, documents: list[tuple[Document, str]]
) -> None:
    with database.reading() as connection:
        for row in connection.execute(select(search_documents)):
            mine = select(search_terms.c.term, search_terms.c.personal).where(
                search_terms.c.sequence == row.sequence
            )
            by_row = {(term, hidden) for term, hidden in connection.execute(mine)}
            words = {(word, False) for word in row.public_words.split()}
            assert by_row == words | {(word, True) for word in row.personal_words.split()}


@pytest.mark.engines("sqlite")
@pytest.mark.parametrize("words", ["zoe ann", "+44 20 7946 0000"])
def test_the_rarest_word_is_looked_up_in_the_index(database: Database, words: str) -> None:
    with database.reading() as connection:
        where = search.conditions(connection, words, personal=True)
        statement = select(approvals.c.id).join(
            search_documents, search_documents.c.sequence == approvals.c.sequence
        )
        compiled = statement.where(*where).compile(connection, compile_kwargs={"literal_binds": True})
        plan = " ".join(str(row) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}"))
    assert "SEARCH search_terms USING PRIMARY KEY (term>? AND term<?)" in plan
    assert "SCAN" not in plan


@pytest.mark.parametrize(
    ("phone", "found"),
    [
        ("+1 (23) 45", ["12345", "2345"]),
        ("123", []),
        ("", []),
        ("١٢٣٤", ["1234"]),
        ("none", []),
    ],
)
def test_any_four_digits_begin_one_of_a_numbers_ends(phone: str, found: list[str]) -> None:
    assert ends_of(phone) == found


def test_of_a_long_text_the_beginning_is_kept_and_names_never_fall_off() -> None:
    payload: dict[str, Any] = repair_request(repair__issueDescription=" ".join(f"w{n}" for n in range(900)))
    found = document(1, "repair-request", "1.0.0", payload)
    assert len(found.public | found.personal) == search.MOST_WORDS
    assert {"lovelace", "ada@example.com", "442079460000", "w0"} <= found.personal


def test_what_is_erased_has_an_empty_document() -> None:
    assert document(1, "repair-request", "1.0.0", None) == Document(1, frozenset(), frozenset())
