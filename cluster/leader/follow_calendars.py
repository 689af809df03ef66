"""Jobs follow a change of their calendar: each is rewritten, as by a change of its definition, and settled after that.

A calendar is changed by one write. Which jobs have to follow is seen from the jobs themselves: they carry the version of
the days that they were written by. So there is no progress to store, and a leader that takes over goes on. It is found in
the same way that a job was created or changed while its calendar was.

This needs no trust in the term. A job is rewritten on the revision that was read, and its calendar is read *after* the
job: so what is written is never older than what the job was written by. The last one to look sees the last calendar.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from cluster.core.job.changes import ChangeStamp, follow_calendar
from cluster.leader.quarantine import Quarantine
from cluster.store import calendars, job_calendars

if TYPE_CHECKING:
    from cluster.clock import Clock
    from cluster.core.job.definition import JobChange
    from cluster.store.mongo.client import Database

log = structlog.get_logger()

JOBS = 200
"""Jobs rewritten in one step."""
STEP_SECONDS = 0.5
IDLE_SECONDS = 2.0
"""While there is no calendar. The first one has no jobs yet that it could change under."""


@dataclass(frozen=True, slots=True)
class Followed:
    """The result of one step: how many jobs were rewritten, and whether others may have to be. `idle`: there is no calendar."""

    jobs: int = 0
    more: bool = False
    idle: bool = False


class CalendarFollower:
    """Following by one leader."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self.quarantine = Quarantine("job")

    async def step(self) -> Followed:
        """Rewrite the next jobs whose calendar has changed. Raises `StoreError`."""
        versions = await calendars.versions(self._db)
        for name, version in versions.items():
            done = await self._follow(name, version)
            if done.more:
                return done
        return Followed(idle=not versions)

    async def _follow(self, name: str, version: str) -> Followed:
        jobs, unreadable = await job_calendars.behind(self._db, name, version, JOBS, self.quarantine.ids())
        self.quarantine.add(unreadable)
        if not jobs:
            return Followed(more=bool(unreadable))
        calendar = await calendars.get(self._db, name)  # after the jobs: see above
        if calendar is None:
            return Followed()
        changes: list[JobChange] = []
        for job in jobs:
            stamp = ChangeStamp(self._clock.now_ms(), uuid.uuid4().hex, uuid.uuid4().hex)
            try:
                change = follow_calendar(job, calendar.days, stamp)
            except Exception as exc:  # the others follow nevertheless
                self.quarantine.add_failure(job.id, exc)
                continue
            if change is not None:
                changes.append(change)
        written = await job_calendars.write_timing(self._db, changes)
        log.info("calendar_followed", calendar=name, version=calendar.version, jobs=written)
        return Followed(written, more=True)
