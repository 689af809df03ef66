"""Traces as values: ids follow from what is traced, and every span of an execution hangs together."""

from __future__ import annotations

import re

import pytest

from cluster.core.execution.model import Attempt, Ending, Execution
from cluster.core.execution.trace import SpanCollector, final_spans, materialise_spans, trace_id, traceparent
from cluster.core.lifecycle import State

EXECUTION = Execution("job:1900000020000", "job", 1_900_000_020_000, 1_900_000_020_000, "v", "b", 3)


ATTEMPTS = (
    Attempt(1, 1_900_000_020_004, "n1", 1, 30.0, 503),
    Attempt(2, 1_900_000_021_010, "n2", 2, 20.0, 200),
)


class Every:
    """A trace that wants all."""

    def wants(self, _: str) -> bool:
        return True

    def take(self, _: object) -> None:
        raise AssertionError


def test_the_header_is_a_w3c_trace_context_of_the_execution() -> None:
    """One trace for all attempts of an execution, one parent per attempt and token, sampled only if collected."""
    off = traceparent(EXECUTION.id, 1, 7, None)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", off)
    trace: SpanCollector = Every()
    on = traceparent(EXECUTION.id, 1, 7, trace)
    assert on == off[:-2] + "01"
    again, stolen = traceparent(EXECUTION.id, 2, 7, None), traceparent(EXECUTION.id, 1, 8, None)
    assert off.split("-")[1] == again.split("-")[1] == stolen.split("-")[1] == trace_id(EXECUTION.id)
    assert len({h.split("-")[2] for h in (off, again, stolen)}) == 3
    assert trace_id("job:1900000021000") != trace_id(EXECUTION.id)


@pytest.mark.parametrize("claimed_ms", [0, 1_900_000_020_500])
def test_the_spans_of_an_execution_are_one_tree(claimed_ms: int) -> None:
    """One root without a parent; every other span is its child; the target's `traceparent` names its attempt's span."""
    ending = Ending(EXECUTION, State.SUCCEEDED, 1_900_000_021_031, ATTEMPTS, None, 4)
    spans = final_spans(ending, claimed_ms, 1_900_000_021_040)
    leaders = materialise_spans([EXECUTION], Every(), 1_900_000_005_000, 1_900_000_005_020)
    [root] = [s for s in spans if s.parent_id is None]
    assert {s.trace_id for s in (*spans, *leaders)} == {trace_id(EXECUTION.id)}
    assert {s.parent_id for s in (*spans, *leaders) if s is not root} == {root.span_id}
    assert len({s.span_id for s in (*spans, *leaders)}) == len(spans) + 1
    assert all(root.start_ms <= s.start_ms <= s.end_ms <= root.end_ms for s in spans)
    attempts = [s for s in spans if s.name == "attempt"]
    parents = [traceparent(EXECUTION.id, a.number, a.token, None).split("-")[2] for a in ATTEMPTS]
    assert [s.span_id for s in attempts] == parents
    assert [s.error for s in attempts] == ["status 503", None]
    assert root.attributes["horae.state"] == "succeeded"
    assert [s.name for s in spans if s.name == "held"] == (["held"] if claimed_ms else [])


def test_an_execution_that_was_never_sent_has_a_trace_too() -> None:
    """A cancelled execution has a root span and a record span, and no error."""
    spans = final_spans(
        Ending(EXECUTION, State.CANCELLED, 1_900_000_020_001, (), "the job was paused"), 0, 1_900_000_020_009
    )
    assert sorted(s.name for s in spans) == ["execution", "record"]
    assert all(s.error is None for s in spans)
