"""`api_keys`: keys made with `horae keys create`. Only hashes are stored: SHA-256, once, because keys are random."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bson.binary import Binary
from bson.datetime_ms import DatetimeMS

from cluster.core.audit_entry import new_entry
from cluster.core.documents.differences import differences
from cluster.core.instants import format_optional_instant
from cluster.store import audited
from cluster.store.audit import to_document
from cluster.store.mongo.codec import date, instant
from cluster.store.mongo.operation import operation
from cluster.store.outbox import OUTBOX, pushed

if TYPE_CHECKING:
    from cluster.core.audit_entry import AuditEntry
    from cluster.store.mongo.client import Database


@dataclass(frozen=True, slots=True)
class StoredApiKey:
    """A key as it is stored; `digest` is its SHA-256."""

    name: str
    digest: bytes
    scope: str
    created_ms: int
    expires_ms: int | None = None
    used_ms: int | None = None
    revoked_ms: int | None = None

    def is_active(self, now_ms: int) -> bool:
        """Whether requests with this key are accepted: it is neither revoked nor expired."""
        return self.revoked_ms is None and (self.expires_ms is None or now_ms < self.expires_ms)


async def create(db: Database, key: StoredApiKey) -> bool:
    """Store a new key, in the place of a revoked one of the same name. False if a key of that name is not revoked."""
    document = {
        "digest": Binary(key.digest),
        "scope": key.scope,
        "created_at": DatetimeMS(key.created_ms),
        "expires_at": date(key.expires_ms),
        "used_at": None,
        "revoked_at": None,
    }
    entry = _entry(key.name, "create", key.created_ms)
    shown = {"scope": key.scope, "expiresAt": format_optional_instant(key.expires_ms)}
    entry = replace(entry, changes=tuple(differences({}, shown)))
    with operation():
        inserted = await db.api["api_keys"].update_one(
            {"_id": key.name}, {"$setOnInsert": {**document, OUTBOX: [to_document(entry)]}}, upsert=True
        )
        created = inserted.upserted_id is not None
        if not created:
            replaced = await db.api["api_keys"].update_one(
                {"_id": key.name, "revoked_at": {"$ne": None}}, {"$set": document, "$push": pushed(entry)}
            )
            created = replaced.matched_count > 0
    await audited.flush(db, "api_keys", key.name)
    return created


def _entry(name: str, action: str, now_ms: int) -> AuditEntry:
    return new_entry(f"key:{name}", action, now_ms)


async def list_all(db: Database) -> list[StoredApiKey]:
    """Every key, by name."""
    with operation():
        documents = await db.api["api_keys"].find().sort("_id", 1).to_list()
    return [_stored(d) for d in documents]


async def revoke(db: Database, name: str, now_ms: int) -> bool:
    """Revoke a key. False if no key of that name is unrevoked."""
    with operation():
        result = await db.api["api_keys"].update_one(
            {"_id": name, "revoked_at": None},
            {"$set": {"revoked_at": DatetimeMS(now_ms)}, "$push": pushed(_entry(name, "revoke", now_ms))},
        )
    await audited.flush(db, "api_keys", name)
    return result.matched_count > 0


async def record_use(db: Database, name: str, now_ms: int) -> None:
    """Record that a key was used at an instant; an earlier one changes nothing."""
    with operation():
        await db.api["api_keys"].update_one({"_id": name}, {"$max": {"used_at": DatetimeMS(now_ms)}})


def _stored(d: dict[str, Any]) -> StoredApiKey:
    return StoredApiKey(
        name=d["_id"],
        digest=bytes(d["digest"]),
        scope=d["scope"],
        created_ms=int(d["created_at"]),
        expires_ms=instant(d["expires_at"]),
        used_ms=instant(d["used_at"]),
        revoked_ms=instant(d["revoked_at"]),
    )
