"""`backfills`: time ranges that passed without being materialised and are still to be caught up. Written by the leader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS
from pymongo import UpdateOne

from cluster.store.mongo.codec import date, instant
from cluster.store.mongo.decoding import decode_each
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cluster.store.mongo.client import Database, Document


@dataclass(frozen=True, slots=True)
class Backfill:
    """Occurrences `from_ms <= due < to_ms` of one schedule, or of one job of it, noticed as missing at `at_ms`.

    First the ranges that will not run are recorded as missed: done as far as `missed_recorded_ms`, all of it if
    `missed_recorded`. The first occurrence that will run is at or after `first_run_ms` (None: none was found yet). Then
    the rest is enqueued in slices: everything before `cursor_ms`, and of the slice up to `until_ms` the jobs up to `after`.
    """

    id: str
    key: str
    job_id: str | None
    from_ms: int
    to_ms: int
    at_ms: int
    cursor_ms: int
    until_ms: int | None = None
    after: str | None = None
    missed_recorded: bool = False
    missed_recorded_ms: int | None = None
    first_run_ms: int | None = None


def backfill_id(key: str, job_id: str | None, from_ms: int) -> str:
    """The id of a range. It follows from the range, so that a repeated pass writes the same document."""
    return f"{job_id or ''}|{from_ms}|{key}"


async def open_ranges(db: Database, *ranges: Backfill) -> None:
    """Insert ranges. One that exists keeps its progress; its end may only move later."""
    operations = [
        UpdateOne(
            {"_id": b.id},
            {
                "$setOnInsert": {
                    "key": b.key,
                    "job_id": b.job_id,
                    "from": DatetimeMS(b.from_ms),
                    "at": DatetimeMS(b.at_ms),
                    "cursor_at": DatetimeMS(b.cursor_ms),
                    "until": None,
                    "after": None,
                    "counted": False,
                },
                "$max": {"to": DatetimeMS(b.to_ms)},
            },
            upsert=True,
        )
        for b in ranges
    ]
    with operation():
        await db.work["backfills"].bulk_write(operations, ordered=False)


def _backfill(d: Document) -> Backfill:
    return Backfill(
        id=d["_id"],
        key=d["key"],
        job_id=d["job_id"],
        from_ms=int(d["from"]),
        to_ms=int(d["to"]),
        at_ms=int(d["at"]),
        cursor_ms=int(d["cursor_at"]),
        until_ms=instant(d["until"]),
        after=d["after"],
        missed_recorded=d["counted"],
        missed_recorded_ms=instant(d.get("counted_at")),
        first_run_ms=instant(d.get("runs_at")),
    )


async def oldest(db: Database, exclude: Sequence[str] = ()) -> tuple[Backfill | None, dict[str, str]]:
    """The range to work on next: one whose missed ranges are not recorded yet, else the one with the earliest cursor.

    Ranges with ids in `exclude` are left out. Second, if the document cannot be read: `{id: why}`.
    """
    query: Document = {"_id": {"$nin": list(exclude)}} if exclude else {}
    with operation():
        d = await db.work["backfills"].find_one({**query, "counted": False})
        if d is None:
            d = await db.work["backfills"].find_one(query, sort=[("cursor_at", 1), ("_id", 1)])
    ranges, unreadable = decode_each("backfill", [] if d is None else [d], _backfill)
    return (ranges[0] if ranges else None), unreadable


async def save_progress(db: Database, b: Backfill) -> None:
    """Store how far catching up has come. Repeating a slice is harmless, so this write is not fenced."""
    with operation():
        await db.work["backfills"].update_one(
            {"_id": b.id},
            {
                "$set": {
                    "cursor_at": DatetimeMS(b.cursor_ms),
                    "until": date(b.until_ms),
                    "after": b.after,
                    "counted": b.missed_recorded,
                    "counted_at": date(b.missed_recorded_ms),
                    "runs_at": date(b.first_run_ms),
                }
            },
        )


async def close(db: Database, b: Backfill) -> None:
    """Delete a range that is caught up, unless it was extended since it was read."""
    with operation():
        await db.work["backfills"].delete_one({"_id": b.id, "to": DatetimeMS(b.to_ms)})


async def reached(db: Database, keys: Collection[str]) -> dict[tuple[str, str | None], int]:
    """The earliest cursor (ms) of the open ranges, by schedule and job (None: of all jobs of the schedule)."""
    with operation():
        query = {"key": {"$in": list(keys)}}
        documents = await db.work["backfills"].find(query, {"key": 1, "job_id": 1, "cursor_at": 1}).to_list()
    cursors: dict[tuple[str, str | None], int] = {}
    for d in documents:
        of, at_ms = (d["key"], d["job_id"]), int(d["cursor_at"])
        cursors[of] = min(at_ms, cursors.get(of, at_ms))
    return cursors


async def count_open(db: Database) -> int:
    """How many ranges are open."""
    with operation():
        return await db.api["backfills"].count_documents({})
