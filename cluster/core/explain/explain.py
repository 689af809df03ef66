"""Why a job did or did not run: facts in, sentences with times out. Pure; `cluster.usecases.explain` reads the facts.

A sentence says only what the facts show. If they leave several causes open, the sentence names all of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.core.explain.attempts import attempt_sentences
from cluster.core.explain.owed import explain_owed, leader_sentence
from cluster.core.explain.sentences import Explanation, Sentence, duration_text, local_time_text, ordered
from cluster.core.explain.timeline import ActivePeriod, IdlePeriod, schedule_changes, schedule_text
from cluster.core.ids import is_chained
from cluster.core.instants import format_instant
from cluster.core.lifecycle import JobState
from cluster.core.windows import SKIP_REASON

if TYPE_CHECKING:
    from cluster.core.execution.view import ExecutionView
    from cluster.core.explain.facts import ClusterFacts, OccurrenceFacts
    from cluster.core.job.definition import StoredJob

DAY_MS = 86_400_000


def explain_not_due(
    job: StoredJob, periods: list[ActivePeriod], at_ms: int, period: ActivePeriod | IdlePeriod, now_ms: int
) -> Explanation:
    """Why nothing was due at `at_ms`, an instant in `period`."""
    if isinstance(period, IdlePeriod):
        return _idle(job, period, at_ms, now_ms)
    before = period.last_before(at_ms, now_ms)
    schedule = period.parsed
    following = schedule.next_after(at_ms)
    sentences = [Sentence(period.from_ms, f"the schedule `{schedule_text(period)}` took effect")]
    if period.start_ms is not None and at_ms < period.start_ms:
        sentences.append(Sentence(period.start_ms, "startAt: the job owes nothing before it"))
    if period.end_ms is not None and at_ms > period.end_ms:
        sentences.append(Sentence(period.end_ms, "endAt: the job owes nothing after it"))
        following = None
    if before is not None:
        sentences.append(Sentence(before, "the previous occurrence"))
    if following is not None:
        sentences.append(Sentence(following, "the next occurrence"))
    sentences += [Sentence(at, text) for at, text in schedule_changes(periods, at_ms - DAY_MS, at_ms + DAY_MS)]
    if period.owes(at_ms) and schedule.is_occurrence(at_ms):
        why = "the change or the resume after which the job owes it took effect just after"
    elif not period.owes(at_ms):
        why = "that is outside its startAt and endAt"
    elif job.definition.after is not None:
        why = f"it runs after job '{job.definition.after.job_id}', and has no schedule"
    elif (day := period.excluded_day(at_ms)) is not None:
        what = "leaves out" if period.exclusion is not None and period.exclusion.mode == "skip" else "moves"
        why = f"its calendar '{period.calendar}' excludes {day}, and the job {what} what is due on excluded days"
    else:
        why = f"its schedule `{schedule_text(period)}` has no occurrence then"
    return Explanation("notDue", f"It was not due at {format_instant(at_ms)}: {why}.", ordered(sentences))


def _idle(job: StoredJob, period: IdlePeriod, at_ms: int, now_ms: int) -> Explanation:
    at = format_instant(at_ms)
    sentences = []
    if period.from_ms is None:
        if at_ms < job.created_ms:
            sentences.append(Sentence(job.created_ms, "the job was created"))
            return Explanation("absent", f"The job did not exist at {at}.", tuple(sentences))
        if period.to_ms is not None:
            sentences.append(Sentence(period.to_ms, "the job began to owe occurrences"))
        summary = f"At {at} the job owed nothing yet, or its schedule of that time is no longer stored."
        return Explanation("absent", summary, tuple(sentences))
    ongoing = period.to_ms is None
    state = "deleted" if ongoing and job.state is JobState.DELETED else "paused"
    sentences.append(Sentence(period.from_ms, f"the job was {state}"))
    if ongoing and job.state_reason:
        sentences.append(Sentence(None, f"the reason: {job.state_reason}"))
    if ongoing:
        sentences += _pause_sentences(job, now_ms)
    if period.to_ms is not None:
        recreated = job.created_ms > period.from_ms
        text = "it was created again" if recreated else "it was resumed, and owes occurrences from then on"
        sentences.append(Sentence(period.to_ms, text))
    until_ms = job.pause.until_ms if ongoing else None
    if until_ms is not None and at_ms >= until_ms:
        summary = f"The job is paused until {format_instant(until_ms)}: it owes what its schedule has from then on."
        return Explanation(state, summary, tuple(sentences))
    was = f"already {state}" if state == "deleted" else state
    summary = f"At {at} the job was {was}: it owed nothing then, and there is no catch-up for that time."
    return Explanation(state, summary, tuple(sentences))


def _pause_sentences(job: StoredJob, now_ms: int) -> list[Sentence]:
    """The terms of the present pause."""
    sentences = []
    if job.pause.reason is not None:
        sentences.append(Sentence(None, f"the reason of the pause: {job.pause.reason}"))
    until_ms = job.pause.until_ms
    if until_ms is not None and until_ms > now_ms:
        sentences.append(Sentence(until_ms, "the pause ends by itself, and the job owes occurrences from then on"))
    elif until_ms is not None:
        text = "the pause ended: the leader is about to resume the job, which owes occurrences from then on"
        sentences.append(Sentence(until_ms, text))
    return sentences


def explain(
    job: StoredJob, periods: list[ActivePeriod], period: ActivePeriod | None, facts: OccurrenceFacts, now: ClusterFacts
) -> Explanation:
    """Why one occurrence that was due, or a run by hand, has its present state."""
    execution = facts.execution
    asked: list[Sentence] = []
    chained = execution is not None and is_chained(execution.id)
    if execution is not None and execution.trigger and execution.request_id and execution.due_ms % 1000 == 0:
        asked.append(Sentence(execution.asked_ms, f"backfill {execution.request_id} asked for it"))
    if execution is not None and chained:
        asked = []
        cause = Sentence(execution.due_ms, f"it follows the execution {execution.request_id}, which was due then")
    elif execution is not None and execution.trigger and execution.due_ms % 1000:
        cause = Sentence(execution.due_ms, "the run was requested by hand, independent of the schedule")
    else:
        verb = "it is due" if execution is None and facts.due_ms > now.now_ms else "it was due"
        if period is not None:
            by = f"by `{schedule_text(period)}`{local_time_text(facts.due_ms, period.timezone)}"
            if period.exclusion is not None and not period.parsed.regular.is_occurrence(facts.due_ms):
                by += f", moved here from a day that the calendar '{period.calendar}' excludes"
        else:
            by = "by a schedule that is no longer stored"
        cause = Sentence(facts.due_ms, f"{verb} {by}")
    if execution is None:
        answer = _unrecorded(facts, now)
    elif _waits_for_resume(job, periods, execution):
        sentences = _send_time(execution) + attempt_sentences(execution, now.nodes, job.definition.retry.max_attempts)
        sentences.append(Sentence(periods[-1].to_ms if periods else None, "the job was paused"))
        sentences += _pause_sentences(job, now.now_ms)
        answer = Explanation(execution.state, "It waits: the job is paused. It is owed until then.", tuple(sentences))
    else:
        answer = explain_recorded(job.definition.retry.max_attempts, periods, facts, execution, now)
    return replace(
        answer,
        sentences=ordered([cause, *answer.sentences, *asked]),
        due_ms=facts.due_ms,
        execution=None if execution is None else execution.id,
    )


def _waits_for_resume(job: StoredJob, periods: list[ActivePeriod], execution: ExecutionView) -> bool:
    """Whether an owed execution waits because its job is paused; a run asked for during the pause does not."""
    if job.state is not JobState.PAUSED or execution.state not in ("pending", "retrying"):
        return False
    ended_ms = periods[-1].to_ms if periods else None
    if execution.trigger:
        return ended_ms is not None and execution.due_ms <= ended_ms
    return ended_ms is None or execution.due_ms <= ended_ms


def explain_recorded(
    max_attempts: int, periods: list[ActivePeriod], facts: OccurrenceFacts, execution: ExecutionView, now: ClusterFacts
) -> Explanation:
    """An execution that is owed or final, in its present state."""
    sentences = _send_time(execution)
    sentences += attempt_sentences(execution, now.nodes, max_attempts)
    ended, state, reason = execution.ended_ms, execution.state, execution.reason
    if facts.window is not None and state in ("succeeded", "failed", "dead"):
        held = f"the window '{facts.window.name}' held it until {format_instant(facts.window.to_ms)}"
        sentences.append(Sentence(execution.due_ms, held))
    if state == "succeeded":
        drift = execution.drift_ms
        late = "" if drift is None or drift < 1000 else f", {duration_text(drift)} late"
        times = "at the first attempt" if len(execution.attempts) == 1 else f"after {_requests(execution)} requests"
        return Explanation(state, f"It succeeded {times}{late}.", tuple(sentences))
    if state == "missed":
        return _missed(execution, sentences)
    if state in ("failed", "dead"):
        sentences.append(Sentence(ended, f"it ended as {state}: {reason}"))
        how = "the target refused it" if state == "failed" else "it is dead"
        return Explanation(state, f"It did not succeed: {how} ({reason}).", tuple(sentences))
    if state == "cancelled":
        until = ended if ended is not None else execution.due_ms
        since = execution.due_ms - DAY_MS
        sentences += [Sentence(at, text) for at, text in schedule_changes(periods, since, until + 1000)]
        attempts = len(execution.attempts)
        when = "before its next attempt" if attempts else "before sending"
        sentences.append(Sentence(ended, f"a node cancelled it {when}: {reason}"))
        times = "once" if attempts == 1 else f"{attempts} times"
        sent = f"It was sent {times} without success, and is not sent again" if attempts else "It was not sent"
        return Explanation(state, f"{sent}: {reason}.", tuple(sentences))
    if state == "skipped":
        return _skipped(facts, execution, sentences)
    return explain_owed(facts, execution, now, sentences)


def _requests(execution: ExecutionView) -> int:
    return len(execution.attempts) + execution.attempts_left_out


def _send_time(execution: ExecutionView) -> list[Sentence]:
    """Why it was, or will be, sent later than it was due."""
    if execution.trigger or execution.send_ms <= execution.due_ms or execution.attempts[1:]:
        return []
    asked_ms = execution.asked_ms
    sentences = []
    if asked_ms is not None and all(a.sent_ms >= asked_ms for a in execution.attempts):
        sentences.append(Sentence(asked_ms, "a backfill or a replay asked for it"))
    if execution.state == "retrying":
        sentences.append(Sentence(execution.send_ms, "the send time of its retry"))
    elif asked_ms is None:
        by = duration_text(execution.send_ms - execution.due_ms)
        text = f"its send time: spreadSeconds delays the requests of this job by {by}"
        sentences.append(Sentence(execution.send_ms, text))
    return sentences


def _missed(execution: ExecutionView, sentences: list[Sentence]) -> Explanation:
    by = "the leader" if execution.id.endswith(":missed") else "the node that claimed it"
    recorded = f"{by} recorded it as missed"
    if execution.count > 1 and execution.last_ms is not None:
        text = f"{execution.count} occurrences from then to {format_instant(execution.last_ms)} were missed"
        sentences.append(Sentence(execution.due_ms, text))
        recorded = "the leader recorded them as missed"
    sentences.append(Sentence(execution.ended_ms, f"{recorded}: {execution.reason}"))
    return Explanation("missed", f"It was missed: {execution.reason}.", tuple(sentences))


def _skipped(facts: OccurrenceFacts, execution: ExecutionView, sentences: list[Sentence]) -> Explanation:
    other = facts.overlapping
    if other is not None and other.attempts:
        last = other.attempts[-1]
        text = f"execution {other.id} was sent; it took {duration_text(last.duration_ms)}"
        sentences.append(Sentence(last.sent_ms, text))
    elif other is not None:
        sentences.append(Sentence(None, f"execution {other.id} is {other.state}"))
    by_window = (execution.reason or "").startswith(SKIP_REASON)
    why = "by a maintenance window" if by_window else "because of `overlap: skip`"
    sentences.append(Sentence(execution.ended_ms, f"it was skipped {why}: {execution.reason}"))
    return Explanation(execution.state, f"It was skipped: {execution.reason}.", tuple(sentences))


def _unrecorded(facts: OccurrenceFacts, now: ClusterFacts) -> Explanation:
    due = facts.due_ms
    if due > now.now_ms:
        summary = f"It is in the future: due at {format_instant(due)}, in {duration_text(due - now.now_ms)}."
        if now.leader.node is None or now.leader.node not in now.nodes:
            return Explanation("ahead", summary, (leader_sentence(now),))
        return Explanation("ahead", summary)
    if facts.caught_up_to_ms is not None:
        text = "catch-up has reached this instant; it takes the oldest first, after everything that is due now"
        summary = (
            "It was scheduled late because no leader was active or the leader was behind. Catch-up is in progress."
        )
        return Explanation("waiting", summary, (Sentence(facts.caught_up_to_ms, text), leader_sentence(now)))
    if due < now.now_ms - now.retention_days * DAY_MS:
        summary = f"Results are kept for {now.retention_days:g} days: the result of this one has expired."
        return Explanation("expired", summary)
    if facts.unsettled:
        summary = "The leader has not settled the job's last change yet. It schedules the occurrence when it does."
        return Explanation("waiting", summary, (leader_sentence(now),))
    if facts.written_to_ms is None or facts.written_to_ms <= due:
        reached = []
        if facts.written_to_ms is not None:
            reached.append(Sentence(facts.written_to_ms, "the occurrences of its schedule are materialised up to here"))
        return Explanation("waiting", "The leader has not scheduled it yet.", (*reached, leader_sentence(now)))
    return Explanation(
        "unknown",
        "It was owed, but there is no record of it: its retention may have been shorter, or this is a bug in Horae. "
        "`horae verify` finds such occurrences.",
    )
