"""Batches by host and limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.core.execution.model import JobSchedule
from cluster.core.execution.planning import MIN_BATCH, group_by_host, plan_batches


def owing(i: int, host: str, gate: str | None = None) -> JobSchedule:
    return JobSchedule(f"j{i}", "k", "v", 0, None, None, 7, 0, host=host, limit_key=gate)


def test_executions_of_one_host_get_batches_of_their_own() -> None:
    """Two hosts of one lane share no batch, unless they have few executions. The same holds for two queues."""
    jobs = [owing(i, "slow:1" if i % 2 else "good:1") for i in range(2 * MIN_BATCH)]
    jobs += [owing(100 + i, f"few{i}:1") for i in range(5)]
    jobs += [owing(200 + i, "good:1", "q:mail") for i in range(3)]
    names = iter(range(1000))
    planned = plan_batches([(j, [1000]) for j in jobs], 1, lambda: f"b{next(names)}")
    found = sorted((b.host, b.limit_key or "", len(b.ids)) for b in planned.batches)
    assert found == [("", "", 5), ("good:1", "", 16), ("good:1", "q:mail", 3), ("slow:1", "", 16)]
    by_id = {b.id: b for b in planned.batches}
    assert all(e.id in by_id[e.batch].ids and e.limit_key == by_id[e.batch].limit_key for e in planned.executions)
    assert len(planned.executions) == len(jobs)


@given(st.lists(st.integers(0, 6), max_size=120))
def test_grouping_by_host_loses_nothing(hosts: list[int]) -> None:
    """Every item is in one group, and a group with a name holds items of that host only."""
    groups = group_by_host(hosts, str) if hosts else []
    assert sorted(i for _, members in groups for i in members) == sorted(hosts)
    assert all({str(i) for i in members} == {name} for name, members in groups if name)
