"""When a job owed what: its life as spans of time under one schedule each, with the pauses between them.

Pure: made from the job and the periods its earlier schedules held.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from cluster.core.lifecycle import JobState
from cluster.core.schedule.schedule import parse_schedule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.job.definition import StoredJob
    from cluster.core.schedule.schedule import Schedule

SEAM_MS = 1000
"""A change begins at most so long after the schedule before it ended (`@every` begins on a whole second): no pause."""


@dataclass(frozen=True, slots=True)
class ActivePeriod:
    """One schedule and the time it held, ms: from `from_ms` to before `to_ms` (None: it still holds)."""

    version: str
    schedule: str
    timezone: str
    anchor_ms: int | None
    start_ms: int | None
    end_ms: int | None
    from_ms: int
    to_ms: int | None

    @property
    def parsed(self) -> Schedule:
        """The schedule to compute with."""
        return parse_schedule(self.schedule, self.timezone, self.anchor_ms or 0)

    def owes(self, due_ms: int) -> bool:
        """Whether `startAt` and `endAt` let an occurrence at this instant be owed."""
        return (self.start_ms is None or due_ms >= self.start_ms) and (self.end_ms is None or due_ms <= self.end_ms)

    def last_before(self, before_ms: int, now_ms: int) -> int | None:
        """The last occurrence this span owed before an instant that is past; None if there is none to be found.

        It is looked for in windows that double, for up to two years back: schedules can only be asked what comes next.
        """
        low = max(self.from_ms, self.start_ms or 0)
        end = min(before_ms, now_ms + 1, *((self.end_ms + 1,) if self.end_ms is not None else ()))
        width = 1000
        while end > low:
            start = max(low, end - width)
            found = self.parsed.between(start, end, 5000)
            if found and len(found) < 5000:
                return found[-1]
            if found:  # more than fit: the last ones lie in the later half
                width = max(1000, width // 4)
                continue
            end, width = start, min(width * 4, 86_400_000 * 200)
            if before_ms - end > 86_400_000 * 731:
                return None
        return None


@dataclass(frozen=True, slots=True)
class IdlePeriod:
    """A time in which the job owed nothing. `from_ms` None: it did not exist; `to_ms` None: that lasts."""

    from_ms: int | None
    to_ms: int | None


def active_periods(job: StoredJob, past: Sequence[ActivePeriod]) -> list[ActivePeriod]:
    """Every span, the oldest first; the present one is last if the job owes anything now."""
    spans = list(past)
    if job.state in (JobState.ACTIVE, JobState.COMPLETED):
        d = job.definition
        spans.append(
            ActivePeriod(
                job.schedule_version,
                d.schedule,
                d.timezone,
                job.anchor_ms,
                d.start_ms,
                d.end_ms,
                job.active_from_ms,
                None,
            )
        )
    return spans


def period_at(spans: Sequence[ActivePeriod], at_ms: int) -> ActivePeriod | IdlePeriod:
    """What held at an instant."""
    for span in spans:
        if span.from_ms <= at_ms and (span.to_ms is None or at_ms < span.to_ms):
            return span
    before = [s for s in spans if s.to_ms is not None and s.to_ms <= at_ms]
    after = [s for s in spans if s.from_ms > at_ms]
    gap = IdlePeriod(before[-1].to_ms if before else None, after[0].from_ms if after else None)
    if gap.from_ms is not None and gap.to_ms is not None and gap.to_ms - gap.from_ms <= SEAM_MS:
        return after[0]
    return gap


def schedule_changes(spans: Sequence[ActivePeriod], from_ms: int, to_ms: int) -> list[tuple[int, str]]:
    """What happened to the schedule in that time, as sentences with their instants."""
    told: list[tuple[int, str]] = []
    for a, b in pairwise(spans):
        if a.to_ms is None or not from_ms <= a.to_ms <= to_ms:
            continue
        if b.from_ms - a.to_ms <= SEAM_MS:
            told.append((a.to_ms, f"the job was changed: from `{schedule_text(a)}` to `{schedule_text(b)}`"))
        else:
            told.append((a.to_ms, "the job was paused (or deleted)"))
    if spans and (last := spans[-1]).to_ms is not None and from_ms <= last.to_ms <= to_ms:
        told.append((last.to_ms, "the job was paused (or deleted)"))
    return told


def schedule_text(span: ActivePeriod) -> str:
    """The schedule as its user wrote it, with its zone unless that is UTC and its bounds if there are any."""
    return span.schedule if span.timezone == "UTC" else f"{span.schedule} {span.timezone}"
