"""`schedules`: one row per distinct schedule. Only the leader writes here, and every write is fenced by its term."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS
from pymongo import DeleteOne, UpdateOne
from pymongo.errors import BulkWriteError

from cluster.store.mongo.decoding import decode_each, decode_readable
from cluster.store.mongo.operation import duplicates, operation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from cluster.core.execution.model import Term
    from cluster.store.mongo.client import Database, Document


@dataclass(frozen=True, slots=True)
class PassCursor:
    """Where an unfinished pass over the jobs of one row is: jobs up to `after` have their occurrences before `until_ms`."""

    after: str
    until_ms: int


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """A distinct schedule. For every settled job, every occurrence before `next_ms` is materialised."""

    key: str
    next_ms: int
    term: int
    unfinished: PassCursor | None = None

    @property
    def covered_ms(self) -> int:
        """Occurrences before this instant are not materialised for a job that joins now; settling has to write them."""
        return self.unfinished.until_ms if self.unfinished else self.next_ms


def _row(d: Document) -> ScheduleRow:
    cursor = d["cursor"]
    return ScheduleRow(
        d["_id"],
        int(d["next_at"]),
        d["term"],
        None if cursor is None else PassCursor(cursor["after"], int(cursor["until"])),
    )


async def due(
    db: Database, before_ms: int, limit: int, exclude: Sequence[str] = ()
) -> tuple[list[ScheduleRow], dict[str, str]]:
    """Rows whose next occurrence is at or before an instant, the most urgent first, without those in `exclude`.

    Second, by key, why other rows cannot be read.
    """
    query: Document = {"next_at": {"$lte": DatetimeMS(before_ms)}}
    if exclude:
        query["_id"] = {"$nin": list(exclude)}
    with operation():
        documents = await db.work["schedules"].find(query).sort("next_at", 1).limit(limit).to_list()
    return decode_each("schedule", documents, _row)


async def stamp(db: Database, keys: Sequence[str], term: Term) -> dict[str, ScheduleRow]:
    """Stamp rows of older terms with this one and read them back. A newer term among them means: this leader must stop."""
    with operation():
        await db.work["schedules"].update_many(
            {"_id": {"$in": list(keys)}, "term": {"$lt": term.number}}, {"$set": {"term": term.number}}
        )
        documents = await db.work["schedules"].find({"_id": {"$in": list(keys)}}).to_list()
    return {r.key: r for r in decode_readable("schedule", documents, _row)}


async def insert_missing(db: Database, rows: Iterable[ScheduleRow]) -> None:
    """Insert rows that do not exist; existing ones stay as they are."""
    documents = [{"_id": r.key, "next_at": DatetimeMS(r.next_ms), "cursor": None, "term": r.term} for r in rows]
    if not documents:
        return
    with operation():
        try:
            await db.work["schedules"].insert_many(documents, ordered=False)
        except BulkWriteError as exc:
            if duplicates(exc) is None:
                raise


async def advance(db: Database, moves: Sequence[tuple[ScheduleRow, int | None]], term: Term) -> int:
    """Advance rows to their next occurrence (None: delete the row), each only if it is unchanged since it was read.

    Returns how many were advanced. Fewer than asked for means that another leader has changed them.
    """
    operations: list[UpdateOne | DeleteOne] = []
    for row, next_ms in moves:
        unchanged = {"_id": row.key, "term": term.number, "next_at": DatetimeMS(row.next_ms)}
        if next_ms is None:
            operations.append(DeleteOne(unchanged))
        else:
            # `stride_at`: where the stride began that was written last. Lists of jobs by their next run need it.
            moved = {"next_at": DatetimeMS(next_ms), "cursor": None, "stride_at": DatetimeMS(row.next_ms)}
            operations.append(UpdateOne(unchanged, {"$set": moved}))
    if not operations:
        return 0
    with operation():
        result = await db.work["schedules"].bulk_write(operations, ordered=False)
    return result.matched_count + result.deleted_count


async def save_cursor(db: Database, row: ScheduleRow, reached: PassCursor, term: Term) -> bool:
    """Store where a pass over the jobs of one row is. False if another leader has changed the row."""
    with operation():
        result = await db.work["schedules"].update_one(
            {"_id": row.key, "term": term.number, "next_at": DatetimeMS(row.next_ms)},
            {"$set": {"cursor": {"after": reached.after, "until": DatetimeMS(reached.until_ms)}}},
        )
    return result.matched_count > 0


async def get_many(db: Database, keys: Collection[str]) -> dict[str, ScheduleRow]:
    """The rows of these schedules, by key; unreadable ones are left out."""
    with operation():
        documents = await db.work["schedules"].find({"_id": {"$in": list(keys)}}).to_list()
    return {r.key: r for r in decode_readable("schedule", documents, _row)}


async def earliest_next_ms(db: Database) -> int | None:
    """The smallest `next_at` of all rows in ms; None if there are no rows."""
    with operation():
        d = await db.work["schedules"].find_one({"next_at": {"$type": "date"}}, {"next_at": 1}, sort=[("next_at", 1)])
    return None if d is None else int(d["next_at"])
