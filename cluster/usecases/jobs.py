"""Changes of one job: create, replace, patch, pause, resume, delete. Each is one write of one document.

A change is decided on the job as it was read, and written on the revision that was read. If another request was faster,
the change is decided again on the newer job, unless the caller named the revision.
"""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cluster.core.actor import HORAE, acting
from cluster.core.errors import CallerError, Conflict, Fault, InvalidInput, NotFound, PreconditionFailed
from cluster.core.job import changes
from cluster.core.job.changes import ChangeStamp
from cluster.core.job.definition import PAUSE_AS_IT_IS
from cluster.core.job.wanted import unknown_calendar
from cluster.core.job.wanted_state import define_in_state
from cluster.core.lifecycle import JobState
from cluster.store import calendars, chain_links, channels, jobs, meta, pauses
from cluster.usecases import chains

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cluster.core.execution.model import Job
    from cluster.core.job.definition import Definition, JobCalendar, JobChange, StoredJob, WantedPause
    from cluster.core.job.wanted import WantedJob
    from cluster.core.schedule.calendar_days import ExcludedDays
    from cluster.store.mongo.client import Database

    Decision = Callable[[StoredJob | None, ChangeStamp], JobChange | None]

RACES = 8
"""How often a change is decided again because another request was faster."""


@dataclass(frozen=True, slots=True)
class Precondition:
    """The revision that the job must have, or that there must be no job."""

    revision: int | None = None
    absent: bool = False

    def check(self, job: StoredJob | None) -> None:
        """Raises `PreconditionFailed` if the job is not as required."""
        stored = None if job is None or job.state is JobState.DELETED else job
        if self.absent and stored is not None:
            raise PreconditionFailed("the job exists already")
        if self.revision is not None and (stored is None or stored.revision != self.revision):
            now = "does not exist" if stored is None else f"is at revision {stored.revision}"
            raise PreconditionFailed(f"the job {now}: read it again and repeat the change on what it is now")


NO_PRECONDITION = Precondition()


def new_stamp(now_ms: int) -> ChangeStamp:
    """The time and the unique names of one change made now."""
    return ChangeStamp(now_ms, uuid.uuid4().hex, uuid.uuid4().hex)


def new_job_id(now_ms: int) -> str:
    """Unique, and ascending in time so that a large import appends to the index."""
    return f"{now_ms:011x}{secrets.token_hex(8)}"


async def create(db: Database, job_id: str, wanted: WantedJob, now_ms: int, *, repeated: bool = False) -> StoredJob:
    """Create a job. Raises `Conflict` if the id is taken.

    `repeated`: an earlier request may have created it; then `Conflict` is raised only if the stored job is another one.
    """
    wanted = await with_calendar(db, wanted)
    try:
        job, _ = await put(db, job_id, wanted, now_ms, Precondition(absent=True))
    except PreconditionFailed as exc:
        stored = await jobs.get(db, job_id) if repeated else None
        if stored is not None and stored.definition == wanted.resolve(None):
            return stored
        raise Conflict(f"the job '{job_id}' exists already; change it with PUT or PATCH") from exc
    return job


async def put(
    db: Database,
    job_id: str,
    wanted: WantedJob,
    now_ms: int,
    precondition: Precondition = NO_PRECONDITION,
    likely_links: Mapping[str, str | None] = chains.NO_LINKS,
) -> tuple[StoredJob, bool]:
    """Create or replace the job. Returns it, and whether it was created. `likely_links`: as of `chains.link`."""
    wanted = await with_calendar(db, wanted)

    def decide(old: StoredJob | None, stamp: ChangeStamp) -> JobChange | None:
        return define_in_state(old, job_id, wanted.resolve(stored_secrets(old)), stamp, wanted.state, wanted.pause)

    await require_alert_channels(db, wanted.alert_channels)
    await require_callback_channels(db, wanted.callback_channels)
    before, after = await change_job(db, job_id, decide, now_ms, precondition, likely_links)
    return after, before is None or before.state is JobState.DELETED


def stored_secrets(old: StoredJob | None) -> Definition | None:
    """The definition whose secrets a request may keep; None if there is no job."""
    return None if old is None or old.state is JobState.DELETED else old.definition


async def patch(
    db: Database,
    job_id: str,
    revise: Callable[[Definition], WantedJob],
    named_channels: Sequence[str],
    now_ms: int,
    precondition: Precondition = NO_PRECONDITION,
) -> StoredJob:
    """Change the job to what `revise` makes of its definition. `named_channels`: the ones that the request names."""
    await require_alert_channels(db, named_channels)
    days: dict[str, ExcludedDays] = {}

    def decide(old: StoredJob | None, stamp: ChangeStamp) -> JobChange | None:
        job = require_job(old, job_id)
        wanted = revise(job.definition)
        if wanted.calendar_name is not None and wanted.calendar_name not in days:
            raise _DaysNeeded(wanted.calendar_name, job.definition.calendar)
        wanted = wanted.with_days(days)
        return define_in_state(job, job_id, wanted.resolve(stored_secrets(job)), stamp, wanted.state, wanted.pause)

    for _ in range(RACES):
        try:
            return (await change_job(db, job_id, decide, now_ms, precondition))[1]
        except _DaysNeeded as needed:  # which calendar it is, is known only of the job as it is now
            days |= await calendars.days_of(db, [needed.name])
            if needed.name not in days and (kept := _days_kept(needed.name, needed.kept)) is not None:
                days[needed.name] = kept
            if needed.name not in days:
                raise InvalidInput([unknown_calendar(needed.name)]) from None
    raise Conflict(f"job '{job_id}' was changed by other requests {RACES} times while this change was made")


class _DaysNeeded(Exception):
    """The days of this calendar must be looked up first. `kept`: the one that the job has now."""

    def __init__(self, name: str, kept: JobCalendar | None) -> None:
        super().__init__()
        self.name, self.kept = name, kept


def with_days_of(wanted: WantedJob, old: Definition, days: Mapping[str, ExcludedDays]) -> WantedJob:
    """The job as a patch makes it of `old`, with the days of its calendar. Raises `InvalidInput` if that does not exist."""
    name = wanted.calendar_name
    kept = None if name is None or name in days else _days_kept(name, old.calendar)
    return wanted.with_days(days if name is None or kept is None else {name: kept})


def _days_kept(name: str, calendar: JobCalendar | None) -> ExcludedDays | None:
    """A job that was written while its calendar was deleted keeps the days of that."""
    return None if calendar is None or calendar.name != name else calendar.days


async def with_calendar(db: Database, wanted: WantedJob) -> WantedJob:
    """The job with the days of the calendar that it names, as they are now. Raises `InvalidInput` if that does not exist.

    The calendar may change before the job is written. Then the leader finds that the job carries other days, as it finds
    all others of this calendar.
    """
    name = wanted.calendar_name
    return wanted if name is None else wanted.with_days(await calendars.days_of(db, [name]))


async def require_channels(db: Database, named: Mapping[str, Iterable[str]]) -> None:
    """Raises `InvalidInput` for channels that do not exist. `named` maps the path of alert rules to their channels."""
    wanted = {name for names in named.values() for name in names}
    if not wanted:
        return
    existing = await channels.existing_names(db, wanted)
    missing = [
        unknown_channel(f"{path}.channels.{i}".lstrip("."), name)
        for path, names in named.items()
        for i, name in enumerate(names)
        if name not in existing
    ]
    if missing:
        raise InvalidInput(missing)


async def require_alert_channels(db: Database, names: Sequence[str]) -> None:
    """Raises `InvalidInput` for channels of a job's alert rules that do not exist."""
    await require_channels(db, {"alerts": names})


async def require_callback_channels(db: Database, named: Mapping[str, str]) -> None:
    """Raises `InvalidInput` for channels of callbacks that do not exist. `named`: by the field."""
    existing = await channels.existing_names(db, set(named.values())) if named else set()
    missing = [unknown_channel(path, name) for path, name in named.items() if name not in existing]
    if missing:
        raise InvalidInput(missing)


def unknown_channel(path: str, name: str) -> Fault:
    """The fault of a field that names a channel that does not exist."""
    return Fault(path, f"there is no channel '{name}': make it with PUT /channels/{name}")


async def pause(
    db: Database,
    job_id: str,
    now_ms: int,
    precondition: Precondition = NO_PRECONDITION,
    wanted: WantedPause = PAUSE_AS_IT_IS,
) -> StoredJob:
    """Pause the job: it owes no occurrences from now on, or until the end that is wanted."""

    def decide(old: StoredJob | None, stamp: ChangeStamp) -> JobChange | None:
        return changes.pause(require_job(old, job_id), stamp, wanted=wanted)

    return (await change_job(db, job_id, decide, now_ms, precondition))[1]


async def pause_for_gone_target(db: Database, sent: Job, now_ms: int, reason: str) -> bool:
    """Pause a job whose target answered 410. `sent` is the job as it was sent.

    False if the job has another target by now, or does not run.
    """

    def decide(old: StoredJob | None, stamp: ChangeStamp) -> JobChange | None:
        job = require_job(old, sent.id)
        if job.state is not JobState.ACTIVE or job.definition.url != sent.target.url:
            return None
        return changes.pause(job, stamp, reason)

    try:
        before, after = await change_job(db, sent.id, decide, now_ms, NO_PRECONDITION)
    except CallerError:  # it was deleted, or it changes all the time: then the next 410 pauses it
        return False
    return before is not None and before.revision != after.revision


async def resume(db: Database, job_id: str, now_ms: int, precondition: Precondition = NO_PRECONDITION) -> StoredJob:
    """Resume the job: it owes its occurrences from now on."""

    def decide(old: StoredJob | None, stamp: ChangeStamp) -> JobChange | None:
        return changes.resume(require_job(old, job_id), stamp)

    return (await change_job(db, job_id, decide, now_ms, precondition))[1]


async def delete(db: Database, job_id: str, now_ms: int, precondition: Precondition = NO_PRECONDITION) -> None:
    """Delete the job; its document stays as a tombstone."""

    def decide(old: StoredJob | None, stamp: ChangeStamp) -> JobChange | None:
        return changes.delete(require_job(old, job_id), stamp)

    await change_job(db, job_id, decide, now_ms, precondition)


def require_job(job: StoredJob | None, job_id: str) -> StoredJob:
    """The job. Raises `NotFound` if there is none, or only a tombstone."""
    if job is None or job.state is JobState.DELETED:
        raise NotFound(f"there is no job '{job_id}'")
    return job


async def change_job(
    db: Database,
    job_id: str,
    decide: Decision,
    now_ms: int,
    precondition: Precondition,
    likely_links: Mapping[str, str | None] = chains.NO_LINKS,
) -> tuple[StoredJob | None, StoredJob]:
    """Read the job, decide, write on the revision that was read. Returns the job before and after.

    Raises what `decide` raises, `PreconditionFailed`, and `Conflict` if other requests were faster `RACES` times.
    """
    time = chains.RequestTime.begin(now_ms)
    for _ in range(RACES):
        old = await jobs.get(db, job_id)
        if old is not None and (over := changes.end_pause(old, new_stamp(now_ms))) is not None:
            # No leader has resumed it yet. Decided on the paused job, the change would take what it owes since then.
            with acting(HORAE):
                await pauses.end(db, [over])
            continue
        precondition.check(old)
        change = decide(old, new_stamp(now_ms))
        if change is None:
            return old, require_job(old, job_id)
        change = replace(change, before=old, is_whole=True)
        await chains.require_version(db, change)
        await record_retention(db, [change])
        if await _write(db, old, change, time, likely_links):
            return old, change.job
    raise Conflict(f"job '{job_id}' was changed by other requests {RACES} times while this change was made")


async def _write(
    db: Database,
    old: StoredJob | None,
    change: JobChange,
    time: chains.RequestTime,
    likely_links: Mapping[str, str | None],
) -> bool:
    """Write the change. False: another request was faster. Raises `InvalidInput` for a job that it may not run after."""
    link = await chains.link(db, old, change, time, likely_links)
    if link is not None and not link.is_fresh:
        return False
    if old is None:
        links = await chain_links.links_of_created(db, [change.job.id], time.now_ms())
        written = await jobs.insert(db, change, links.get(change.job.id))
    else:
        written = await jobs.update(db, change)
    if link is not None:
        await (chains.confirm(db, link) if written else chains.withdraw(db, link))
    return written


async def record_retention(db: Database, job_changes: Sequence[JobChange]) -> None:
    """Record a shorter retention before any execution is kept under it: searches by time rely on the shortest one."""
    days = [c.job.definition.retention_days for c in job_changes if c.job.definition.retention_days is not None]
    if days:
        await meta.record_retention(db, min(days))
