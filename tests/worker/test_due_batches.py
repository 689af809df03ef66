"""The order in which batches that are due already are prepared, and how much of them at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest
from structlog.testing import capture_logs

from cluster.core.execution.model import Batch, Execution
from cluster.worker import due_batches
from cluster.worker.due_batches import DueBatches
from cluster.worker.held_batch import HeldBatch
from cluster.worker.tasks import Tasks

if TYPE_CHECKING:
    from cluster.worker.run_queue import RunQueue


class _Queue:
    """A run queue in which nothing waits for a slot."""

    stopped = False

    @staticmethod
    def count_due() -> int:
        return 0


def _held(name: str, send_ms: int, host: str = "a.example:80", size: int = 1) -> HeldBatch:
    listed = [
        Execution(f"{name}-{i}:{send_ms:013d}", f"{name}-{i}", send_ms, send_ms, "v", name, 0) for i in range(size)
    ]
    return HeldBatch(Batch(name, tuple(e.id for e in listed), 0, 0, send_ms, send_ms, host=host), 1e9, listed)


class _Node:
    """The due batches of a node that notes what it is to prepare. What is prepared leaves at once, or counts as ready."""

    def __init__(
        self, ready: dict[str, int] | None = None, *, failing: bool = False, waiting: dict[str, int] | None = None
    ) -> None:
        """`ready`: what waits for hosts that answer quickly; `waiting`: for others."""
        waiting = waiting or {}
        self.prepared: list[list[str]] = []
        self.ready = ready or {}
        self.tasks = Tasks()
        self._failing = failing
        self.due = DueBatches(
            self.tasks,
            cast("RunQueue", _Queue()),
            lambda h: self.ready.get(h, 0),
            lambda h: waiting.get(h, 0) if h else sum(waiting.values()),
            self._prepare,
        )

    async def _prepare(self, together: list[HeldBatch]) -> None:
        self.prepared.append([held.batch.id for held in together])
        await asyncio.sleep(0)
        if self._failing:
            raise RuntimeError("the database answers something else")


async def test_batches_are_prepared_in_the_order_of_their_send_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order in which they were claimed: the one that is latest leaves first."""
    monkeypatch.setattr(due_batches, "LOOK_SECONDS", 0.001)
    node = _Node({"a.example:80": due_batches.READY_AHEAD})
    for name, send_ms in (("c", 3000), ("a", 1000), ("d", 4000), ("b", 2000)):
        node.due.add([_held(name, send_ms)])
    assert not node.prepared
    node.ready.clear()
    await node.tasks.wait(5)
    assert node.prepared == [["a", "b", "c", "d"]]


async def test_no_more_is_read_together_than_may_be_however_many_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch in any case, whatever its size."""
    monkeypatch.setattr(due_batches, "MAX_READ", 4)
    node = _Node()
    node.due.add(
        [_held("big", 1000, "big.example:80", 9), *(_held(f"b{n}", 2000 + n, f"h{n}:80", 2) for n in range(5))]
    )
    await node.tasks.wait(5)
    assert node.prepared == [["big"], ["b0", "b1"], ["b2", "b3"], ["b4"]]


@pytest.mark.parametrize("failing", [False, True])
async def test_what_is_being_prepared_counts_until_it_is_prepared(
    monkeypatch: pytest.MonkeyPatch, *, failing: bool
) -> None:
    """It is not ready yet, and no more of its host is begun meanwhile. If its reading fails, the rest goes on."""
    monkeypatch.setattr(due_batches, "READY_AHEAD", 4)
    monkeypatch.setattr(due_batches, "LOOK_SECONDS", 0.001)
    node = _Node(failing=failing)
    node.due.add(_held(f"b{n}", 1000 + n, size=2) for n in range(4))
    assert node.due.unprepared()
    await asyncio.sleep(0)
    assert node.prepared == [["b0", "b1"]]
    with capture_logs() as logs:  # to write an exception takes a while
        await node.tasks.wait(5)
        await node.tasks.wait(5)
    assert [line["event"] for line in logs] == ["dispatch_failed"] * (2 * failing)
    assert node.prepared == [["b0", "b1"], ["b2", "b3"]]
    assert not node.due.unprepared()


async def test_a_batch_that_was_released_meanwhile_is_not_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it stand in the way of the others."""
    monkeypatch.setattr(due_batches, "LOOK_SECONDS", 0.001)
    node = _Node({"a.example:80": due_batches.READY_AHEAD})
    released, kept = _held("a", 1000), _held("b", 2000)
    node.due.add([released, kept])
    released.lose()
    assert node.due.unprepared() == [kept]
    node.ready.clear()
    await node.tasks.wait(5)
    assert node.prepared == [["b"]]


async def test_what_waits_for_a_slow_host_keeps_back_its_own_batches() -> None:
    """They would be prepared only to be deferred. No other host is kept out."""
    node = _Node(waiting={"slow.example:80": due_batches.READY_AHEAD})
    node.due.add([_held("a", 1000, "slow.example:80"), _held("b", 1000, ""), _held("c", 1000, "free.example:80")])
    assert [held.batch.id for held in node.due.unprepared()] == ["a"]
    await node.tasks.cancel()


async def test_while_thousands_wait_for_hosts_that_nobody_knows_no_more_of_them_are_prepared() -> None:
    """Their jobs would be read again and again. A host with batches of its own is kept out by none of them."""
    for more in (0, 1):
        waiting = {f"h{n}.example:80": 1 for n in range(due_batches.MANY_READY - 1 + more)}
        node = _Node(waiting=waiting)
        node.due.add([_held("a", 1000, ""), _held("b", 1000, "h0.example:80"), _held("c", 1000, "free.example:80")])
        assert [held.batch.id for held in node.due.unprepared()] == ["a"] * more
        await node.tasks.cancel()
