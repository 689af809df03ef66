"""`dedups`: for each `dedupId` of a message the execution that was chosen for it, for a day.

It is inserted before the message. So of many requests one chooses, and a request that meets the document of another can
write the message of that one, should its node have died in between.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS
from pymongo.errors import BulkWriteError

from cluster.store.mongo.operation import duplicates, operation

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cluster.store.mongo.client import Database, Document


@dataclass(frozen=True, slots=True)
class Dedup:
    """A `dedupId`, the digest of its request, the execution chosen for it, and until when it counts (ms)."""

    dedup_id: str
    digest: str
    execution_id: str
    expire_ms: int

    @property
    def key(self) -> str:
        """The id of its document: of bounded length, and any characters may be in a `dedupId`."""
        return _key(self.dedup_id)


def _key(dedup_id: str) -> str:
    return hashlib.sha256(dedup_id.encode("utf-8", "surrogatepass")).hexdigest()


def _document(d: Dedup) -> Document:
    return {
        "_id": d.key,
        "digest": d.digest,
        "execution_id": d.execution_id,
        "expire_at": DatetimeMS(d.expire_ms),
    }


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is stored for a `dedupId`: the digest of the request and its execution."""

    digest: str
    execution_id: str


async def reserve(db: Database, wanted: Sequence[Dedup], now_ms: int) -> list[Chosen]:
    """What counts for each of these: what it says itself, or what an earlier request has stored. Safe to repeat.

    One that has expired, and that MongoDB has not deleted yet, is replaced on what was read.
    """
    if not wanted:
        return []
    with operation():
        try:
            await db.work["dedups"].insert_many([_document(d) for d in wanted], ordered=False)
        except BulkWriteError as exc:
            existed = duplicates(exc)
            if existed is None:
                raise
        else:
            return [Chosen(d.digest, d.execution_id) for d in wanted]
        stored = {d["_id"]: d async for d in db.work["dedups"].find({"_id": {"$in": [wanted[i].key for i in existed]}})}
    chosen = [Chosen(d.digest, d.execution_id) for d in wanted]
    for i in existed:
        chosen[i] = await _earlier(db, wanted[i], stored.get(wanted[i].key), now_ms)
    return chosen


async def counting(db: Database, dedup_ids: Collection[str], now_ms: int) -> dict[str, Chosen]:
    """What earlier requests have stored for these, by the `dedupId`; nothing for those that do not count any more."""
    keys = {_key(name): name for name in dedup_ids}
    query: Document = {"_id": {"$in": list(keys)}, "expire_at": {"$gt": DatetimeMS(now_ms)}}
    with operation():
        stored = await db.work["dedups"].find(query).to_list()
    return {keys[d["_id"]]: Chosen(d["digest"], d["execution_id"]) for d in stored}


async def _earlier(db: Database, mine: Dedup, stored: Document | None, now_ms: int) -> Chosen:
    with operation():
        while True:
            if stored is not None and int(stored["expire_at"]) > now_ms:
                return Chosen(stored["digest"], stored["execution_id"])
            if stored is None:  # it has expired since the insert met it
                after = await db.work["dedups"].find_one_and_update(
                    {"_id": mine.key}, {"$setOnInsert": _without_id(_document(mine))}, upsert=True, return_document=True
                )
            else:
                unchanged = {"_id": mine.key, "execution_id": stored["execution_id"]}
                await db.work["dedups"].update_one(unchanged, {"$set": _without_id(_document(mine))})
                after = await db.work["dedups"].find_one({"_id": mine.key})
            stored = after


def _without_id(d: Document) -> Document:
    return {name: value for name, value in d.items() if name != "_id"}
