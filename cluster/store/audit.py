"""`audit`: who did what to which object, by time. Entries are written once, under an id that their change has chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from bson.datetime_ms import DatetimeMS
from pymongo.errors import BulkWriteError

from cluster.core.actor import actor_from_document
from cluster.core.audit_entry import AuditEntry
from cluster.core.documents.json_source import fragment
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import duplicates, operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.store.mongo.client import Database, Document


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which entries: `since_ms <= at < until_ms`; those behind the id `after`, the latest first."""

    limit: int
    object: str | None = None
    key: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    after: str | None = None


def to_document(e: AuditEntry) -> Document:
    """As stored. What people wrote stands in a text: names of fields may be anything there."""
    return {
        "_id": e.id,
        "at": DatetimeMS(e.at_ms),
        "object": e.object,
        "action": e.action,
        "by": e.by.to_document(),
        "changes": orjson.dumps(list(e.changes), fragment).decode(),
        "revision": e.revision,
        "counts": e.counts,
        "detail": orjson.dumps(e.detail).decode(),
    }


def _entry(d: Document) -> AuditEntry:
    return AuditEntry(
        id=d["_id"],
        at_ms=int(d["at"]),
        object=d["object"],
        action=d["action"],
        by=actor_from_document(d["by"]),
        changes=tuple(orjson.loads(d["changes"])),
        revision=d["revision"],
        counts=d["counts"],
        detail=orjson.loads(d["detail"]),
    )


async def insert(db: Database, documents: Sequence[Document]) -> None:
    """Insert entries; those that are there already stay as they are."""
    if not documents:
        return
    with operation():
        try:
            await db.api["audit"].insert_many(list(documents), ordered=False)
        except BulkWriteError as exc:
            if duplicates(exc) is None:
                raise


async def record(db: Database, entry: AuditEntry) -> None:
    """Write an entry about what has no document that could carry it, or replace it by a later state of the same."""
    document = to_document(entry)
    with operation():
        await db.api["audit"].replace_one({"_id": entry.id}, document, upsert=True)


async def forget(db: Database, entry_id: str) -> None:
    """Delete the entry of an import that changed nothing."""
    with operation():
        await db.api["audit"].delete_one({"_id": entry_id})


async def page(db: Database, q: AuditQuery) -> list[AuditEntry]:
    """Entries, the latest first."""
    ids: dict[str, Any] = {}
    if q.since_ms is not None:
        ids["$gte"] = f"{q.since_ms:013d}"
    if q.until_ms is not None:
        ids["$lt"] = f"{q.until_ms:013d}"
    if q.after is not None:
        ids["$lt"] = min(q.after, ids.get("$lt", q.after))
    query: Document = {"_id": ids} if ids else {}
    if q.object is not None:
        query["object"] = q.object
    if q.key is not None:
        query["by.key"] = q.key
    with operation():
        documents = await db.api["audit"].find(query).sort("_id", -1).limit(q.limit).to_list()
    return decode_readable("audit", documents, _entry)


async def prune(db: Database, before_ms: int, limit: int) -> int:
    """Delete up to `limit` of the entries before an instant, the oldest first. Returns how many."""
    with operation():
        old = await db.work["audit"].find({"_id": {"$lt": f"{before_ms:013d}"}}, {"_id": 1}).limit(limit).to_list()
        if not old:
            return 0
        return (await db.work["audit"].delete_many({"_id": {"$in": [d["_id"] for d in old]}})).deleted_count
