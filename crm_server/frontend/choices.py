"""What staff may choose when they approve a request: whose it is, and which of two values is right."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from crm_server.api.masking import visible
from crm_server.approval_queue import Comparison
from crm_server.decisions import COMPARED, Choice
from crm_server.decisions import Difference as Differs
from crm_server.frontend.payload import label
from crm_server.frontend.visits import Visit
from crm_server.staff import Staff
from generated.approvals import Approving, Difference, Suggestion

SENT = "sent"
"""What is chosen of a field that becomes what was sent; whatever else is chosen keeps what is on record."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A customer whose a request is, or may be, as this member of staff may see them."""

    id: str
    fields: Mapping[str, Any]
    """Those of COMPARED that are on record."""
    differences: Sequence[Mapping[str, Any]]
    """`{field, label, on_record, sent}` of each."""


def known_customer(staff: Staff, seen: Comparison) -> Candidate | None:
    """Return whose a request is, where their record says something else."""
    if seen.customer_id is None or not seen.differences:
        return None
    return Candidate(seen.customer_id, {}, [shown(staff, each) for each in seen.differences])


def suggested_customers(staff: Staff, seen: Comparison) -> list[Candidate]:
    """Return who may have sent a request, for their e-mail address is equal."""
    return [
        Candidate(
            each.row.id,
            visible(staff, {name: each.row._mapping[name] for name in COMPARED}, Suggestion),
            [shown(staff, one) for one in each.differences],
        )
        for each in seen.suggestions
    ]


def shown(staff: Staff, difference: Differs) -> dict[str, Any]:
    """Return a difference as this member of staff may see it."""
    return {**visible(staff, asdict(difference), Difference), "label": label(difference.field, {})}


def choice_of(visit: Visit) -> Choice:
    """Return what was chosen in the form of a request.

    Raises ValidationError when it is nothing that the staff API would take.
    """
    customer_id = visit.field("customer_id")
    given = {name: visit.field(name) for name in ("ticket_number", "customer_id") if visit.field(name)}
    chosen = Approving.model_validate(given)
    # By customer, so that nothing is chosen for one and written to another.
    use_sent = [name for name in COMPARED if visit.field(f"{name}:{customer_id}") == SENT]
    return Choice(chosen.ticket_number, chosen.customer_id, use_sent)
