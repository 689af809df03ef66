"""When a job owed occurrences: its active periods, with one schedule each, and the idle periods between them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from cluster.core.lifecycle import JobState
from cluster.core.schedule.calendar_days import excluded_day
from cluster.core.schedule.fixed_times import AFTER_KEY
from cluster.core.schedule.schedule import parse_schedule, schedule_from_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.job.definition import StoredJob
    from cluster.core.schedule.calendar_days import Exclusion
    from cluster.core.schedule.schedule import Schedule

SEAM_MS = 1000
"""A new schedule takes effect at most this long after the one before it ended (`@every` starts at a whole second). A
shorter gap is no pause.
"""


@dataclass(frozen=True, slots=True)
class ActivePeriod:
    """One schedule and the time (ms) it was in effect: from `from_ms` to before `to_ms`; None: it still is."""

    version: str
    schedule: str
    timezone: str
    anchor_ms: int | None
    start_ms: int | None
    end_ms: int | None
    from_ms: int
    to_ms: int | None
    ended_by: str = ""
    """`change`, `pause` or `delete`; empty: it still holds, or a release ended it that did not store this."""
    calendar: str = ""
    """The name of its calendar; empty: it has none."""
    exclusion: Exclusion | None = None
    """What that leaves out or moves."""

    @property
    def parsed(self) -> Schedule:
        """The parsed schedule."""
        if not self.schedule:  # it ran after another job
            return schedule_from_key(AFTER_KEY)
        return parse_schedule(self.schedule, self.timezone, self.anchor_ms or 0).excluding(self.exclusion)

    def excluded_day(self, at_ms: int) -> str | None:
        """The day of an instant, in words, if the calendar excludes it and the schedule alone would be due then."""
        if self.exclusion is None or not self.parsed.regular.is_occurrence(at_ms):
            return None
        return excluded_day(self.exclusion, at_ms)

    def owes(self, due_ms: int) -> bool:
        """Whether the instant is between `startAt` and `endAt`."""
        return (self.start_ms is None or due_ms >= self.start_ms) and (self.end_ms is None or due_ms <= self.end_ms)

    def last_before(self, before_ms: int, now_ms: int) -> int | None:
        """The last occurrence of this period before an instant. None if there is none in the two years before it.

        A schedule can only be asked for the next occurrence, so this searches backwards in growing windows.
        """
        low = max(self.from_ms, self.start_ms or 0)
        end = min(before_ms, now_ms + 1, *((self.end_ms + 1,) if self.end_ms is not None else ()))
        width = 1000
        while end > low:
            start = max(low, end - width)
            occurrences = self.parsed.between(start, end, 5000)
            if occurrences and len(occurrences) < 5000:
                return occurrences[-1]
            if occurrences:  # the limit cut off the last ones: search a later window
                width = max(1000, width // 4)
                continue
            end, width = start, min(width * 4, 86_400_000 * 200)
            if before_ms - end > 86_400_000 * 731:
                return None
        return None


@dataclass(frozen=True, slots=True)
class IdlePeriod:
    """A time in which the job owed nothing. `from_ms` None: it did not exist before. `to_ms` None: it is idle now."""

    from_ms: int | None
    to_ms: int | None


def active_periods(job: StoredJob, past: Sequence[ActivePeriod]) -> list[ActivePeriod]:
    """All active periods, the oldest first. The present one is the last, if the job owes anything now."""
    periods = list(past)
    if job.state in (JobState.ACTIVE, JobState.COMPLETED):
        d = job.definition
        present = ActivePeriod(
            version=job.schedule_version,
            schedule=d.schedule,
            timezone=d.timezone,
            anchor_ms=job.anchor_ms,
            start_ms=d.start_ms,
            end_ms=d.end_ms,
            from_ms=job.active_from_ms,
            to_ms=None,
            calendar="" if d.calendar is None else d.calendar.name,
            exclusion=d.exclusion,
        )
        periods.append(present)
    return periods


def period_at(periods: Sequence[ActivePeriod], at_ms: int) -> ActivePeriod | IdlePeriod:
    """The period of an instant."""
    for period in periods:
        if period.from_ms <= at_ms and (period.to_ms is None or at_ms < period.to_ms):
            return period
    before = [p for p in periods if p.to_ms is not None and p.to_ms <= at_ms]
    after = [p for p in periods if p.from_ms > at_ms]
    idle = IdlePeriod(before[-1].to_ms if before else None, after[0].from_ms if after else None)
    if idle.from_ms is not None and idle.to_ms is not None and idle.to_ms - idle.from_ms <= SEAM_MS:
        return after[0]
    return idle


def schedule_changes(periods: Sequence[ActivePeriod], from_ms: int, to_ms: int) -> list[tuple[int, str]]:
    """The changes of the schedule in that time, as sentences with their instants."""
    sentences: list[tuple[int, str]] = []
    for a, b in pairwise(periods):
        if a.to_ms is None or not from_ms <= a.to_ms <= to_ms:
            continue
        sentences.append((a.to_ms, _ENDED_BY.get(a.ended_by) or _change_text(a, b)))
    if periods and (last := periods[-1]).to_ms is not None and from_ms <= last.to_ms <= to_ms:
        sentences.append((last.to_ms, _ENDED_BY.get(last.ended_by, _STOPPED)))
    return sentences


_STOPPED = "the job was paused or deleted"
_ENDED_BY = {"pause": "the job was paused", "delete": "the job was deleted"}


def _change_text(a: ActivePeriod, b: ActivePeriod) -> str:
    if not a.ended_by and a.to_ms is not None and b.from_ms - a.to_ms > SEAM_MS:
        return _STOPPED
    if schedule_text(a) == schedule_text(b) and a.calendar == b.calendar and a.calendar and a.exclusion != b.exclusion:
        return f"the calendar '{a.calendar}', or what becomes of excluded occurrences, was changed"
    if schedule_text(a) == schedule_text(b) and a.calendar != b.calendar:
        return "the calendar of the job was " + (f"changed to '{b.calendar}'" if b.calendar else "removed")
    if schedule_text(a) == schedule_text(b):
        return "the startAt or the endAt of the job was changed"
    return f"the job was changed: from `{schedule_text(a)}` to `{schedule_text(b)}`"


def schedule_text(period: ActivePeriod) -> str:
    """The schedule as its user wrote it, with its time zone unless that is UTC."""
    if not period.schedule:
        return "after another job"
    return period.schedule if period.timezone == "UTC" else f"{period.schedule} {period.timezone}"
