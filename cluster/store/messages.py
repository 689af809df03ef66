"""`messages`: messages that are due later than the look-ahead. Each document is that of its execution to be, without a batch.

The leader reads them in the order of their due times, inserts the executions, and deletes them here last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS
from pymongo.errors import BulkWriteError

from cluster.core.execution.model import MESSAGE_VERSION, Execution
from cluster.core.ids import parse_execution_id
from cluster.core.limits.permits import UNLIMITED, limit_key_of
from cluster.store.mongo.codec import LARGE_BODY, execution_from_document, execution_to_document
from cluster.store.mongo.decoding import decode_each, decode_one
from cluster.store.mongo.message_codec import message_to_document
from cluster.store.mongo.operation import duplicates, operation

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cluster.core.job.message import NewMessage
    from cluster.store.mongo.client import Database


def execution_of(db: Database, m: NewMessage, execution_id: str) -> Execution:
    """The execution of a message, as it is inserted: without a batch. Raises `InvalidInput` for a secret without a key."""
    parts = parse_execution_id(execution_id)
    message_id, due_ms = ("", 0) if parts is None else (parts.job_id, parts.due_ms)
    d = m.definition
    return Execution(
        id=execution_id,
        job_id=message_id,
        due_ms=due_ms,
        send_ms=due_ms,
        schedule_version=MESSAGE_VERSION,
        batch="",
        lane=d.lane,
        trigger=True,
        host=d.host,
        limit_key=limit_key_of(message_id, d.queue, UNLIMITED),
        message=message_to_document(m, message_id, db.keyring),
    )


async def insert(db: Database, waiting: Sequence[Execution]) -> None:
    """Insert messages that wait. Those that wait already stay as they are."""
    if not waiting:
        return
    with operation():
        try:
            await db.work["messages"].insert_many([execution_to_document(e) for e in waiting], ordered=False)
        except BulkWriteError as exc:
            if duplicates(exc) is None:
                raise


async def due(
    db: Database, from_ms: int, before_ms: int, limit: int
) -> tuple[list[Execution], dict[str, str], int | None]:
    """Messages due in `from_ms <= due < before_ms`, the earliest first, without large bodies; by id why others cannot be
    read; and the due time (ms) of the last one, if there may be more.
    """
    query = {"due_at": {"$gte": DatetimeMS(from_ms), "$lt": DatetimeMS(before_ms)}}
    with operation():
        cursor = db.work["messages"].find(query, {LARGE_BODY: 0}).sort([("due_at", 1), ("_id", 1)]).limit(limit)
        documents = await cursor.to_list()
    readable, unreadable = decode_each("message", documents, execution_from_document)
    return readable, unreadable, int(documents[-1]["due_at"]) if len(documents) == limit else None


async def in_full(db: Database, execution_id: str) -> Execution | None:
    """A message that waits, with its large body. None: it does not wait any more. Raises `UnreadableDocument`."""
    with operation():
        d = await db.work["messages"].find_one({"_id": execution_id})
    if d is None:
        return None
    if LARGE_BODY in d:
        d["message"][LARGE_BODY] = d[LARGE_BODY]
    return decode_one("message", d, execution_from_document)


async def delete(db: Database, ids: Collection[str]) -> int:
    """Delete messages that are executions by now, or final. Returns how many waited."""
    if not ids:
        return 0
    with operation():
        return (await db.work["messages"].delete_many({"_id": {"$in": list(ids)}})).deleted_count


async def waiting_ids(db: Database, ids: Collection[str]) -> set[str]:
    """Those of these messages that wait."""
    with operation():
        return {d["_id"] async for d in db.work["messages"].find({"_id": {"$in": list(ids)}}, {"_id": 1})}


async def count(db: Database) -> int:
    """About how many messages wait."""
    with operation():
        return await db.api["messages"].estimated_document_count()
