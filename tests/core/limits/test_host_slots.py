"""Slots of hosts on one node: a host earns them by quick answers and loses them by slow ones."""

from __future__ import annotations

import pytest

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
    assert hanging > 1 or lanes.has_room("unknown", 5.0), "a new host gets a slot"


def test_a_new_host_gets_a_slot_while_others_hang() -> None:
    """Four hosts that hang use half of the slots; a fifth one starts, answers, and is trusted."""
    lanes = HostSlots(SLOTS)
    for i in range(4):
        begin_all(lanes, f"bad{i}", 0.0)
    assert lanes.has_room("new", 5.0)
    prove(lanes, "new", 5.0)
    assert begin_all(lanes, "new", 6.0) == 192


def test_ports_are_hosts_of_their_own_and_idle_ones_are_forgotten() -> None:
    """A port that hangs takes no slot from another port. Memory is bounded, and a host with a request in flight is never forgotten."""
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
    """Even one slot is used, whatever the shares round to."""
    lanes = HostSlots(slots)
    assert begin_all(lanes, "a", 0.0) >= 1


def test_a_host_has_a_rate_of_late() -> None:
    """What ended in this second or the one before, whichever is more; nothing of what is older."""
    hosts = HostSlots(64)
    for n in range(30):
        hosts.begin("h:80", f"e{n}", 10.0)
        hosts.end("h:80", f"e{n}", 10.0 + n / 100)
    assert hosts.per_second("h:80", 10.5) == 30
    hosts.begin("h:80", "later", 11.1)
    hosts.end("h:80", "later", 11.2)
    assert hosts.per_second("h:80", 11.9) == 30
    assert hosts.per_second("h:80", 12.3) == 1
    assert hosts.per_second("h:80", 14.4) == 0
    assert hosts.per_second("other:80", 10.5) == 0


def test_a_host_has_as_many_slots_free_as_its_trust_allows() -> None:
    """A quarter of the slots; three quarters once its answers are quick."""
    hosts = HostSlots(64)
    assert hosts.free("h:80", 10.0) == 16
    for n in range(20):
        hosts.begin("h:80", f"e{n}", 10.0)
        hosts.end("h:80", f"e{n}", 10.1)
    hosts.begin("h:80", "x", 10.2)
    assert hosts.free("h:80", 10.3) == 47
