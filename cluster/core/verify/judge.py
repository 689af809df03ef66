"""`horae verify` for one job: every occurrence that it owed, by the oracle, against every record of it.

Pure. Records are passed in order of due time, so that it holds a few records only, whatever the range. It asks `oracle`
for what was due, and it must not import `cluster.core.schedule`, because it checks that package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.ids import execution_id
from cluster.core.instants import format_instant
from cluster.core.verify.expected import BY_WINDOW, SETTLE_MS, Expected
from cluster.core.verify.findings import FINAL_STATES, Finding, FindingKind, VerifyCounts
from cluster.core.verify.records import CLOSE_MS, SENT_FINAL, contradictions, redeliveries

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.core.verify.records import Record
    from cluster.core.verify.subjects import Bounds, MissedRecord, OwedPeriod, VerifiedJob

EARLY_MS = 100
"""Nodes know the database's clock to within a few ms. A slow reading of that clock costs more."""


class JobVerifier:
    """Verifies one job. Call `add_missed` and `check` in order of due time, `check` once for each execution; then
    `finish`.

    The constructor raises `ValueError` or `KeyError` for a schedule that cannot be parsed.
    """

    def __init__(self, job: VerifiedJob, bounds: Bounds, report: Callable[[Finding], None]) -> None:
        self._job_id = job.id
        self._bounds = bounds
        self._report = report
        self._expected = Expected(job, bounds)
        self._ranges: list[MissedRecord] = []
        self._owed_dues = self._expected.owed()
        self._due: int | None = None
        self._period: OwedPeriod | None = None
        self._doubts: list[tuple[int, str]] = []
        """Occurrences that were cancelled and are owed all the same, each with the text of its finding. They are missing,
        unless a missed range covers them. A range that starts with one of them is passed right after it.
        """
        self._advance()
        self.counts = VerifyCounts(jobs=int(job.exists))

    def add_missed(self, missed: MissedRecord) -> None:
        """A range of occurrences that is recorded as missed."""
        if any(due < missed.first_ms for due, _ in self._doubts):
            self._resolve_doubts()
        self._pass(missed.first_ms)
        self._ranges.append(missed)
        self._resolve_doubts()
        self._doubt_missed(missed.first_ms, missed.ended_ms)
        if self._expected.runs_by_catch_up(missed):
            text = f"recorded as missed at {format_instant(missed.ended_ms)}, but it was within the catch-up window"
            self._find("contradiction", missed.first_ms, text)

    def check(self, due_ms: int, final: Record | None, owed: Record | None) -> None:
        """One execution: its record in history, and its record among the owed executions."""
        record = final or owed
        again = record is not None and record.again  # it says nothing about the occurrence itself
        self._resolve_doubts()
        if self._due is not None and self._due < due_ms:
            self._pass(due_ms)
        period = None
        if self._due == due_ms and not again:
            period = self._period
            self.counts.note_occurrence()
            self._advance()
        ended = final is not None and final.state in FINAL_STATES and (owed is None or final.state in SENT_FINAL)
        self.counts.note_execution(final.state if final is not None and ended else None)
        if final is not None:
            self._check_final(final, owed, period)
        if owed is not None:
            self._check_owed(owed, final, period)

    def finish(self) -> None:
        """There are no more records."""
        self._resolve_doubts()
        self._pass(self._bounds.until_ms + 1)

    def _advance(self) -> None:
        self._due, self._period = next(self._owed_dues, (None, None))

    def _find(self, kind: FindingKind, due_ms: int, text: str) -> None:
        self.counts.note_finding(kind)
        self._report(Finding(kind, self._job_id, execution_id(self._job_id, due_ms), text))

    def _pass(self, before_ms: int) -> None:
        """No occurrence owed before this instant has a record of its own."""
        while self._due is not None and self._due < before_ms:
            due, period = self._due, self._period
            self._advance()
            self.counts.note_occurrence()
            if period is not None:
                self._check_unrecorded(due, period)

    def _check_unrecorded(self, due: int, period: OwedPeriod) -> None:
        if not self._expected.is_kept(due):
            return
        if self._take_from_range(due):
            self.counts.note_missed()
            return
        why = self._expected.why_waiting(due, period)
        if why is None:
            full = any(r.first_ms <= due for r in self._ranges)
            more = "; a missed range covers it, but its count is too small" if full else ""
            self._find("missing", due, f"owed by `{_schedule_text(period)}`, but there is no record of it{more}")
        elif self._is_late(due + self._expected.spread_ms):
            self._find("late", due, f"not sent yet: {why}")
        else:
            self.counts.note_waiting()

    def _take_from_range(self, due: int) -> bool:
        """Count one occurrence of a missed range for this one. False: no range covers it, or all are used."""
        self._ranges = [r for r in self._ranges if r.last_ms >= due]
        return any(r.take(due) for r in self._ranges)

    def _resolve_doubts(self) -> None:
        for due, text in self._doubts:
            if not self._take_from_range(due):
                self._find("missing", due, text)
        self._doubts.clear()

    def _is_late(self, planned_ms: int) -> bool:
        """Whether an execution that is not sent yet is late now. Counts its lateness."""
        late = self._bounds.now_ms - planned_ms
        self.counts.note_lateness(late)
        return late > self._bounds.late_ms

    def _check_final(self, r: Record, owed: Record | None, period: OwedPeriod | None) -> None:
        for text in contradictions(r, self._expected.successes(r)):
            self._find("contradiction", r.due_ms, text)
        if r.attempts:
            self._check_sent(r)
            if period is None:
                self._check_expected(r)
        if self._expected.is_message and r.state == "cancelled" and r.attempts:
            self._find("contradiction", r.due_ms, "its cancellation was recorded, but it was sent")
        if r.state == "skipped":
            self._check_skipped(r)
        if r.state == "missed":
            self._check_missed(r, period)
        if r.state == "reopened":
            if owed is None:
                self._find("orphan", r.due_ms, "its replay was requested, but it is not owed")
        elif owed is None:
            if r.state == "cancelled" and period is not None:
                self._check_cancelled(r, period)
        elif (  # after a late success, the retry of another owner stays owed until a node claims it
            r.state in SENT_FINAL and self._bounds.now_ms - max(r.ended_ms, owed.send_ms) > self._bounds.late_ms
        ):
            self._find("contradiction", r.due_ms, f"it is {r.state} since {format_instant(r.ended_ms)}, but still owed")

    def _check_expected(self, r: Record) -> None:
        why = self._expected.why_unexpected(r)
        if why is not None:
            self._find("unexpected", r.due_ms, why)

    def _doubt_missed(self, due_ms: int, ended_ms: int) -> None:
        """Nothing is judged, and nothing caught up, while the clock is in doubt."""
        doubt = self._bounds.doubt_at(ended_ms)
        if doubt is not None:
            self._find("contradiction", due_ms, f"recorded as missed {doubt}")

    def _check_missed(self, r: Record, period: OwedPeriod | None) -> None:
        """Nothing that has an attempt is missed, unless the job was changed in between: its new schedule owed it anew."""
        if r.attempts and r.attempts[-1].sent_ms >= self._expected.defined_ms:
            self._find("contradiction", r.due_ms, "it is missed, but it was sent")
            return
        if period is None and not r.attempts:
            self._check_expected(r)
        self._doubt_missed(r.due_ms, r.ended_ms)
        why = self._expected.why_not_missed(r)
        if why is not None:
            self._find("contradiction", r.due_ms, why)

    def _check_skipped(self, r: Record) -> None:
        """Only a window, or a job with `overlap: skip`, skips; and it skips no execution with an attempt.

        A retry of an execution with an attempt may be skipped: after a replay or a run by hand, or if `overlap` was set
        in between. Then its send time is a later one, or the job was changed after it was sent.
        """
        if (r.reason or "").startswith(BY_WINDOW):
            if (why := self._expected.why_not_skipped(r)) is not None:
                self._find("contradiction", r.due_ms, why)
            return
        if self._expected.defined_ms > r.send_ms:
            return
        if not self._expected.may_skip():
            self._find("contradiction", r.due_ms, "it is skipped, but executions of this job may overlap")
        elif r.attempts and r.send_ms <= r.attempts[0].sent_ms:
            self._find("contradiction", r.due_ms, "it is skipped, but it was sent")

    def _check_cancelled(self, r: Record, period: OwedPeriod) -> None:
        """Only a deletion cancels what came due before it. After a change or a pause, what comes due later is cancelled:
        it is owed by no period, or by the schedule after the change.
        """
        if r.trigger or self._expected.was_deleted(r, period):
            return
        schedule = _schedule_text(period)
        if period.to_ms is not None:
            self._check_cancelled_before(r, period, period.to_ms)
        elif r.version == period.version:
            text = f"cancelled ({r.reason}), but the schedule that owes it is still in effect"
            self._find("contradiction", r.due_ms, text)
        elif self._expected.why_waiting(r.due_ms, period) is None:
            text = f"cancelled under an earlier schedule; owed by `{schedule}` since then, but not sent"
            self._doubts.append((r.due_ms, text))

    def _check_cancelled_before(self, r: Record, period: OwedPeriod, to_ms: int) -> None:
        """The schedule that owes it ended later, by a change or a pause. That does not cancel it."""
        in_effect_ms = to_ms - max(r.ended_ms, r.due_ms)
        until = format_instant(to_ms)
        if r.version == period.version:
            at = format_instant(r.ended_ms)
            text = f"cancelled ({r.reason}) at {at}, but it was due while its schedule was in effect, until {until}"
            self._find("contradiction", r.due_ms, text)
        elif in_effect_ms > SETTLE_MS:  # in a shorter time no leader need have materialised it
            schedule = _schedule_text(period)
            text = f"cancelled under an earlier schedule; owed by `{schedule}` until {until}, but not sent"
            self._doubts.append((r.due_ms, text))

    def _check_sent(self, r: Record) -> None:
        first = r.attempts[0]
        early = self._expected.earliest_ms(r) - first.sent_ms
        if early > EARLY_MS:
            self._find("early", r.due_ms, f"{first.node} sent it {early} ms before its send time")
        planned = self._expected.planned_ms(r)
        late = first.sent_ms - planned
        if late > self._bounds.late_ms and len(r.attempts) == 1 and r.send_ms > planned:
            # Replayed after it had ended without an attempt, or materialised with another spreadSeconds.
            late = first.sent_ms - r.send_ms
        if len(r.attempts) > 1 and r.replayed_ms is not None and first.sent_ms >= r.replayed_ms - CLOSE_MS:
            late = 0  # it was first sent after it was asked for; the send time that it had then is not stored
        late -= self._expected.waited_ms(first.sent_ms - max(late, 0), first.sent_ms)
        self.counts.note_lateness(late)
        if late > self._bounds.late_ms:
            self._find("late", r.due_ms, f"{first.node} sent it {late / 1000:.1f} s late")
        self._check_paused(r)
        if len(r.attempts) > 1:
            changed = self._expected.changed_at(r.due_ms)
            for text, explained in redeliveries(r, self._expected.successes(r), self._bounds.lease, changed=changed):
                self._find("redelivered" if explained else "duplicate", r.due_ms, text)

    def _check_paused(self, r: Record) -> None:
        """Nothing of a paused job is sent. Runs by hand and replays are, if they were asked for during the pause."""
        if r.trigger or r.replayed_ms is not None:
            return
        for a in r.attempts:
            if self._expected.is_paused(a.sent_ms):
                at = format_instant(a.sent_ms)
                text = f"{a.node} sent attempt {a.number} at {at}, while the job was paused or deleted"
                self._find("contradiction", r.due_ms, text)

    def _check_owed(self, r: Record, final: Record | None, period: OwedPeriod | None) -> None:
        if final is None:
            for text in contradictions(r, self._expected.successes(r)):
                self._find("contradiction", r.due_ms, text)
            if r.attempts:
                self._check_sent(r)
            if period is None and (r.attempts or not self._expected.is_outlived(r)):
                self._check_expected(r)
        send_at = format_instant(r.send_ms)
        if not r.batch_lists:
            self._find("orphan", r.due_ms, f"it is {r.state}, but its batch does not exist or does not list it")
        elif r.send_ms > self._expected.latest_ms(r):
            text = f"it is {r.state} with the send time {send_at}, which is too far ahead for any retry"
            self._find("contradiction", r.due_ms, text)
        elif final is None or final.state in ("reopened", "cancelled", "skipped"):
            planned = r.send_ms if r.attempts or r.replayed else max(self._expected.planned_ms(r), 0)
            since_ms = max(planned, r.send_ms)
            if self._is_late(since_ms + self._expected.waited_ms(since_ms, self._bounds.now_ms)):
                attempts = f"{len(r.attempts)} attempts" if r.attempts else "never sent"
                self._find("late", r.due_ms, f"still owed ({r.state}, {attempts}), with the send time {send_at}")


def _schedule_text(p: OwedPeriod) -> str:
    return p.schedule if p.timezone == "UTC" else f"{p.schedule} {p.timezone}"
