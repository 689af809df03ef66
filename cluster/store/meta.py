"""`meta`: one document per setting of the whole cluster. Its schema version is in `store.mongo.schema`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from cluster.core.documents.alerts import AlertSpec, parse_alert_rules
from cluster.store.mongo.decoding import decode_one
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.core.alerts import AlertRules
    from cluster.store.mongo.client import Database

DEFAULT_RULES_ID = "alerts"
"""The document that holds the rules of all jobs without rules of their own."""
RETENTION_ID = "retention"


async def record_retention(db: Database, days: float) -> None:
    """Keep the shortest retention that results were ever recorded under: it bounds searches by time."""
    with operation():
        await db.api["meta"].update_one({"_id": RETENTION_ID}, {"$min": {"days": days}}, upsert=True)


async def default_rules(db: Database) -> AlertRules | None:
    """For the engine: the rules of all jobs without rules of their own; none if what is stored cannot be read."""
    with operation():
        d = await db.work["meta"].find_one({"_id": DEFAULT_RULES_ID})
    return None if d is None else parse_alert_rules(d.get("rules"))


async def default_rules_spec(db: Database) -> AlertSpec | None:
    """For users: the same as it was written."""
    with operation():
        d = await db.api["meta"].find_one({"_id": DEFAULT_RULES_ID})
    return None if d is None else decode_one("meta", d, lambda d: AlertSpec.model_validate(orjson.loads(d["rules"])))


async def set_default_rules(db: Database, spec: AlertSpec | None) -> bool:
    """Replace or end them. Whether there were any."""
    with operation():
        if spec is None:
            return (await db.api["meta"].delete_one({"_id": DEFAULT_RULES_ID})).deleted_count > 0
        update: Any = {"$set": {"rules": spec.to_json()}}
        return (await db.api["meta"].update_one({"_id": DEFAULT_RULES_ID}, update, upsert=True)).matched_count > 0
