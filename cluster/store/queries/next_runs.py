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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.lifecycle import JobState
from cluster.core.schedule.schedule import schedule_from_key
from cluster.store.mongo.codec import instant
from cluster.store.mongo.operation import ONE_REPLY, operation

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
FIRST_ROWS, ROWS = 64, 512
"""Rows of schedules that are read at once: the first ones along with what is computed, then more."""
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
    except Exception:  # the key of a corrupt job may be any text
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


@dataclass(slots=True)
class ScheduleOrder:
    """The schedules by their next occurrence after `since_ms`, from `start` on, which is included.

    What changes between two reads must be seen by one of them. A job that is settled gets its row, so unsettled ones are
    read before the rows. A row is moved on when its occurrence is near, and its schedule is taken where the row was: so which
    rows were moved is read behind them.
    """

    since_ms: int
    recent_ms: int
    start: tuple[int, str] | None = None
    descending: bool = False
    rows: list[Document] = field(default_factory=list)
    derived: dict[str, int] = field(default_factory=dict)
    """Schedules whose next occurrence is computed, because their row may be ahead of it or behind it."""

    async def begin(self, db: Database) -> None:
        """Read the first rows, and what has to be computed. The order of these reads matters: see above."""
        behind, unsettled = await asyncio.gather(_behind(db, self.since_ms), _unsettled_keys(db))
        self.rows = await _rows(db, self.start, FIRST_ROWS, descending=self.descending)
        ahead = await _moved_since(db, self.recent_ms)
        await self._derive([*ahead, *behind, *unsettled])

    async def each(self, db: Database) -> AsyncGenerator[tuple[int, str]]:
        """`(next occurrence, key)` in order."""
        near = self._sorted(self.derived, self.start)
        rows, size = self.rows, FIRST_ROWS
        while rows:
            for d in rows:
                row = int(d["next_at"]), str(d["_id"])
                if row[1] in self.derived:
                    continue
                while near and self._is_before(near[-1], row):
                    yield near.pop()
                if row[0] > self.since_ms and not _is_cached(row[1], self.since_ms):
                    _keep(row[1], self.since_ms, row[0])
                yield row
            if len(rows) < size:
                break
            last, size = (int(rows[-1]["next_at"]), str(rows[-1]["_id"])), ROWS
            rows = await _rows(db, last, size, descending=self.descending, beyond=True)
            moved = await self._derive(await _moved_since(db, self.recent_ms))
            # Those that have been before the last row were among the rows that were read.
            near = self._sorted({key for _, key in near} | {k for k in moved if self._is_before(last, (moved[k], k))})
        while near:
            yield near.pop()

    def _is_before(self, a: tuple[int, str], b: tuple[int, str]) -> bool:
        return a > b if self.descending else a < b

    def _sorted(self, keys: Iterable[str], start: tuple[int, str] | None = None) -> list[tuple[int, str]]:
        """Those that were computed, from `start` on; the first one last."""
        places = [(self.derived[key], key) for key in keys]
        return sorted(
            (p for p in places if start is None or not self._is_before(p, start)), reverse=not self.descending
        )

    async def _derive(self, rows: list[Document]) -> dict[str, int]:
        """Compute the next occurrences of these schedules. Returns those that were not computed before."""
        fresh: dict[str, int] = {}
        # The key of a corrupt job may be anything.
        keys = {d["_id"] for d in rows if isinstance(d["_id"], str)}
        for number, key in enumerate(keys - self.derived.keys(), start=1):
            found = next_of_schedule(key, self.since_ms)
            if found is not None:
                fresh[key] = found
            if number % COMPUTED_AT_ONCE == 0:
                await asyncio.sleep(0)
        self.derived |= fresh
        return fresh


async def _behind(db: Database, since_ms: int) -> list[Document]:
    """The schedules whose rows no leader has moved on."""
    behind = {"next_at": {"$lte": DatetimeMS(since_ms)}}
    with operation():
        cursor = db.api["schedules"].find(behind, {"_id": 1}, hint="by_next", batch_size=ONE_REPLY)
        return await cursor.sort("next_at", 1).limit(MOST_DERIVED).to_list()


async def _moved_since(db: Database, recent_ms: int) -> list[Document]:
    """The schedules whose rows were moved on since then."""
    # The index has rows with a date only, and MongoDB takes it only if that is said.
    moved = {"stride_at": {"$type": "date", "$gt": DatetimeMS(recent_ms)}}
    with operation():
        return await db.api["schedules"].find(moved, {"_id": 1}, batch_size=ONE_REPLY).to_list()


async def _rows(
    db: Database, start: tuple[int, str] | None, size: int, *, descending: bool, beyond: bool = False
) -> list[Document]:
    """Rows of schedules in the order of their time, from one of them on, or `beyond` it: by the keys of an index alone."""
    sign = -1 if descending else 1
    query: Document = {}
    if start is not None:
        at, key = DatetimeMS(start[0]), start[1]
        after = "$lt" if descending else "$gt"
        here = after if beyond else f"{after}e"
        query = {"$or": [{"next_at": at, "_id": {here: key}}, {"next_at": {after: at}}]}
    with operation():
        cursor = db.api["schedules"].find(query, {"next_at": 1}, hint="by_next", batch_size=size + 1)
        return await cursor.sort([("next_at", sign), ("_id", sign)]).limit(size).to_list()


async def schedule_order(
    db: Database, since_ms: int, lookahead_ms: int, start: tuple[int, str] | None = None, *, descending: bool = False
) -> ScheduleOrder:
    """The order of the schedules as of an instant, for an engine that writes `lookahead_ms` ahead."""
    order = ScheduleOrder(since_ms, since_ms - lookahead_ms - BEYOND_LOOKAHEAD_MS, start, descending)
    await order.begin(db)
    return order


async def _unsettled_keys(db: Database) -> list[Document]:
    pipeline: list[Document] = [
        {"$match": {"unsettled": {"$exists": True}, "state": "active", "channel": None}},
        {"$group": {"_id": "$schedule_key"}},
    ]
    with operation():
        return await (await db.api["jobs"].aggregate(pipeline, hint="unsettled", batchSize=ONE_REPLY)).to_list()
