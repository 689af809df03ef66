"""Crowded seconds: how early their batches may be claimed."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from cluster.core.execution.crowds import KEPT, PREPARED_IN_TIME, PREPARED_PER_MS, Crowds
from cluster.core.execution.model import Execution, JobSchedule
from cluster.core.execution.planning import MAX_BATCH, plan_batches, plan_messages
from cluster.core.timings import LONGEST_PREFETCH_MS, PREFETCH_MS
from cluster.worker.release import FAR_MS

SECOND = 1_800_000_000


def owing(count: int) -> list[tuple[JobSchedule, list[int]]]:
    """So many jobs of one host that owe an execution in one second."""
    jobs = (JobSchedule(f"j{i}", "k", "v", 0, None, None, 7, 0, host="a:1") for i in range(count))
    return [(job, [SECOND * 1000]) for job in jobs]


@given(st.lists(st.integers(1, MAX_BATCH), max_size=300))
@example([MAX_BATCH] * 200)
def test_a_later_batch_of_a_second_may_be_claimed_no_later(sizes: list[int]) -> None:
    """As usual while the second holds few, and never so early that a node would give a batch back."""
    crowds = Crowds()
    planned = 0
    before = PREFETCH_MS
    for size in sizes:
        planned += size
        prefetch = crowds.prefetch_ms(SECOND, size)
        assert before <= prefetch <= LONGEST_PREFETCH_MS < FAR_MS
        if planned <= PREPARED_IN_TIME:
            assert prefetch == PREFETCH_MS
        elif prefetch < LONGEST_PREFETCH_MS:
            assert prefetch == PREFETCH_MS + (planned - PREPARED_IN_TIME) // PREPARED_PER_MS
        before = prefetch


def test_seconds_are_counted_apart_and_forgotten_in_their_order() -> None:
    """A leader leads for months."""
    crowds = Crowds()
    assert crowds.prefetch_ms(SECOND, 10_000) > PREFETCH_MS
    assert crowds.prefetch_ms(SECOND + 1, 100) == PREFETCH_MS
    assert crowds.prefetch_ms(SECOND, 100) > PREFETCH_MS
    for later in range(2, 2 * KEPT):
        crowds.prefetch_ms(SECOND + later, 1900)
    assert len(crowds._planned) <= KEPT
    assert crowds.prefetch_ms(SECOND, 100) == PREFETCH_MS
    assert crowds.prefetch_ms(SECOND + 2 * KEPT - 1, 400) > PREFETCH_MS


def test_batches_of_a_crowded_second_are_claimable_earlier_whichever_page_planned_them() -> None:
    """One leader writes a page of jobs after the other, and all of them are sent together."""
    crowds = Crowds()
    names = iter(range(1000))
    prefetches: list[int] = []
    for _ in range(3):
        plan = plan_batches(owing(1500), 2, lambda: f"b{next(names)}", crowds=crowds)
        prefetches += [b.send_ms - b.claimable_ms for b in plan.batches]
    assert prefetches == sorted(prefetches)
    assert prefetches[0] == PREFETCH_MS
    assert prefetches[-1] == PREFETCH_MS + (4500 - PREPARED_IN_TIME) // PREPARED_PER_MS


def test_messages_are_claimed_as_late_as_ever() -> None:
    """Until then a caller may cancel one."""
    due = SECOND * 1000
    messages = [Execution(f"m{i}", f"m{i}", due, due, "message", "", 0, host="a:1") for i in range(9000)]
    plan = plan_messages(messages, 2, lambda: "b", due - 10_000)
    assert {b.send_ms - b.claimable_ms for b in plan.batches} == {PREFETCH_MS}


def test_without_a_leader_and_for_late_work_the_prefetch_is_the_usual_one() -> None:
    """What an API process writes, and what catch-up brings, is claimed as ever."""
    names = iter(range(1000))
    for plan in (
        plan_batches(owing(9000), 2, lambda: f"b{next(names)}"),
        plan_batches(owing(9000), 1, lambda: f"b{next(names)}", late=True),
    ):
        assert {b.send_ms - b.claimable_ms for b in plan.batches} == {PREFETCH_MS}
