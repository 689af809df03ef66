"""When jobs are due next, in order, although no job is written when it runs.

The order is that of the first occurrence after one instant, `since`. It is derived from what the engine writes anyway:

* `schedules.next_at` is the next occurrence of all jobs of a schedule, unless one before it is written already. A row runs
  up to a look-ahead and a stride ahead. So for rows whose last stride began (`stride_at`) a short while before `since` or
  later, for rows that no leader moved on (`next_at` in the past), and for the schedules of unsettled jobs, which may have
  no row, the occurrence is computed.
* `jobs.first_at` is the occurrence of one-off jobs, and of jobs that begin later than their schedule.

So the order is right with and without a leader. Pages of one list name the same `since`: then a job that runs between two
pages keeps its place, and is neither shown twice nor left out.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.errors import CallerError
from cluster.core.lifecycle import JobState
from cluster.core.schedule.schedule import schedule_from_key
from cluster.store.mongo.codec import instant
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from cluster.store.mongo.client import Database, Document

MOST_DERIVED = 5000
"""More rows than this are behind only after a long time without a leader. The others keep the time of their row."""
BEYOND_LOOKAHEAD_MS = 20_000
"""How much further than the look-ahead an occurrence may be from the beginning of its stride: a stride of 5 s, a row that
was 10 s behind, and a margin.
"""
COMPUTED_AT_ONCE = 50
"""Schedules computed before other tasks of the node get their turn."""
CACHED = 50_000
_cache: dict[str, tuple[int, int | None]] = {}


def next_of_schedule(key: str, since_ms: int) -> int | None:
    """The first occurrence of a schedule after an instant; None if there is none or the key cannot be read."""
    if _is_cached(key, since_ms):
        return _cache[key][1]
    found = _computed(key, since_ms)
    _keep(key, since_ms, found)
    return found


def _is_cached(key: str, since_ms: int) -> bool:
    known = _cache.get(key)
    return known is not None and known[0] <= since_ms and (known[1] is None or since_ms < known[1])


def _keep(key: str, since_ms: int, found: int | None) -> None:
    if len(_cache) >= CACHED:
        _cache.clear()
    _cache[key] = (since_ms, found)


async def learn(db: Database, keys: Iterable[str], since_ms: int, lookahead_ms: int) -> None:
    """Learn the next occurrences of schedules from their rows: to read a thousand rows costs less than to compute them."""
    unknown = [key for key in set(keys) if not _is_cached(key, since_ms)]
    if not unknown:
        return
    recent = since_ms - lookahead_ms - BEYOND_LOOKAHEAD_MS
    with operation():
        rows = await db.api["schedules"].find({"_id": {"$in": unknown}}, {"next_at": 1, "stride_at": 1}).to_list()
    for d in rows:
        due = instant(d.get("next_at"))
        if due is not None and due > since_ms and (instant(d.get("stride_at")) or 0) <= recent:
            _keep(d["_id"], since_ms, due)


def _computed(key: str, since_ms: int) -> int | None:
    try:
        return schedule_from_key(key).next_after(since_ms)
    except (CallerError, ValueError):
        return None


def next_of_job(d: Document, since_ms: int) -> int | None:
    """When a job is due next after an instant, from `state`, `schedule_key`, `active_from`, `start_at` and `end_at`."""
    if d.get("state") != JobState.ACTIVE.value:
        return None
    start = max(instant(d.get("active_from")) or 0, instant(d.get("start_at")) or 0) - 1
    key = str(d.get("schedule_key"))
    # The occurrence after an instant to come is the same for hardly any other job, so it is not kept.
    found = next_of_schedule(key, since_ms) if start <= since_ms else _computed(key, start)
    end = instant(d.get("end_at"))
    return None if found is None or (end is not None and found > end) else found


@dataclass(frozen=True, slots=True)
class ScheduleOrder:
    """The schedules by their next occurrence after `since_ms`; `derived` are those that were computed."""

    since_ms: int
    derived: dict[str, int]
    descending: bool = False

    async def from_(self, db: Database, start: tuple[int, str] | None) -> AsyncGenerator[tuple[int, str]]:
        """`(next occurrence, key)` in order, from `start` on; it is included."""
        sign = -1 if self.descending else 1
        near = sorted(
            ((t, key) for key, t in self.derived.items() if start is None or sign * _compare((t, key), start) >= 0),
            reverse=self.descending,
        )
        heap = list(reversed(near))
        async for row in self._far(db, start):
            while heap and sign * _compare(heap[-1], row) < 0:
                yield heap.pop()
            yield row
        while heap:
            yield heap.pop()

    async def _far(self, db: Database, start: tuple[int, str] | None) -> AsyncGenerator[tuple[int, str]]:
        sign = -1 if self.descending else 1
        query: Document = {}
        if start is not None:
            at, key = DatetimeMS(start[0]), start[1]
            beyond, here = ("$lt", "$lte") if self.descending else ("$gt", "$gte")
            query = {"next_at": {here: at}, "$or": [{"next_at": {beyond: at}}, {"_id": {here: key}}]}
        with operation():
            async with (
                db.api["schedules"]
                .find(query, {"next_at": 1}, hint="by_next", batch_size=64)
                .sort([("next_at", sign), ("_id", sign)]) as rows
            ):
                async for d in rows:
                    due, key = int(d["next_at"]), d["_id"]
                    if key not in self.derived:
                        if due > self.since_ms and not _is_cached(key, self.since_ms):
                            _keep(key, self.since_ms, due)
                        yield due, key


def _compare(a: tuple[int, str], b: tuple[int, str]) -> int:
    return (a > b) - (a < b)


async def schedule_order(db: Database, since_ms: int, lookahead_ms: int, *, descending: bool = False) -> ScheduleOrder:
    """The order of the schedules as of an instant, for an engine that writes `lookahead_ms` ahead."""
    recent = DatetimeMS(since_ms - lookahead_ms - BEYOND_LOOKAHEAD_MS)
    since = DatetimeMS(since_ms)
    with operation():
        ahead, behind, unsettled = await asyncio.gather(
            # The index has rows with a date only, and MongoDB takes it only if that is said.
            db.api["schedules"].find({"stride_at": {"$type": "date", "$gt": recent}}, {"_id": 1}).to_list(),
            db.api["schedules"]
            .find({"next_at": {"$lte": since}}, {"_id": 1})
            .sort("next_at", 1)
            .limit(MOST_DERIVED)
            .to_list(),
            _unsettled_keys(db),
        )
    derived: dict[str, int] = {}
    keys = {d["_id"] for d in [*ahead, *behind, *unsettled]}
    for number, key in enumerate(keys, start=1):
        found = next_of_schedule(key, since_ms)
        if found is not None:
            derived[key] = found
        if number % COMPUTED_AT_ONCE == 0:
            await asyncio.sleep(0)
    return ScheduleOrder(since_ms, derived, descending)


async def _unsettled_keys(db: Database) -> list[Document]:
    pipeline: list[Document] = [
        {"$match": {"unsettled": {"$exists": True}, "state": "active", "channel": None}},
        {"$group": {"_id": "$schedule_key"}},
    ]
    return await (await db.api["jobs"].aggregate(pipeline, hint="unsettled")).to_list()
