"""Pages of jobs for the API: filtered, searched, in one of four orders. Nothing is written here.

A page is found in two steps: first the ids, in order, then the documents that the caller has not kept. If few jobs meet a
condition that has an index, they are found by it and sorted. Otherwise the jobs are walked in order, and those that do not
match are passed over; of the walks that there are, the one that fills the page first is taken (`job_ways`). A walk that has
passed over very many jobs ends the page before it is full: there is a cursor as long as there may be more.

A cursor names the last job's place in the order, not a number of jobs. So a job that is created, deleted or moved between
two pages neither repeats nor hides another one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from cluster.store.jobs import WITHOUT_PERIODS, stored_job
from cluster.store.mongo.codec import instant
from cluster.store.mongo.decoding import decode_each
from cluster.store.mongo.operation import operation
from cluster.store.queries import job_walks, job_ways, narrowed_jobs, next_run_pages, sorted_jobs
from cluster.store.queries.job_filter import LISTED_FIELDS, Found, selective
from cluster.store.queries.narrowed_jobs import Narrowing
from cluster.store.queries.next_runs import next_of_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.core.job.definition import StoredJob
    from cluster.store.mongo.client import Database, Document
    from cluster.store.queries.job_filter import JobListQuery, Place

    Kept = Callable[[str, "JobVersion"], bytes | None]

FEW = 1000
"""So many jobs are read and sorted by this process, where their order is derived, within some 10 ms."""
PAGE_BYTES = 4 * 1024 * 1024
"""A page ends early when its documents come to this many bytes."""


class JobVersion(NamedTuple):
    """Two documents of a job that have the same one have the same definition and state.

    Every write of those counts the revision up. The others tell a job from an earlier one of its id, or of a restored
    database; times are in ms.
    """

    revision: int
    schedule_version: int
    state: str
    created_ms: int
    updated_ms: int


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job with what is derived or rolled up for it (ms). Its document was read (`job`) unless the caller had `kept` it."""

    id: str
    version: JobVersion
    job: StoredJob | None
    kept: bytes | None
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


def nothing_kept(_job_id: str, _version: JobVersion) -> bytes | None:
    """For callers that keep nothing."""
    return None


async def page(db: Database, q: JobListQuery, kept: Kept = nothing_kept) -> JobList:
    """A page of jobs. `kept`: what the caller has kept of a job in a version, if anything. Raises `StoreError`."""
    is_derived = q.order == "nextRunAt" or q.before_ms is not None
    part = await (_derived(db, q) if is_derived else _by_index(db, q))
    rows = await _rows_of_list(db, part.jobs[: q.limit])
    shown, size = [], 0
    for d in rows:
        shown.append(d)
        size += d["size"]
        if size > PAGE_BYTES:
            break
    after = job_walks.place_of(part.jobs[len(shown) - 1], q) if len(part.jobs) > len(shown) else part.until
    return await _listed(db, shown, q, after, kept)


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


async def _rows_of_list(db: Database, found: list[Document]) -> list[Document]:
    """These jobs with `LISTED_FIELDS`, as they were read when they were found, if they were."""
    # The key was taken from those that have their place whatever their schedule.
    if all("revision" in d and d.get("schedule_key") is not None for d in found):
        return found
    wanted = {"_id": {"$in": [d["_id"] for d in found]}}
    with operation():
        read = await db.api["jobs"].find(wanted, LISTED_FIELDS, batch_size=len(found) + 1).to_list()
    by_id = {d["_id"]: d for d in read}
    return [by_id.get(d["_id"], {"_id": d["_id"], "size": 0}) for d in found]  # its tombstone may be gone by now


async def _listed(db: Database, rows: list[Document], q: JobListQuery, after: Place | None, kept: Kept) -> JobList:
    """The jobs of a page. Only documents that the caller has not kept are read."""
    await job_walks.learn_schedules(db, q, rows)
    # Asked once: while the documents are read, the caller may forget what it has kept.
    had = {d["_id"]: k for d in rows if (k := _kept(d, kept)) is not None}
    documents = await _documents(db, [d["_id"] for d in rows if d["_id"] not in had])

    def listed(d: Document) -> ListedJob:
        return ListedJob(
            id=d["_id"],
            version=_version(d),
            job=None if d["_id"] in had else stored_job(d, db.keyring),
            kept=had.get(d["_id"]),
            next_run_ms=next_of_job(d, q.since_ms),
            last_run_ms=instant(d.get("last_run_at")),
            last_state=d.get("last_state"),
            failing=d.get("failing") is True,
        )

    there = [d if d["_id"] in had else documents[d["_id"]] for d in rows if d["_id"] in had or d["_id"] in documents]
    jobs, unreadable = decode_each("job", there, listed)
    return JobList(tuple(jobs), unreadable, after)


def _version(d: Document) -> JobVersion:
    return JobVersion(d["revision"], d["schedule_version"], d["state"], int(d["created_at"]), int(d["updated_at"]))


def _kept(d: Document, kept: Kept) -> bytes | None:
    try:
        return kept(d["_id"], _version(d))
    except Exception:  # whoever reads the document finds out what is wrong with it
        return None


async def _documents(db: Database, ids: list[str]) -> dict[str, Document]:
    if not ids:
        return {}
    with operation():
        cursor = db.api["jobs"].find({"_id": {"$in": ids}}, WITHOUT_PERIODS, batch_size=len(ids) + 1)
        return {d["_id"]: d for d in await cursor.to_list()}
