"""Whose turn it is when a request ends: what waits for its host, then the hosts that have waited longest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.clock import Clock
from cluster.core.limits.circuit_breaker import Admission
from cluster.worker import host_queues
from cluster.worker.host_queues import HostQueues
from cluster.worker.slots import Slots

SLOTS = 8


class Node:
    """The host queues of a node whose requests begin and end by hand."""

    def __init__(self, slots: int = SLOTS) -> None:
        clock = Clock()
        self.slots = Slots(clock, slots)
        self.admissions: dict[str, Admission] = {}
        breakers = SimpleNamespace(admission=lambda host: self.admissions.get(host, Admission.ALLOW))
        context: Any = SimpleNamespace(clock=clock, breakers=breakers, slots=self.slots)
        self.queues = HostQueues(context, self._start)
        self.started: list[str] = []

    def _start(self, ready: Any) -> None:
        self.started.append(ready.job.host)
        self.slots.take(ready.job.host, ready.execution.id)

    def wait_for(self, host: str, name: str = "e") -> None:
        ready: Any = SimpleNamespace(
            job=SimpleNamespace(host=host, target=SimpleNamespace(unread_bytes=0)),
            execution=SimpleNamespace(id=f"{host}-{name}"),
            held=SimpleNamespace(waiting={f"{host}-{name}"}),
            begin_waiting=lambda _: None,
        )
        self.queues.add(ready)

    def end(self, host: str, name: str = "e") -> None:
        self.slots.free(host, f"{host}-{name}")
        self.queues.start_waiting(host)


@pytest.fixture(autouse=True)
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """All hosts are never looked at together."""
    monkeypatch.setattr(host_queues, "LOOK_SECONDS", float("inf"))


def test_hosts_that_wait_for_common_slots_are_served_in_their_order() -> None:
    """Also while others come behind them all the time."""
    node = Node()
    most = SLOTS - SLOTS // 8
    for n in range(most):
        node.slots.take(f"running{n}", f"running{n}-e")
    for n in range(30):
        node.wait_for(f"h{n}")
    for n in range(most):
        node.end(f"running{n}")
        node.wait_for(f"later{n}")
    for n in range(30 - most):
        node.end(f"h{n}")
    assert node.started == [f"h{n}" for n in range(30)]


def test_a_host_that_uses_all_it_may_stands_in_nobodys_way() -> None:
    """Nor does one whose breaker is open: the next ones are looked at with the next request that ends."""
    node = Node(slots=32)
    for n in range(8):
        node.slots.take("full", f"full-{n}")
    for host in ("full", "open1", "open2"):
        node.wait_for(host)
    node.admissions = {"open1": Admission.HOLD, "open2": Admission.HOLD}
    for n in range(10):
        node.wait_for(f"h{n}")
    for n in range(10):
        node.slots.take("other", f"other-{n}")
        node.end("other", str(n))
    assert set(node.started) == {f"h{n}" for n in range(10)}


def test_what_may_probe_a_host_is_drawn_no_more_often_than_before() -> None:
    """Each draw makes the one before void, so a draw with each request that ends would let none of them get its permit."""
    node = Node()
    node.admissions = {"broken": Admission.PROBE}
    for n in range(3):
        node.wait_for("broken", str(n))
    for n in range(50):
        node.slots.take("other", f"other-{n}")
        node.end("other", str(n))
    assert "broken" not in node.started


def test_a_host_gets_one_slot_for_one_that_came_free_elsewhere() -> None:
    node = Node(slots=32)
    for n in range(10):
        node.wait_for("h", str(n))
    node.slots.take("other", "other-e")
    node.end("other")
    assert node.started == ["h"]
