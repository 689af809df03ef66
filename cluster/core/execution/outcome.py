"""Why an attempt may not begin, and how an attempt's result changes its execution. Values in, values out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.core.execution.model import Ending, Rescheduled
from cluster.core.execution.verdict import Verdict, next_retry, round_up_to_grain, verdict_of
from cluster.core.ids import spread_ms
from cluster.core.instants import format_instant
from cluster.core.lifecycle import Event, JobState, next_state
from cluster.core.value import value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.model import Attempt, EndedPeriod, Execution, Job


def planned_ms(execution: Execution, job: Job) -> int:
    """The planned send time of its first attempt (ms). Drift and age count from there."""
    if execution.replayed_ms is not None:
        return execution.replayed_ms
    return execution.due_ms if execution.trigger else execution.due_ms + spread_ms(job.id, job.spread_seconds)


def drift_ms(execution: Execution, job: Job, first_sent_ms: int) -> int:
    """How much later than planned its first attempt was sent. A backfill goes at its rate: each execution is planned when
    its turn has come, although its age counts from the request.
    """
    planned = planned_ms(execution, job)
    if execution.replayed_ms is not None and execution.request_id is not None:
        planned = max(planned, min(execution.send_ms, first_sent_ms))
    return first_sent_ms - planned


_BEFORE_DUE = {
    "change": "the schedule was changed before it was due",
    "pause": "the job was paused before it was due",
    "delete": "the job was deleted",
}
"""Why an execution is cancelled that came due after the period of its schedule version, by what ended the period."""
_ENDED_BEFORE_DUE = "the job was changed or paused before it was due"
_NOT_STORED = "the schedule was changed, so often since then that its earlier schedule is no longer stored"


def cancellation_reason(execution: Execution, job: Job | None) -> str | None:
    """Why this execution is cancelled, given the job as it is now. None if it is owed: it is sent, or waits for a resume.

    What came due while its schedule version was in effect stays owed, whatever happened to the job since, unless the
    job was deleted. Also if it has a send time after that (`spreadSeconds`, a retry).
    """
    if execution.cancelled:
        return "it was cancelled before it was sent"
    if job is None or job.state is JobState.DELETED or _is_of_deleted_job(execution, job):
        return "the job was deleted" if execution.message is None else "its request was not there any more"
    if execution.trigger:
        return None
    ended = _ended_period(execution, job) if job.past else None
    if ended is not None:
        return None if execution.due_ms <= ended.to_ms else _BEFORE_DUE.get(ended.ended_by, _ENDED_BEFORE_DUE)
    if job.schedule_version == execution.schedule_version or execution.attempts:
        return None
    return _NOT_STORED


def _ended_period(execution: Execution, job: Job) -> EndedPeriod | None:
    """The period of the execution's schedule version, if it has ended."""
    return next((p for p in job.past if p.schedule_version == execution.schedule_version), None)


def waits_for_resume(execution: Execution, job: Job) -> bool:
    """Whether an execution that is owed waits, because its job is paused. A run asked for during the pause does not."""
    if job.state is not JobState.PAUSED:
        return False
    return not execution.trigger or (bool(job.past) and _asked_ms(execution) <= job.past[-1].to_ms)


def _asked_ms(execution: Execution) -> int:
    """When a run by hand, or a replay, was asked for."""
    return execution.due_ms if execution.replayed_ms is None else execution.replayed_ms


def _is_of_deleted_job(execution: Execution, job: Job) -> bool:
    """Whether the job was deleted since, and created again under the same id."""
    if not execution.trigger and not job.past:
        return False  # nearly always
    return _ended_with_deleted_job(execution, job)


def _ended_with_deleted_job(execution: Execution, job: Job) -> bool:
    if execution.trigger:
        # A job that was deleted while it was paused has no period of its own for that, so its versions say it: a run
        # that was asked for since the creation, by a node whose clock is a little behind, carries a present one.
        present = {p.schedule_version for p in job.past if p.to_ms > job.created_ms} | {job.schedule_version}
        return _asked_ms(execution) <= job.created_ms and execution.schedule_version not in present
    return any(p.schedule_version == execution.schedule_version and p.to_ms <= job.created_ms for p in job.past)


def max_age_reason(execution: Execution, job: Job, at_ms: int) -> str | None:
    """The sentence about `maxAgeSeconds` or `expiresAt` if no attempt may begin at that instant. None if one may."""
    if job.expires_ms is not None and at_ms > job.expires_ms:
        at = format_instant(job.expires_ms)
        return f"expiresAt ({at}) passed before it could be {'retried' if execution.attempts else 'sent'}"
    age = job.retry.max_age_seconds
    if age is None or at_ms <= planned_ms(execution, job) + age * 1000:
        return None
    return f"maxAgeSeconds ({age:g}) passed before it could be {'retried' if execution.attempts else 'sent'}"


def next_attempt_number(attempts: Sequence[Attempt]) -> int:
    """The number of the next attempt after these. Two deliveries under one number count once."""
    if not attempts:
        return 1
    return max([a.number for a in attempts]) + 1


def exhaustion_reason(execution: Execution, job: Job) -> str | None:
    """The sentence about `maxAttempts` if no attempt may follow those made. None if one may.

    A node can claim such an execution: a node that had lost its lease kept the result of the last attempt.
    """
    made = next_attempt_number(execution.attempts) - 1
    return _exhausted(made, execution.attempts[-1]) if made >= job.retry.max_attempts else None


def _exhausted(made: int, last: Attempt) -> str:
    return f"all {made} attempts failed; the last one: {last.error or f'the target answered {last.status}'}"


@value(frozen=True, slots=True)
class AttemptResult:
    """The result of one attempt. `jitter` in [0, 1) places a retry within the job's jitter."""

    attempts: tuple[Attempt, ...]
    """All attempts of the execution, the new one last."""
    now_ms: int
    drift_ms: int
    jitter: float
    retry_after_seconds: float | None = None
    """The target's `Retry-After`."""


def outcome(execution: Execution, job: Job, result: AttemptResult) -> tuple[Ending | Rescheduled, Verdict]:
    """How an execution ends or is retried after an attempt, and the verdict on that attempt.

    The execution must be as it was stamped at the claim: its batch and token fence every write about it.
    """
    last = result.attempts[-1]
    verdict = verdict_of(last.status, last.error, job.success_codes)
    if verdict is Verdict.SUCCESS:
        return _ending(execution, result, Event.SUCCESS, None), verdict
    why = last.error or f"the target answered {last.status}"
    if verdict is Verdict.GONE:
        paused = ", so the job was paused" if execution.message is None else ""
        return _ending(execution, result, Event.REFUSED, f"{why} (Gone){paused}"), verdict
    if verdict is Verdict.REFUSED:
        return _ending(execution, result, Event.REFUSED, why), verdict
    retry = next_retry(job.retry, last.number, jitter=result.jitter, retry_after_seconds=result.retry_after_seconds)
    if retry is None:
        return _ending(execution, result, Event.EXHAUST, _exhausted(last.number, last)), verdict
    send_ms = round_up_to_grain(result.now_ms + retry.delay_ms)
    old = max_age_reason(execution, job, send_ms)
    if old is not None:
        reason = f"{last.number} attempt{'' if last.number == 1 else 's'}, then {old}; the last one: {why}"
        return _ending(execution, result, Event.EXHAUST, reason), verdict
    return Rescheduled(execution, result.attempts, send_ms), verdict


def _ending(execution: Execution, result: AttemptResult, event: Event, reason: str | None) -> Ending:
    return Ending(
        execution=execution,
        state=next_state(execution.state, event),
        ended_ms=result.now_ms,
        attempts=result.attempts,
        reason=reason,
        drift_ms=result.drift_ms,
    )
