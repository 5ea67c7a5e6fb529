"""Search in the approval queue: by words that begin so, and by any four digits of a telephone number.

An index of our own, the same on both databases: what is found is the same, and erasing is exact. A
request has a document, its words in one text, and a row for each word. Of the words that are asked for,
the rarest finds its rows by the index; the others are looked for in the documents of those.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    delete,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    union,
    update,
)

from crm_server.database import insert_or_ignore, new_id
from crm_server.tables import approvals, search_documents, search_terms, searches
from generated.operations import RELEASES, Path

SEARCHED = (
    *("lastName", "firstName", "customerName", "email", "customerEmail", "phone"),
    *("ticketNumber", "deviceType", "deviceModel", "issueDescription"),
)
"""The fields in which people search, those first that must not be cut off."""
MOST_WORDS = 60
"""Of one request; a long description is searched by its beginning."""
LONGEST_WORD = 64
AROUND_ADDRESS = '<>()[],;:."'
"""What stands around an e-mail address where it is copied from: `Ada Lovelace <ada@example.com>,`."""
FEWEST_DIGITS = 4
TRUNK_DIGITS = 7
"""So many digits are a whole telephone number, which may begin with a nought that is not dialled abroad.
In a million requests hardly one other number has just these by chance; with a digit less it would be several."""
COUNTRY_CODE = re.compile("[17]|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|[2-9][0-9]{2}")
"""How a number begins that is written for abroad (ITU-T E.164): every code that is not of one or two digits has three."""
MOST_ASKED = 8
"""Words of one search; more make it no finer."""
BATCH = 50
"""Requests that one transaction puts into the index."""
COMMON = 100_000
"""Of a word that more requests have than this some are soon found by reading one after the other."""
KEPT_FOR = timedelta(days=1)
"""How long the words of a search are kept."""
LAST_CHARACTER = "\U0010ffff"

Word = tuple[str, ...]
"""A word that is asked for, in each form in which it may stand in the index: a request has one of them."""


@dataclass(frozen=True, slots=True)
class Document:
    """What can be found of one request."""

    sequence: int
    public: frozenset[str]
    personal: frozenset[str]

    def row(self) -> dict[str, Any]:
        """Return the row, in which each word follows a space."""
        texts = {"public_words": self.public, "personal_words": self.personal}
        return {
            "sequence": self.sequence,
            **{n: "".join(f" {w}" for w in sorted(t)) for n, t in texts.items()},
        }

    def terms(self) -> Iterator[dict[str, Any]]:
        """Yield the row of each word."""
        for words, personal in ((self.public, False), (self.personal, True)):
            for word in words:
                yield {"term": word, "sequence": self.sequence, "personal": personal}


def words_of(text: str) -> list[str]:
    """Return the words of a text, each once: without case and accents; an e-mail address is one as well."""
    folded = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(character for character in folded if not unicodedata.combining(character))
    addresses = [part.strip(AROUND_ADDRESS) for part in plain.split() if "@" in part]
    words = [*addresses, *re.findall(r"[^\W_]+", plain)]
    return list(dict.fromkeys(word[:LONGEST_WORD] for word in words))


def asked_words(text: str) -> list[Word]:
    """Return the words of a search; a number in groups, as people write it, is one."""
    if len(only_digits(text)) >= FEWEST_DIGITS and not any(map(str.isalpha, text)):
        return [forms_of(text)]
    return [(word,) for word in words_of(text)[:MOST_ASKED]]


def forms_of(number: str) -> Word:
    """Return a number as it is asked for and as a customer may have written it, at home or for abroad."""
    digits = only_digits(number)
    is_whole = len(digits) >= TRUNK_DIGITS
    # Abroad and at home a number begins otherwise: `+44 20` is `020`.
    significant = digits.lstrip("0") if is_whole else digits
    forms = [digits, significant]
    is_abroad = re.match(r"\D*\+", number) or (is_whole and digits.startswith("00"))
    if is_abroad and (code := COUNTRY_CODE.match(significant)):
        home = significant[code.end() :].lstrip("0")
        # Many write both, of which one is dialled: `+44 (0)20`.
        forms += [f"{code[0]}{home}", f"{code[0]}0{home}"]
        forms += [home] if len(home) >= TRUNK_DIGITS else []
    return tuple(dict.fromkeys(form[:LONGEST_WORD] for form in forms if len(form) >= FEWEST_DIGITS))


def only_digits(text: str) -> str:
    """Return the digits of a text, of whatever script."""
    return "".join(str(unicodedata.digit(c)) for c in text if unicodedata.digit(c, None) is not None)


def ends_of(number: str) -> list[str]:
    """Return every end of a number that has enough digits: any digits in it begin one of them."""
    digits = only_digits(number)
    return [digits[start:][:LONGEST_WORD] for start in range(max(0, len(digits) - FEWEST_DIGITS + 1))]


def document(sequence: int, event: str, contract: str, payload: Mapping[str, Any] | None) -> Document:
    """Return what can be found of a request; nothing once its payload is erased."""
    personal = set(RELEASES[contract][event].personal)
    found: dict[str, bool] = {}
    for path, text in texts_of(payload or {}):
        for word in searched_words(path[-1], text):
            # What stands in a public field too may be found by everybody.
            found[word] = found.get(word, True) and path in personal
    kept = list(found.items())[:MOST_WORDS]
    public = frozenset(word for word, hidden in kept if not hidden)
    return Document(sequence, public, frozenset(word for word, hidden in kept if hidden))


def searched_words(name: str, text: str) -> list[str]:
    """Return the words by which a field is found."""
    match name:
        case "phone":
            return ends_of(text)
        case "ticketNumber":
            return words_of(text) + ends_of(text)
    return words_of(text)


def texts_of(payload: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """Return path and text of each field of a payload that is searched, the important ones first."""
    fields = [
        ((block, name), value)
        for block, values in payload.items()
        for name, value in values.items()
        if name in SEARCHED and isinstance(value, str)
    ]
    return sorted(fields, key=lambda field: SEARCHED.index(field[0][-1]))


def waiting(connection: Connection, most: int = BATCH) -> Sequence[Any]:
    """Read the oldest requests that are not in the index, so many at most."""
    newest = select(func.coalesce(func.max(search_documents.c.sequence), 0)).scalar_subquery()
    c = approvals.c
    statement = (
        select(c.sequence, c.event, c.contract, c.payload)
        .outerjoin(search_documents, search_documents.c.sequence == c.sequence)
        .where(c.sequence > newest, search_documents.c.sequence.is_(None))
        .order_by(c.sequence)
        .limit(most)
    )
    return connection.execute(statement).all()


def add(connection: Connection, documents: Sequence[Document]) -> None:
    """Put documents into the index; one that is there stays as it is."""
    dialect = connection.dialect.name
    documents = emptied(connection, documents)
    connection.execute(insert_or_ignore(dialect, search_documents), [each.row() for each in documents])
    if terms := [term for each in documents for term in each.terms()]:
        connection.execute(insert_or_ignore(dialect, search_terms), terms)


def emptied(connection: Connection, documents: Sequence[Document]) -> list[Document]:
    """Return the documents, those without words whose requests were erased after they were read."""
    c = approvals.c
    held = c.sequence.in_([each.sequence for each in documents]) & c.payload.is_not(None)
    # Locked, so that nobody erases one before its words are there to be erased too.
    kept = set(connection.execute(select(c.sequence).where(held).with_for_update(read=True)).scalars())
    return [
        each if each.sequence in kept else Document(each.sequence, frozenset(), frozenset())
        for each in documents
    ]


def erase(connection: Connection, sequences: Sequence[int]) -> None:
    """Take the words of requests out of the index; their documents stay, empty."""
    c = search_documents.c
    words = [
        {"of_term": word, "of_sequence": row.sequence}
        for row in connection.execute(select(search_documents).where(c.sequence.in_(sequences)))
        for word in f"{row.public_words}{row.personal_words}".split()
    ]
    if words:
        this = (search_terms.c.term == bindparam("of_term")) & (
            search_terms.c.sequence == bindparam("of_sequence")
        )
        connection.execute(delete(search_terms).where(this), words)
    nothing = {"public_words": "", "personal_words": ""}
    connection.execute(update(search_documents).where(c.sequence.in_(sequences)).values(nothing))


def conditions(connection: Connection, text: str, *, personal: bool) -> list[ColumnElement[bool]]:
    """Return what a request must meet to be found; unless `personal`, personal fields are not looked at.

    The statement must join `search_documents`.
    """
    asked = asked_words(text)
    if not asked:
        return [false()]
    counts = {word: sum(count(connection, form, personal) for form in word) for word in asked}
    rarest = min(asked, key=counts.__getitem__)
    if counts[rarest] > COMMON:
        return [in_document(word, personal) for word in asked]
    # UNION ALL, which PostgreSQL spreads over processes, takes longer to start than to read.
    found = union(*(select(search_terms.c.sequence).where(*begins(form, personal)) for form in rarest))
    others = [in_document(word, personal) for word in asked if word != rarest]
    return [approvals.c.sequence.in_(found), *others]


def count(connection: Connection, form: str, personal: bool) -> int:
    """Count the entries that a form of a word has in the index, up to one more than is COMMON."""
    entries = select(literal(1)).select_from(search_terms).where(*begins(form, personal)).limit(COMMON + 1)
    number: int = connection.execute(select(func.count()).select_from(entries.subquery())).scalar_one()
    return number


def begins(form: str, personal: bool) -> Iterable[ColumnElement[bool]]:
    """Yield what the entries meet that a form of a word begins."""
    yield search_terms.c.term.between(form, form + LAST_CHARACTER)
    if not personal:
        yield search_terms.c.personal == false()


def in_document(word: Word, personal: bool) -> ColumnElement[bool]:
    """Return what a document meets in which a word begins with this one."""
    column = search_documents.c
    texts = (column.public_words, column.personal_words) if personal else (column.public_words,)
    return or_(*(words.contains(f" {form}", autoescape=True) for words in texts for form in word))


def save(connection: Connection, staff_id: str, text: str, now: str) -> str:
    """Keep the words of a search for a day; return its id."""
    row = {"id": new_id(), "staff_id": staff_id, "text": text, "created_at": now}
    connection.execute(insert(searches), row)
    return str(row["id"])


def saved(connection: Connection, staff_id: str, search_id: str, now: str) -> str | None:
    """Return the words of a search that this member of staff has saved, unless its day is over."""
    c = searches.c
    mine = (c.id == search_id) & (c.staff_id == staff_id) & (c.created_at > oldest_kept(now))
    text: str | None = connection.execute(select(c.text).where(mine)).scalar()
    return text


def forget(connection: Connection, now: str) -> None:
    """Erase the searches whose day is over."""
    connection.execute(delete(searches).where(searches.c.created_at <= oldest_kept(now)))


def oldest_kept(now: str) -> str:
    """Return since when searches are kept, in the form of the database's times."""
    since = datetime.fromisoformat(now) - KEPT_FOR
    return since.isoformat(timespec="microseconds").replace("+00:00", "Z")
