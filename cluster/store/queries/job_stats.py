"""Numbers over time of one job, added up by the database from its history.

Nothing is counted for a job while it runs: the records of a job are a range of ids, so its numbers cost something only to
who asks for them. An execution counts in the step in which it was due.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.lifecycle import State
from cluster.core.stats_series import LATENESS_COUNT, LATENESS_PARTS, LATENESS_PREFIX, Point
from cluster.store.history import LEFT_OUT, REOPENED
from cluster.store.mongo.codec import LATE
from cluster.store.mongo.operation import operation
from cluster.store.queries.timeline import MOST_RECORDS, TooManyRecords

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.core.stats_series import StatsSpan
    from cluster.store.mongo.client import Database, Document

_SENT = {"$add": [{"$size": "$attempts"}, {"$ifNull": [f"${LEFT_OUT}", 0]}]}
_RANGE = {"first_at": 1, "last_at": 1, "count": 1}
_FINAL = ("succeeded", "failed", "dead")


async def read(db: Database, job_id: str, s: StatsSpan) -> list[Point]:
    """A point for each step in which something of the job was due that has ended. Raises `TooManyRecords`."""
    bounds = {"$gte": f"{job_id}:{s.from_ms:013d}", "$lt": f"{job_id}:{s.until_ms:013d}"}
    with operation():
        if await db.api["history"].count_documents({"_id": bounds}, limit=MOST_RECORDS + 1) > MOST_RECORDS:
            raise TooManyRecords(None)
        found = await (await db.api["history"].aggregate(_pipeline(bounds, s.step_s * 1000))).to_list()
    points: dict[int, Point] = {}

    def step(at: int) -> Point:
        return points.setdefault(int(at), Point(int(at), job_id))

    for d in found[0]["states"]:
        step(d["_id"]["at"]).counts.update(_counts(d))
    for d in found[0]["drift"]:
        step(d["_id"]["at"]).drift.add_many(d["_id"]["ms"], d["n"])
    for d in found[0]["duration"]:
        step(d["_id"]["at"]).duration.add_many(d["_id"]["ms"], d["n"])
    for missed in [*await _missed_before(db, job_id, s), *found[0]["missed"]]:
        for at, n in _spread(missed, s):
            step(at).counts["missed"] += n
    return [points[at] for at in sorted(points)]


async def _missed_before(db: Database, job_id: str, s: StatsSpan) -> list[Document]:
    """The range of missed occurrences that begins before the span, if it reaches into it."""
    before = {"_id": {"$gte": f"{job_id}:", "$lt": f"{job_id}:{s.from_ms:013d}"}}
    with operation():
        last = await db.api["history"].find(before, {"state": 1, **_RANGE}).sort("_id", -1).limit(1).to_list()
    return [d for d in last if d["state"] == State.MISSED.value]


def _spread(d: Document, s: StatsSpan) -> Iterator[tuple[int, int]]:
    """Steps with how many occurrences of a missed range count in them: as many as if they were even over its time."""
    first, last, count, step_ms = int(d["first_at"]), int(d["last_at"]), int(d["count"]), s.step_s * 1000
    per_ms = (count - 1) / (last - first) if last > first else 0.0

    def due_before(at: int) -> int:
        return 0 if at <= first else min(count, 1 + int((at - 1 - first) * per_ms + 1e-9))

    low, high = max(first, s.from_ms), min(last, s.until_ms - 1)
    for at in range(low - low % step_ms, high + 1, step_ms):
        n = due_before(min(at + step_ms, s.until_ms)) - due_before(max(at, s.from_ms))
        if n:
            yield at, n


def _pipeline(bounds: Document, step_ms: int) -> list[Document]:
    first = {"$first": "$attempts"}
    due = {"$toLong": "$due_at"}
    parts = {LATENESS_PREFIX + p: {"$sum": {"$ifNull": [f"$first.{LATE}.{p}", 0]}} for p in LATENESS_PARTS}
    ms = {"$toLong": {"$ceil": "$attempts.ms"}}
    return [
        {"$match": {"_id": bounds, "state": {"$ne": REOPENED}}},
        {
            "$project": {
                "state": 1,
                **_RANGE,
                "at": {"$subtract": [due, {"$mod": [due, step_ms]}]},
                "sent": _SENT,
                "drift": "$drift_ms",
                "first": first,
                "attempts.ms": 1,
            }
        },
        {
            "$facet": {
                "missed": [{"$match": {"state": State.MISSED.value}}, {"$project": _RANGE}],
                "states": [
                    {
                        "$group": {
                            "_id": {"at": "$at", "state": "$state"},
                            "n": {"$sum": 1},
                            "sent": {"$sum": "$sent"},
                            "retried": {"$sum": {"$max": [0, {"$subtract": ["$sent", 1]}]}},
                            "first": {"$sum": {"$cond": [{"$eq": ["$drift", None]}, 0, 1]}},
                            **parts,
                        }
                    }
                ],
                "drift": [
                    {"$match": {"drift": {"$ne": None}}},
                    {"$group": {"_id": {"at": "$at", "ms": "$drift"}, "n": {"$sum": 1}}},
                ],
                "duration": [
                    {"$unwind": "$attempts"},
                    {"$group": {"_id": {"at": "$at", "ms": ms}, "n": {"$sum": 1}}},
                ],
            }
        },
    ]


def _counts(d: Document) -> dict[str, int]:
    counts = {"attempts": d["sent"], "retried": d["retried"], LATENESS_COUNT: d["first"]}
    counts |= {LATENESS_PREFIX + p: d[LATENESS_PREFIX + p] for p in LATENESS_PARTS}
    if d["_id"]["state"] in _FINAL:
        counts[d["_id"]["state"]] = d["n"]
    return {name: int(n) for name, n in counts.items()}
