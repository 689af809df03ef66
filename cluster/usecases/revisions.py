"""Going back to an earlier definition of a job."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.core.errors import Fault, InvalidInput
from cluster.core.job.wanted import NO_STORED_SECRET
from cluster.core.job.wanted_state import define_in_state
from cluster.usecases.jobs import (
    NO_PRECONDITION,
    change_job,
    require_alert_channels,
    require_callback_channels,
    require_job,
    stored_secrets,
    with_calendar,
)

if TYPE_CHECKING:
    from cluster.core.job.changes import ChangeStamp
    from cluster.core.job.definition import JobChange, StoredJob
    from cluster.core.job.wanted import WantedJob
    from cluster.store.mongo.client import Database
    from cluster.usecases.jobs import Precondition


async def revert(
    db: Database,
    job_id: str,
    wanted: tuple[int, WantedJob],
    now_ms: int,
    precondition: Precondition = NO_PRECONDITION,
) -> StoredJob:
    """Give the job the definition of an earlier revision: its number and the job as of it, which keeps all secrets.

    State and pause stay as they are. A change as any other: it is refused if the definition is not valid any more.
    """
    number, earlier = wanted
    earlier = await with_calendar(db, earlier)
    await require_alert_channels(db, earlier.alert_channels)
    await require_callback_channels(db, earlier.callback_channels)

    def decide(old: StoredJob | None, stamp: ChangeStamp) -> JobChange | None:
        job = require_job(old, job_id)
        try:
            definition = earlier.resolve(stored_secrets(job))
        except InvalidInput as exc:
            raise InvalidInput([_missing_secret(f, number) for f in exc.faults]) from exc
        change = define_in_state(job, job_id, definition, stamp, None)
        return change and replace(change, verb="revert", detail=(("revertedTo", number),))

    return (await change_job(db, job_id, decide, now_ms, precondition))[1]


def _missing_secret(fault: Fault, number: int) -> Fault:
    if fault.message != NO_STORED_SECRET:
        return fault
    text = f"is a secret of revision {number}, and the job has none now: set it with PATCH first (secrets are not kept)"
    return Fault(fault.path, text)
