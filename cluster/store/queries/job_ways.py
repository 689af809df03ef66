"""Which of several walks fills a page of jobs first.

Jobs that meet several conditions, each of which many jobs meet, can be walked in order among all jobs, or among those with one
of the tags or words. Where the jobs of a page stand on each of these ways nobody knows: those with a word may be the
last ones of a tag. So each way is tried for some jobs, then for more. What filled a page is tried first for the next one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.store.queries import job_walks, narrowed_jobs

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document
    from cluster.store.queries.job_filter import JobListQuery
    from cluster.store.queries.narrowed_jobs import Narrowing

MORE = 4
"""So many times more jobs are read by each walk of the next round: all rounds together read little more than the last."""
KEPT_MS = 10_000
"""How long what filled a page is tried first, without the other ways."""
KEPT = 1000
SORTED = "sorted"
_best: dict[str, tuple[int, str]] = {}
"""When it filled a page, and what: by the database, the filter and the order."""


async def first_to_fill(db: Database, q: JobListQuery) -> list[Document]:
    """The next jobs in an order that an index has."""
    key = f"{db.api.name} {q.order} {q.descending} {q.filter}"
    known_at, best = _best.get(key, (0, ""))
    if abs(q.since_ms - known_at) > KEPT_MS:
        best = ""
    narrowing = await narrowed_jobs.sortable(db, q.filter, q.since_ms) if best == SORTED else None
    if narrowing is not None:
        return await job_walks.of_narrowed(db, q, narrowing)
    ways: list[Narrowing | None] = [*await narrowed_jobs.ways(db, q.filter, q.order), None]
    ways.sort(key=lambda way: _name(way) != best)
    found, filled = await _filled(db, q, ways)
    if len(_best) >= KEPT:
        _best.clear()
    _best[key] = q.since_ms, filled
    return found


async def _filled(db: Database, q: JobListQuery, ways: list[Narrowing | None]) -> tuple[list[Document], str]:
    """The next jobs, and what found them."""
    most = job_walks.PASSED_OVER
    while True:
        for way in ways:
            found, are_all = await job_walks.walk_some(db, q, way, most)
            if are_all or len(found) > q.limit:
                return found, _name(way)
        if most == job_walks.PASSED_OVER:
            narrowing = await narrowed_jobs.sortable(db, q.filter, q.since_ms)
            if narrowing is not None:
                return await job_walks.of_narrowed(db, q, narrowing), SORTED
        most *= MORE


def _name(way: Narrowing | None) -> str:
    return "all" if way is None else f"{way.index} {way.condition}"
