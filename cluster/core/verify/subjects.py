"""What `horae verify` compares, as values: jobs with their periods, missed ranges, and the bounds of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.core.verify.calendars import occurrences_with

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.core.verify.records import BatchLeaseTimings
    from cluster.core.verify.windows import WindowRule


MAX_RETRY_WAIT_SECONDS = 2 * 86_400.0
"""The longest wait between two attempts that a job can have: a day, doubled by the largest jitter."""
REREAD_MS = 30_000
"""A job may still be sent by its earlier definition for so long after a change: the write of the change may take the API's
deadline, and a job that a node has read is sent or skipped within the lease of its batch.
"""


@dataclass(frozen=True, slots=True)
class OwedPeriod:
    """One schedule of a job and the time it was in effect: from `from_ms` to `to_ms`, both included. None: it still is."""

    version: str
    schedule: str
    timezone: str
    anchor_ms: int | None
    start_ms: int | None
    end_ms: int | None
    from_ms: int
    to_ms: int | None
    ended_by: str = ""
    """`change`, `pause` or `delete`; empty: it is still in effect, or unknown."""
    calendar: str | None = None
    """The excluded days, as they are written in the key of the schedule. None: there are none."""

    def dues(self, since_ms: int, until_ms: int) -> Iterator[int]:
        """The occurrences t with `since_ms <= t <= until_ms` between `startAt` and `endAt`, whether or not the schedule
        was in effect then.
        """
        if not self.schedule:  # it runs after another job
            return iter(())
        low = max(since_ms, self.start_ms or 0)
        high = until_ms if self.end_ms is None else min(until_ms, self.end_ms)
        return occurrences_with(self.calendar, self.schedule, self.timezone, self.anchor_ms or 0, low, high + 1)


@dataclass(frozen=True, slots=True)
class VerifiedJob:
    """A job with all its periods, the oldest first, and how far the leader has materialised it."""

    id: str
    periods: tuple[OwedPeriod, ...]
    spread_seconds: int = 0
    retention_days: float | None = None
    unsettled_ms: int | None = None
    """The time of the change that the leader has not settled yet. None: all are settled."""
    known_from_ms: int = 0
    """Periods before this instant are no longer stored."""
    written_to_ms: int | None = None
    """The row of its present schedule: occurrences from this instant on are not materialised yet. None: no row."""
    catching_up: tuple[tuple[int, int], ...] = ()
    """Ranges `from <= t < to` whose catch-up is in progress."""
    exists: bool = True
    is_message: bool = False
    """It is a message: its one execution has no job."""
    success_codes: frozenset[int] | None = None
    """The statuses that it counts as success. None: 2xx."""
    overlap_skip: bool = False
    catch_up: str = "none"
    catch_up_window_ms: int = 3_600_000
    longest_wait_s: float = MAX_RETRY_WAIT_SECONDS
    """Its longest wait between two attempts, including jitter and `Retry-After`."""
    defined_ms: int = 0
    """Requests from this instant on were sent by its present definition. Of earlier ones only the timing is stored."""
    success_codes_since_ms: int | None = None
    """The same for its `successCodes`. None: unknown, so that `defined_ms` counts."""
    created_ms: int = 0
    """Periods that ended before belong to a job of the same id that was deleted."""
    deleted_ms: int | None = None
    """When it was deleted. None: it was not."""
    windows: tuple[WindowRule, ...] = ()
    """The maintenance windows that are about it, by what it is now."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The occurrences to verify, `since_ms <= due <= until_ms`, at the time `now_ms`; and from when on one is late."""

    since_ms: int
    until_ms: int
    now_ms: int
    late_ms: int
    configured_days: float
    """The retention of jobs without one of their own."""
    shortest_days: float
    """The shortest retention that was ever in effect, as far as known."""
    lease: BatchLeaseTimings
    doubts: tuple[tuple[int, int, int], ...] = ()
    """When the primary's clock was in doubt, and by how much it was wrong: `(since, until, by)`, ms."""

    def doubt_at(self, at_ms: int) -> str | None:
        """The doubt of that instant, in words. None: there was none.

        A node that follows the primary's clock in spite of it has the wrong time, so that is asked too.
        """
        for since, until, by_ms in self.doubts:
            if since <= at_ms <= until or since <= at_ms - by_ms <= until:
                return f"while the primary's clock was in doubt (by {by_ms / 1000:+.0f} s)"
        return None


@dataclass(slots=True)
class MissedRecord:
    """A range that is recorded as missed. `open`: its count cannot be compared with this job."""

    first_ms: int
    last_ms: int
    count: int
    open: bool = False
    ended_ms: int = 0
    """When it was first recorded."""
    used: int = 0

    def take(self, due_ms: int) -> bool:
        """Use one of its occurrences for this one. False: the range does not cover it, or all are used."""
        if due_ms < self.first_ms or not (self.open or self.used < self.count):
            return False
        self.used += 1
        return True
