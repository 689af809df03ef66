"""What follows an execution that has ended: its callback, and runs of the jobs that are chained to its own. Values only.

Only what was to be sent and was not withdrawn is followed: `succeeded`, `failed`, `dead`. Nothing follows a cancelled,
skipped or missed one, because the job did not run.
"""

from __future__ import annotations

import base64
import codecs
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cluster.core.execution.model import Execution
from cluster.core.ids import chained_id, is_message
from cluster.core.instants import format_instant
from cluster.core.lifecycle import JobState, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster.core.execution.model import Answer

SUCCESS, FAILURE = "success", "failure"
FIELDS = {SUCCESS: "on_success", FAILURE: "on_failure"}
"""By kind, under which name a callback is stored."""
_KINDS: dict[str, str] = {State.SUCCEEDED: SUCCESS, State.FAILED: FAILURE, State.DEAD: FAILURE}


def kind_of(state: str) -> str | None:
    """`success` or `failure`; None: nothing follows what ends in this state, or it is one of a later release."""
    return _KINDS.get(state)


def kinds_told(stored: Mapping[str, Any]) -> tuple[str, ...]:
    """The kinds of callbacks that a stored job or message has."""
    return tuple(kind for kind, name in FIELDS.items() if stored.get(name))


@dataclass(frozen=True, slots=True)
class EndedExecution:
    """An execution as history has it. `attempts`: how many were made; the other values are those of the last one."""

    id: str
    job_id: str
    due_ms: int
    state: str
    ended_ms: int
    reason: str | None = None
    attempts: int = 0
    status: int | None = None
    error: str | None = None
    excerpt: str | None = None
    answer: Answer | None = field(default=None, repr=False)


def content_of(ended: EndedExecution) -> dict[str, Any]:
    """What a callback tells, as JSON."""
    answer = ended.answer
    body: dict[str, Any] = {"body": ended.excerpt, "bodyEncoding": "text", "bodyTruncated": ended.excerpt is not None}
    if answer is not None:
        body = _body(answer)
    return {
        "executionId": ended.id,
        "messageId" if is_message(ended.job_id) else "jobId": ended.job_id,
        "scheduledAt": format_instant(ended.due_ms),
        "endedAt": format_instant(ended.ended_ms),
        "state": ended.state,
        "reason": ended.reason,
        "attempts": ended.attempts,
        "status": ended.status,
        "error": ended.error,
        "headers": {} if answer is None else dict(answer.headers),
        **body,
    }


def _body(answer: Answer) -> dict[str, Any]:
    """As text if it is UTF-8, but for a character that the cut splits; else as base64."""
    truncated = answer.size > len(answer.body)
    try:
        text = codecs.utf_8_decode(answer.body, "strict", not truncated)[0]
    except UnicodeDecodeError:
        encoded = base64.b64encode(answer.body).decode()
        return {"body": encoded, "bodyEncoding": "base64", "bodyTruncated": truncated}
    return {"body": text, "bodyEncoding": "text", "bodyTruncated": truncated}


def sentence_of(ended: EndedExecution) -> str:
    """The same in a sentence, for channels that people read."""
    what = "Message" if is_message(ended.job_id) else "Job"
    attempts = "1 attempt" if ended.attempts == 1 else f"{ended.attempts} attempts"
    why = f": {ended.reason}" if ended.reason else ""
    return f"{what} {ended.job_id}: execution {ended.id} {_VERBS[ended.state]} after {attempts}{why}"


_VERBS = {"succeeded": "succeeded", "failed": "failed", "dead": "failed"}


@dataclass(frozen=True, slots=True)
class ChainedPeriod:
    """An earlier period of a chained job, both ends included (ms), and what it ran after in it; `after` empty: a schedule."""

    from_ms: int
    to_ms: int
    ended_by: str
    after: str = ""
    on: str = ""


@dataclass(frozen=True, slots=True)
class ChainedJob:
    """A job that runs after another one, as it is now; `on`: after which results. `past`: its earlier periods."""

    id: str
    on: str
    state: JobState
    active_from_ms: int
    schedule_version: str
    lane: int
    host: str
    limit_key: str | None
    past: tuple[ChainedPeriod, ...] = ()
    created_ms: int = 0
    """Periods that ended before belong to a job of the same id that was deleted."""

    def owes_run(self, ended: EndedExecution, margin_ms: int = 0) -> bool:
        """Whether it runs after this execution: it ended in such a state, within a period of the job. `margin_ms`: not so near
        to the ends of the period, for who judges what others knew then.

        A period that ended with a pause counts: what it owes waits. One that ended with a change counts too, if the job ran
        after the same one: then the results that it names now count. Who judges leaves such periods out, because of what was
        written before the change the earlier ones counted.
        """
        kind, at_ms = kind_of(ended.state), ended.ended_ms
        if kind is None or self.state is JobState.DELETED:
            return False
        if self.state is not JobState.PAUSED and at_ms >= self.active_from_ms + margin_ms:
            return _is_wanted(self.on, kind)
        return any(
            p.from_ms + margin_ms <= at_ms <= p.to_ms - margin_ms
            and p.to_ms > self.created_ms
            and p.after == ended.job_id
            and (
                (p.ended_by == "pause" and _is_wanted(p.on, kind))
                or (p.ended_by == "change" and not margin_ms and _is_wanted(self.on, kind))
            )
            for p in self.past
        )

    def run_after(self, ended: EndedExecution) -> Execution:
        """The run that it owes, without a batch. It counts its lateness and its age from the end of what it follows."""
        return Execution(
            id=chained_id(self.id, ended.id, ended.due_ms),
            job_id=self.id,
            due_ms=ended.due_ms,
            send_ms=ended.ended_ms,
            schedule_version=self.schedule_version,
            batch="",
            lane=self.lane,
            trigger=True,
            replayed_ms=ended.ended_ms,
            host=self.host,
            limit_key=self.limit_key,
            request_id=ended.id,
        )


def _is_wanted(on: str, kind: str) -> bool:
    return on == "any" or (on == "succeeded") == (kind == SUCCESS)
