"""The objects beside jobs in `horae jobs export` and `apply`: queues, channels, calendars, windows, the default alert rules.

Each is a line with its `kind`. They come before the jobs, which name them. What the API sets by itself is left out, and so
are fields that have their default, so that an export of what was applied is the same text again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
import orjson

from cluster.core.documents.alerts import AlertSpec
from cluster.core.documents.calendar import read_calendar
from cluster.core.documents.window import read_window, window_json
from cluster.core.errors import InvalidInput
from ops.support.secret_places import has_values, masked, with_omitted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ops.support.client import Client

Object = dict[str, Any]
RULES = "alertRules"
COLLECTIONS = {"queue": "queues", "channel": "channels", "calendar": "calendars", "window": "windows"}
KINDS = (*COLLECTIONS, RULES)
"""In the order in which they are applied: rules name channels, and jobs name all of them."""
_SET_BY_HORAE = frozenset({"updatedAt", "running", "version", "jobs", "following", "remarks", "inForceUntil"})
_DEFAULTS: dict[str, Object] = {
    "window": {"timezone": "UTC", "spreadSeconds": 30},
    RULES: AlertSpec(channels=[]).model_dump(by_alias=True) | {"channels": None},
}


@dataclass(frozen=True, slots=True)
class ObjectsPlan:
    """Objects to create, and to change, each with what it is now; how many stay as they are; and those that give secrets."""

    create: list[Object] = field(default_factory=list)
    change: list[tuple[Object, Object]] = field(default_factory=list)
    unchanged: int = 0
    compared: list[Object] = field(default_factory=list)
    """Objects that may differ in values of secrets alone, which only the API can compare."""

    @property
    def empty(self) -> bool:
        """Whether there are no changes."""
        return not (self.create or self.change)


def existing_objects(client: Client) -> list[Object]:
    """All objects of the API, as an export writes them."""
    found = []
    for kind, collection in COLLECTIONS.items():
        items = client.call("GET", f"/{collection}")["items"]
        found += [defined(kind, item) for item in sorted(items, key=lambda i: str(i["name"]))]
    rules = client.call("GET", "/alerts/default")["alerts"]
    return found if rules is None else [*found, defined(RULES, rules)]


def defined(kind: str, shown: Object) -> Object:
    """The definition within an object of the API or of a file, without fields that have their default."""
    shown = _normal(kind, {n: v for n, v in shown.items() if n not in _SET_BY_HORAE and n != "kind"})
    default = _DEFAULTS.get(kind, {})
    kept = {n: v for n, v in shown.items() if v not in (None, []) and not (n in default and default[n] == v)}
    return {"kind": kind, **kept}


def _normal(kind: str, shown: Object) -> Object:
    """The fields as the API shows them. A document that is wrong stays as it is, for the API to refuse."""
    name = {n: shown[n] for n in ("name",) if n in shown}
    rest = {n: v for n, v in shown.items() if n != "name"}
    given = {n: v for n, v in rest.items() if v is not None}
    try:
        if kind == "calendar":
            return name | read_calendar(given).to_json()
        if kind == "window":
            return name | window_json(read_window(given, "x"))
    except InvalidInput:
        pass
    return shown


def split(values: Iterable[tuple[str, Object]]) -> tuple[list[tuple[str, Object]], list[Object]]:
    """The jobs of files, each with where it stands, and the other objects. Raises `UsageError` for an unknown kind."""
    jobs, others = [], []
    for where, value in values:
        if "kind" not in value:
            jobs.append((where, value))
            continue
        kind = value["kind"]
        if kind not in KINDS:
            raise click.UsageError(f"{where}: the kind must be one of {', '.join(KINDS)}; a job has none")
        if kind != RULES and not isinstance(value.get("name"), str):
            raise click.UsageError(f"{where}: add the name of the {kind}")
        others.append(value)
    return jobs, sorted(others, key=lambda o: KINDS.index(o["kind"]))


def plan_objects(wanted: Iterable[Object], existing: Iterable[Object]) -> ObjectsPlan:
    """The changes from `existing` to `wanted`. Objects that are not among these stay."""
    plan = ObjectsPlan()
    present = {_id(o): o for o in existing}
    unchanged = 0
    for value in wanted:
        before = present.get(_id(value))
        if before is None:
            plan.create.append(value)
        elif before != _compared(value, before):
            plan.change.append((value, before))
        elif has_values(value):
            plan.compared.append(value)
        else:
            unchanged += 1
    return ObjectsPlan(plan.create, plan.change, unchanged, plan.compared)


def _compared(value: Object, before: Object) -> Object:
    """What the object will be, as the API will show it."""
    return defined(value["kind"], with_omitted(masked(value), before))


def wanted_and_stored(wanted: Iterable[Object], existing: Iterable[Object]) -> list[tuple[Object, Object | None]]:
    """Each object of files with what is stored of it."""
    present = {_id(o): o for o in existing}
    return [(value, present.get(_id(value))) for value in wanted]


def _id(value: Object) -> tuple[str, str]:
    return str(value["kind"]), str(value.get("name", ""))


def objects_lines(plan: ObjectsPlan) -> Iterator[str]:
    """The changes as lines of text."""
    for value in plan.create:
        yield f"+ {' '.join(_id(value))}".rstrip()
    for value, before in plan.change:
        yield f"~ {' '.join(_id(value))}".rstrip()
        after = _compared(value, before)
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                yield f"    {name}: {_short(before.get(name))} -> {_short(after.get(name))}"


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."


def apply_objects(client: Client, plan: ObjectsPlan) -> None:
    """Make the changes."""
    for value in sorted(
        [*plan.create, *(v for v, _ in plan.change), *plan.compared], key=lambda o: KINDS.index(o["kind"])
    ):
        body = {n: v for n, v in value.items() if n not in ("kind", "name") and n not in _SET_BY_HORAE}
        if value["kind"] == RULES:
            client.call("PUT", "/alerts/default", body)
        else:
            client.call("PUT", f"/{COLLECTIONS[value['kind']]}/{quote(value['name'], safe='')}", body)
