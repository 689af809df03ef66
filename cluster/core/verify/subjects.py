"""What `horae verify` looks at, as values: jobs with their periods, and the bounds of one look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.core.verify.oracle import occurrences

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.core.verify.records import BatchLeaseTimings


MAX_RETRY_WAIT_SECONDS = 2 * 86_400.0
"""The longest wait between two attempts that any job can have: a day, with all of the jitter."""


@dataclass(frozen=True, slots=True)
class OwedPeriod:
    """One schedule of a job and the time it held: from `from_ms` up to and with `to_ms` (None: it still holds)."""

    version: str
    schedule: str
    timezone: str
    anchor_ms: int | None
    start_ms: int | None
    end_ms: int | None
    from_ms: int
    to_ms: int | None

    def dues(self, since_ms: int, until_ms: int) -> Iterator[int]:
        """What it says within `since_ms <= t <= until_ms`, `startAt` and `endAt` kept, whenever it held."""
        low = max(since_ms, self.start_ms or 0)
        high = until_ms if self.end_ms is None else min(until_ms, self.end_ms)
        return occurrences(self.schedule, self.timezone, self.anchor_ms or 0, low, high + 1)


@dataclass(frozen=True, slots=True)
class VerifiedJob:
    """A job with all its periods, the oldest first, and where the leader has come to with what it owes now."""

    id: str
    periods: tuple[OwedPeriod, ...]
    spread_seconds: int = 0
    retention_days: float | None = None
    unsettled_ms: int | None = None
    """When the change was made that the leader has not looked at yet; None: it has."""
    known_from_ms: int = 0
    """Earlier periods are not kept any more."""
    written_to_ms: int | None = None
    """Where the row of its present schedule stands: from there on nothing is written down yet. None: no row."""
    catching_up: tuple[tuple[int, int], ...] = ()
    """Ranges `from <= t < to` that are still to be caught up."""
    exists: bool = True
    success_codes: frozenset[int] | None = None
    """The statuses that it calls a success; None: 2xx."""
    overlap_skip: bool = False
    catch_up_ms: int | None = None
    """How far back it is caught up; None: not all of it is."""
    longest_wait_s: float = MAX_RETRY_WAIT_SECONDS
    """The longest that it waits between two attempts, jitter and `Retry-After` included."""
    defined_ms: int = 0
    """What was sent from then on was sent by its definition as it is now. Only its timing is kept of earlier ones."""
    success_codes_since_ms: int | None = None
    """The same of its `successCodes` alone; None: nobody knows, so as of all of it."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is looked at: `since_ms <= due <= until_ms`, as of `now_ms`; what counts as late."""

    since_ms: int
    until_ms: int
    now_ms: int
    late_ms: int
    configured_days: float
    """How long results are kept, of jobs that do not say it themselves."""
    shortest_days: float
    """The shortest that any results were ever kept for, as far as that is known."""
    lease: BatchLeaseTimings


@dataclass(slots=True)
class MissedRecord:
    """A range that is recorded as missed. `open`: how many it speaks for cannot be told from here."""

    first_ms: int
    last_ms: int
    count: int
    open: bool = False
    ended_ms: int = 0
    """When it was written down first."""
    used: int = 0
