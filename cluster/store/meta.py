"""`meta`: one document per setting of the whole cluster. The schema version is in `mongo.schema`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from bson.datetime_ms import DatetimeMS

from cluster.core.documents.alerts import AlertSpec, parse_alert_rules
from cluster.store import audited
from cluster.store.audited import Subject
from cluster.store.mongo.decoding import decode_one
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.core.alerts import AlertRules
    from cluster.store.mongo.client import Database

DEFAULT_RULES_ID = "alerts"
"""The document that holds the alert rules of all jobs without rules of their own."""
_DEFAULT_RULES = Subject("meta", DEFAULT_RULES_ID, "rules:default")
RETENTION_ID = "retention"
CLOCK_DOUBT = "clock-doubt:"
"""Begins the ids of documents that say when the primary's clock was in doubt; the rest is since when, in ms."""


async def record_retention(db: Database, days: float) -> None:
    """Keep the shortest retention that results were ever recorded under: it bounds searches of history by time."""
    with operation():
        await db.api["meta"].update_one({"_id": RETENTION_ID}, {"$min": {"days": days}}, upsert=True)


async def record_clock_doubt(db: Database, since_ms: int, until_ms: int, by_ms: int) -> None:
    """Note that the primary's clock was in doubt since an instant and still is, for `horae verify`."""
    note = {"$set": {"since": DatetimeMS(since_ms), "by_ms": by_ms}, "$max": {"until": DatetimeMS(until_ms)}}
    with operation():
        await db.control["meta"].update_one({"_id": f"{CLOCK_DOUBT}{since_ms}"}, note, upsert=True)


async def clock_doubts(db: Database, since_ms: int) -> list[tuple[int, int, int]]:
    """The times in which the primary's clock was in doubt, `(since, until, by)` in ms, if they reach an instant."""
    query = {"_id": {"$gte": CLOCK_DOUBT, "$lt": f"{CLOCK_DOUBT}~"}, "until": {"$gte": DatetimeMS(since_ms)}}
    with operation():
        documents = await db.work["meta"].find(query).sort("_id", 1).to_list()
    return [(int(d["since"]), int(d["until"]), d["by_ms"]) for d in documents]


async def default_rules(db: Database) -> AlertRules | None:
    """The default alert rules for the engine; None if there are none or the stored ones cannot be read."""
    with operation():
        d = await db.work["meta"].find_one({"_id": DEFAULT_RULES_ID})
    return None if d is None else parse_alert_rules(d.get("rules"))


async def default_rules_spec(db: Database) -> AlertSpec | None:
    """The default alert rules as users wrote them. Raises `UnreadableDocument`."""
    with operation():
        d = await db.api["meta"].find_one({"_id": DEFAULT_RULES_ID})
    return None if d is None else decode_one("meta", d, lambda d: AlertSpec.model_validate(orjson.loads(d["rules"])))


async def set_default_rules(db: Database, spec: AlertSpec | None, now_ms: int) -> bool:
    """Replace the default alert rules, or delete them (None). Returns whether there were any before."""
    if spec is None:
        return await audited.delete(db, _DEFAULT_RULES, now_ms)
    fields = {"rules": spec.to_json(), "updated_at": DatetimeMS(now_ms)}
    return await audited.put(db, _DEFAULT_RULES, fields, now_ms) is not None
