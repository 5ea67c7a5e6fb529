"""What a viewer sees in the place of personal data: that there is something, and nothing of it."""

from collections.abc import Iterable, Mapping
from typing import Any

from crm_server.staff import Staff
from generated.base import ContractModel
from generated.operations import RELEASES

MASK = "•••"


def masked(value: Any) -> Any:
    """Return something of a value's kind that tells nothing of it."""
    match value:
        case None:
            return None
        case dict():
            return {}
        case list():
            return []
    return MASK


def mask_payload(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request whose payload is masked where the release that it was written for says so."""
    payload = item["payload"]
    if payload is not None:
        for path in RELEASES[item["contract"]][item["event"]].personal:
            payload = mask_at(payload, path)
    return {**item, "payload": payload}


def mask_at(value: Any, path: Iterable[str]) -> Any:
    """Return an object with one of its fields masked, if it is there."""
    name, *rest = path
    if name not in value:
        return value
    return {**value, name: mask_at(value[name], rest) if rest else masked(value[name])}


def visible(staff: Staff, item: dict[str, Any], model: type[ContractModel]) -> dict[str, Any]:
    """Return something as this member of staff may see it, by the staff API's contract."""
    return item if staff.may("approver") else mask_record(item, model)


def mask_record(item: Mapping[str, Any], model: type[ContractModel]) -> dict[str, Any]:
    """Return a record masked where the staff API's contract says so."""
    return {name: masked(value) if is_personal(model, name) else value for name, value in item.items()}


def is_personal(model: type[ContractModel], name: str) -> bool:
    """Tell whether a field is marked `x-personal-data`."""
    extra = model.model_fields[name].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("personal-data"))
