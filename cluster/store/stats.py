"""`stats`: counts of all nodes, added up with `$inc`. The last seconds of a node that dies are not counted.

A document counts one minute or one hour, of the cluster or of one host, queue or tag. Both are written at once, so nothing
has to be made from something else later, and no leader is needed. Minutes expire first, so what is kept of a time becomes
coarser with its age. The id of a minute of the cluster is its date; every other id is `kind|seconds|begin in ms|name`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bson.datetime_ms import DatetimeMS
from pymongo import UpdateOne

from cluster.core.stats_series import HOUR_S, KEPT_HOURS_S, KEPT_MINUTES_S, MINUTE_S, Point
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cluster.core.stats_series import StatsSpan
    from cluster.store.mongo.client import Database, Document

MINUTE_MS = MINUTE_S * 1000
CLUSTER = "cluster"


async def add(db: Database, now_ms: int, counts: Mapping[str, int], histograms: Mapping[str, Sequence[int]]) -> None:
    """Add counts (`succeeded`, `retried`, ...) and bucket counts to the minute and the hour of `now_ms`."""
    increments = _increments(counts, histograms)
    if not increments:
        return
    with operation():
        await db.work["stats"].bulk_write(_updates(CLUSTER, "", now_ms, increments), ordered=False)


async def add_named(db: Database, now_ms: int, points: Sequence[tuple[str, Point]]) -> None:
    """Add what was counted for hosts, queues and tags; each point comes with its kind."""
    updates: list[UpdateOne] = []
    for by, p in points:
        increments = _increments(p.counts, {"drift": p.drift.counts, "duration": p.duration.counts})
        updates += _updates(by, p.name or "", now_ms, increments)
    if not updates:
        return
    with operation():
        await db.work["stats"].bulk_write(updates, ordered=False)


def _increments(counts: Mapping[str, int], histograms: Mapping[str, Sequence[int]]) -> dict[str, int]:
    increments = {name: n for name, n in counts.items() if n}
    for name, buckets in histograms.items():
        increments |= {f"{name}.{i}": n for i, n in enumerate(buckets) if n}
    return increments


def _updates(by: str, name: str, now_ms: int, increments: Mapping[str, int]) -> list[UpdateOne]:
    updates = []
    for seconds, kept_s in ((MINUTE_S, KEPT_MINUTES_S[by]), (HOUR_S, KEPT_HOURS_S)):
        at = now_ms - now_ms % (seconds * 1000)
        expiry = {"expire_at": DatetimeMS(at + kept_s * 1000)}
        document_id = _id(by, seconds, at, name)
        updates.append(UpdateOne({"_id": document_id}, {"$inc": increments, "$setOnInsert": expiry}, upsert=True))
    return updates


def _id(by: str, seconds: int, at_ms: int, name: str) -> Any:
    if by == CLUSTER and seconds == MINUTE_S:
        return DatetimeMS(at_ms)
    return f"{by}|{seconds}|{at_ms:013d}|{name}"


async def read(db: Database, by: str, s: StatsSpan) -> list[Point]:
    """What was counted in a span: a point for each document."""
    bounds = {"$gte": _id(by, s.source_s, s.from_ms, ""), "$lt": _id(by, s.source_s, s.until_ms, "")}
    with operation():
        documents = await db.api["stats"].find({"_id": bounds}).sort("_id", 1).to_list()
    return decode_readable("stats", documents, _point)


def _point(d: Document) -> Point:
    if isinstance(d["_id"], str):
        _, _, at, name = d["_id"].split("|", 3)
        point = Point(int(at), name or None)
    else:
        point = Point(int(d["_id"]))
    counts = {name: n for name, n in d.items() if isinstance(n, int)}
    point.add(counts, d.get("drift") or {}, d.get("duration") or {})
    return point
