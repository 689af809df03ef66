"""Makes the ranges of occurrences that were owed and will not be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.store.missed_ranges import MissedRange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.model import JobSchedule
    from cluster.store.engine_jobs import UnreadableJob


def missed_range(job: JobSchedule, dues: Sequence[int], reason: str) -> MissedRange:
    """These due times (at least one, ascending) of a job."""
    return MissedRange(
        job_id=job.id,
        schedule_version=job.schedule_version,
        first_ms=dues[0],
        last_ms=dues[-1],
        count=len(dues),
        reason=reason,
        retention_days=job.retention_days,
    )


def unreadable_range(job: UnreadableJob, dues: Sequence[int]) -> MissedRange:
    """These due times (at least one, ascending) of the schedule of a job whose document cannot be read."""
    return MissedRange(
        job_id=job.job_id,
        schedule_version="",
        first_ms=dues[0],
        last_ms=dues[-1],
        count=len(dues),
        reason=f"the job's document could not be read: {job.why}",
    )
