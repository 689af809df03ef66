"""Changes with their audit entries: what is written in which order. `outbox` says why no entry is lost or invented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from cluster.core.audit_entry import new_entry
from cluster.core.documents.differences import differences
from cluster.core.documents.json_source import fragment
from cluster.store import audit, outbox
from cluster.store.mongo.schema import WITH_OUTBOX
from cluster.store.outbox import FINAL
from cluster.store.shown_fields import shown_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.store.mongo.client import Database, Document

DOCUMENTS = 200
"""Documents copied at once."""


@dataclass(frozen=True, slots=True)
class AuditedDocument:
    """A document with an outbox. `object`: what the log calls it, such as `queue:mail`; `secrets`: fields left out."""

    collection: str
    name: str
    object: str
    secrets: tuple[str, ...] = ()


async def put(db: Database, of: AuditedDocument, fields: Document, now_ms: int) -> Document | None:
    """Create or replace the document. `fields` has all of its fields, with `updated_at`.

    Returns the document before, None if there was none.
    """
    entry = new_entry(of.object, "put", now_ms)
    before = await outbox.put(db, of.collection, of.name, fields, entry, of.secrets)
    await flush(db, of.collection, of.name)
    return before


async def delete(db: Database, of: AuditedDocument, now_ms: int) -> bool:
    """Delete the document. False if there was none."""
    marked = await outbox.mark_deleted(db, of.collection, of.name, new_entry(of.object, "delete", now_ms), of.secrets)
    await flush(db, of.collection, of.name)
    return marked


async def flush(db: Database, collection: str, name: Any = None) -> int:
    """Copy entries of documents, or of one, to `audit`, clear them, and finish deletions. Returns how many there were.

    Safe to repeat, and for any number of nodes at once.
    """
    found = await outbox.pending(db, collection, DOCUMENTS, name)
    entries = [_finished(e) for seen in found for e in seen.entries]
    await audit.insert(db, [e for e in entries if FINAL not in e])
    for entry in entries:
        if FINAL in entry:
            await audit.replace(db, {name: value for name, value in entry.items() if name != FINAL})
    for seen in found:
        if seen.deleting is None or not await outbox.remove(db, collection, seen):
            await outbox.clear(db, collection, seen)
    return sum(len(seen.entries) for seen in found)


async def flush_all(db: Database, collections: Sequence[str] = WITH_OUTBOX) -> int:
    """The same for all documents, some of each collection. Returns how many entries there were."""
    return sum([await flush(db, collection) for collection in collections])


def _finished(entry: Document) -> Document:
    """The entry as it is kept: instead of what the fields were and are, the differences."""
    if "now" not in entry:
        return entry
    was, now = entry["was"], entry["now"]
    action = "delete" if now is None else "create" if was is None else "change"
    kind = entry["object"].partition(":")[0]
    changes = differences(shown_fields(kind, was), shown_fields(kind, now))
    kept = {name: value for name, value in entry.items() if name not in ("was", "now")}
    return {**kept, "action": action, "changes": orjson.dumps(changes, fragment).decode()}
