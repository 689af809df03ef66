"""The effect of a request on a job, as a table of states. The store writes the result as one document.

    absent, deleted --define--> active
    active, paused  --define--> same state; a new schedule version if its timing changed its meaning
    completed       --define--> active if its timing changed its meaning, else completed
    active          --pause---> paused --resume--> active (a new version: the job owes nothing for the pause)
    paused          --until---> active, as of the end of its pause (the job owes what falls due from then on)
    any             --delete--> deleted (the document stays as a tombstone until the leader has settled it)

A function returns None if nothing changes, so that a request may be repeated. Schedules are compared by their meaning:
a time zone under another name, or `24h` for `1d`, leaves the version and the grid of an interval as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cluster.core.errors import Conflict, Fault, InvalidInput
from cluster.core.instants import format_instant
from cluster.core.job.definition import (
    PAUSE_AS_IT_IS,
    UNTIL_RESUMED,
    Definition,
    JobChange,
    PastSchedule,
    PauseTerms,
    StoredJob,
    WantedPause,
)
from cluster.core.lifecycle import JobState
from cluster.core.schedule.fixed_times import AFTER_KEY
from cluster.core.schedule.schedule import Schedule, parse_schedule, schedule_from_key

if TYPE_CHECKING:
    from cluster.core.schedule.calendar_days import ExcludedDays

LONGEST_PAUSE_MS = 366 * 86_400_000
"""A pause that ends by itself ends within a year."""


@dataclass(frozen=True, slots=True)
class ChangeStamp:
    """The time of a change (cluster time, ms), and the unique ids that it may use."""

    now_ms: int
    version: str
    change_id: str


def define(old: StoredJob | None, job_id: str, wanted: Definition, at: ChangeStamp) -> JobChange | None:
    """Create the job, create it after it was deleted, or replace its definition. Raises `InvalidInput` if it would never
    run.
    """
    if old is None or old.state is JobState.DELETED:
        return JobChange(_fresh(old, job_id, wanted, at), change_id=at.change_id)
    if wanted == old.definition:
        return None
    if not _has_same_timing(old, wanted):
        return _retimed(old, wanted, at)
    # Executions that are materialised already stay as they are, and later ones are made from the job as it is then. So
    # there is nothing to settle, and a change id would make the leader compute everything owed since `active_from` again.
    codes_ms = _codes_ms(old, wanted, at)
    job = replace(
        old, definition=wanted, revision=old.revision + 1, updated_ms=at.now_ms, success_codes_since_ms=codes_ms
    )
    return JobChange(job)


def pause(
    old: StoredJob, at: ChangeStamp, reason: str | None = None, wanted: WantedPause = PAUSE_AS_IT_IS
) -> JobChange | None:
    """The job owes nothing from now on, or until the end that is wanted. Users see `reason` with the job.

    A job that is paused gets the terms that are wanted. Raises `Conflict` for a job that has ended, `InvalidInput` for an
    end that is not within a year from now.
    """
    if old.state is JobState.PAUSED:
        return with_terms(old, None, wanted, at)
    if old.state is not JobState.ACTIVE:
        raise Conflict(f"the job is {old.state} and cannot be paused")
    terms = _checked_terms(UNTIL_RESUMED, wanted, at)
    job = replace(
        old,
        state=JobState.PAUSED,
        state_reason=reason,
        pause=terms,
        revision=old.revision + 1,
        updated_ms=at.now_ms,
    )
    return JobChange(job, _past(old, at, "pause"), at.change_id)


def with_terms(
    old: StoredJob | None, change: JobChange | None, wanted: WantedPause, at: ChangeStamp
) -> JobChange | None:
    """The change, and the terms of the pause that are wanted. Raises `InvalidInput` if the job is not paused after it."""
    job = old if change is None else change.job
    if job is None:
        return change
    if job.state is not JobState.PAUSED:
        faults = [
            Fault(field, 'is only for a job that is paused: add "state": "paused", or remove it')
            for field, value in ((wanted.until_field, wanted.until_ms), (wanted.reason_field, wanted.reason))
            if value is not None
        ]
        if faults:
            raise InvalidInput(faults)
        return change
    terms = _checked_terms(job.pause, wanted, at)
    if terms == job.pause:
        return change
    if change is not None:
        return replace(change, job=replace(job, pause=terms))
    return JobChange(replace(job, pause=terms, revision=job.revision + 1, updated_ms=at.now_ms))


def _checked_terms(stored: PauseTerms, wanted: WantedPause, at: ChangeStamp) -> PauseTerms:
    terms = wanted.resolve(stored)
    until_ms = terms.until_ms
    if until_ms is not None and until_ms != stored.until_ms:
        if until_ms <= at.now_ms:
            raise InvalidInput([Fault(wanted.until_field, "is in the past: name a later time, or resume the job")])
        if until_ms > at.now_ms + LONGEST_PAUSE_MS:
            latest = format_instant(at.now_ms + LONGEST_PAUSE_MS)
            message = f"is more than a year ahead (the latest is {latest}): leave it out to pause until a resume"
            raise InvalidInput([Fault(wanted.until_field, message)])
    return terms


def end_pause(old: StoredJob, at: ChangeStamp) -> JobChange | None:
    """The pause of the job has ended: it owes its occurrences again, those from the end of the pause on.

    None if the job is not paused, or not yet to be resumed. Whoever does it, and however late, the result is the same. A
    job whose schedule has ended meanwhile is completed by the leader, as every active one.
    """
    until_ms = old.pause.until_ms
    if old.state is not JobState.PAUSED or until_ms is None or until_ms > at.now_ms:
        return None
    job = replace(
        old,
        state=JobState.ACTIVE,
        state_reason=None,
        pause=UNTIL_RESUMED,
        schedule_version=at.version,
        active_from_ms=max(until_ms, old.active_from_ms),
        revision=old.revision + 1,
        updated_ms=max(at.now_ms, old.updated_ms),
    )
    return JobChange(job, change_id=at.change_id, before=old, is_whole=True)


def resume(old: StoredJob, at: ChangeStamp) -> JobChange | None:
    """The job owes its occurrences again, from now on. Raises `Conflict` if its schedule has no occurrence left."""
    if old.state is JobState.ACTIVE:
        return None
    if old.state is not JobState.PAUSED:
        raise Conflict(f"the job is {old.state}: give it a schedule or an endAt in the future")
    chained = old.definition.after is not None
    if not chained and first_run(schedule_of(old.definition, old.anchor_ms), old.definition, at.now_ms) is None:
        raise Conflict("its schedule has no occurrence left: give it a schedule or an endAt in the future")
    job = replace(
        old,
        state=JobState.ACTIVE,
        state_reason=None,
        pause=UNTIL_RESUMED,
        schedule_version=at.version,
        active_from_ms=at.now_ms + 1,
        revision=old.revision + 1,
        updated_ms=at.now_ms,
    )
    return JobChange(job, change_id=at.change_id)


def delete(old: StoredJob, at: ChangeStamp) -> JobChange | None:
    """The job owes nothing, and users do not see it any more. What is in flight ends, so it keeps its callbacks for a while."""
    if old.state is JobState.DELETED:
        return None
    d = old.definition
    job = replace(
        old,
        definition=replace(d.without_secrets(), on_success=d.on_success, on_failure=d.on_failure),
        state=JobState.DELETED,
        pause=UNTIL_RESUMED,
        revision=old.revision + 1,
        updated_ms=at.now_ms,
    )
    return JobChange(job, _past(old, at, "delete") if old.state is not JobState.PAUSED else None, at.change_id)


def follow_calendar(old: StoredJob, days: ExcludedDays, at: ChangeStamp) -> JobChange | None:
    """The calendar that the job names excludes these days now. A new schedule version, as by a change of the definition.

    It is no fault if the job has no occurrence left by that: who changes a calendar does not ask for each of its jobs.
    None if nothing changes, or if the job has ended or names no calendar.
    """
    calendar = old.definition.calendar
    if calendar is None or calendar.days == days or old.state not in (JobState.ACTIVE, JobState.PAUSED):
        return None
    wanted = replace(old.definition, calendar=replace(calendar, days=days))
    if _has_same_timing(old, wanted):
        return define(old, old.id, wanted, at)
    return _retimed(old, wanted, at, must_run=False)


def schedule_of(definition: Definition, anchor_ms: int | None) -> Schedule:
    """The schedule of a checked definition."""
    if definition.after is not None:
        return schedule_from_key(AFTER_KEY)
    regular = parse_schedule(definition.schedule, definition.timezone, anchor_ms or 0)
    return regular.excluding(definition.exclusion)


def first_run(schedule: Schedule, definition: Definition, now_ms: int) -> int | None:
    """The first occurrence after `now_ms` between its startAt and its endAt. None if there is none."""
    first = schedule.next_after(max(now_ms, (definition.start_ms or 0) - 1))
    return None if first is None or (definition.end_ms is not None and first > definition.end_ms) else first


def _has_same_timing(old: StoredJob, wanted: Definition) -> bool:
    """Whether the job owes the same occurrences by both definitions, however they are written."""
    before = old.definition
    if wanted.timing == before.timing:
        return True
    same_bounds = wanted.timing[2:4] == before.timing[2:4] and wanted.after == before.after
    return same_bounds and _has_same_schedule(old, wanted)


def _has_same_schedule(old: StoredJob, wanted: Definition) -> bool:
    """The same without `startAt` and `endAt`, if an interval keeps its anchor."""
    return schedule_of(wanted, old.anchor_ms).means_the_same_as(schedule_from_key(old.schedule_key))


def _past(old: StoredJob, at: ChangeStamp, ended_by: str) -> PastSchedule:
    # The zone may have been written in another way since the key was made. Nodes of the release before make the key
    # of the period from its text, and look for its row under that key.
    schedule = schedule_from_key(old.schedule_key)
    zone, is_cron = schedule.timezone, schedule.kind == "cron"
    return PastSchedule(
        schedule_version=old.schedule_version,
        schedule_key=old.schedule_key,
        definition=replace(old.definition, timezone=zone) if is_cron else old.definition,
        anchor_ms=old.anchor_ms,
        from_ms=old.active_from_ms,
        to_ms=at.now_ms,
        ended_by=ended_by,
        change_id=old.change_id,
    )


def _fresh(old: StoredJob | None, job_id: str, wanted: Definition, at: ChangeStamp) -> StoredJob:
    if old is not None:  # by another node's clock; what is older than the creation belongs to the deleted job
        at = replace(at, now_ms=max(at.now_ms, old.updated_ms))
    anchor, schedule, from_ms = _anchored(wanted, at.now_ms, None)
    _must_run(schedule, wanted, from_ms - 1)
    return StoredJob(
        id=job_id,
        definition=wanted,
        state=JobState.ACTIVE,
        revision=1 if old is None else old.revision + 1,
        anchor_ms=anchor,
        schedule_key=schedule.key,
        schedule_version=at.version,
        active_from_ms=from_ms,
        ends_ms=_ends(schedule, wanted),
        created_ms=at.now_ms,
        updated_ms=at.now_ms,
        success_codes_since_ms=at.now_ms,
    )


def _codes_ms(old: StoredJob, wanted: Definition, at: ChangeStamp) -> int | None:
    return old.success_codes_since_ms if wanted.success_codes == old.definition.success_codes else at.now_ms


def _retimed(old: StoredJob, wanted: Definition, at: ChangeStamp, *, must_run: bool = True) -> JobChange:
    same_grid = wanted.start_ms == old.definition.start_ms and _has_same_schedule(old, wanted)
    kept = old.anchor_ms if same_grid else None
    anchor, schedule, from_ms = _anchored(wanted, at.now_ms, kept)
    if must_run:
        _must_run(schedule, wanted, from_ms - 1)
    job = replace(
        old,
        definition=wanted,
        state=JobState.PAUSED if old.state is JobState.PAUSED else JobState.ACTIVE,
        state_reason=old.state_reason if old.state is JobState.PAUSED else None,
        revision=old.revision + 1,
        anchor_ms=anchor,
        schedule_key=schedule.key,
        schedule_version=at.version,
        active_from_ms=from_ms,
        ends_ms=_ends(schedule, wanted),
        updated_ms=at.now_ms,
        success_codes_since_ms=_codes_ms(old, wanted, at),
    )
    # The period of a paused job ended with the pause and is stored already.
    return JobChange(job, None if old.state is JobState.PAUSED else _past(old, at, "change"), at.change_id)


def _anchored(wanted: Definition, now_ms: int, kept: int | None) -> tuple[int | None, Schedule, int]:
    """The anchor of an interval, the schedule, and the instant (ms) from which the job owes its occurrences.

    An interval without a startAt counts from its creation (the next whole second). The creation itself is no occurrence.
    """
    fresh = -(-now_ms // 1000) * 1000
    anchor = wanted.start_ms if wanted.start_ms is not None else kept if kept is not None else fresh
    schedule = schedule_of(wanted, anchor)
    if schedule.kind != "every":
        return None, schedule, now_ms + 1
    return anchor, schedule, (fresh if wanted.start_ms is None and kept is None else now_ms) + 1


def _ends(schedule: Schedule, wanted: Definition) -> int | None:
    if schedule.kind != "at":
        return wanted.end_ms
    at_ms = schedule.next_after(0)
    # A calendar may leave out the only time of a one-off job: then it ends when it would have run.
    return schedule.regular.next_after(0) if at_ms is None else at_ms


def _must_run(schedule: Schedule, wanted: Definition, now_ms: int) -> None:
    if schedule.kind != "at" and wanted.end_ms is None:
        return  # cron and intervals never end; an expression that never fires was refused when it was parsed
    if first_run(schedule, wanted, now_ms) is None:
        if first_run(schedule.regular, wanted, now_ms) is not None:
            raise InvalidInput([Fault("calendar", "excludes every occurrence that is left: the job would never run")])
        if schedule.kind == "at" and wanted.start_ms is None and wanted.end_ms is None:
            raise InvalidInput([Fault("schedule", "is in the past: the job would never run")])
        if wanted.end_ms is not None and wanted.end_ms <= now_ms:
            raise InvalidInput([Fault("endAt", "is in the past: the job would never run")])
        raise InvalidInput([Fault("schedule", "has no occurrence left before endAt: the job would never run")])
