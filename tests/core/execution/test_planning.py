"""Batches by host and limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.core.execution.model import Execution, JobSchedule
from cluster.core.execution.planning import (
    MAX_BATCH,
    MIN_BATCH,
    SHARED_SIZE,
    plan_batches,
    plan_messages,
    plan_requested,
    split_by_host,
)
from cluster.core.ids import lane_of


def owing(i: int, host: str, gate: str | None = None) -> JobSchedule:
    return JobSchedule(f"j{i}", "k", "v", 0, None, None, 7, 0, host=host, limit_key=gate)


def test_executions_of_one_host_get_batches_of_their_own() -> None:
    """Two hosts of one lane share no batch, unless they have few executions. The same holds for two queues."""
    few = [f"few{i}:1" for i in range(1000) if lane_of(f"few{i}:1") == 3][:5]
    jobs = [owing(i, "slow:1" if i % 2 else "good:1") for i in range(2 * MIN_BATCH)]
    jobs += [owing(100 + i, host) for i, host in enumerate(few)]
    jobs += [owing(200 + i, "good:1", "q:mail") for i in range(3)]
    names = iter(range(1000))
    planned = plan_batches([(j, [1000]) for j in jobs], 1, lambda: f"b{next(names)}")
    found = sorted((b.host, b.limit_key or "", len(b.ids)) for b in planned.batches)
    assert found == [("", "", 5), ("good:1", "", 16), ("good:1", "q:mail", 3), ("slow:1", "", 16)]
    by_id = {b.id: b for b in planned.batches}
    assert all(e.id in by_id[e.batch].ids and e.limit_key == by_id[e.batch].limit_key for e in planned.executions)
    assert len(planned.executions) == len(jobs)


def of_host(i: int, host: str, gate: str | None = None, send_ms: int = 1000) -> Execution:
    return Execution(
        f"j{i}:{send_ms:013}", f"j{i}", send_ms, send_ms, "v", "", lane_of(host), host=host, limit_key=gate
    )


def test_ten_thousand_hosts_make_few_batches() -> None:
    """What a claim costs, it costs for each batch. The executions of one host stay together."""
    jobs = [owing(i, f"h{i % 400}:1") for i in range(800)]
    names = iter(range(1000))
    planned = plan_batches([(j, [1000]) for j in jobs], 2, lambda: f"b{next(names)}")
    assert len(planned.batches) == -(-800 // SHARED_SIZE)
    batches = {e.host: {x.batch for x in planned.executions if x.host == e.host} for e in planned.executions}
    assert all(len(b) == 1 for b in batches.values())
    messages = [of_host(i, f"h{i % 400}:1") for i in range(800)]
    assert len(plan_messages(messages, 2, lambda: f"b{next(names)}", 0).batches) == -(-800 // SHARED_SIZE)


def test_few_small_hosts_share_no_batch() -> None:
    """A host that hangs, or whose breaker is open, is held back with its own batch, and no other waits for it."""
    jobs = [owing(i, f"host{i % 4}.example:80") for i in range(40)]
    names = iter(range(1000))
    planned = plan_batches([(j, [1000]) for j in jobs], 2, lambda: f"b{next(names)}")
    assert len({lane_of(j.host) for j in jobs}) == 4
    assert sorted(b.host for b in planned.batches) == sorted({j.host for j in jobs})


def test_what_no_limit_holds_shares_no_batch_with_what_one_does() -> None:
    """A queue's limit, or a job's own: what siblings of an ended node release at once must not be with these."""
    keys = [None, "j:j1", None, "j:j3", "q:mail", None]
    jobs = [owing(i, "h:1", keys[i % len(keys)]) for i in range(60)]
    names = iter(range(1000))
    planned = plan_batches([(j, [1000]) for j in jobs], 2, lambda: f"b{next(names)}")
    held: dict[str, set[str]] = {}
    for e in planned.executions:
        held.setdefault(e.batch, set()).add((e.limit_key or "")[:2])
    assert all(len(kinds) == 1 for kinds in held.values())
    assert {b.limit_key for b in planned.batches} == {None, "q:mail"}


def test_what_was_asked_for_is_late_work_by_queue_in_its_order() -> None:
    """A replay, an action or a backfill: batches of up to the most that a batch holds, claimable at once."""
    asked = [of_host(i, "h:1", "q:mail" if i % 3 == 0 else None, 5000 + i) for i in range(3 * MAX_BATCH)]
    names = iter(range(1000))
    planned = plan_requested(iter(asked), lambda: f"b{next(names)}")
    assert sorted(len(b.ids) for b in planned.batches) == [MAX_BATCH] * 3
    assert {b.limit_key for b in planned.batches} == {"q:mail", None}
    for b in planned.batches:
        assert (b.late, b.unclaimed, b.claimable_ms) == (True, None, b.send_ms)
        members = [e for e in planned.executions if e.batch == b.id]
        assert [e.id for e in members] == list(b.ids)
        assert [e.send_ms for e in members] == sorted(e.send_ms for e in members)
    assert sorted(e.id for e in planned.executions) == sorted(e.id for e in asked)
    assert plan_requested([], lambda: "b").batches == []


@given(st.lists(st.integers(0, 6), max_size=120))
def test_grouping_by_host_loses_nothing(hosts: list[int]) -> None:
    """Every item is in one group."""
    groups = list(split_by_host(hosts, str, MAX_BATCH))
    assert sorted(i for members in groups for i in members) == sorted(hosts)
    for i in set(hosts):
        assert sum(i in members for members in groups) == 1, "a host is in one group"
        if hosts.count(i) >= MIN_BATCH:
            assert {i} in [set(members) for members in groups], "and alone in it, with many items"
