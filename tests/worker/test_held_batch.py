"""The life of an execution under a lease: every pair of stage and event does what the table says, or is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.core.execution.model import Batch, Execution
from cluster.worker.held_batch import LIFE, HeldBatch, HeldBatches, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

A, B = (Execution(f"{job}:1", job, 1, 1, "v1", "b", 0) for job in "ab")

EVENTS: dict[str, Callable[[HeldBatch], object]] = {
    "start": lambda held: held.start(A.id),
    "finish": lambda held: held.finish(A.id),
    "drop": lambda held: held.drop(A.id),
    "recorded": lambda held: held.recorded(A.id),
    "abandon": lambda held: held.abandon(A.id),
    "move": lambda held: held.move([A]),
    "withdraw": lambda held: held.withdraw([A]),
    "lose": lambda held: held.lose(),
}
WAYS: dict[Stage, tuple[str, ...]] = {
    Stage.WAITING: (),
    Stage.SENDING: ("start",),
    Stage.UNRECORDED: ("drop",),
    Stage.CLOSED: ("withdraw",),
}


def held_batch(*executions: Execution) -> HeldBatch:
    return HeldBatch(Batch("b", tuple(e.id for e in executions), 0, 0, 1, 1, token=3), 10.0, executions, claimed_ms=5)


def in_stage(stage: Stage) -> HeldBatch:
    held = held_batch(A, B)
    for event in WAYS[stage]:
        EVENTS[event](held)
    assert held.stage(A.id) is stage
    return held


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("event", EVENTS)
def test_each_event_in_each_stage_does_what_the_table_says(stage: Stage, event: str) -> None:
    """A pair that the table lacks is refused and changes nothing."""
    held = in_stage(stage)
    following = LIFE.get((stage, event))
    if following is None:
        with pytest.raises(KeyError):
            EVENTS[event](held)
        assert held.stage(A.id) is stage
        assert not held.lost
    else:
        EVENTS[event](held)
        assert held.stage(A.id) is following


def test_the_table_names_no_other_events() -> None:
    """Every event of the table is a method that the test above calls."""
    assert {event for _, event in LIFE} == EVENTS.keys()
    assert {stage for stage, _ in LIFE} == set(Stage)


@pytest.mark.parametrize("stage", Stage)
def test_a_batch_is_done_when_its_last_execution_is_closed(stage: Stage) -> None:
    held = in_stage(stage)
    assert not held.done, "the other one waits"
    held.withdraw([B])
    assert held.done == (stage is Stage.CLOSED)


@pytest.mark.parametrize("stage", Stage)
def test_only_a_batch_of_which_everything_waits_is_untouched(stage: Stage) -> None:
    assert in_stage(stage).untouched == (stage is Stage.WAITING)


def test_a_claim_that_left_executions_out_is_not_untouched() -> None:
    """Some that the batch lists were final already: it can only be released by a move."""
    held = HeldBatch(Batch("b", (A.id, B.id), 0, 0, 1, 1), 10.0, [A])
    assert not held.untouched


@pytest.mark.parametrize("stage", [Stage.SENDING, Stage.UNRECORDED])
def test_an_execution_that_is_abandoned_takes_the_lease_with_it(stage: Stage) -> None:
    """Only the end of the lease can help it, so nothing else of the batch is sent under this lease."""
    held = in_stage(stage)
    assert held.abandon(A.id) == [B]
    assert held.lost
    assert held.done


def test_a_lost_batch_still_takes_the_result_of_what_is_in_flight() -> None:
    """A success counts, whichever node holds the lease by then."""
    held = in_stage(Stage.SENDING)
    assert held.lose() == [B]
    held.finish(A.id)
    assert held.stage(A.id) is Stage.UNRECORDED
    held.recorded(A.id)
    assert held.done


def test_withdraw_and_move_return_what_waited() -> None:
    """Without a choice all of it; what was chosen and does not wait any more is left alone."""
    held = in_stage(Stage.SENDING)
    assert held.withdraw([A]) == []
    assert held.move([A, B]) == [B]
    assert held.stage(B.id) is Stage.UNRECORDED
    assert held_batch(A, B).withdraw() == [A, B]
    assert held_batch(A, B).move() == [A, B]


def test_no_other_code_can_write_a_field() -> None:
    """The properties have no setters."""
    held = held_batch(A)
    for name in ("lost", "valid_until", "waiting", "sending", "unrecorded", "done"):
        with pytest.raises(AttributeError):
            setattr(held, name, None)
    held.renewed(20.0)
    assert held.valid_until == 20.0


def test_forgetting_a_batch_leaves_a_later_claim_of_it_alone() -> None:
    """Two claims of one batch by one node: the earlier one is forgotten after the later one was made."""
    batches = HeldBatches()
    earlier, later = held_batch(A), held_batch(A)
    batches.add(earlier)
    batches.add(later)
    batches.forget(earlier)
    assert batches["b"] is later
    batches.forget(later)
    assert not batches
