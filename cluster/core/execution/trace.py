"""One trace per execution, from its materialisation to its record. All ids are hashes of ids of the execution.

So every node computes the same trace id without passing it on, and a second delivery of an attempt is the same span. A
target gets a `traceparent` header (W3C Trace Context) whether or not spans are collected. This module does not know
OpenTelemetry: spans are values, and a `SpanCollector` takes them.
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
    """One piece of work. Ids are hex (32 and 16 digits), instants are cluster time in ms. `error` is None on success."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_ms: float
    end_ms: float
    attributes: dict[str, Value] = field(default_factory=dict)
    error: str | None = None
    outgoing: bool = False
    """Whether it is a request to another system."""


class SpanCollector(Protocol):
    """Collects spans."""

    def wants(self, trace_id: str) -> bool:
        """Whether the spans of this trace are collected. The answer is the same on every node."""

    def take(self, spans: Iterable[Span]) -> None:
        """Take finished spans. Returns at once and raises nothing."""


def trace_id(execution_id: str) -> str:
    """The trace id of an execution."""
    return blake2b(execution_id.encode(), digest_size=16, person=b"horae-trace").hexdigest()


def _span_id(execution_id: str, what: str) -> str:
    return blake2b(f"{execution_id} {what}".encode(), digest_size=8, person=b"horae-span").hexdigest()


def _attempt_id(execution_id: str, number: int, token: int) -> str:
    return _span_id(execution_id, f"{number}.{token}")


def traceparent(execution_id: str, number: int, token: int, trace: SpanCollector | None) -> str:
    """The `traceparent` header of one attempt, flagged as sampled if its trace is collected."""
    of = trace_id(execution_id)
    flag = "01" if trace is not None and trace.wants(of) else "00"
    return f"00-{of}-{_attempt_id(execution_id, number, token)}-{flag}"


def materialise_spans(
    executions: Sequence[Execution], trace: SpanCollector, start_ms: float, end_ms: float
) -> list[Span]:
    """One span for each execution that the leader materialised between the two instants."""
    spans = []
    for e in executions:
        of = trace_id(e.id)
        if trace.wants(of):
            root = _span_id(e.id, "execution")
            span_id = _span_id(e.id, "materialise")
            spans.append(Span(of, span_id, root, "materialise", start_ms, end_ms, {"horae.batch": e.batch}))
    return spans


def final_spans(ending: Ending, taken_ms: int, recorded_ms: int) -> list[Span]:
    """The spans of a final execution: the whole execution, its attempts, the time between claim and first attempt, and
    the record. The node that recorded it emits them.

    `taken_ms` is when that node claimed it; 0 if unknown.
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
