"""`executions`: what is owed, and only that. No index but `_id`; every change after a claim filters on batch and token."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS
from pymongo import DeleteMany, UpdateOne
from pymongo.errors import BulkWriteError

from cluster.core.execution.attempts_kept import MAX_OWED
from cluster.core.lifecycle import State
from cluster.store.mongo.codec import (
    LARGE_BODY,
    attempt_to_document,
    execution_from_document,
    execution_to_document,
)
from cluster.store.mongo.decoding import decode_each
from cluster.store.mongo.operation import ONE_REPLY, duplicates, operation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from cluster.core.execution.model import Execution, Rescheduled
    from cluster.store.mongo.client import Database

WITHOUT_LARGE_BODY = {LARGE_BODY: 0}


async def insert(db: Database, executions: Sequence[Execution]) -> list[str]:
    """Insert executions. Returns the ids of those that existed already; their documents stay as they are."""
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
    """Those of these executions that are still owed, by id; unreadable ones are left out."""
    return (await read_owed(db, ids))[0]


async def read_owed(db: Database, ids: Iterable[str]) -> tuple[dict[str, Execution], dict[str, str]]:
    """Those of these executions that are still owed, by id; and by id why other documents cannot be read."""
    with operation():
        query = {"_id": {"$in": list(ids)}}
        documents = await db.work["executions"].find(query, WITHOUT_LARGE_BODY, batch_size=ONE_REPLY).to_list()
    executions, unreadable = decode_each("execution", documents, execution_from_document)
    return {e.id: e for e in executions}, unreadable


async def existing_ids(db: Database, ids: Collection[str]) -> set[str]:
    """Those of these executions that are owed, unreadable ones too."""
    if not ids:
        return set()
    with operation():
        return {d["_id"] async for d in db.work["executions"].find({"_id": {"$in": list(ids)}}, {"_id": 1})}


async def any_limited(db: Database, ids: Collection[str]) -> bool:
    """Whether any of these executions counts against a limit, of a queue or of its job alone."""
    with operation():
        limited = {"_id": {"$in": list(ids)}, "gate": {"$exists": True}}
        return await db.work["executions"].find_one(limited, {"_id": 1}) is not None


async def delete_unreadable(db: Database, ids: Iterable[str]) -> int:
    """Delete unreadable documents, once history holds a record of each. Returns how many were deleted."""
    with operation():
        return (await db.work["executions"].delete_many({"_id": {"$in": list(ids)}})).deleted_count


async def delete_unclaimed(db: Database, execution: Execution) -> bool:
    """Delete an execution that was just inserted and whose batch was not. False if a node holds it, or has ended it."""
    with operation():
        result = await db.work["executions"].delete_one({"_id": execution.id, "batch": execution.batch, "token": 0})
    return result.deleted_count > 0


async def stamp(db: Database, ids: Sequence[str], batch: str, owner: str, token: int) -> int:
    """Fence: write owner and token to the executions of these ids that name this batch. Returns how many were written.

    A node that was suspended between claim and stamp for longer than its lease meets a greater token and writes nothing,
    so it takes nothing back from the next owner.
    """
    with operation():
        result = await db.work["executions"].update_many(
            {"_id": {"$in": list(ids)}, "batch": batch, "$or": [{"owner": None}, {"token": {"$lte": token}}]},
            {"$set": {"state": State.LEASED.value, "owner": owner, "token": token}},
        )
    return result.matched_count


async def large_bodies(db: Database, ids: Collection[str]) -> dict[str, bytes]:
    """The large bodies of messages that are owed, by execution id."""
    with operation():
        query = {"_id": {"$in": list(ids)}, LARGE_BODY: {"$exists": True}}
        return {d["_id"]: d[LARGE_BODY] async for d in db.work["executions"].find(query, {LARGE_BODY: 1})}


async def with_large_bodies(db: Database, ended: Sequence[Execution]) -> dict[str, Execution]:
    """Those of these messages that have a large body, by id, with it: history keeps it while a replay may send it again."""
    large = [e for e in ended if e.message is not None and "body_size" in e.message and LARGE_BODY not in e.message]
    if not large:
        return {}
    bodies = await large_bodies(db, [e.id for e in large])
    return {e.id: replace(e, message={**(e.message or {}), LARGE_BODY: bodies[e.id]}) for e in large if e.id in bodies}


async def take_unsent(db: Database, unsent: Execution, batch: str) -> bool:
    """Take a message out of its batch and mark it as cancelled, if it is as it was read. False: it is not.

    `batch` is unique to this call, and no batch has this name. A claim stamps what names its batch: it raised the token
    first, or finds nothing of this message.
    """
    as_read = {"_id": unsent.id, "batch": unsent.batch, "token": unsent.token, "owner": unsent.owner, "attempts": []}
    with operation():
        result = await db.work["executions"].update_one(as_read, {"$set": {"batch": batch, "cancelled": True}})
    return result.matched_count > 0


async def delete_cancelled(db: Database, execution_id: str) -> None:
    """Delete a message that was taken, once history has its record."""
    with operation():
        await db.work["executions"].delete_one({"_id": execution_id, "cancelled": True})


async def delete_final(db: Database, final: Mapping[tuple[str, int], Sequence[str]]) -> int:
    """Delete executions that are final in history: `{(batch, token): ids}`. Returns how many were still owned."""
    if not final:
        return 0
    with operation():
        result = await db.work["executions"].bulk_write(
            [
                DeleteMany({"_id": {"$in": list(ids)}, "batch": batch, "token": token})
                for (batch, token), ids in final.items()
            ],
            ordered=False,
        )
    return result.deleted_count


async def delete_ended(db: Database, ended: Mapping[str, tuple[int, str | None]]) -> int:
    """Delete executions that are final in history, before a replay: `{id: (when it ended in ms, schedule version)}`.
    Returns how many. Of a cancelled one only an execution of that version is deleted: another version may owe it again.
    The version of others is None.

    The node that ended an execution deletes it a moment later. A replay before that would find it owed already, and the
    deletion would then undo the replay. Executions that were replayed since they ended stay.
    """
    if not ended:
        return 0
    with operation():
        result = await db.work["executions"].bulk_write(
            [
                DeleteMany(
                    {
                        "_id": name,
                        "$or": [{"asked_at": None}, {"asked_at": {"$lt": DatetimeMS(ms)}}],
                        **({} if version is None else {"schedule_version": version}),
                    }
                )
                for name, (ms, version) in ended.items()
            ],
            ordered=False,
        )
    return result.deleted_count


async def fence_endings(db: Database, endings: Sequence[Execution], nonce: str) -> set[str]:
    """Mark executions as about to end, on their batch and token. Returns the ids of those that were still owned.

    A result other than success may become final only while the node owns the execution. Otherwise a node that lost its
    lease minutes ago could end an execution that another node is retrying. `nonce` is unique to this call.
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
        fenced = await db.work["executions"].find({"_id": {"$in": ids}, "ending": nonce}, {"_id": 1}).to_list()
    return {d["_id"] for d in fenced}


async def move(db: Database, moves: Sequence[Rescheduled], to: Mapping[str, str]) -> set[str]:
    """First half of a move: `to` maps the id of each execution to the batch that it names from now on; none may come twice.
    Returns the ids of those that were still owned.

    The caller inserts these batches next. If its node dies before, the earlier batch still lists the executions, and the node
    that reclaims it inserts the missing ones.
    """
    if not moves:
        return set()
    operations = []
    for m in moves:
        change: dict[str, dict[str, object]] = {
            "$set": {
                "batch": to[m.execution.id],
                "owner": None,
                "send_at": DatetimeMS(m.send_ms),
                "state": (State.RETRYING if m.attempts else State.PENDING).value,
            }
        }
        new_attempts = m.attempts[len(m.execution.attempts) :]
        if new_attempts:
            change["$push"] = {"attempts": {"$each": [attempt_to_document(a) for a in new_attempts]}}
        owned = {"_id": m.execution.id, "batch": m.execution.batch, "token": m.execution.token}
        operations.append(UpdateOne(owned, change))
    ids = [m.execution.id for m in moves]
    with operation():
        result = await db.work["executions"].bulk_write(operations, ordered=False)
        if result.matched_count == len(ids):
            return set(ids)
        found = await db.work["executions"].find({"_id": {"$in": ids}}, {"batch": 1}).to_list()
    return {d["_id"] for d in found if d.get("batch") == to[d["_id"]]}


async def adopt(
    db: Database, older: Sequence[Execution], wanted: Mapping[str, Execution], to: Mapping[str, str]
) -> set[str]:
    """Move executions of an older schedule to the present one: new schedule version, new batch; attempts stay.

    `wanted` maps execution id to what the present schedule owes, `to` to the name of the new batch. An execution without
    attempts gets the send time of what is owed; one with attempts keeps the time of its retry. Returns the ids that were
    adopted; the caller inserts the batches next.

    The filter makes this safe: a node that holds the earlier batch can no longer end these executions, because it names
    that batch. An execution that was claimed since it was read has another token and is not adopted. So its token cannot
    fall, although the new batch starts from the one that was read.
    """
    if not older:
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
                            "batch": to[e.id],
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
                for e in older
            ],
            ordered=False,
        )
        ids = [e.id for e in older]
        if result.matched_count == len(ids):
            return set(ids)
        found = await db.work["executions"].find({"_id": {"$in": ids}}, {"batch": 1}).to_list()
    return {d["_id"] for d in found if d.get("batch") == to[d["_id"]]}


async def add_attempts(db: Database, execution: Execution) -> bool:
    """Add the attempts of a node that lost its lease to the execution, if it is still owed and has room. Safe to repeat.

    Returns whether any was added.
    """
    added = False
    with operation():
        for a in execution.attempts:
            document = attempt_to_document(a)
            same = {"$elemMatch": {name: document[name] for name in ("n", "node", "token", "sent_at")}}
            room = {f"attempts.{MAX_OWED - 1}": {"$exists": False}}
            result = await db.work["executions"].update_one(
                {"_id": execution.id, "attempts": {"$not": same}, **room}, {"$push": {"attempts": document}}
            )
            added = added or result.matched_count > 0
    return added


async def count_by_batch(db: Database) -> dict[str, int]:
    """How many owed executions name each batch, by batch id. Scans the whole collection: for the sweep only."""
    with operation():
        cursor = await db.work["executions"].aggregate([{"$group": {"_id": "$batch", "n": {"$sum": 1}}}])
        return {d["_id"]: d["n"] async for d in cursor}


async def of_batches(db: Database, batches: Sequence[str], limit: int) -> tuple[list[Execution], dict[str, str]]:
    """Up to `limit` owed executions that name one of these batches; and by id why other documents cannot be read."""
    with operation():
        named = {"batch": {"$in": list(batches)}}
        documents = await db.work["executions"].find(named, WITHOUT_LARGE_BODY).limit(limit).to_list()
    return decode_each("execution", documents, execution_from_document)
