"""Jobs and executions as JSON. Times are RFC 3339 in UTC with milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cluster.core.documents.job_json import job_document
from cluster.core.execution.lateness import ON_TIME
from cluster.core.execution.trace import trace_id
from cluster.core.ids import is_callback, is_follow_up
from cluster.core.instants import format_instant, format_optional_instant
from cluster.core.job.changes import schedule_of
from cluster.core.lifecycle import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster.core.execution.model import Attempt
    from cluster.core.execution.view import ExecutionView
    from cluster.core.job.definition import StoredJob

NEXT_RUNS_SHOWN, MOST_NEXT_RUNS = 5, 20


def job_json(j: StoredJob) -> dict[str, Any]:
    """A job in a list."""
    return {
        "jobId": j.id,
        **job_document(j.definition),
        "state": j.state.value,
        "stateReason": j.state_reason,
        "pausedUntil": format_optional_instant(j.pause.until_ms),
        "pauseReason": j.pause.reason,
        "revision": j.revision,
        "createdAt": format_instant(j.created_ms),
        "updatedAt": format_instant(j.updated_ms),
    }


def full_job_json(j: StoredJob, last: ExecutionView | None, now_ms: int, runs: int = NEXT_RUNS_SHOWN) -> dict[str, Any]:
    """A job with its next occurrences and its last execution."""
    return job_json(j) | {
        "activeFrom": format_instant(j.active_from_ms),
        "nextRuns": [format_instant(t) for t in next_runs(j, now_ms, runs)],
        "lastExecution": None if last is None else execution_json(last),
    }


def next_runs(j: StoredJob, now_ms: int, count: int) -> list[int]:
    """The next occurrences of the job; none unless it is active."""
    if j.state is not JobState.ACTIVE:
        return []
    d = j.definition
    end = d.end_ms + 1 if d.end_ms is not None else 2**62
    start = max(now_ms + 1, j.active_from_ms, d.start_ms or 0)
    return schedule_of(d, j.anchor_ms).between(start, end, count)


def execution_json(r: ExecutionView) -> dict[str, Any]:
    """An execution in a list, with the values of its last attempt."""
    last = r.attempts[-1] if r.attempts else None
    rendered: dict[str, Any] = {
        "timestamp": format_instant(last.sent_ms if last else r.ended_ms if r.ended_ms is not None else r.due_ms),
        "status": last.status if last else None,
        "duration": f"{last.duration_ms:.0f}ms" if last else None,
        "executionId": r.id,
        "scheduledAt": format_instant(r.due_ms),
        "state": r.state,
        "attempt": len(r.attempts) + r.attempts_left_out,
        "driftMs": r.drift_ms,
        "error": _error_text(last) if r.state != "succeeded" else None,
        "node": last.node if last else r.node,
    }
    if r.reason is not None:
        rendered["reason"] = r.reason
    if r.state == "missed":
        rendered |= {
            "missedCount": r.count,
            "missedUntil": format_instant(r.last_ms if r.last_ms is not None else r.due_ms),
        }
    return rendered


def full_execution_json(r: ExecutionView) -> dict[str, Any]:
    """An execution with all its attempts."""
    return (
        execution_json(r)
        | {
            "jobId": r.job_id,
            "reason": r.reason,
            "sendAt": format_instant(r.send_ms),
            "endedAt": format_optional_instant(r.ended_ms),
            "trigger": r.trigger,
            "scheduleVersion": r.schedule_version,
            "traceId": trace_id(r.id),
            "follows": r.request_id if is_follow_up(r.id) else None,
            "attempts": [_attempt_json(a) for a in r.attempts],
        }
        | ({"attemptsLeftOut": r.attempts_left_out} if r.attempts_left_out else {})
    )


def follow_up_json(r: ExecutionView) -> dict[str, Any]:
    """A callback or a chained run beside the execution that it follows."""
    kind = "callback" if is_callback(r.job_id) else "run"
    return {"executionId": r.id, "kind": kind, "jobId": r.job_id, "state": r.state, "attempt": len(r.attempts)}


def _error_text(a: Attempt | None) -> str | None:
    """What went wrong in an attempt, in one sentence."""
    if a is None:
        return None
    if a.error is not None:
        return f"{a.error}: {a.detail}" if a.detail else a.error
    return None if a.status is None or 200 <= a.status < 300 else f"the target answered {a.status}"


def lateness_json(parts: Mapping[str, float]) -> dict[str, float]:
    """The parts of a lateness, in ms."""
    return {f"{_camel(part)}Ms": round(ms, 1) for part, ms in parts.items()}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def _attempt_json(a: Attempt) -> dict[str, Any]:
    late = {} if a.late is ON_TIME else {"latenessParts": lateness_json(a.late._asdict())}
    return {
        "attempt": a.number,
        "claimedAt": format_optional_instant(a.claimed_ms),
        "sentAt": format_instant(a.sent_ms),
        "durationMs": a.duration_ms,
        "status": a.status,
        "error": a.error,
        "detail": a.detail,
        "responseExcerpt": a.excerpt,
        "node": a.node,
        "token": a.token,
        **late,
    }
