"""`executions`: what is owed, and only that. No index but `_id`; every change after a claim names batch and token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS
from pymongo import DeleteMany, UpdateOne
from pymongo.errors import BulkWriteError

from cluster.core.lifecycle import State
from cluster.store.mongo.codec import attempt_to_document, execution_from_document, execution_to_document
from cluster.store.mongo.decoding import decode_each
from cluster.store.mongo.operation import duplicates, operation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cluster.core.execution.model import Execution, Rescheduled
    from cluster.store.mongo.client import Database


async def insert(db: Database, executions: Sequence[Execution]) -> list[str]:
    """Insert what is owed. Returns the ids that existed already; those documents are untouched."""
    if not executions:
        return []
    documents = [execution_to_document(e) for e in executions]
    with operation():
        try:
            await db.work["executions"].insert_many(documents, ordered=False)
        except BulkWriteError as exc:
            existed = duplicates(exc)
            if existed is None:
                raise
            return [executions[i].id for i in existed]
    return []


async def owed(db: Database, ids: Iterable[str]) -> dict[str, Execution]:
    """Those of `ids` that are still owed."""
    return (await read_owed(db, ids))[0]


async def read_owed(db: Database, ids: Iterable[str]) -> tuple[dict[str, Execution], dict[str, str]]:
    """Those of `ids` that are still owed; and those whose documents cannot be read, with why."""
    with operation():
        found = await db.work["executions"].find({"_id": {"$in": list(ids)}}).to_list()
    executions, unreadable = decode_each("execution", found, execution_from_document)
    return {e.id: e for e in executions}, unreadable


async def delete_unreadable(db: Database, ids: Iterable[str]) -> int:
    """Delete documents that nobody can read and nobody can hold. History says what they were."""
    with operation():
        return (await db.work["executions"].delete_many({"_id": {"$in": list(ids)}})).deleted_count


async def stamp(db: Database, ids: Sequence[str], batch: str, owner: str, token: int) -> int:
    """Fence: every execution that names this batch says from now on who holds it. Returns how many do.

    Whoever stood still between claim and stamp for longer than his lease must not take back what the next one holds.
    """
    with operation():
        result = await db.work["executions"].update_many(
            {"_id": {"$in": list(ids)}, "batch": batch, "$or": [{"owner": None}, {"token": {"$lte": token}}]},
            {"$set": {"state": State.LEASED.value, "owner": owner, "token": token}},
        )
    return result.matched_count


async def delete_final(db: Database, held: Mapping[tuple[str, int], Sequence[str]]) -> int:
    """Delete executions that are final in history: `{(batch, token): ids}`. Returns how many were still ours."""
    if not held:
        return 0
    with operation():
        result = await db.work["executions"].bulk_write(
            [
                DeleteMany({"_id": {"$in": list(ids)}, "batch": batch, "token": token})
                for (batch, token), ids in held.items()
            ],
            ordered=False,
        )
    return result.deleted_count


async def delete_ended(db: Database, ended: Mapping[str, int]) -> int:
    """Delete what is left of executions that history calls failed or dead: `{id: when they ended, ms}`.

    Whoever ended one deletes it in a moment; asked for again before that, it would be taken for owed already, and then be
    deleted. What somebody has asked for since they ended is not touched.
    """
    if not ended:
        return 0
    with operation():
        result = await db.work["executions"].bulk_write(
            [
                DeleteMany({"_id": name, "$or": [{"asked_at": None}, {"asked_at": {"$lt": DatetimeMS(ms)}}]})
                for name, ms in ended.items()
            ],
            ordered=False,
        )
    return result.deleted_count


async def fence_endings(db: Database, endings: Sequence[Execution], nonce: str) -> set[str]:
    """Mark executions as about to end, on their batch and token. Returns the ids that were still ours.

    A result that is not a success may only become final while the execution is ours: otherwise a node that lost its
    lease minutes ago could end what another is retrying.
    """
    if not endings:
        return set()
    ids = [e.id for e in endings]
    with operation():
        result = await db.work["executions"].bulk_write(
            [
                UpdateOne({"_id": e.id, "batch": e.batch, "token": e.token}, {"$set": {"ending": nonce}})
                for e in endings
            ],
            ordered=False,
        )
        if result.matched_count == len(ids):
            return set(ids)
        mine = await db.work["executions"].find({"_id": {"$in": ids}, "ending": nonce}, {"_id": 1}).to_list()
    return {d["_id"] for d in mine}


async def move(db: Database, moves: Sequence[Rescheduled], batch: str) -> set[str]:
    """First half of a move: the executions name `batch` from now on. Returns the ids that were still ours.

    The caller inserts that batch next. If it dies before, the batch they came from still lists them, and whoever
    reclaims it inserts the missing one.
    """
    if not moves:
        return set()
    operations = []
    for m in moves:
        change: dict[str, dict[str, object]] = {
            "$set": {
                "batch": batch,
                "owner": None,
                "send_at": DatetimeMS(m.send_ms),
                "state": (State.RETRYING if m.attempts else State.PENDING).value,
            }
        }
        made = m.attempts[len(m.execution.attempts) :]
        if made:
            change["$push"] = {"attempts": {"$each": [attempt_to_document(a) for a in made]}}
        mine = {"_id": m.execution.id, "batch": m.execution.batch, "token": m.execution.token}
        operations.append(UpdateOne(mine, change))
    ids = [m.execution.id for m in moves]
    with operation():
        result = await db.work["executions"].bulk_write(operations, ordered=False)
        if result.matched_count == len(ids):
            return set(ids)
        there = await db.work["executions"].find({"_id": {"$in": ids}, "batch": batch}, {"_id": 1}).to_list()
    return {d["_id"] for d in there}


async def adopt(db: Database, stale: Sequence[Execution], wanted: Mapping[str, Execution], batch: str) -> set[str]:
    """Give executions of an older schedule to the present one: new version, new batch; attempts stay.

    `wanted` maps execution id to what the present schedule owes. What was never sent is sent when that says, and what was,
    when it was to be tried again. The batch is inserted by the caller next. A node that holds the old batch can no longer
    end them, because its token names the old batch; one that has claimed it since they were read is asked about again, for
    the new batch begins with the token that they had.
    """
    if not stale:
        return set()
    with operation():
        result = await db.work["executions"].bulk_write(
            [
                UpdateOne(
                    {
                        "_id": e.id,
                        "batch": e.batch,
                        "token": e.token,
                        "schedule_version": e.schedule_version,
                        "attempts": {"$size": len(e.attempts)},
                    },
                    {
                        "$set": {
                            "schedule_version": wanted[e.id].schedule_version,
                            "batch": batch,
                            "owner": None,
                            **(
                                {"state": State.RETRYING.value}
                                if e.attempts
                                else {"state": State.PENDING.value, "send_at": DatetimeMS(wanted[e.id].send_ms)}
                            ),
                        },
                        "$unset": {"ending": ""},
                    },
                )
                for e in stale
            ],
            ordered=False,
        )
        ids = [e.id for e in stale]
        if result.matched_count == len(ids):
            return set(ids)
        mine = await db.work["executions"].find({"_id": {"$in": ids}, "batch": batch}, {"_id": 1}).to_list()
    return {d["_id"] for d in mine}


async def add_attempts(db: Database, execution: Execution) -> bool:
    """Keep an attempt of a node that lost its lease on the execution that somebody else owes now. Safe to repeat."""
    kept = False
    with operation():
        for a in execution.attempts:
            document = attempt_to_document(a)
            there = {"$elemMatch": {name: document[name] for name in ("n", "node", "token", "sent_at")}}
            result = await db.work["executions"].update_one(
                {"_id": execution.id, "attempts": {"$not": there}}, {"$push": {"attempts": document}}
            )
            kept = kept or result.matched_count > 0
    return kept


async def count_by_batch(db: Database) -> dict[str, int]:
    """Every batch that an owed execution names, with how many do. One scan of the hot collection: for the sweep."""
    with operation():
        cursor = await db.work["executions"].aggregate([{"$group": {"_id": "$batch", "n": {"$sum": 1}}}])
        return {d["_id"]: d["n"] async for d in cursor}


async def of_batches(db: Database, batches: Sequence[str], limit: int) -> tuple[list[Execution], dict[str, str]]:
    """Owed executions that name one of these batches; and those whose documents cannot be read, with why."""
    with operation():
        found = await db.work["executions"].find({"batch": {"$in": list(batches)}}).limit(limit).to_list()
    return decode_each("execution", found, execution_from_document)
