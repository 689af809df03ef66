"""Slots by host and circuit breakers, as rules: who may start, when a breaker opens, how long it stays so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.execution.model import JobSchedule
from cluster.core.execution.planning import MIN_BATCH, Grouping, group_by_host, plan_batches
from cluster.core.limits.circuit_breaker import (
    MIN_ATTEMPTS,
    WINDOW_SECONDS,
    Admission,
    AttemptWindow,
    Breaker,
    is_host_failure,
    open_duration_ms,
)
from cluster.core.limits.host_slots import REMEMBERED_HOSTS, HostSlots

SLOTS = 256


def begin_all(lanes: HostSlots, host: str, now: float, most: int = 1000) -> int:
    """Start as many as may start."""
    for i in range(most):
        if not lanes.has_room(host, now):
            return i
        lanes.begin(host, f"{host}-{now}-{i}", now)
    return most


def prove(lanes: HostSlots, host: str, now: float, seconds: float = 0.01, count: int = 20) -> None:
    for i in range(count):
        lanes.begin(host, f"p{i}", now)
        lanes.end(host, f"p{i}", now + seconds)


def test_a_host_earns_its_slots_and_loses_them() -> None:
    """A quarter at first, three quarters after quick answers, a quarter again when the oldest request hangs."""
    lanes = HostSlots(SLOTS)
    assert begin_all(lanes, "a", 0.0) == 64
    other = HostSlots(SLOTS)
    prove(other, "a", 0.0)
    assert begin_all(other, "a", 1.0) == 192
    assert other.full_hosts(1.0) == ["a"]
    assert other.slow_hosts(1.0) == []
    assert other.slow_hosts(2.5) == ["a"]
    for i in range(192):
        other.end("a", f"a-1.0-{i}", 31.0)
    assert begin_all(other, "a", 32.0) == 64, "it has shown that it is slow"
    for i in range(64):
        other.end("a", f"a-32.0-{i}", 32.1)
    prove(other, "a", 33.0, count=64)
    assert begin_all(other, "a", 34.0) == 192, "quick answers earn trust again"


@pytest.mark.parametrize("hanging", [1, 2, 4, 20, 300])
def test_however_many_hosts_hang_the_one_that_answers_has_room(hanging: int) -> None:
    """An eighth of the slots is left for hosts that answer, also if the others hang from their very first request."""
    lanes = HostSlots(SLOTS)
    prove(lanes, "good", 0.0)
    taken = sum(begin_all(lanes, f"bad{i}", 0.1) for i in range(hanging))
    assert taken <= SLOTS - SLOTS // 8
    for later in (0.2, 5.0):
        taken += sum(begin_all(lanes, f"bad{i}", later) for i in range(hanging))
        assert taken <= SLOTS - SLOTS // 8
        assert lanes.has_room("good", later)
    assert hanging > 1 or lanes.has_room("unknown", 5.0), "nobody knows it: it may show what it can do"


def test_a_host_nobody_knows_gets_its_chance_while_others_hang() -> None:
    """Four hosts that hang use half of the slots; a fifth one starts, answers, and is trusted."""
    lanes = HostSlots(SLOTS)
    for i in range(4):
        begin_all(lanes, f"bad{i}", 0.0)
    assert lanes.has_room("new", 5.0)
    prove(lanes, "new", 5.0)
    assert begin_all(lanes, "new", 6.0) == 192


def test_ports_are_hosts_of_their_own_and_idle_ones_are_forgotten() -> None:
    """What hangs on one port takes nothing from another; memory is bounded, and what runs is never forgotten."""
    lanes = HostSlots(SLOTS)
    begin_all(lanes, "a:1", 0.0)
    assert not lanes.has_room("a:1", 0.0)
    assert lanes.has_room("a:2", 0.0)
    for i in range(REMEMBERED_HOSTS + 10):
        prove(lanes, f"h{i}", 1.0, count=1)
    assert len(lanes._hosts) <= REMEMBERED_HOSTS
    assert not lanes.has_room("a:1", 1.0)


@pytest.mark.parametrize("slots", [1, 2, 3, 8])
def test_few_slots_are_still_used(slots: int) -> None:
    """Even one slot sends, whatever the parts round to."""
    lanes = HostSlots(slots)
    assert begin_all(lanes, "a", 0.0) >= 1


@pytest.mark.parametrize(
    ("status", "error", "counts"),
    [
        (200, None, False),
        (404, None, False),
        (410, None, False),
        (429, None, False),
        (500, None, True),
        (503, None, True),
        (None, "timeout", True),
        (None, "connect", True),
        (None, "dns", True),
        (None, "tls", True),
        (None, "reset", True),
        (None, "denied", False),
        (None, "stalled", False),
    ],
)
def test_what_counts_against_a_host(status: int | None, error: str | None, counts: bool) -> None:
    """No answer and 5xx say that something is wrong with it; an answer of any other kind, or our own guard, does not."""
    assert is_host_failure(status, error) is counts


def test_a_breaker_needs_volume_and_rate() -> None:
    """19 failures are too few to know; 20 of 40 are half; 20 of 41 are less."""
    window = AttemptWindow()
    for _ in range(MIN_ATTEMPTS - 1):
        window.add(0.0, failed=True)
    assert not window.should_open()
    window.add(0.0, failed=True)
    assert window.should_open()
    for _ in range(MIN_ATTEMPTS):
        window.add(1.0, failed=False)
    assert window.should_open()
    window.add(1.0, failed=False)
    assert not window.should_open()


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=80))
def test_a_window_holds_the_latest_seconds(steps: list[tuple[float, bool]]) -> None:
    """Its sums are those of a plain list of what lies within the window, to the second."""
    window, now, plain = AttemptWindow(), 0.0, []
    for step, failed in steps:
        now += step
        window.add(now, failed=failed)
        plain.append((int(now), failed))
        inside = [f for second, f in plain if second > now - WINDOW_SECONDS]
        assert (window.total, window.failed) == (len(inside), sum(inside))


def test_it_stays_open_for_longer_each_time_and_one_probe_may_pass() -> None:
    """5 s, 10 s, ... up to a minute; before its time nothing passes, then a probe."""
    assert [open_duration_ms(n) for n in (1, 2, 3, 4, 5, 50)] == [5000, 10_000, 20_000, 40_000, 60_000, 60_000]
    breaker = Breaker("a", half_open=False, until_ms=1000, opens=1, rev=1, opened_ms=0, why="", node="n")
    assert breaker.admission(999) is Admission.HOLD
    assert breaker.admission(1000) is Admission.PROBE


def owing(i: int, host: str, gate: str | None = None) -> JobSchedule:
    return JobSchedule(f"j{i}", "k", "v", 0, None, None, 7, 0, host=host, limit_key=gate)


def test_what_goes_to_one_host_is_in_batches_of_its_own() -> None:
    """Two hosts that share a lane share no batch, unless they have little; limits are apart too."""
    jobs = [owing(i, "slow:1" if i % 2 else "good:1") for i in range(2 * MIN_BATCH)]
    jobs += [owing(100 + i, f"few{i}:1") for i in range(5)]
    jobs += [owing(200 + i, "good:1", "q:mail") for i in range(3)]
    names = iter(range(1000))
    planned = plan_batches([(j, [1000]) for j in jobs], Grouping(128, 1000), 1, lambda: f"b{next(names)}")
    found = sorted((b.host, b.limit_key or "", len(b.ids)) for b in planned.batches)
    assert found == [("", "", 5), ("good:1", "", 16), ("good:1", "q:mail", 3), ("slow:1", "", 16)]
    by_id = {b.id: b for b in planned.batches}
    assert all(e.id in by_id[e.batch].ids and e.limit_key == by_id[e.batch].limit_key for e in planned.executions)
    assert len(planned.executions) == len(jobs)


@given(st.lists(st.integers(0, 6), max_size=120))
def test_grouping_by_host_loses_nothing(hosts: list[int]) -> None:
    """Everything is in one group, and a group with a name holds that host alone."""
    groups = group_by_host(hosts, str) if hosts else []
    assert sorted(i for _, members in groups for i in members) == sorted(hosts)
    assert all({str(i) for i in members} == {name} for name, members in groups if name)
