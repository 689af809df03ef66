"""What failed for good, by the host that was called and by how the last attempt ended: for the screen of failures.

MongoDB counts, so that a million executions cost no more than the failures among them, which have an index of their own.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.targets import host_of
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import operation
from cluster.store.queries.execution_pages import expiry_bound
from cluster.store.queries.jobs_and_executions import LIST_PROJECTION, final_view

if TYPE_CHECKING:
    from cluster.core.execution.view import ExecutionView
    from cluster.store.mongo.client import Database, Document

COUNTED = 50_000
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
    """`executions` counts all that failed, `groups_in_all` their groups. `complete`: no failure was left uncounted."""

    executions: int
    complete: bool
    groups_in_all: int
    groups: tuple[FailureGroup, ...]


async def failures(db: Database, q: FailureQuery) -> Failures:
    """The groups of what failed, the largest first."""
    parts = await _counted(db, q)
    hosts = await _hosts(db, [p["_id"]["job"] for p in parts if p["_id"]["job"] is not None])
    by_group: dict[tuple[str | None, str | None, int | None], list[Document]] = defaultdict(list)
    for part in parts:
        key = part["_id"]
        host = hosts.get(key["job"]) if key["job"] is not None else host_of(key.get("url")) or None
        by_group[host, key.get("error"), key.get("status")].append(part)
    total = sum(p["n"] for p in parts)
    largest = sorted(by_group.items(), key=lambda g: (-sum(p["n"] for p in g[1]), -max(_ended(p) for p in g[1])))
    chosen = [(key, members, _latest_ids(members, q.shown)) for key, members in largest[: q.groups]]
    views = await _views(db, [i for *_, ids in chosen for i in ids])
    groups = tuple(
        FailureGroup(
            host=host,
            error=error,
            status=status,
            executions=sum(p["n"] for p in members),
            job_ids=tuple(sorted({p["_id"]["job"] for p in members if p["_id"]["job"] is not None})),
            latest_ms=max(_ended(p) for p in members),
            latest=tuple(views[i] for i in ids if i in views),
        )
        for (host, error, status), members, ids in chosen
    )
    return Failures(total, total < COUNTED, len(by_group), groups)


async def _counted(db: Database, q: FailureQuery) -> list[Document]:
    """The number and the latest of the failures, by job (messages: by URL) and by how the last attempt ended."""
    ended: Document = {"$gte": DatetimeMS(q.since_ms)}
    if q.until_ms is not None:
        ended["$lt"] = DatetimeMS(q.until_ms)
    conditions = [{"state": {"$in": sorted(q.states)}, "ended_at": ended}, *await expiry_bound(db, q.since_ms)]
    is_of_job = {"$eq": [{"$type": "$message.url"}, "missing"]}
    last = {"$last": "$attempts"}
    pipeline: list[Document] = [
        {"$match": {"$and": conditions}},
        {"$sort": {"expire_at": -1, "_id": -1}},
        {"$limit": COUNTED},
        {
            "$project": {
                "ended_at": 1,
                "key": {
                    "job": {"$cond": [is_of_job, "$job_id", None]},
                    "url": "$message.url",
                    "error": {"$let": {"vars": {"last": last}, "in": "$$last.error"}},
                    "status": {"$let": {"vars": {"last": last}, "in": "$$last.status"}},
                },
            }
        },
        {
            "$group": {
                "_id": "$key",
                "n": {"$sum": 1},
                "ended_at": {"$max": "$ended_at"},
                "latest": {"$firstN": {"input": {"id": "$_id", "at": "$ended_at"}, "n": q.shown}},
            }
        },
    ]
    with operation():
        return await (await db.api["history"].aggregate(pipeline, hint=INDEX)).to_list()


async def _hosts(db: Database, job_ids: list[str]) -> dict[str, str]:
    """The hosts of jobs that exist, or whose tombstone does."""
    query = {"_id": {"$in": sorted(set(job_ids))}}
    with operation():
        return {d["_id"]: d["host"] async for d in db.api["jobs"].find(query, {"host": 1}) if d.get("host")}


def _ended(part: Document) -> int:
    return int(part["ended_at"])


def _latest_ids(members: list[Document], shown: int) -> list[str]:
    latest = sorted(((int(e["at"]), e["id"]) for p in members for e in p["latest"]), reverse=True)
    return [execution_id for _, execution_id in latest[:shown]]


async def _views(db: Database, ids: list[str]) -> dict[str, ExecutionView]:
    with operation():
        documents = await db.api["history"].find({"_id": {"$in": ids}}, LIST_PROJECTION).to_list()
    return {v.id: v for v in decode_readable("history", documents, final_view)}
