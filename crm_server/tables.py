"""The CRM's tables. CHECK constraints state the machine, so that a bug cannot write a lie.

Times are text in UTC with microseconds (`2024-12-13T10:00:00.123456Z`), so they sort as text. Texts
marked `personal` are what erasing a person empties.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

Sequence = BigInteger().with_variant(Integer, "sqlite")
"""A number that the database hands out in order; SQLite does so for INTEGER keys alone."""

Bytewise = String(64).with_variant(String(64, collation="C"), "postgresql")
"""Text that sorts as its bytes do, so that a beginning is a range."""

personal = {"personal": True}

DECIDED = text("decided_at IS NOT NULL")
TELLS_MORE = text("about IS NOT NULL")
EXPIRING = text("status = 'rejected' AND erased_at IS NULL")
"""What `CRM_RETENTION_DAYS` is about."""

approvals = Table(
    "approvals",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("event", String(64), nullable=False),
    Column("natural_key", String(64), nullable=False),
    Column("webhook_id", String(128), unique=True),
    Column("contract", String(32), nullable=False),
    Column("payload", Text, info=personal),
    Column("digest", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("received_at", String(27), nullable=False),
    Column("decided_at", String(27)),
    Column("decided_by", String(128)),
    Column("erased_at", String(27)),
    Column("received_by", String(12)),
    Column("received_from", String(64)),
    Column("about", String(64)),
    UniqueConstraint("event", "natural_key"),
    CheckConstraint("status IN ('pending_approval', 'approved', 'rejected')", name="status"),
    CheckConstraint("(status = 'pending_approval') = (decided_at IS NULL)", name="decided_at"),
    CheckConstraint("(decided_at IS NULL) = (decided_by IS NULL)", name="decided_by"),
    CheckConstraint("(payload IS NULL) = (erased_at IS NOT NULL)", name="erased"),
    CheckConstraint("length(digest) = 64", name="digest"),
    Index(None, "event", "status", "sequence"),
    Index(None, "received_at"),
    Index(None, "decided_at", "status", sqlite_where=DECIDED, postgresql_where=DECIDED),
    Index("ix_approvals_expiring", "decided_at", sqlite_where=EXPIRING, postgresql_where=EXPIRING),
    Index("ix_approvals_about", "about", "sequence", sqlite_where=TELLS_MORE, postgresql_where=TELLS_MORE),
    sqlite_autoincrement=True,
)
"""What the website asked for, in order of receipt (`sequence`), and what became of it.

One index serves every list: each pair of event and status is a stream of its own, and a list merges the
streams that it wants. Those on times serve the figures of a day. `received_by` is the webhook key's
fingerprint, `received_from` the sender's address. `about` is the `websiteRepairId` of the repair request that
a status of the website tells more of.
What is erased keeps its identity disguised, see `crm_server.idempotency.disguise`, and is about nothing.
"""

rejection_reasons = Table(
    "rejection_reasons",
    metadata,
    Column("approval_id", String(36), ForeignKey("approvals.id"), primary_key=True),
    Column("reason", Text, info=personal),
)
"""Why staff rejected a request, in their words; apart from the request, so that erasing can empty it."""

customers = Table(
    "customers",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("website_user_id", String(64), nullable=False, unique=True),
    Column("first_name", String(200), info=personal),
    Column("last_name", String(200), info=personal),
    Column("email", String(254), info=personal),
    Column("phone", String(64), info=personal),
    Column("language", String(35)),
    Column("registered_at", String(32)),
    Column("registration_source", String(64)),
    Column("preferences", Text, info=personal),
    Column("created_at", String(27), nullable=False),
    Column("erased_at", String(27)),
)
"""The CRM's customers; `preferences` is JSON, `registered_at` is in the website's own zone."""

Index("ix_customers_email", func.lower(customers.c.email))

customer_website_users = Table(
    "customer_website_users",
    metadata,
    Column("website_user_id", String(64), primary_key=True),
    Column("customer_id", String(36), ForeignKey("customers.id"), nullable=False, index=True),
    Column("approval_id", String(36), ForeignKey("approvals.id"), nullable=False, index=True),
)
"""Ids that a customer has on the website beside the first, each with the decision that said so."""

tickets = Table(
    "tickets",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("website_repair_id", String(64), nullable=False, unique=True),
    Column("ticket_number", String(64), nullable=False, index=True),
    Column("customer_id", String(36), ForeignKey("customers.id"), nullable=False, index=True),
    Column("status", String(16), nullable=False),
    Column("customer_name", String(400), info=personal),
    Column("customer_email", String(254), info=personal),
    Column("device_type", String(200), nullable=False),
    Column("device_model", String(200)),
    Column("issue_description", Text, info=personal),
    Column("service_type", String(64)),
    Column("priority", String(16)),
    Column("language", String(35)),
    Column("address", Text, info=personal),
    Column("notes", Text, info=personal),
    Column("estimated_cost", Float),
    Column("photos", Text, info=personal),
    Column("booked_at", String(32), nullable=False),
    Column("created_at", String(27), nullable=False),
    Column("erased_at", String(27)),
    Column("currency", String(3)),
    CheckConstraint("status IN ('open', 'in_repair', 'ready', 'closed')", name="status"),
    Index(None, "status", "id"),
)
"""Repair tickets; `photos` is JSON, `booked_at` is in the website's own zone."""

ticket_notes = Table(
    "ticket_notes",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("ticket_id", String(36), ForeignKey("tickets.id"), nullable=False, index=True),
    Column("at", String(27), nullable=False),
    Column("author", String(128), nullable=False),
    Column("text", Text, info=personal),
)
"""What staff note on a ticket."""

corrections = Table(
    "corrections",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("record", String(32), nullable=False),
    Column("record_id", String(36), nullable=False, index=True),
    Column("field", String(32), nullable=False),
    Column("before", Text, info=personal),
    Column("at", String(27), nullable=False),
    Column("author", String(128), nullable=False),
    Column("approval_id", String(36), ForeignKey("approvals.id"), index=True),
    CheckConstraint("record IN ('customer', 'ticket')", name="record"),
    sqlite_autoincrement=True,
)
"""What a record's column said before it was corrected; by a decision, where there is an `approval_id`."""

decision_records = Table(
    "decision_records",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("approval_id", String(36), ForeignKey("approvals.id"), nullable=False, index=True),
    Column("record", String(32), nullable=False),
    Column("record_id", String(36), nullable=False, index=True),
    Column("created", Boolean, nullable=False),
    Column("fields", Text, nullable=False),
    CheckConstraint("record IN ('customer', 'ticket')", name="record"),
    sqlite_autoincrement=True,
)
"""Which records an approval created, filled in part (`fields`, a JSON list of columns), or used."""

bulk_jobs = Table(
    "bulk_jobs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("verb", String(16), nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("reason", Text, info=personal),
    Column("total", Integer, nullable=False),
    Column("decided", Integer, nullable=False),
    Column("refused", Integer, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("origin", String(64)),
    Column("started_at", String(27), nullable=False),
    Column("finished_at", String(27)),
    Column("digest", String(64)),
    CheckConstraint("verb IN ('approve', 'reject')", name="verb"),
    CheckConstraint("state IN ('running', 'done')", name="state"),
    CheckConstraint("(state = 'done') = (finished_at IS NOT NULL)", name="finished_at"),
    CheckConstraint("state = 'running' OR reason IS NULL", name="reason"),
    CheckConstraint("decided + refused <= total", name="counts"),
    CheckConstraint("state = 'running' OR decided + refused = total", name="all"),
)
"""Decisions on everything that matched a filter. `reason` is there as long as it is needed; `digest` stands for
which requests they were, but not in jobs of before step 0012."""

bulk_parts = Table(
    "bulk_parts",
    metadata,
    Column("job_id", String(36), ForeignKey("bulk_jobs.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("sequences", Text, nullable=False),
)
"""What a job has still to decide, in order: JSON lists of the requests' sequences."""

bulk_refusals = Table(
    "bulk_refusals",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("job_id", String(36), ForeignKey("bulk_jobs.id"), nullable=False, index=True),
    Column("approval_id", String(36), ForeignKey("approvals.id"), nullable=False),
    Column("why", String(32), nullable=False),
    Column("status", String(16)),
    Column("by", String(128)),
    Column("at", String(27)),
    CheckConstraint("(status IS NULL) = (at IS NULL)", name="at"),
    CheckConstraint('(status IS NULL) = ("by" IS NULL)', name="by"),
    sqlite_autoincrement=True,
)
"""Requests that a job could not decide; `status`, `by` and `at` are the decision that stands, where one does."""

audit_trail = Table(
    "audit_trail",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("at", String(27), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("verb", String(32), nullable=False),
    Column("record", String(32), nullable=False),
    Column("record_id", String(36), nullable=False, index=True),
    Column("pointers", Text, nullable=False),
    Column("origin", String(64)),
    sqlite_autoincrement=True,
)
"""Who did what to which record, when and from which address; `pointers` is a JSON list. Never a value.
Append-only."""

staff = Table(
    "staff",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("password_hash", Text),
    Column("created_at", String(27), nullable=False),
    Column("disabled_at", String(27)),
    CheckConstraint("role IN ('viewer', 'approver', 'admin')", name="role"),
)
"""Who may see and decide what. `password_hash` is Argon2's own notation."""

staff_tokens = Table(
    "staff_tokens",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("staff_id", String(36), ForeignKey("staff.id"), nullable=False, index=True),
    Column("created_at", String(27), nullable=False),
)
"""Bearer tokens of the staff API, each as the SHA-256 of a random text that only its owner has."""

staff_sessions = Table(
    "staff_sessions",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("staff_id", String(36), ForeignKey("staff.id"), nullable=False, index=True),
    Column("started_at", String(27), nullable=False),
    Column("seen_at", String(27), nullable=False),
    CheckConstraint("started_at <= seen_at", name="order"),
)
"""Who is logged in on the pages, each as the SHA-256 of what only their browser has; `seen_at` is true to the
minute."""

webhook_keys = Table(
    "webhook_keys",
    metadata,
    Column("fingerprint", String(12), primary_key=True),
    Column("first_used_at", String(27), nullable=False),
    Column("last_used_at", String(27), nullable=False),
    CheckConstraint("first_used_at <= last_used_at", name="order"),
)
"""When each webhook key was used, the last time to the minute; never the key."""

release_uses = Table(
    "release_uses",
    metadata,
    Column("release", String(32), primary_key=True),
    Column("key", String(12), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("last_at", String(27), nullable=False),
)
"""How many webhooks of each release of the contract came with each key on each day (UTC), all that passed the
key's check; `key` is a fingerprint, or empty where it is not known. Written once a minute."""

retired_releases = Table(
    "retired_releases",
    metadata,
    Column("release", String(32), primary_key=True),
    Column("retired_at", String(27), nullable=False),
)
"""Releases of the contract whose webhooks are no longer accepted."""

heartbeat = Table(
    "heartbeat",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("at", String(27), nullable=False),
    CheckConstraint("id = 1", name="one"),
)
"""One row, written when nothing else has shown for a while that the database can be written."""

erasure_state = Table(
    "erasure_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("key", String(64), nullable=False),
    Column("erasures", BigInteger, nullable=False, server_default="0"),
    Column("erasing_since", String(27)),
    CheckConstraint("id = 1", name="one"),
    CheckConstraint("length(key) = 64", name="key"),
)
"""One row: the key by which erased identities are disguised, how many transactions have erased, and since
when erased bytes wait in SQLite's write-ahead log."""

search_documents = Table(
    "search_documents",
    metadata,
    Column("sequence", Sequence, ForeignKey("approvals.sequence"), primary_key=True, autoincrement=False),
    Column("public_words", Text, nullable=False),
    Column("personal_words", Text, nullable=False, info=personal),
)
"""The words by which a request is found, each after a space; those of personal fields apart."""

search_terms = Table(
    "search_terms",
    metadata,
    Column("term", Bytewise, primary_key=True, info=personal),
    Column("sequence", Sequence, primary_key=True, autoincrement=False),
    Column("personal", Boolean, nullable=False),
    sqlite_with_rowid=False,
)
"""The same words, to be found by how they begin. To erase a request, its document names its terms."""

searches = Table(
    "searches",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("staff_id", String(36), ForeignKey("staff.id"), nullable=False),
    Column("text", Text, nullable=False, info=personal),
    Column("created_at", String(27), nullable=False, index=True),
)
"""What staff search for, which is personal and so stands in no URL; kept for a day."""
