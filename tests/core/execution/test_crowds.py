"""Crowded seconds: how early their batches may be claimed."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster.core.execution.crowds import (
    BETWEEN_CROWDS_MS,
    CLAIMED_TOGETHER,
    CROWD,
    FULL,
    KEPT,
    PREPARED_IN_TIME,
    PREPARED_PER_MS,
    Crowds,
)
from cluster.core.execution.model import Execution, JobSchedule
from cluster.core.execution.planning import (
    MAX_BATCH,
    MAX_CROWD_BATCH,
    SHARING_NODES,
    crowd_batch_size,
    plan_batches,
    plan_messages,
    plan_requested,
)
from cluster.core.timings import LONGEST_PREFETCH_MS, PREFETCH_MS, SHORTEST_PREFETCH_MS
from cluster.worker.release import FAR_MS

SECOND = 1_800_000_000


def owing(count: int, limit: str | None = None) -> list[tuple[JobSchedule, list[int]]]:
    """So many jobs of one host that owe an execution in one second."""
    jobs = (JobSchedule(f"j{i}", "k", "v", 0, None, None, 7, 0, host="a:1", limit_key=limit) for i in range(count))
    return [(job, [SECOND * 1000]) for job in jobs]


@given(
    st.lists(st.integers(1, 2 * MAX_CROWD_BATCH), max_size=300), st.sampled_from([0, CROWD, CROWD + 1]), st.booleans()
)
@example([MAX_BATCH] * 200, CROWD + 1, True)
@example([MAX_BATCH] * 200, CROWD + 1, False)
@example([CROWD, FULL], CROWD + 1, True)
def test_a_later_batch_of_a_crowded_second_may_be_claimed_no_later(
    sizes: list[int], before: int, may_wait: bool
) -> None:
    """As usual while the second holds few, and never so early that a node would give a batch back."""
    crowds = Crowds()
    crowds.add(SECOND - 1, before)
    planned = 0
    for size in sizes:
        assert crowds.add(SECOND, size) == planned
        planned += size
        prefetch = crowds.prefetch_ms(SECOND, planned, size, may_wait=may_wait)
        between = may_wait and size >= FULL and planned > CROWD and before > CROWD
        if planned <= PREPARED_IN_TIME:
            assert prefetch == (SHORTEST_PREFETCH_MS if between else PREFETCH_MS)
            continue
        earliest = crowds.prefetch_ms(SECOND, planned + size, size, may_wait=may_wait)
        assert PREFETCH_MS <= prefetch <= earliest <= LONGEST_PREFETCH_MS < FAR_MS
        if prefetch < LONGEST_PREFETCH_MS:
            least = BETWEEN_CROWDS_MS if between else PREFETCH_MS
            earlier = (prefetch - least) - (planned - PREPARED_IN_TIME) // PREPARED_PER_MS
            step = CLAIMED_TOGETHER // PREPARED_PER_MS
            assert -step < earlier <= 0 if between else 0 <= earlier <= step


def test_seconds_are_counted_apart_and_forgotten_in_their_order() -> None:
    """A leader leads for months."""
    crowds = Crowds()
    assert crowds.add(SECOND, 10_000) == 0
    assert crowds.add(SECOND + 1, 100) == 0
    assert crowds.add(SECOND, 100) == 10_000
    for later in range(2, 2 * KEPT):
        crowds.add(SECOND + later, 1900)
    assert len(crowds._planned) <= KEPT
    assert crowds.add(SECOND, 100) == 0
    assert crowds.add(SECOND + 2 * KEPT - 1, 400) == 1900


def prefetches_of(pages: list[int], nodes: int, *, before: int = 0) -> list[int]:
    """How long before its send time each batch may be claimed, of so many executions of one second in each page of jobs."""
    crowds = Crowds()
    crowds.add(SECOND - 1, before)
    names = iter(range(1000))
    plans = [plan_batches(owing(count), nodes, lambda: f"b{next(names)}", crowds=crowds) for count in pages]
    return [b.send_ms - b.claimable_ms for plan in plans for b in plan.batches]


def test_batches_of_a_crowded_second_are_claimable_earlier_whichever_page_planned_them() -> None:
    """One leader writes a page of jobs after the other, and all of them are sent together."""
    prefetches = prefetches_of([1500] * 3, 2)
    assert prefetches == sorted(prefetches)
    assert prefetches[0] == PREFETCH_MS
    assert prefetches[-1] == PREFETCH_MS + 3 * CLAIMED_TOGETHER // PREPARED_PER_MS


def test_batches_of_a_crowded_second_become_claimable_some_at_a_time() -> None:
    """Each at an instant of its own would have both nodes ask in vain after each."""
    prefetches = prefetches_of([12_000], 2)
    for instant in set(prefetches) - {PREFETCH_MS}:
        assert prefetches.count(instant) >= CLAIMED_TOGETHER // MAX_CROWD_BATCH - 1, "all but what a batch spans"
    assert len(set(prefetches)) > 8


def sizes_of(pages: list[int], nodes: int, limit: str | None = None) -> list[int]:
    """How many executions each batch has, of so many of one second in each page of jobs."""
    crowds = Crowds()
    names = iter(range(1000))
    plans = [plan_batches(owing(count, limit), nodes, lambda: f"b{next(names)}", crowds=crowds) for count in pages]
    return [len(b.ids) for plan in plans for b in plan.batches]


@pytest.mark.parametrize(
    ("pages", "nodes", "sizes"),
    [
        ([100], 2, [25] * 4),
        ([512], 2, [128] * 4),
        ([1000], 2, [250] * 4),
        ([1000], 1, [500] * 2),
        ([2048], 2, [512] * 4),
        ([2049], 2, [342] * 5 + [339]),
        ([2500], 2, [417] * 5 + [415]),
        ([3000], 2, [500] * 6),
        ([3000], 1, [500] * 6),
        ([2561], 1, [427] * 5 + [426]),
        ([1024], 16, [128] * 8),
        ([500, 500, 500], 2, [125] * 4 + [250] * 2 + [375, 125]),
    ],
)
def test_batches_of_a_crowded_second_are_as_large_as_its_nodes_can_share(
    pages: list[int], nodes: int, sizes: list[int]
) -> None:
    """A batch costs what it costs; whichever page of jobs planned it."""
    assert sizes_of(pages, nodes) == sizes


@given(st.integers(1, 40_000), st.integers(1, 32))
def test_the_batches_of_a_crowd_are_of_a_size_and_as_many_for_each_of_two_nodes(executions: int, nodes: int) -> None:
    """No node has half as much again as the other, as one of five batches would bring."""
    size = crowd_batch_size(executions, nodes)
    assert size <= (MAX_CROWD_BATCH if nodes <= SHARING_NODES else MAX_BATCH)
    batches = -(-executions // size)
    if size > MAX_BATCH:
        assert batches % nodes == 0
        assert batches >= 2 * nodes
        assert executions / batches > size - 3


def test_no_node_has_all_of_one_host_of_a_crowd() -> None:
    """A slow one has a part of the slots of each node, and is shared out over them."""
    crowds = Crowds()
    jobs = [JobSchedule(f"j{i}", "k", "v", 0, None, None, 7, 0, host=f"h{i % 6}:1") for i in range(3000)]
    names = iter(range(1000))
    plan = plan_batches([(j, [SECOND * 1000]) for j in jobs], 2, lambda: f"b{next(names)}", crowds=crowds)
    assert {name: sum(b.host == name for b in plan.batches) for name in {j.host for j in jobs}} == {
        f"h{i}:1": 4 for i in range(6)
    }
    small = [JobSchedule(f"s{i}", "k", "v", 0, None, None, 7, 0, host=f"s{i % 2000}:1") for i in range(4000)]
    plan = plan_batches([(j, [SECOND * 1000]) for j in small], 2, lambda: f"b{next(names)}", crowds=crowds)
    assert max(len(b.ids) for b in plan.batches) <= MAX_BATCH


def test_batches_of_what_is_no_crowd_are_no_larger_than_ever() -> None:
    """What waits for its limit is held back by batches; late work, messages and replays are claimed to be sent at once."""
    due = SECOND * 1000
    names = iter(range(1000))
    assert max(sizes_of([3000], 2, "q:mail")) == MAX_BATCH
    asked = [Execution(f"m{i}", f"m{i}", due, due, "message", "", 0, host="a:1") for i in range(3000)]
    for plan in (
        plan_batches(owing(3000), 2, lambda: f"b{next(names)}"),
        plan_batches(owing(3000), 1, lambda: f"b{next(names)}", late=True),
        plan_messages(asked, 2, lambda: f"b{next(names)}", due - 10_000),
        plan_requested(asked, lambda: f"b{next(names)}"),
    ):
        assert max(len(b.ids) for b in plan.batches) == MAX_BATCH


def test_batches_of_crowds_that_follow_one_another_are_claimable_between_them() -> None:
    """The claims of 3,000 that begin at the very instant at which the 3,000 before them are due delay those."""
    prefetches = prefetches_of([3072], 2, before=3000)
    assert set(prefetches[:3]) == {SHORTEST_PREFETCH_MS}
    assert all(p == SHORTEST_PREFETCH_MS or BETWEEN_CROWDS_MS <= p < 1600 for p in prefetches)
    assert set(prefetches_of([2000], 2, before=CROWD)) == {PREFETCH_MS}
    assert set(prefetches_of([CROWD], 2, before=2000)) == {PREFETCH_MS}


@pytest.mark.parametrize("nodes", [1, 3, 8])
def test_many_nodes_that_ask_one_after_another_and_a_single_one_have_the_usual_time(nodes: int) -> None:
    """The last of many ask half a second after a batch has become claimable; a single one claims all of them."""
    assert set(prefetches_of([2000], nodes, before=3000)) == {PREFETCH_MS}


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
