"""Outboxes: a document carries the audit entries of its own changes, each pushed by the write that makes the change.

So a change and its entry exist both or not at all. Then the entry is copied to `audit` under its id, which the change has
chosen, and cleared. Any node may do that, at any time, and again: the copy is inserted once, and only what was copied is
cleared. A deletion marks the document (`deleting`) and pushes its entry by the same write; the document goes when the
entry has been copied. The mark is the decision: whoever copies the entry finishes the deletion. A later `put` takes the
mark away, so the document is made anew.

This module has the single writes. `cluster/store/audited.py` has their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymongo import ReturnDocument

from cluster.store.audit import to_document
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cluster.core.audit_entry import AuditEntry
    from cluster.store.mongo.client import Database, Document

OUTBOX = "outbox"
HIDDEN = "\0left out"
"""Stands for a secret in entries and revisions."""
_UPDATED = {"$ifNull": ["$updated_at", None]}


@dataclass(frozen=True, slots=True)
class Pending:
    """A document with entries that are not copied yet. `deleting`: the entry of its deletion."""

    name: Any
    entries: tuple[Document, ...]
    deleting: str | None


def pushed(entry: AuditEntry) -> Document:
    """What `$push` needs to put the entry into a document."""
    return {OUTBOX: to_document(entry)}


async def put(
    db: Database, collection: str, name: str, fields: Document, entry: AuditEntry, secrets: Collection[str] = ()
) -> Document | None:
    """Create or replace a document by one write, with its entry: what the fields were and what they are is in it.

    The fields in `secrets` are not in it. Returns the document before, None if there was none or it was being deleted.
    """
    shown = [f for f in fields if f != "updated_at"]
    was = {f: _hidden(f"${f}") if f in secrets else f"${f}" for f in shown}
    now = {f: _hidden({"$literal": fields[f]}) if f in secrets else {"$literal": fields[f]} for f in shown}
    has_fields = {"$gt": [{"$size": {"$objectToArray": "$$ROOT"}}, 1]}
    exists = {"$and": [has_fields, {"$not": [{"$gt": ["$deleting", None]}]}]}
    noted = {
        "$mergeObjects": [
            {"$literal": to_document(entry)},
            {"was": {"$cond": [exists, was, None]}, "now": now},
        ]
    }
    update: list[Document] = [
        {
            "$set": {
                **{f: {"$literal": value} for f, value in fields.items()},
                OUTBOX: {"$concatArrays": [{"$ifNull": [f"${OUTBOX}", []]}, [noted]]},
            }
        },
        {"$unset": ["deleting"]},
    ]
    with operation():
        before = await db.api[collection].find_one_and_update(
            {"_id": name}, update, upsert=True, return_document=ReturnDocument.BEFORE
        )
    return None if before is None or before.get("deleting") is not None else before


def _hidden(value: Any) -> Document:
    return {"$cond": [{"$gt": [value, None]}, HIDDEN, None]}


async def mark_deleted(
    db: Database, collection: str, name: str, entry: AuditEntry, secrets: Collection[str] = ()
) -> bool:
    """Decide to delete a document, with the entry of its deletion. False if there is none, or it is being deleted."""
    hidden = ["_id", OUTBOX, "deleting", "updated_at"]
    was: Document = {"$unsetField": {"field": hidden[0], "input": "$$ROOT"}}
    for f in hidden[1:]:
        was = {"$unsetField": {"field": f, "input": was}}
    for f in secrets:
        was = {"$setField": {"field": f, "input": was, "value": _hidden(f"${f}")}}
    noted = {"$mergeObjects": [{"$literal": to_document(entry)}, {"was": was, "now": None}]}
    update: list[Document] = [
        {
            "$set": {
                "deleting": {"entry": entry.id, "of": _UPDATED},
                OUTBOX: {"$concatArrays": [{"$ifNull": [f"${OUTBOX}", []]}, [noted]]},
            }
        }
    ]
    with operation():
        result = await db.api[collection].update_one({"_id": name, "deleting": None}, update)
    return result.matched_count > 0


async def pending(db: Database, collection: str, limit: int, name: Any = None) -> list[Pending]:
    """Up to `limit` documents with entries that are not copied yet, or this one if it has any."""
    query: Document = {f"{OUTBOX}._id": {"$exists": True}}
    if name is not None:
        query["_id"] = name
    with operation():
        documents = await db.api[collection].find(query, {OUTBOX: 1, "deleting": 1}).limit(limit).to_list()
    return [Pending(d["_id"], tuple(d[OUTBOX]), (d.get("deleting") or {}).get("entry")) for d in documents]


async def remove(db: Database, collection: str, seen: Pending) -> bool:
    """Delete a document whose deletion is decided and noted in `audit`. False if it was put anew since.

    A node of the release before does not know the mark and leaves it. What it puts was written at another time than what
    the mark is of.
    """
    with operation():
        result = await db.api[collection].delete_one(
            {
                "_id": seen.name,
                "deleting.entry": seen.deleting,
                "$expr": {"$eq": [_UPDATED, {"$ifNull": ["$deleting.of", None]}]},
            }
        )
    return result.deleted_count > 0


async def clear(db: Database, collection: str, seen: Pending) -> None:
    """Take the entries that were copied out of their document, and the mark of a deletion that has been overtaken."""
    copied: Sequence[str] = [e["_id"] for e in seen.entries]
    rest = {"$filter": {"input": f"${OUTBOX}", "cond": {"$not": [{"$in": ["$$this._id", copied]}]}}}
    same = {"$and": [seen.deleting is not None, {"$eq": ["$deleting.entry", seen.deleting]}]}
    update: list[Document] = [
        {"$set": {OUTBOX: rest, "deleting": {"$cond": [same, "$$REMOVE", "$deleting"]}}},
        {"$set": {OUTBOX: {"$cond": [{"$eq": [f"${OUTBOX}", []]}, "$$REMOVE", f"${OUTBOX}"]}}},
    ]
    with operation():
        await db.api[collection].update_one({"_id": seen.name, f"{OUTBOX}._id": {"$exists": True}}, update)
