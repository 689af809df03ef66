"""What `horae verify` says about one job: every occurrence it owed, by the oracle, against every record there is.

Pure, and fed in order of due time, so that it holds a few records whatever the range. The law: what is due is asked of
`oracle` alone; nothing here knows `cluster.core.schedule`, which is what is being judged.

Lenient in one place: for `SEAM_MS` after a change of the job its earlier schedule may still be sent. A change carries the
clock of the node that took the request, its write may take the 5 s of the API's deadline, and a node that sends has read
the job up to a second before. What a job *owes* is judged without any leniency: a change never excuses a missing record,
and what is cancelled must have been cancelled by a change that came after it was due.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cluster.core.ids import execution_id, spread_ms
from cluster.core.instants import format_instant
from cluster.core.verify.findings import Finding, FindingKind, VerifyCounts
from cluster.core.verify.records import (
    DEFAULT_SUCCESS_CODES,
    SENT,
    SENT_FINAL,
    SLACK_MS,
    SuccessRule,
    contradictions,
    redeliveries,
)
from cluster.core.verify.subjects import MAX_RETRY_WAIT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cluster.core.verify.records import Record
    from cluster.core.verify.subjects import Bounds, MissedRecord, OwedPeriod, VerifiedJob

SEAM_MS = 10_000
EARLY_MS = 100
"""Nodes know the database's clock to within a few ms; a reading of it that was slow costs more."""
REREAD_MS = 30_000
"""So long after a change it may still be gone by the definition before it: its write may take as long as said above, and a
job that was read is sent, or skipped, within the lease of its batch, whatever has to be asked meanwhile.
"""
AHEAD_MS = 900_000
"""Nothing is written down so long before it is due: the longest look-ahead there may be, and a stride."""
PREFETCH_MS = 1000
"""So long before its send time an execution may be claimed."""
SETTLE_MS = 120_000
"""A change is settled within a second while somebody leads; this long it may wait for a leader without a finding."""
CLOCK_MS = 3_600_000
"""Retries count from the database's clock then, which may have been ahead: so far it is no matter of ours."""
DAY_MS = 86_400_000
SPREAD_MOST_MS = DAY_MS
"""The largest `spreadSeconds` that any job can have."""


class JobVerifier:
    """Judges one job. `see` is called in order of due time, once for each execution; then `finish`.

    The constructor raises `ValueError` or `KeyError` for a schedule that cannot be read.
    """

    def __init__(self, job: VerifiedJob, bounds: Bounds, found: Callable[[Finding], None]) -> None:
        self._job = job
        self._bounds = bounds
        self._found = found
        self._spread = spread_ms(job.id, job.spread_seconds)
        self._ranges: list[MissedRecord] = []
        self._defined_ms = job.defined_ms if job.exists else math.inf
        codes = DEFAULT_SUCCESS_CODES if job.success_codes is None else job.success_codes
        since_ms = (
            self._defined_ms
            if job.success_codes_since_ms is None
            else min(self._defined_ms, job.success_codes_since_ms)
        )
        self._successes = SuccessRule(codes, since_ms if job.exists else math.inf)
        own = job.retention_days
        self._shortest_days = bounds.shortest_days if own is None else min(own, bounds.shortest_days)
        # What nobody could read or send is kept for as long as the operator says, whatever the job does.
        days = bounds.shortest_days if own is None else min(own, bounds.configured_days)
        # What expired is not missing: results are kept from when they ended, so for at least so long after the due time.
        self._kept_ms = bounds.now_ms - int(days * DAY_MS)
        self._surely_kept_ms = bounds.now_ms - int(self._shortest_days * DAY_MS)
        for p in job.periods:  # one that cannot be read is met now, and not on the way
            any(p.dues(bounds.since_ms, bounds.since_ms))
        self._expected = self._owed_dues()
        self._due: int | None = None
        self._period: OwedPeriod | None = None
        self._doubts: list[tuple[int, str]] = []
        """Cancelled, and owed all the same: missing, unless a missed range covers it. One that begins with it comes next."""
        self._advance()
        self.counts = VerifyCounts(jobs=int(job.exists))

    def _owed_dues(self) -> Iterator[tuple[int, OwedPeriod]]:
        """Every occurrence the job owed in the range, ascending."""
        last = self._bounds.since_ms - 1
        for p in self._job.periods:
            until = self._bounds.until_ms if p.to_ms is None else min(self._bounds.until_ms, p.to_ms)
            for t in p.dues(max(last + 1, p.from_ms), until):
                last = t
                yield t, p

    def _advance(self) -> None:
        self._due, self._period = next(self._expected, (None, None))

    def add_missed(self, found: MissedRecord) -> None:
        """A range of occurrences that are recorded as missed."""
        if any(due < found.first_ms for due, _ in self._doubts):
            self._resolve()
        self._pass(found.first_ms)
        self._ranges.append(found)
        self._resolve()
        if self._was_to_run(found):
            text = f"recorded as missed at {format_instant(found.ended_ms)}, when the job was to be caught up that far"
            self._tell("contradiction", found.first_ms, text)

    def _was_to_run(self, m: MissedRecord) -> bool:
        """Whether its first occurrence was within what `catchUp: all` runs, when it was written down as missed.

        The window ends where catching up began, which is before anything of it is written down; half the retention
        bounds it, of which the shortest is known. Legally missed within it is what nobody could read (`open`: no version
        is known), and what a job owed before it was changed: only what the present definition owed all along is judged.
        """
        last = self._job.periods[-1] if self._job.periods else None
        if m.open or self._job.catch_up_ms is None or last is None or last.to_ms is not None:
            return False
        window_ms = min(self._job.catch_up_ms, int(self._shortest_days * DAY_MS / 2))
        return m.first_ms >= max(self._defined_ms, last.from_ms, m.ended_ms - window_ms + SLACK_MS)

    def check(self, due_ms: int, final: Record | None, owed: Record | None) -> None:
        """What history has under one id, and what is still owed under it."""
        self._resolve()
        if self._due is not None and self._due < due_ms:
            self._pass(due_ms)
        period = None
        if self._due == due_ms:
            period = self._period
            self.counts.occurrences += 1
            self._advance()
        self.counts.executions += 1
        if final is not None:
            if final.state in self.counts.ended and (owed is None or final.state in SENT_FINAL):
                self.counts.ended[final.state] += 1
            self._final(final, owed, period)
        if owed is not None:
            self._owed(owed, final, period)

    def finish(self) -> None:
        """There is no more."""
        self._resolve()
        self._pass(self._bounds.until_ms + 1)

    def _tell(self, kind: FindingKind, due_ms: int, text: str) -> None:
        self.counts.findings[kind] += 1
        self._found(Finding(kind, self._job.id, execution_id(self._job.id, due_ms), text))

    def _pass(self, before_ms: int) -> None:
        """Everything owed before an instant has no record of its own."""
        while self._due is not None and self._due < before_ms:
            due, period = self._due, self._period
            self._advance()
            self.counts.occurrences += 1
            if period is not None:
                self._unrecorded(due, period)

    def _unrecorded(self, due: int, period: OwedPeriod) -> None:
        # What a job's own retention was before it was changed, nobody knows.
        kept_ms = self._kept_ms if due >= self._defined_ms else self._surely_kept_ms
        if due < kept_ms or due < self._job.known_from_ms:
            return
        if self._in_a_range(due):
            self.counts.missed += 1
            self.counts.ended["missed"] += 1
            return
        why = self._waits(due, period)
        if why is None:
            full = any(r.first_ms <= due for r in self._ranges)
            more = "; a missed range covers it, but counts fewer" if full else ""
            self._tell("missing", due, f"owed by `{_said(period)}`, and there is no record of it{more}")
        elif self._lateness(due + self._spread):
            self._tell("late", due, f"not sent yet: {why}")
        else:
            self.counts.waiting += 1

    def _in_a_range(self, due: int) -> bool:
        self._ranges = [r for r in self._ranges if r.last_ms >= due]
        for r in self._ranges:
            if r.first_ms <= due and (r.open or r.used < r.count):
                r.used += 1
                return True
        return False

    def _resolve(self) -> None:
        for due, text in self._doubts:
            if not self._in_a_range(due):
                self._tell("missing", due, text)
        self._doubts.clear()

    def _lateness(self, planned_ms: int) -> bool:
        late = self._bounds.now_ms - planned_ms
        self.counts.longest_late_ms = max(self.counts.longest_late_ms, late)
        return late > self._bounds.late_ms

    def _waits(self, due: int, period: OwedPeriod) -> str | None:
        """Why there may be no record of it yet; None: there should be one."""
        job = self._job
        if job.unsettled_ms is not None and self._bounds.now_ms - job.unsettled_ms <= SETTLE_MS:
            return "the leader has not looked at the job's last change yet"
        if period.to_ms is not None:
            return None
        if any(a <= due < b for a, b in job.catching_up):
            return "it is being caught up"
        if job.written_to_ms is not None and due >= job.written_to_ms:
            return f"its schedule is written down up to {format_instant(job.written_to_ms)} only"
        return None

    def _final(self, r: Record, owed: Record | None, period: OwedPeriod | None) -> None:
        for text in contradictions(r, self._successes):
            self._tell("contradiction", r.due_ms, text)
        if r.attempts:
            self._sent(r)
            if period is None:
                self._unexpected(r)
        if r.state == "skipped":
            self._skipped(r)
        if r.state == "reopened":
            if owed is None:
                self._tell("orphan", r.due_ms, "it is to be sent again, and nobody owes it")
        elif owed is None:
            if r.state == "cancelled" and period is not None:
                self._cancelled(r, period)
        elif (  # a success that came late leaves the retry of another owner to be found superfluous when it is due
            r.state in SENT_FINAL and self._bounds.now_ms - max(r.ended_ms, owed.send_ms) > self._bounds.late_ms
        ):
            self._tell("contradiction", r.due_ms, f"it is {r.state} since {format_instant(r.ended_ms)} and still owed")

    def _skipped(self, r: Record) -> None:
        """Only a job with `overlap: skip` skips, and it skips no run that was begun.

        A run that was begun may be skipped when it is tried again: if it was asked for by hand, or if `overlap` was set
        in between. Its send time is a later one then, or the job was changed after it was sent.
        """
        if self._defined_ms > r.send_ms:
            return
        if not self._job.overlap_skip:
            self._tell("contradiction", r.due_ms, "it is skipped, but runs of this job may overlap")
        elif r.attempts and r.send_ms <= r.attempts[0].sent_ms:
            self._tell("contradiction", r.due_ms, "it is skipped, but was sent")

    def _cancelled(self, r: Record, period: OwedPeriod) -> None:
        """Only a change of the job cancels what it owed, and the schedule that holds then owes what it owes."""
        if r.trigger:
            return
        if period.to_ms is not None:
            self._cancelled_before(r, period, period.to_ms)
        elif r.version == period.version:
            text = f"cancelled ({r.reason}), but the schedule it was due by still holds"
            self._tell("contradiction", r.due_ms, text)
        elif self._waits(r.due_ms, period) is None:
            text = f"cancelled under an earlier schedule; owed by `{_said(period)}` since, and not sent"
            self._doubts.append((r.due_ms, text))

    def _cancelled_before(self, r: Record, period: OwedPeriod, to_ms: int) -> None:
        """The schedule it was due by was changed later on: was that what cancelled it?"""
        held_ms = to_ms - max(r.ended_ms, r.due_ms)
        if r.version == period.version:
            if held_ms > SLACK_MS:
                text = f"cancelled ({r.reason}) at {format_instant(r.ended_ms)}; the schedule it was due by held until {format_instant(to_ms)}"
                self._tell("contradiction", r.due_ms, text)
        elif held_ms > SETTLE_MS:  # had it been less, no leader need have come to what the schedule owed
            text = f"cancelled under an earlier schedule; owed by `{_said(period)}` until {format_instant(to_ms)}, and not sent"
            self._doubts.append((r.due_ms, text))

    def _sent(self, r: Record) -> None:
        first = r.attempts[0]
        early = self._earliest_ms(r) - first.sent_ms
        if early > EARLY_MS:
            self._tell("early", r.due_ms, f"{first.node} sent it {early} ms before its send time")
        planned = r.due_ms if r.trigger else r.due_ms + self._spread
        late = first.sent_ms - planned
        if late > self._bounds.late_ms and len(r.attempts) == 1 and r.send_ms > planned:
            # Asked for by hand after it had ended unsent, or written down under another spreadSeconds.
            late = first.sent_ms - r.send_ms
        self.counts.longest_late_ms = max(self.counts.longest_late_ms, late)
        if late > self._bounds.late_ms:
            self._tell("late", r.due_ms, f"{first.node} sent it {late / 1000:.1f} s late")
        if len(r.attempts) > 1:
            changed = any(r.due_ms - SEAM_MS < p.from_ms <= r.due_ms for p in self._job.periods[1:])
            for text, explained in redeliveries(r, self._successes, self._bounds.lease, changed=changed):
                self._tell("redelivered" if explained else "duplicate", r.due_ms, text)

    def _earliest_ms(self, r: Record) -> int:
        """Before this its first request had no right to leave, whatever `spreadSeconds` was when it was written down."""
        planned = r.due_ms
        if not r.trigger and r.due_ms - AHEAD_MS >= self._defined_ms:
            planned += self._spread
        # With more than one attempt, or before another one, what it says is when it was to be sent once more. It says a
        # little less than planned where it could not be sent, ended when it was claimed, and was asked for at once.
        says_so = len(r.attempts) == 1 and r.state in SENT and r.send_ms >= planned - PREFETCH_MS
        return r.send_ms if says_so else planned

    def _unexpected(self, r: Record) -> None:
        if r.trigger and r.due_ms % 1000:
            return
        if not self._job.exists:
            self._tell("unexpected", r.due_ms, "there is no such job")
            return
        if r.due_ms < self._job.known_from_ms:
            return
        for p in self._job.periods:
            near = p.from_ms <= r.due_ms and (p.to_ms is None or r.due_ms <= p.to_ms + SEAM_MS)
            if near and any(True for _ in p.dues(r.due_ms, r.due_ms)):
                return
        self._tell("unexpected", r.due_ms, "no schedule that the job had then is due at this instant")

    def _outlived(self, r: Record) -> bool:
        """Written down ahead under a schedule that has ended since: it is cancelled when its time comes."""
        return any(p.version == r.version and p.to_ms is not None and p.to_ms < r.due_ms for p in self._job.periods)

    def _owed(self, r: Record, final: Record | None, period: OwedPeriod | None) -> None:
        if final is None:
            for text in contradictions(r, self._successes):
                self._tell("contradiction", r.due_ms, text)
            if r.attempts:
                self._sent(r)
            if period is None and (r.attempts or not self._outlived(r)):
                self._unexpected(r)
        if not r.batch_lists:
            self._tell("orphan", r.due_ms, f"it is {r.state}, and its batch does not exist or does not list it")
        elif r.send_ms > self._latest_ms(r):
            text = f"it is {r.state}, and to be sent at {format_instant(r.send_ms)}: nothing puts it off so far"
            self._tell("contradiction", r.due_ms, text)
        elif final is None or final.state in ("reopened", "cancelled", "skipped"):
            planned = r.send_ms if r.attempts or r.replayed else max(r.due_ms + (0 if r.trigger else self._spread), 0)
            if self._lateness(max(planned, r.send_ms)):
                what = f"{len(r.attempts)} attempts" if r.attempts else "never sent"
                self._tell(
                    "late", r.due_ms, f"still owed ({r.state}, {what}), to be sent at {format_instant(r.send_ms)}"
                )

    def _latest_ms(self, r: Record) -> int:
        """Later than this no writer of what is owed puts its send time.

        It is planned at its due time and the job's spread, or asked for by hand at once. Only a retry puts it off: by
        back-off or `Retry-After`, from when the answer was recorded, which may be long after it came and is past by now.
        What is handed back, parked for a breaker or a limit, moved or taken over by another schedule keeps its send time;
        it is the batch that becomes claimable later. (A past send time of whatever kind is judged by how late it is.)
        """
        now = self._bounds.now_ms
        if r.attempts:
            known = r.attempts[-1].sent_ms >= self._defined_ms
            return now + int((self._job.longest_wait_s if known else MAX_RETRY_WAIT_SECONDS) * 1000) + CLOCK_MS
        if r.replayed:
            return now + CLOCK_MS
        if r.trigger:
            return max(now, r.due_ms)
        known = r.due_ms - AHEAD_MS >= self._defined_ms
        return max(now, r.due_ms + (self._spread if known else SPREAD_MOST_MS))


def _said(p: OwedPeriod) -> str:
    return p.schedule if p.timezone == "UTC" else f"{p.schedule} {p.timezone}"
