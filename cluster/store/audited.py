"""Changes with their audit entries: what is written in which order. `outbox` says why no entry is lost or invented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from cluster.core.audit_entry import new_entry
from cluster.core.documents.base import to_camel
from cluster.core.documents.differences import differences
from cluster.core.documents.json_source import fragment
from cluster.core.documents.secret_marks import SECRET_PLACEHOLDER
from cluster.store import audit, outbox
from cluster.store.outbox import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.store.mongo.client import Database, Document

COLLECTIONS = ("api_keys", "channels", "jobs", "meta", "nodes", "queues", "replays")
"""The collections whose documents carry their entries."""
DOCUMENTS = 200
"""Documents copied at once."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A document with an outbox. `object`: what the log calls it, such as `queue:mail`; `secrets`: fields left out."""

    collection: str
    name: str
    object: str
    secrets: tuple[str, ...] = ()


async def put(db: Database, of: Subject, fields: Document, now_ms: int) -> Document | None:
    """Create or replace the document. `fields` has all of its fields, with `updated_at`.

    Returns the document before, None if there was none.
    """
    entry = new_entry(of.object, "put", now_ms)
    before = await outbox.put(db, of.collection, of.name, fields, entry, of.secrets)
    await flush(db, of.collection, of.name)
    return before


async def delete(db: Database, of: Subject, now_ms: int) -> bool:
    """Delete the document. False if there was none."""
    marked = await outbox.mark_deleted(db, of.collection, of.name, new_entry(of.object, "delete", now_ms), of.secrets)
    await flush(db, of.collection, of.name)
    return marked


async def flush(db: Database, collection: str, name: Any = None) -> int:
    """Copy entries of documents, or of one, to `audit`, clear them, and finish deletions. Returns how many there were.

    Safe to repeat, and for any number of nodes at once.
    """
    found = await outbox.pending(db, collection, DOCUMENTS, name)
    await audit.insert(db, [_finished(e) for seen in found for e in seen.entries])
    for seen in found:
        if seen.deleting is None or not await outbox.remove(db, collection, seen):
            await outbox.clear(db, collection, seen)
    return sum(len(seen.entries) for seen in found)


async def flush_all(db: Database, collections: Sequence[str] = COLLECTIONS) -> int:
    """The same for all documents, some of each collection. Returns how many entries there were."""
    return sum([await flush(db, collection) for collection in collections])


def _finished(entry: Document) -> Document:
    """The entry as it is kept: instead of what the fields were and are, the differences."""
    if "now" not in entry:
        return entry
    was, now = entry["was"], entry["now"]
    action = "delete" if now is None else "create" if was is None else "change"
    changes = differences(_shown(was), _shown(now))
    kept = {name: value for name, value in entry.items() if name not in ("was", "now")}
    return {**kept, "action": action, "changes": orjson.dumps(changes, fragment).decode()}


def _shown(fields: Document | None) -> dict[str, Any]:
    return {to_camel(name): _value(value) for name, value in (fields or {}).items()}


def _value(value: Any) -> Any:
    """As JSON. Dates of the driver are numbers of ms, bytes have no place in a log."""
    if value == HIDDEN:
        return SECRET_PLACEHOLDER
    if isinstance(value, bytes):
        return {"bytes": len(value)}
    if isinstance(value, dict):
        return {str(name): _value(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_value(v) for v in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
