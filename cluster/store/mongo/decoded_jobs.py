"""Jobs that this process has decoded, so that a job that has not changed is not transferred and decoded for each run.

Whether it has changed is asked of the database before each send, as ever: a job is taken from here only if its document
still has the revision and the schedule version with which it was decoded. Every change that a user or the engine makes to
what is kept here raises the revision. A job that was deleted for good and created again under its id begins at revision 1
again, but under another schedule version, which is an id of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.core.execution.model import Job

KEPT = 16_384
"""Jobs that are kept; those that were used last."""
MAX_BODY_BYTES = 4096
"""Jobs with a longer body are not kept: they would take the node's memory, and copying bytes is cheap."""

JobStamp = tuple[int, str, str, str | None, bool]
"""Revision, schedule version, state and host of a job's document, and whether jobs are chained to it: a migration adds the
host without a revision, and whoever chains a job changes no revision of the one that it runs after."""


class DecodedJobs:
    """The least recently used jobs are forgotten first."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, tuple[JobStamp, Job]] = OrderedDict()

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._jobs

    def get(self, job_id: str, stamp: JobStamp) -> Job | None:
        """The job as it was decoded from a document with this stamp; None if it has another one, or is not kept."""
        kept = self._jobs.get(job_id)
        if kept is None or kept[0] != stamp:
            return None
        self._jobs.move_to_end(job_id)
        return kept[1]

    def last_known(self, job_id: str) -> Job | None:
        """The job as it was decoded last, which it may be no more."""
        kept = self._jobs.get(job_id)
        if kept is None:
            return None
        self._jobs.move_to_end(job_id)
        return kept[1]

    def keep(self, job: Job, stamp: JobStamp) -> None:
        """Keep a job, unless it is large."""
        if len(job.target.body) > MAX_BODY_BYTES:
            self._jobs.pop(job.id, None)
            return
        self._jobs[job.id] = (stamp, job)
        self._jobs.move_to_end(job.id)
        if len(self._jobs) > KEPT:
            self._jobs.popitem(last=False)
