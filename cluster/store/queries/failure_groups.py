"""What failed for good, by the host that was called and by how the last attempt ended: for the screen of failures.

MongoDB reads the latest failures once, by an index of their own: a million executions cost no more than these. What they have
in common is named once for all of them, and one document has many: to decode a document for each would take this process
longer than MongoDB has read, and its requests would wait. Hosts are those of the jobs, which are read once each. Only of the
groups that are shown the latest executions are read in full.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from bson.datetime_ms import DatetimeMS

from cluster.core.targets import host_of
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import operation
from cluster.store.queries.execution_pages import expiry_bound
from cluster.store.queries.jobs_and_executions import LIST_PROJECTION, final_view

if TYPE_CHECKING:
    from cluster.core.execution.view import ExecutionView
    from cluster.store.mongo.client import Database, Document

COUNTED = 3000
"""So many failures are counted at most, the latest ones: more of them say nothing new, and take longer than a reader waits."""
INDEX = "unhappy_by_end"


@dataclass(frozen=True, slots=True)
class FailureQuery:
    """Which failures: in these states, ended in `since_ms <= t < until_ms`. `groups`: so many at most, the largest first;
    `shown`: so many of the latest executions of each.
    """

    states: frozenset[str]
    since_ms: int
    until_ms: int | None = None
    groups: int = 50
    shown: int = 5


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures of one host (None: its job was deleted) with one error or status (both None: nothing was sent).

    `job_ids`: the jobs among them, messages not counted.
    """

    host: str | None
    error: str | None
    status: int | None
    executions: int
    job_ids: tuple[str, ...]
    latest_ms: int
    latest: tuple[ExecutionView, ...]


@dataclass(frozen=True, slots=True)
class Failures:
    """`executions` counts all that failed, `groups_in_all` their groups. `counted_since_ms`: more failed than were counted, and
    this is the earliest end among those; None: no failure was left uncounted.
    """

    executions: int
    counted_since_ms: int | None
    groups_in_all: int
    groups: tuple[FailureGroup, ...]


class _Failure(NamedTuple):
    """`job`: None for a message."""

    ended_ms: int
    id: str
    job: str | None


_Way = tuple[str | None, int | None]
"""How the last attempt ended: error and status."""
_Key = tuple[str | None, str | None, int | None]
"""Host, error, status."""


async def failures(db: Database, q: FailureQuery) -> Failures:
    """The groups of what failed, the largest first."""
    by_group = await _grouped(db, q)
    largest = sorted(by_group.items(), key=lambda g: (-len(g[1]), -max(f.ended_ms for f in g[1])))
    latest = {key: heapq.nlargest(q.shown, members) for key, members in largest[: q.groups]}
    views = await _views(db, [f.id for found in latest.values() for f in found])
    groups = tuple(
        FailureGroup(
            host=key[0],
            error=key[1],
            status=key[2],
            executions=len(members),
            job_ids=tuple(sorted({f.job for f in members if f.job is not None})),
            latest_ms=latest[key][0].ended_ms,
            latest=tuple(views[f.id] for f in latest[key] if f.id in views),
        )
        for key, members in largest[: q.groups]
    )
    total = sum(len(members) for members in by_group.values())
    earliest = min(f.ended_ms for members in by_group.values() for f in members) if total >= COUNTED else None
    return Failures(total, earliest, len(by_group), groups)


_IS_OF_JOB = {"$eq": [{"$type": "$message.url"}, "missing"]}
_LAST = {"$last": "$attempts"}
_WAY: Document = {
    "error": {"$let": {"vars": {"last": _LAST}, "in": "$$last.error"}},
    "status": {"$let": {"vars": {"last": _LAST}, "in": "$$last.status"}},
}
# Of a URL that is different each time only what names the host: `http://host:port`.
_TO: Document = {"$cond": [_IS_OF_JOB, None, {"$slice": [{"$split": ["$message.url", "/"]}, 3]}]}


async def _grouped(db: Database, q: FailureQuery) -> dict[_Key, list[_Failure]]:
    """The failures that are counted, the latest ones."""
    read = await _read(db, q)
    jobs = {job for rows in read.values() for job, to, _, _ in rows if to is None}
    hosts = await _hosts(db, jobs)
    by_group: defaultdict[_Key, list[_Failure]] = defaultdict(list)
    for (error, status), rows in read.items():
        for job, to, name, ended in rows:
            if to is None:
                by_group[hosts.get(job), error, status].append(_Failure(int(ended), name, job))
            else:
                by_group[host_of("/".join(to)) or None, error, status].append(_Failure(int(ended), name, None))
    return by_group


async def _read(db: Database, q: FailureQuery) -> dict[_Way, list[Any]]:
    """Job, beginning of the URL of a message, id and end of each failure, by how its last attempt ended."""
    ended: Document = {"$gte": DatetimeMS(q.since_ms)}
    if q.until_ms is not None:
        ended["$lt"] = DatetimeMS(q.until_ms)
    conditions = [{"state": {"$in": sorted(q.states)}, "ended_at": ended}, *await expiry_bound(db, q.since_ms)]
    pipeline: list[Document] = [
        {"$match": {"$and": conditions}},
        {"$sort": {"expire_at": -1, "_id": -1}},
        {"$limit": COUNTED},
        {"$project": {"way": _WAY, "failure": ["$job_id", _TO, "$_id", "$ended_at"]}},
        # `COUNTED` failures with ids of 64 characters and hosts of 255 come to 5 MB, and a document may have 16.
        {"$group": {"_id": "$way", "failures": {"$push": "$failure"}}},
    ]
    with operation():
        found = await (await db.api["history"].aggregate(pipeline, hint=INDEX)).to_list()
    by_way: defaultdict[_Way, list[Any]] = defaultdict(list)
    for d in found:  # a member that is null and one that is missing are two groups for MongoDB
        by_way[d["_id"].get("error"), d["_id"].get("status")] += d["failures"]
    return by_way


async def _hosts(db: Database, job_ids: set[str]) -> dict[str, str]:
    """The hosts of jobs that exist, or whose tombstone does."""
    named: list[Document] = [
        {"$match": {"_id": {"$in": sorted(job_ids)}}},
        {"$group": {"_id": "$host", "jobs": {"$push": "$_id"}}},
    ]
    with operation():
        found = await (await db.api["jobs"].aggregate(named)).to_list()
    return {job: d["_id"] for d in found if d["_id"] for job in d["jobs"]}


async def _views(db: Database, ids: list[str]) -> dict[str, ExecutionView]:
    with operation():
        documents = await db.api["history"].find({"_id": {"$in": ids}}, LIST_PROJECTION).to_list()
    return {v.id: v for v in decode_readable("history", documents, final_view)}
