"""Active jobs in groups that share a schedule, for forecasts by tag, queue, host or job. Nothing is written here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.core.lifecycle import JobState
from cluster.store.mongo.codec import instant
from cluster.store.mongo.operation import operation
from cluster.store.queries.job_filter import conditions

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document
    from cluster.store.queries.job_filter import JobFilter

NAMED_OF_GROUP = 100
"""Of the jobs of one schedule, so many are known by name."""
MOST_GROUPS = 50_000


@dataclass(frozen=True, slots=True)
class LoadGroup:
    """`jobs` jobs that share schedule, spread, beginning and end (ms). `name`: of their tag, queue or host.

    `ids`: some of the jobs, if they were asked for by job.
    """

    key: str
    spread_seconds: int
    jobs: int
    name: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    ids: tuple[str, ...] = ()


async def load_groups(db: Database, wanted: JobFilter | None, by: str | None) -> list[LoadGroup]:
    """The groups, the largest first, of the jobs that match. A job without a tag or queue is in no group of one."""
    match: list[Document] = [{"state": JobState.ACTIVE.value}]
    if wanted is not None:
        match += [{"state": {"$in": list(wanted.states)}}, *conditions(wanted)]
    pipeline: list[Document] = [{"$match": {"$and": match}}]
    name: str | None = None
    if by == "tag":
        pipeline.append({"$unwind": "$tags"})
        name = "$tags"
    elif by == "queue":
        pipeline.append({"$match": {"queue": {"$ne": None}}})
        name = "$queue"
    elif by == "host":
        name = "$host"
    of = {
        "key": "$schedule_key",
        "spread": "$spread_seconds",
        "start": "$start_at",
        "end": "$end_at",
        **({} if name is None else {"name": name}),
    }
    group: Document = {"_id": of, "jobs": {"$sum": 1}}
    if by == "job":
        group["ids"] = {"$firstN": {"input": "$_id", "n": NAMED_OF_GROUP}}
    pipeline += [{"$group": group}, {"$sort": {"jobs": -1, "_id": 1}}, {"$limit": MOST_GROUPS}]
    with operation():
        rows = await (await db.api["jobs"].aggregate(pipeline, allowDiskUse=True)).to_list()
    return [
        LoadGroup(
            key=r["_id"]["key"],
            spread_seconds=int(r["_id"].get("spread") or 0),
            jobs=r["jobs"],
            name=r["_id"].get("name"),
            start_ms=instant(r["_id"].get("start")),
            end_ms=instant(r["_id"].get("end")),
            ids=tuple(r.get("ids", ())),
        )
        for r in rows
    ]
