"""One trace per execution, from being written down to being recorded. Ids follow from what is traced.

So every node that has to do with an execution finds the same trace without being told, a second delivery of the same
attempt is the same span, and a target can be sent a `traceparent` (W3C Trace Context) whether or not anybody collects
spans. Nothing here knows OpenTelemetry: spans are values, and whoever wants them is a `Trace`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cluster.core.execution.model import Attempt, Ending, Execution

Value = str | int | float


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of work. Ids are hex (32 and 16 digits), instants ms of cluster time; `error` says what went wrong."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_ms: float
    end_ms: float
    attributes: dict[str, Value] = field(default_factory=dict)
    error: str | None = None
    outgoing: bool = False
    """Whether it is a request to somebody else."""


class SpanCollector(Protocol):
    """Whoever collects spans."""

    def wants(self, trace_id: str) -> bool:
        """Whether this trace is among those collected: the same answer on every node."""

    def take(self, spans: Iterable[Span]) -> None:
        """Take finished spans; returns at once, raises nothing."""


def trace_id(execution_id: str) -> str:
    """The trace of an execution."""
    return blake2b(execution_id.encode(), digest_size=16, person=b"horae-trace").hexdigest()


def _span_id(execution_id: str, what: str) -> str:
    return blake2b(f"{execution_id} {what}".encode(), digest_size=8, person=b"horae-span").hexdigest()


def _attempt_id(execution_id: str, number: int, token: int) -> str:
    return _span_id(execution_id, f"{number}.{token}")


def traceparent(execution_id: str, number: int, token: int, trace: SpanCollector | None) -> str:
    """The header of one attempt, marked as sampled if its trace is collected."""
    of = trace_id(execution_id)
    flag = "01" if trace is not None and trace.wants(of) else "00"
    return f"00-{of}-{_attempt_id(execution_id, number, token)}-{flag}"


def materialise_spans(
    executions: Sequence[Execution], trace: SpanCollector, start_ms: float, end_ms: float
) -> list[Span]:
    """The leader wrote these down between the two instants."""
    found = []
    for e in executions:
        of = trace_id(e.id)
        if trace.wants(of):
            root = _span_id(e.id, "execution")
            span_id = _span_id(e.id, "materialise")
            found.append(Span(of, span_id, root, "materialise", start_ms, end_ms, {"horae.batch": e.batch}))
    return found


def final_spans(ending: Ending, taken_ms: int, recorded_ms: int) -> list[Span]:
    """The execution as a whole, its attempts, and the recording: told when it is final, by the node that recorded it.

    `taken_ms` is when that node claimed it, 0 if that is not known.
    """
    e = ending.execution
    of, root = trace_id(e.id), _span_id(e.id, "execution")
    spans = [_attempt(e.id, of, root, a) for a in ending.attempts]
    if taken_ms:
        first = min([a.sent_ms for a in ending.attempts if a.sent_ms >= taken_ms], default=ending.ended_ms)
        spans.append(Span(of, _span_id(e.id, f"held {taken_ms}"), root, "held", taken_ms, max(taken_ms, first)))
    spans.append(Span(of, _span_id(e.id, f"record {recorded_ms}"), root, "record", ending.ended_ms, recorded_ms))
    attributes: dict[str, Value] = {
        "horae.job": e.job_id,
        "horae.execution": e.id,
        "horae.state": ending.state.value,
        "horae.attempts": len(ending.attempts),
        "horae.due_ms": e.due_ms,
    }
    if ending.drift_ms is not None:
        attributes["horae.drift_ms"] = ending.drift_ms
    start = min(s.start_ms for s in spans)
    name = "execution"
    failed = ending.reason if ending.state.value in ("failed", "dead") else None
    spans.append(Span(of, root, None, name, min(start, e.due_ms), max(recorded_ms, start), attributes, failed))
    return spans


def _attempt(execution_id: str, of: str, root: str, a: Attempt) -> Span:
    attributes: dict[str, Value] = {"horae.attempt": a.number, "horae.token": a.token, "horae.node": a.node}
    attributes["http.request.method"] = "POST"
    if a.status is not None:
        attributes["http.response.status_code"] = a.status
    error = a.error or (None if a.status is not None and 200 <= a.status < 300 else f"status {a.status}")
    span_id = _attempt_id(execution_id, a.number, a.token)
    return Span(of, span_id, root, "attempt", a.sent_ms, a.sent_ms + a.duration_ms, attributes, error, outgoing=True)
