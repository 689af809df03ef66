"""Pages of jobs for the API: filtered, searched, in one of four orders. Nothing is written here.

A page is found in two steps: first the ids, in order, then the documents. If few jobs meet a condition that has an index,
they are found by it and sorted. Otherwise the jobs are walked in order, and those that do not match are passed over; of the
walks that there are, the one that fills the page first is taken (`job_ways`). A walk that has passed over very many jobs ends
the page before it is full: there is a cursor as long as there may be more.

A cursor names the last job's place in the order, not a number of jobs. So a job that is created, deleted or moved between
two pages neither repeats nor hides another one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cluster.store.jobs import WITHOUT_PERIODS, stored_job
from cluster.store.mongo.codec import instant
from cluster.store.mongo.decoding import decode_each
from cluster.store.mongo.operation import operation
from cluster.store.queries import job_walks, job_ways, narrowed_jobs, next_run_pages, sorted_jobs
from cluster.store.queries.job_filter import SIZE, Found, selective
from cluster.store.queries.narrowed_jobs import Narrowing
from cluster.store.queries.next_runs import next_of_job

if TYPE_CHECKING:
    from cluster.core.job.definition import StoredJob
    from cluster.store.mongo.client import Database, Document
    from cluster.store.queries.job_filter import JobListQuery, Place

FEW = 1000
"""So many jobs are read and sorted by this process, where their order is derived, within some 10 ms."""
PAGE_BYTES = 4 * 1024 * 1024
"""A page ends early when its documents come to this many bytes."""


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job with what is derived or rolled up for it (ms)."""

    job: StoredJob
    next_run_ms: int | None
    last_run_ms: int | None
    last_state: str | None
    failing: bool


@dataclass(frozen=True, slots=True)
class JobList:
    """A page of jobs; `unreadable`: by id, why others of the page cannot be read. `after`: None on the last page."""

    jobs: tuple[ListedJob, ...]
    unreadable: dict[str, str]
    after: Place | None


async def page(db: Database, q: JobListQuery) -> JobList:
    """A page of jobs. Raises `StoreError`."""
    is_derived = q.order == "nextRunAt" or q.before_ms is not None
    part = await (_derived(db, q) if is_derived else _by_index(db, q))
    found = part.jobs
    sizes = await _sizes(db, found[: q.limit])
    ids, size = [], 0
    for d in found[: q.limit]:
        ids.append(d["_id"])
        size += sizes.get(d["_id"], 0)
        if size > PAGE_BYTES:
            break
    after = job_walks.place_of(found[len(ids) - 1], q) if len(found) > len(ids) else part.until
    return await _documents(db, ids, q, after)


async def _by_index(db: Database, q: JobListQuery) -> Found:
    """In an order that an index has."""
    if not job_walks.passes_over(q):
        return await job_walks.walk(db, q)
    narrowing = await narrowed_jobs.narrowest(db, q.filter, q.since_ms)
    if narrowing is None:
        return await job_ways.first_to_fill(db, q)
    if len(selective(q.filter)) == 1:  # nearly every job of the walk is one of the page
        way = await narrowed_jobs.walkable(db, narrowing, q.order)
        if way is not None:
            return await job_walks.walk(db, q, way)
    return Found(await job_walks.of_narrowed(db, q, narrowing))


async def _derived(db: Database, q: JobListQuery) -> Found:
    """The next run has a part in it, which no document has: the jobs are sorted or passed over by this process."""
    narrowing = await narrowed_jobs.narrowest(db, q.filter, q.since_ms)
    if narrowing is not None:
        return Found(await sorted_jobs.sorted_here(db, q, narrowing))
    if q.order == "nextRunAt":
        return await _by_next_run(db, q)
    part = await job_walks.walk(db, q, most=job_walks.PASSED_OVER)
    if part.until is None:
        return part
    narrowing = await narrowed_jobs.sortable(db, q.filter, q.since_ms)
    if narrowing is not None:
        return Found(await sorted_jobs.sorted_here(db, q, narrowing))
    soonest = await next_run_pages.walk_some(db, next_run_pages.soonest(q), FEW + 1, job_walks.MOST_READ)
    if soonest.until is None and len(soonest.jobs) <= FEW:
        ids = [d["_id"] for d in soonest.jobs]
        return Found(await sorted_jobs.sorted_here(db, q, Narrowing("_id_", {"_id": {"$in": ids}})))
    rest = await job_walks.walk(db, job_walks.behind(q, part), most=job_walks.MOST_READ)
    return Found([*part.jobs, *rest.jobs], rest.until)


async def _by_next_run(db: Database, q: JobListQuery) -> Found:
    """Section by section. Jobs that have no next run follow."""
    narrowing = await narrowed_jobs.sortable(db, q.filter, q.since_ms)
    if not job_walks.passes_over(q):
        part = Found(await next_run_pages.walk(db, q, q.limit + 1))
    else:
        most = job_walks.MOST_READ if narrowing is None else job_walks.PASSED_OVER
        part = await next_run_pages.walk_some(db, q, q.limit + 1, most)
    if part.until is not None:
        return part if narrowing is None else Found(await sorted_jobs.sorted_here(db, q, narrowing))
    found = part.jobs
    for section in (1, 2):
        rest = next_run_pages.behind(q, section, len(found))
        if rest is not None:
            part = await _by_index(db, rest)
            # Their place is by their section, also if a node of the release before has changed when they run.
            found = [*found, *({**d, "schedule_key": None} for d in part.jobs)]
            if part.until is not None:
                return Found(found, replace(part.until, section=section))
    return Found(found)


async def _sizes(db: Database, found: list[Document]) -> dict[str, int]:
    """How large these documents are, by id: some ways of finding them say so."""
    if all("size" in d for d in found):
        return {d["_id"]: d["size"] for d in found}
    wanted = {"_id": {"$in": [d["_id"] for d in found]}}
    with operation():
        read = await db.api["jobs"].find(wanted, {"size": SIZE}, batch_size=len(found) + 1).to_list()
    return {d["_id"]: d["size"] for d in read}


async def _documents(db: Database, ids: list[str], q: JobListQuery, after: Place | None) -> JobList:
    if not ids:
        return JobList((), {}, after)
    with operation():
        wanted = {"_id": {"$in": ids}}
        documents = await db.api["jobs"].find(wanted, WITHOUT_PERIODS, batch_size=len(ids) + 1).to_list()
    by_id = {d["_id"]: d for d in documents}
    await job_walks.learn_schedules(db, q, documents)

    def listed(d: Document) -> ListedJob:
        return ListedJob(
            job=stored_job(d, db.keyring),
            next_run_ms=next_of_job(d, q.since_ms),
            last_run_ms=instant(d.get("last_run_at")),
            last_state=d.get("last_state"),
            failing=d.get("failing") is True,
        )

    jobs, unreadable = decode_each("job", [by_id[i] for i in ids if i in by_id], listed)
    return JobList(tuple(jobs), unreadable, after)
