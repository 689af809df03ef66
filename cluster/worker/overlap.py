"""`overlap: skip` by compare-and-set on the job: one owed execution of a job runs at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.store import engine_jobs, executions

if TYPE_CHECKING:
    from cluster.core.execution.model import Execution
    from cluster.store.mongo.client import Database

MAX_RACES = 10


async def acquire_exclusive(db: Database, execution: Execution) -> bool:
    """Make this execution the one of its job that runs. False: another one runs.

    An execution that the job names as running but that is not owed any more (its node died after recording it) gives way.
    """
    instead_of: str | None = None
    for _ in range(MAX_RACES):
        running = await engine_jobs.begin_exclusive(db, execution.job_id, execution.id, instead_of)
        if running == execution.id:
            return True
        if running is None:
            instead_of = None
        elif await executions.owed(db, [running]):
            return False
        else:
            instead_of = running
    return False
