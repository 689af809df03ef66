"""`backfills`: ranges of time that passed while nobody materialised, still to be caught up. Written by the leader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS
from pymongo import UpdateOne

from cluster.store.mongo.decoding import decode_each
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cluster.store.mongo.client import Database, Document


@dataclass(frozen=True, slots=True)
class Backfill:
    """Occurrences from `from_ms` to before `to_ms` of one schedule (or of one job of it), found missing at `at_ms`.

    Jobs up to `after` have been seen to for the slice that starts at `cursor_ms`; `counted` says that the ranges that
    will not run have been recorded, which has come to `counted_ms`. The first occurrence that will run is at or behind
    `runs_ms` (None: none has been met yet).
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
    """Deterministic, so that a repeated pass writes the same document."""
    return f"{job_id or ''}|{from_ms}|{key}"


async def open_ranges(db: Database, *ranges: Backfill) -> None:
    """Write ranges down; one that exists keeps its progress and may only grow."""
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
        d["_id"],
        d["key"],
        d["job_id"],
        int(d["from"]),
        int(d["to"]),
        int(d["at"]),
        int(d["cursor_at"]),
        _instant(d["until"]),
        d["after"],
        d["counted"],
        _instant(d.get("counted_at")),
        _instant(d.get("runs_at")),
    )


def _instant(value: DatetimeMS | None) -> int | None:
    return None if value is None else int(value)


def _date(ms: int | None) -> DatetimeMS | None:
    return None if ms is None else DatetimeMS(ms)


async def oldest(db: Database, exclude: Sequence[str] = ()) -> tuple[Backfill | None, dict[str, str]]:
    """The range whose next occurrence to catch up is the oldest, but `without` these; ranges not counted come first.

    If it cannot be read, its id and why.
    """
    query: Document = {"_id": {"$nin": list(exclude)}} if exclude else {}
    with operation():
        d = await db.work["backfills"].find_one({**query, "counted": False})
        if d is None:
            d = await db.work["backfills"].find_one(query, sort=[("cursor_at", 1), ("_id", 1)])
    found, poison = decode_each("backfill", [] if d is None else [d], _backfill)
    return (found[0] if found else None), poison


async def save_progress(db: Database, b: Backfill) -> None:
    """Keep how far catching up has come. Repeating a slice is harmless, so this needs no fence."""
    with operation():
        await db.work["backfills"].update_one(
            {"_id": b.id},
            {
                "$set": {
                    "cursor_at": DatetimeMS(b.cursor_ms),
                    "until": _date(b.until_ms),
                    "after": b.after,
                    "counted": b.missed_recorded,
                    "counted_at": _date(b.missed_recorded_ms),
                    "runs_at": _date(b.first_run_ms),
                }
            },
        )


async def close(db: Database, b: Backfill) -> None:
    """Everything in the range has been written down."""
    with operation():
        await db.work["backfills"].delete_one({"_id": b.id, "to": DatetimeMS(b.to_ms)})


async def reached_by_schedule(db: Database, keys: Collection[str]) -> dict[str, int]:
    """How far catching up has come for these schedules, in ms: the oldest open range of each. Absent: none is open."""
    with operation():
        found = await db.work["backfills"].find({"key": {"$in": list(keys)}}, {"key": 1, "cursor_at": 1}).to_list()
    oldest: dict[str, int] = {}
    for d in found:
        oldest[d["key"]] = min(int(d["cursor_at"]), oldest.get(d["key"], int(d["cursor_at"])))
    return oldest


async def count_open(db: Database) -> int:
    """How many ranges are open."""
    with operation():
        return await db.api["backfills"].count_documents({})
