"""The revisions of a job: the present one from `jobs`, earlier ones from `revisions`, each with who made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.core.actor import HORAE
from cluster.core.lifecycle import JobState
from cluster.store import jobs, revisions
from cluster.store.jobs import stored_job
from cluster.store.mongo.decoding import decode_readable
from cluster.store.revisions import KEPT, RevisionOrigin, made_ms, origin_of

if TYPE_CHECKING:
    from cluster.core.actor import Actor
    from cluster.core.job.definition import StoredJob
    from cluster.store.mongo.client import Database, Document


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of a job, and the job as of it, without secrets. `action` and `by` are None if they are not known."""

    number: int
    at_ms: int
    job: StoredJob
    action: str | None = None
    by: Actor | None = None


async def page(db: Database, job_id: str, limit: int, below: int | None = None) -> list[Revision]:
    """Up to `limit` of the kept revisions that are lower than `below`, the latest first; none if there is no job."""
    present = await jobs.document(db, job_id)
    if present is None:
        return []
    # One document may stand for two revisions, and then the next lower one is not stored.
    lower = present["revision"] if below is None else min(below + 1, present["revision"])
    stored = await revisions.documents(db, job_id, lower, limit + 1)
    oldest = present["revision"] - KEPT
    found = {r.number: r for d in (*reversed(stored), present) for r in _readable(d)}
    numbers = sorted((n for n in found if n > oldest and (below is None or n < below)), reverse=True)
    return [found[n] for n in numbers[:limit]]


async def get(db: Database, job_id: str, number: int) -> Revision | None:
    """One kept revision; None if there is none."""
    found = await page(db, job_id, 1, number + 1)
    return found[0] if found and found[0].number == number else None


def _readable(d: Document) -> list[Revision]:
    """The revisions that a document stands for."""
    return [r for pair in decode_readable("revision", [d], _revisions) for r in pair]


def _revisions(d: Document) -> list[Revision]:
    """The leader completes jobs without a copy: such a revision has the definition of the one before it."""
    job = stored_job(d)
    number, origin = d["revision"], origin_of(d)
    if origin is not None and origin.revision == number:
        return [_made(origin, job)]
    if origin is not None and origin.revision == number - 1 and job.state is JobState.COMPLETED:
        completed = Revision(number, made_ms(d), job, "complete", HORAE)
        return [_made(origin, job), completed]
    return [Revision(number, made_ms(d), job)]


def _made(origin: RevisionOrigin, job: StoredJob) -> Revision:
    return Revision(origin.revision, origin.at_ms, job, origin.action, origin.by)
