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


def traceparent(execution_id: str, number: int, token: int, collector: SpanCollector | None) -> str:
    """The `traceparent` header of one attempt, flagged as sampled if its trace is collected."""
    of = trace_id(execution_id)
    flag = "01" if collector is not None and collector.wants(of) else "00"
    return f"00-{of}-{_attempt_id(execution_id, number, token)}-{flag}"


def materialise_spans(
    executions: Sequence[Execution], collector: SpanCollector, start_ms: float, end_ms: float
) -> list[Span]:
    """One span for each execution that the leader materialised between the two instants."""
    spans = []
    for e in executions:
        of = trace_id(e.id)
        if collector.wants(of):
            root = _span_id(e.id, "execution")
            span_id = _span_id(e.id, "materialise")
            span = Span(
                trace_id=of,
                span_id=span_id,
                parent_id=root,
                name="materialise",
                start_ms=start_ms,
                end_ms=end_ms,
                attributes={"horae.batch": e.batch},
            )
            spans.append(span)
    return spans


def final_spans(ending: Ending, claimed_ms: int, recorded_ms: int) -> list[Span]:
    """The spans of a final execution: the whole execution, its attempts, the time between claim and first attempt, and
    the record. The node that recorded it emits them.

    `claimed_ms` is when that node claimed it; 0 if unknown.
    """
    e = ending.execution
    of, root = trace_id(e.id), _span_id(e.id, "execution")
    spans = [_attempt(e.id, of, root, a) for a in ending.attempts]
    if claimed_ms:
        first = min([a.sent_ms for a in ending.attempts if a.sent_ms >= claimed_ms], default=ending.ended_ms)
        spans.append(_part(e.id, "held", claimed_ms, claimed_ms, max(claimed_ms, first)))
    spans.append(_part(e.id, "record", recorded_ms, ending.ended_ms, recorded_ms))
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
    whole = Span(
        trace_id=of,
        span_id=root,
        parent_id=None,
        name="execution",
        start_ms=min(start, e.due_ms),
        end_ms=max(recorded_ms, start),
        attributes=attributes,
        error=ending.reason if ending.state.value in ("failed", "dead") else None,
    )
    return [*spans, whole]


def _part(execution_id: str, name: str, key_ms: int, start_ms: int, end_ms: int) -> Span:
    """A part of an execution. `key_ms` distinguishes it from the same part on another node."""
    return Span(
        trace_id=trace_id(execution_id),
        span_id=_span_id(execution_id, f"{name} {key_ms}"),
        parent_id=_span_id(execution_id, "execution"),
        name=name,
        start_ms=start_ms,
        end_ms=end_ms,
    )


def _attempt(execution_id: str, of: str, root: str, a: Attempt) -> Span:
    attributes: dict[str, Value] = {"horae.attempt": a.number, "horae.token": a.token, "horae.node": a.node}
    attributes["http.request.method"] = "POST"
    if a.status is not None:
        attributes["http.response.status_code"] = a.status
    error = a.error or (None if a.status is not None and 200 <= a.status < 300 else f"status {a.status}")
    return Span(
        trace_id=of,
        span_id=_attempt_id(execution_id, a.number, a.token),
        parent_id=root,
        name="attempt",
        start_ms=a.sent_ms,
        end_ms=a.sent_ms + a.duration_ms,
        attributes=attributes,
        error=error,
        outgoing=True,
    )
