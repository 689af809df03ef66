"""What failed for good, by the host that was called and by how the last attempt ended: for the screen of failures.

MongoDB counts, so that a million executions cost no more than the failures among them, which have an index of their own. What
it counted comes as few documents with long lists: to decode one document for each job would take this process longer than
MongoDB has counted, and its requests would wait. Only of the groups that are shown it is read which executions were the latest.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bson.datetime_ms import DatetimeMS

from cluster.core.targets import host_of
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import operation
from cluster.store.queries.execution_pages import expiry_bound
from cluster.store.queries.jobs_and_executions import LIST_PROJECTION, final_view

if TYPE_CHECKING:
    from cluster.core.execution.view import ExecutionView
    from cluster.store.mongo.client import Database, Document

COUNTED = 10_000
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


class _Part(NamedTuple):
    """The failures of one job, or of messages to one host, that ended in one way."""

    job: str | None
    error: str | None
    status: int | None
    executions: int
    ended_ms: int


_Key = tuple[str | None, str | None, int | None]
"""Host, error, status."""


async def failures(db: Database, q: FailureQuery) -> Failures:
    """The groups of what failed, the largest first."""
    conditions = await _conditions(db, q)
    parts, of_messages = await _counted(db, conditions)
    hosts = await _hosts(db, {p.job for p in parts if p.job is not None})
    by_group: defaultdict[_Key, list[_Part]] = defaultdict(list)
    for part in parts:
        by_group[hosts.get(part.job or ""), part.error, part.status].append(part)
    for host, part in of_messages:
        by_group[host, part.error, part.status].append(part)
    largest = sorted(by_group.items(), key=lambda g: (-sum(p.executions for p in g[1]), -max(p.ended_ms for p in g[1])))
    chosen = dict(largest[: q.groups])
    latest = await _latest(db, conditions, chosen, hosts, q.shown)
    views = await _views(db, [i for ids in latest.values() for i in ids])
    groups = tuple(
        FailureGroup(
            host=key[0],
            error=key[1],
            status=key[2],
            executions=sum(p.executions for p in members),
            job_ids=tuple(sorted({p.job for p in members if p.job is not None})),
            latest_ms=max(p.ended_ms for p in members),
            latest=tuple(views[i] for i in latest[key] if i in views),
        )
        for key, members in chosen.items()
    )
    total = sum(p.executions for members in by_group.values() for p in members)
    return Failures(total, total < COUNTED, len(by_group), groups)


async def _conditions(db: Database, q: FailureQuery) -> list[Document]:
    """The first stages: the failures that are counted, the latest ones."""
    ended: Document = {"$gte": DatetimeMS(q.since_ms)}
    if q.until_ms is not None:
        ended["$lt"] = DatetimeMS(q.until_ms)
    conditions = [{"state": {"$in": sorted(q.states)}, "ended_at": ended}, *await expiry_bound(db, q.since_ms)]
    return [{"$match": {"$and": conditions}}, {"$sort": {"expire_at": -1, "_id": -1}}, {"$limit": COUNTED}]


_LAST = {"$last": "$attempts"}
_IS_OF_JOB = {"$eq": [{"$type": "$message.url"}, "missing"]}
_KEY: Document = {
    "job": {"$cond": [_IS_OF_JOB, "$job_id", None]},
    # Of a URL that is different each time only what names the host: `http://host:port`.
    "to": {"$cond": [_IS_OF_JOB, None, {"$slice": [{"$split": ["$message.url", "/"]}, 3]}]},
    "error": {"$let": {"vars": {"last": _LAST}, "in": "$$last.error"}},
    "status": {"$let": {"vars": {"last": _LAST}, "in": "$$last.status"}},
}


async def _counted(db: Database, conditions: list[Document]) -> tuple[list[_Part], list[tuple[str | None, _Part]]]:
    """The failures by job and by how the last attempt ended; those of messages by their host."""
    pipeline: list[Document] = [
        *conditions,
        {"$project": {"ended_at": 1, "key": _KEY}},
        {"$group": {"_id": "$key", "n": {"$sum": 1}, "at": {"$max": "$ended_at"}}},
        {"$project": {"part": ["$_id.job", "$_id.to", "$n", "$at"]}},
        # `COUNTED` parts with ids of 64 characters come to 1.4 MB, and a document may have 16.
        {"$group": {"_id": {"error": "$_id.error", "status": "$_id.status"}, "parts": {"$push": "$part"}}},
    ]
    parts: list[_Part] = []
    of_messages: list[tuple[str | None, _Part]] = []
    with operation():
        async for d in await db.api["history"].aggregate(pipeline, hint=INDEX):
            error, status = d["_id"].get("error"), d["_id"].get("status")
            for job, to, n, at in d["parts"]:
                part = _Part(job, error, status, n, int(at))
                if to is None:
                    parts.append(part)
                else:
                    of_messages.append((host_of("/".join(to)) or None, part))
    return parts, of_messages


async def _hosts(db: Database, job_ids: set[str]) -> dict[str, str]:
    """The hosts of jobs that exist, or whose tombstone does."""
    named: list[Document] = [
        {"$match": {"_id": {"$in": sorted(job_ids)}}},
        {"$group": {"_id": "$host", "jobs": {"$push": "$_id"}}},
    ]
    with operation():
        found = await (await db.api["jobs"].aggregate(named)).to_list()
    return {job: d["_id"] for d in found if d["_id"] for job in d["jobs"]}


async def _latest(
    db: Database, conditions: list[Document], chosen: dict[_Key, list[_Part]], hosts: dict[str, str], shown: int
) -> dict[_Key, list[str]]:
    """The ids of the latest executions of each group. They are of those of its jobs that failed last, as many as are shown."""
    jobs: set[str] = set()
    messages = False
    for members in chosen.values():
        last = heapq.nlargest(shown, (p for p in members if p.job is not None), key=lambda p: p.ended_ms)
        jobs.update(p.job for p in last if p.job is not None)
        messages = messages or any(p.job is None for p in members)
    wanted: list[Document] = [{"job_id": {"$in": sorted(jobs)}}]
    if messages:
        wanted.append({"message.url": {"$exists": True}})
    first = {"$firstN": {"input": {"id": "$_id", "at": "$ended_at"}, "n": shown}}
    pipeline: list[Document] = [
        *conditions,
        {"$match": {"$or": wanted}},
        {"$project": {"ended_at": 1, "key": _KEY}},
        {"$group": {"_id": "$key", "latest": first}},
    ]
    found: defaultdict[_Key, list[tuple[int, str]]] = defaultdict(list)
    with operation():
        async for d in await db.api["history"].aggregate(pipeline, hint=INDEX):
            k = d["_id"]
            host = hosts.get(k["job"]) if k.get("job") is not None else host_of("/".join(k["to"])) or None
            found[host, k.get("error"), k.get("status")] += [(int(e["at"]), e["id"]) for e in d["latest"]]
    return {key: [name for _, name in heapq.nlargest(shown, found[key])] for key in chosen}


async def _views(db: Database, ids: list[str]) -> dict[str, ExecutionView]:
    with operation():
        documents = await db.api["history"].find({"_id": {"$in": ids}}, LIST_PROJECTION).to_list()
    return {v.id: v for v in decode_readable("history", documents, final_view)}
