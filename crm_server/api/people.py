"""What is held of a person, for staff who may see and erase it."""

from collections.abc import Mapping
from functools import partial

from starlette.types import Scope

from crm_server import erasure
from crm_server.api import Answer, Handler
from crm_server.approval_queue import ApprovalQueue
from crm_server.erasure import Person
from crm_server.errors import PersonChanged
from crm_server.problems import Problem
from crm_server.retention import empty_log
from generated.approvals import PersonAddress


async def export_person(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Export what is held of a person."""
    person, actor = await found(queue, scope), scope["crm.staff"].at(scope["crm.address"])
    return Answer(200, await queue.write(partial(erasure.export, person=person, actor=actor)))


async def erase_person(queue: ApprovalQueue, scope: Scope) -> Answer:
    """Erase what is held of a person."""
    person, actor = await found(queue, scope), scope["crm.staff"].at(scope["crm.address"])
    try:
        erased = await queue.write(partial(erasure.erase, person=person, actor=actor))
    except PersonChanged as error:
        raise Problem("person-changed", str(error)) from None
    return Answer(200, {**erased.ids(), "bytes_left": not await empty_log(queue, erasure.EMPTY_SECONDS)})


async def found(queue: ApprovalQueue, scope: Scope) -> Person:
    """Look for the person whose address was sent."""
    email = PersonAddress.model_validate(scope["crm.json"]).email
    return await queue.work(lambda database: erasure.find(database, email))


OPERATIONS: Mapping[str, Handler] = {"export-person": export_person, "erase-person": erase_person}
"""The contract's operations on people, by operationId."""
