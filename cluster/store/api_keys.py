"""`api_keys`: keys made with `horae keys create`. Only their hashes are kept; a key is random, so one SHA-256 will do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bson.binary import Binary
from bson.datetime_ms import DatetimeMS

from cluster.store.mongo.codec import instant
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


@dataclass(frozen=True, slots=True)
class StoredApiKey:
    """A key as it is kept."""

    name: str
    digest: bytes
    scope: str
    created_ms: int
    expires_ms: int | None = None
    used_ms: int | None = None
    revoked_ms: int | None = None

    def is_active(self, now_ms: int) -> bool:
        """Whether it opens anything."""
        return self.revoked_ms is None and (self.expires_ms is None or now_ms < self.expires_ms)


async def create(db: Database, key: StoredApiKey) -> bool:
    """Keep a new key; one that was revoked under the same name gives way. False if a live one has the name."""
    document = {
        "digest": Binary(key.digest),
        "scope": key.scope,
        "created_at": DatetimeMS(key.created_ms),
        "expires_at": None if key.expires_ms is None else DatetimeMS(key.expires_ms),
        "used_at": None,
        "revoked_at": None,
    }
    with operation():
        fresh = await db.api["api_keys"].update_one({"_id": key.name}, {"$setOnInsert": document}, upsert=True)
        if fresh.upserted_id is not None:
            return True
        again = await db.api["api_keys"].update_one({"_id": key.name, "revoked_at": {"$ne": None}}, {"$set": document})
    return again.matched_count > 0


async def list_all(db: Database) -> list[StoredApiKey]:
    """Every key, by name."""
    with operation():
        found = await db.api["api_keys"].find().sort("_id", 1).to_list()
    return [_stored(d) for d in found]


async def revoke(db: Database, name: str, now_ms: int) -> bool:
    """End a key. False if no live key has that name."""
    with operation():
        result = await db.api["api_keys"].update_one(
            {"_id": name, "revoked_at": None}, {"$set": {"revoked_at": DatetimeMS(now_ms)}}
        )
    return result.matched_count > 0


async def record_use(db: Database, name: str, now_ms: int) -> None:
    """Note that a key was used."""
    with operation():
        await db.api["api_keys"].update_one({"_id": name}, {"$max": {"used_at": DatetimeMS(now_ms)}})


def _stored(d: dict[str, Any]) -> StoredApiKey:
    return StoredApiKey(
        d["_id"],
        bytes(d["digest"]),
        d["scope"],
        int(d["created_at"]),
        instant(d["expires_at"]),
        instant(d["used_at"]),
        instant(d["revoked_at"]),
    )
