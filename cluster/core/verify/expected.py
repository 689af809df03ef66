"""What the records of one job may say, by its definition, its periods and the bounds of the verification.

What came due within a period stays owed after it: a change keeps it, a pause makes it wait, only a deletion cancels it.

Lenient in one place: for `SEAM_MS` after a change of the job, its earlier schedule may still be sent. The change has the
time of the node that took the request, its write may take the 5 s of the API's deadline, and a sending node has read the
job up to a second before. There is no leniency in what a job *owes*: a change never excuses a missing record.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from cluster.core.ids import spread_ms
from cluster.core.instants import format_instant
from cluster.core.verify.records import DEFAULT_SUCCESS_CODES, SENT, SLACK_MS, SuccessRule
from cluster.core.verify.subjects import MAX_RETRY_WAIT_SECONDS
from cluster.core.verify.windows import held_times, skips

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.core.verify.records import Record
    from cluster.core.verify.subjects import Bounds, MissedRecord, OwedPeriod, VerifiedJob

SEAM_MS = 10_000
AHEAD_MS = 900_000
"""No occurrence is materialised so long before it is due: the longest look-ahead and a stride."""
PREFETCH_MS = 1000
"""An execution may be claimed so long before its send time, or sooner if thousands share its second."""
LONGEST_PREFETCH_MS = 4000
UNCLAIMED_GRACE_MS = 2000
"""So much longer than a lease a batch is claimable before it stands unclaimed."""
SETTLE_MS = 120_000
"""A leader settles a change within a second. A change may wait so long for a leader without a finding."""
CLOCK_MS = 3_600_000
"""Retries count from the database's clock at that time, which may have been ahead of the present one by this much."""
DAY_MS = 86_400_000
WINDOWS_KEPT_MS = 90 * DAY_MS
"""What a deleted window was is kept for so long."""
BY_WINDOW = "the window "
"""So the reason of an execution begins that a window skipped."""
MAX_SPREAD_MS = DAY_MS
"""The largest `spreadSeconds` that a job can have."""


class Expected:
    """What the records of one job may say.

    The constructor raises `ValueError` or `KeyError` for a schedule that cannot be parsed.
    """

    def __init__(self, job: VerifiedJob, bounds: Bounds) -> None:
        self._job = job
        self._bounds = bounds
        self.spread_ms = spread_ms(job.id, job.spread_seconds)
        known = job.exists or job.is_message
        self.defined_ms = job.defined_ms if known else math.inf
        """Requests from this instant on were sent by the job's present definition."""
        codes = DEFAULT_SUCCESS_CODES if job.success_codes is None else job.success_codes
        since = job.success_codes_since_ms
        since_ms = self.defined_ms if since is None else min(self.defined_ms, since)
        self._successes = SuccessRule(codes, since_ms if known else math.inf)
        own = job.retention_days
        self._shortest_days = bounds.shortest_days if own is None else min(own, bounds.shortest_days)
        # A result that no node could read or send is kept for the operator's retention, whatever the job's is.
        days = bounds.shortest_days if own is None else min(own, bounds.configured_days)
        # An expired result is not missing. Results are kept from their end, so at least so long after the due time.
        self._kept_ms = bounds.now_ms - int(days * DAY_MS)
        self._surely_kept_ms = bounds.now_ms - int(self._shortest_days * DAY_MS)
        self._pauses = list(_pauses(job))
        # Also what came due before the bounds may have been held until then.
        self._held = held_times(job.windows, bounds.since_ms - MAX_SPREAD_MS, bounds.now_ms)
        for p in job.periods:  # a schedule that cannot be parsed fails here and not halfway
            any(p.dues(bounds.since_ms, bounds.since_ms))

    @property
    def is_message(self) -> bool:
        """Whether it is a message, and no job."""
        return self._job.is_message

    def successes(self, r: Record) -> SuccessRule:
        """What counts as success of an execution. A message says that itself."""
        return self._successes if r.success_codes is None else SuccessRule(r.success_codes, 0)

    def owed(self) -> Iterator[tuple[int, OwedPeriod]]:
        """Every occurrence (ms) that the job owed within the bounds, ascending, each with its period."""
        last = self._bounds.since_ms - 1
        for p in self._job.periods:
            until = self._bounds.until_ms if p.to_ms is None else min(self._bounds.until_ms, p.to_ms)
            for t in p.dues(max(last + 1, p.from_ms), until):
                last = t
                yield t, p

    def is_kept(self, due_ms: int) -> bool:
        """Whether an occurrence without a record is a finding: its result and its period cannot have expired."""
        # The retention of the job before its last change is unknown.
        kept_ms = self._kept_ms if due_ms >= self.defined_ms else self._surely_kept_ms
        return due_ms >= kept_ms and due_ms >= self._job.known_from_ms

    def why_waiting(self, due_ms: int, period: OwedPeriod) -> str | None:
        """Why an occurrence may have no record yet. None: it must have one."""
        job = self._job
        if job.unsettled_ms is not None and self._bounds.now_ms - job.unsettled_ms <= SETTLE_MS:
            return "the leader has not settled the job's last change yet"
        if period.to_ms is not None:
            return None
        if any(a <= due_ms < b for a, b in job.catching_up):
            return "its catch-up is in progress"
        if job.written_to_ms is not None and due_ms >= job.written_to_ms:
            return f"its schedule is materialised up to {format_instant(job.written_to_ms)} only"
        return None

    def runs_by_catch_up(self, m: MissedRecord) -> bool:
        """Whether `catchUp: all` runs the first occurrence of a range that was recorded as missed.

        The window ends when catch-up began, which is before any of it is recorded. It is bounded by half the retention,
        of which the shortest is known. Two kinds of occurrences within the window are rightly missed: those that could
        not be read (`open`: their version is unknown), and those that the job owed before it was changed. So only
        occurrences that the present definition owed all along are judged.
        """
        last = self._job.periods[-1] if self._job.periods else None
        if m.open or self._job.catch_up != "all" or last is None or last.to_ms is not None:
            return False
        return m.first_ms >= max(self.defined_ms, last.from_ms, m.ended_ms - self._window_ms + SLACK_MS)

    @property
    def _window_ms(self) -> int:
        return min(self._job.catch_up_window_ms, int(self._shortest_days * DAY_MS / 2))

    def why_not_missed(self, r: Record) -> str | None:
        """Why an execution that has a record of its own may not be missed. None: it stood unclaimed, and `catchUp` says so.

        A node decides that at its first claim, when it ends. A batch is claimable from shortly before its send time, and
        stands unclaimed after a lease and a moment. The policy is known of what ended under the present definition.
        """
        if r.trigger or r.replayed:
            return "it is missed, but it was asked for by hand"
        stood_ms = r.ended_ms - (r.send_ms - PREFETCH_MS)
        if stood_ms < self._bounds.lease.lasts_ms + UNCLAIMED_GRACE_MS - SLACK_MS:
            return f"it is missed, but it had been claimable for {stood_ms / 1000:.1f} s only"
        last = self._job.periods[-1] if self._job.periods else None
        known = last is not None and last.to_ms is None and r.ended_ms >= self.defined_ms
        if not known or last is None or r.due_ms < r.ended_ms - self._window_ms + SLACK_MS:
            return None
        if self._job.catch_up == "all":
            return "it is missed, but it was within the catch-up window"
        if self._job.catch_up == "latest" and not self._owed_between(
            r.due_ms + 1, r.ended_ms - self.spread_ms + SLACK_MS
        ):
            return "it is missed, but no later occurrence was due"
        return None

    def _owed_between(self, since_ms: int, until_ms: int) -> bool:
        """Whether the job owed an occurrence in that time, by any of its schedules."""
        for p in self._job.periods:
            if any(
                True for _ in p.dues(max(since_ms, p.from_ms), until_ms if p.to_ms is None else min(until_ms, p.to_ms))
            ):
                return True
        return False

    def why_unexpected(self, r: Record) -> str | None:
        """Why a record has no right to exist, if no schedule owes it. None: one of the job's schedules sent it."""
        if (r.trigger and r.due_ms % 1000) or r.replayed_ms is not None or self._job.is_message:
            return None
        if not self._job.exists:
            return "there is no such job"
        if r.due_ms < self._job.known_from_ms:
            return None
        for p in self._job.periods:
            near = p.from_ms <= r.due_ms and (p.to_ms is None or r.due_ms <= p.to_ms + SEAM_MS)
            if near and any(True for _ in p.dues(r.due_ms, r.due_ms)):
                return None
        return "no schedule that the job had then has an occurrence at this instant"

    def is_outlived(self, r: Record) -> bool:
        """Whether it was materialised under a schedule that ended before it was due: it is cancelled when it is due."""
        return any(p.version == r.version and p.to_ms is not None and p.to_ms < r.due_ms for p in self._job.periods)

    def changed_at(self, due_ms: int) -> bool:
        """Whether another schedule of the job took over just before this instant, so that both may have sent it."""
        return any(due_ms - SEAM_MS < p.from_ms <= due_ms for p in self._job.periods[1:])

    def waited_ms(self, from_ms: int, to_ms: int) -> int:
        """How much of that time (ms) the job was paused, or held by a window, so that its executions had to wait."""
        paused = sum(max(0, int(min(end, to_ms) - max(start, from_ms))) for start, end in self._pauses)
        return paused + sum(max(0, min(end, to_ms) - max(start, from_ms)) for start, end in self._held)

    def why_not_skipped(self, r: Record) -> str | None:
        """Why a window may not have skipped it. None: one was in force, or what windows were then is no longer stored."""
        if r.due_ms < self._bounds.now_ms - WINDOWS_KEPT_MS or self.defined_ms > r.ended_ms:
            return None
        if skips(self._job.windows, self.planned_ms(r), r.ended_ms):
            return None
        return "it is skipped by a window, but none that skips was in force when it was due"

    def is_paused(self, at_ms: int) -> bool:
        """Whether nothing of the job may be sent at that instant, but runs by hand."""
        return any(start + SEAM_MS < at_ms < end - SLACK_MS for start, end in self._pauses)

    def was_deleted(self, r: Record, period: OwedPeriod) -> bool:
        """Whether the job had been deleted when this record was made of an occurrence of that period."""
        job = self._job
        if job.deleted_ms is not None and r.ended_ms >= job.deleted_ms - SLACK_MS:
            return True
        # It was created again since. When it was deleted is known only if it was not paused before.
        return period.to_ms is not None and period.to_ms <= min(job.created_ms, r.ended_ms + SLACK_MS)

    def may_skip(self) -> bool:
        """Whether the job has `overlap: skip`."""
        return self._job.overlap_skip

    def planned_ms(self, r: Record) -> int:
        """The planned send time of its first attempt, by the job's present spread."""
        return r.due_ms if r.trigger else r.due_ms + self.spread_ms

    def earliest_ms(self, r: Record) -> int:
        """Its first request may not be sent before this, whatever `spreadSeconds` was when it was materialised."""
        planned = r.due_ms
        if not r.trigger and r.due_ms - AHEAD_MS >= self.defined_ms:
            planned += self.spread_ms
        # The send time of a record is that of its latest retry; with a single attempt it is that of the attempt. It is a
        # little before the planned time if the execution could not be sent, ended at its claim and was replayed at once.
        of_attempt = len(r.attempts) == 1 and r.state in SENT and r.send_ms >= planned - LONGEST_PREFETCH_MS
        return r.send_ms if of_attempt else planned

    def latest_ms(self, r: Record) -> int:
        """The latest send time that any writer of an owed execution sets.

        An execution is planned at its due time plus the job's spread, or at once for a replay or a run by hand. Only a
        retry delays it: by back-off or `Retry-After`, from the time the answer was recorded, which may be long after the
        answer came and is in the past by now. An execution that is released, deferred, moved or adopted by another
        schedule keeps its send time; only its batch becomes claimable later. (A send time in the past is judged by how
        late it is.)
        """
        now = self._bounds.now_ms
        if r.attempts:
            by_present = r.attempts[-1].sent_ms >= self.defined_ms
            longest_s = self._job.longest_wait_s if by_present else MAX_RETRY_WAIT_SECONDS
            return now + int(longest_s * 1000) + CLOCK_MS
        if r.replayed:
            return now + CLOCK_MS
        if r.trigger:
            return max(now, r.due_ms)
        by_present = r.due_ms - AHEAD_MS >= self.defined_ms
        return max(now, r.due_ms + (self.spread_ms if by_present else MAX_SPREAD_MS))


def _pauses(job: VerifiedJob) -> Iterator[tuple[int, float]]:
    """The times (ms) between the periods of a job, and after the last one."""
    for a, b in pairwise(job.periods):
        if a.to_ms is not None and b.from_ms > a.to_ms + 1:
            yield a.to_ms, b.from_ms
    last = job.periods[-1] if job.periods else None
    if last is not None and last.to_ms is not None:
        yield last.to_ms, math.inf
