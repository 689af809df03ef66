"""Which of several walks fills a page of jobs first.

Jobs that meet several conditions, each of which many jobs meet, can be walked in order among all jobs, or among those with one
of the tags or words. Where the jobs of a page stand on each of these ways nobody knows: those with a word may be the
last ones of a tag. So each way is tried for some jobs, then for more. What filled a page is tried first for the next one.

Jobs that hardly ever meet two conditions together could only be found by reading all that meet one of them. So a page may
end before it is full: it then has what was found up to the place that the walks have come to, and the next page goes on there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.store.queries import job_walks, narrowed_jobs
from cluster.store.queries.job_filter import Found

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database
    from cluster.store.queries.job_filter import JobListQuery
    from cluster.store.queries.narrowed_jobs import Narrowing

KEPT_MS = 10_000
"""How long what filled a page is tried first, without the other ways."""
KEPT = 1000
FEW_WAYS = 3
"""Of more ways than these each is tried for fewer jobs."""
SORTED, ENDED = "sorted", "ended "
_best: dict[str, tuple[int, str]] = {}
"""When it filled a page, and what: by the database, the filter and the order. `ENDED` and what came furthest: nothing did."""


async def first_to_fill(db: Database, q: JobListQuery) -> Found:
    """The next jobs in an order that an index has."""
    key = f"{db.api.name} {q.order} {q.descending} {q.filter}"
    known_at, best = _best.get(key, (0, ""))
    if abs(q.since_ms - known_at) > KEPT_MS:
        known_at, best = q.since_ms, ""
    narrowing = await narrowed_jobs.sortable(db, q.filter, q.since_ms) if best == SORTED else None
    if narrowing is not None:
        return Found(await job_walks.of_narrowed(db, q, narrowing))
    ways: list[Narrowing | None] = [*await narrowed_jobs.ways(db, q.filter, q.order), None]
    ways.sort(key=lambda way: _name(way) != best.removeprefix(ENDED))
    if best.startswith(ENDED):
        part = await job_walks.walk(db, q, ways[0], job_walks.MOST_READ)
    else:
        part, best = await _filled(db, q, ways)
        known_at = q.since_ms
    if len(_best) >= KEPT:
        _best.clear()
    _best[key] = known_at, best
    return part


async def _filled(db: Database, q: JobListQuery, ways: list[Narrowing | None]) -> tuple[Found, str]:
    """The next jobs, and what found them."""
    furthest, best = Found([]), ways[0]
    for way in ways:
        part = await job_walks.walk(db, q, way, job_walks.PASSED_OVER * FEW_WAYS // max(FEW_WAYS, len(ways)))
        if part.until is None:
            return part, _name(way)
        if furthest.until is None or job_walks.rank(part.until, q) > job_walks.rank(furthest.until, q):
            furthest, best = part, way
    narrowing = await narrowed_jobs.sortable(db, q.filter, q.since_ms)
    if narrowing is not None:
        return Found(await job_walks.of_narrowed(db, q, narrowing)), SORTED
    # All ways find the same jobs up to a place. So the one that came furthest has passed over the fewest of them.
    rest = await job_walks.walk(db, job_walks.behind(q, furthest), best, job_walks.MOST_READ)
    name = _name(best) if rest.until is None else ENDED + _name(best)
    return Found([*furthest.jobs, *rest.jobs], rest.until), name


def _name(way: Narrowing | None) -> str:
    return "all" if way is None else f"{way.index} {way.condition}"
