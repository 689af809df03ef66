"""What is claimed and prepared ahead of a large instant: much of it claimed, as much prepared as leaves soon, in few bytes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from cluster.core.execution.model import Batch, Execution
from cluster.worker import ahead, claiming
from cluster.worker.ahead import PreparedAhead
from cluster.worker.held_batch import HeldBatch
from cluster.worker.tasks import Tasks
from tests.support.engine import Crank, worker
from tests.support.workers import answering

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

NOW = 1_800_000_000_000
AT = NOW + 1000


def held(name: str, send_ms: int = AT, size: int = 2, body: bytes = b"") -> HeldBatch:
    message = {"body": body} if body else None
    listed = [
        Execution(f"{name}{i}:{send_ms}", f"{name}{i}", send_ms, send_ms, "v", name, 0, message=message)
        for i in range(size)
    ]
    return HeldBatch(Batch(name, tuple(e.id for e in listed), 0, 0, send_ms, send_ms), 1e9, listed)


class Node:
    """What one node prepares ahead. Its clock stands until the test turns it."""

    def __init__(self, ready: int = 0) -> None:
        self.clock = Crank(NOW)
        self.tasks = Tasks()
        self.prepared: list[list[str]] = []
        self.due: list[str] = []
        self.queue: list[None] = [None] * ready
        queue = self.queue

        class Queue:
            stopped = False

            def __len__(self) -> int:
                return len(queue)

        run_queue: Any = Queue()
        unsent: Any = SimpleNamespace(count=0)
        due: Any = SimpleNamespace(add=lambda batches: self.due.extend(h.batch.id for h in batches))
        self.ahead = PreparedAhead(self.clock, self.tasks, run_queue, unsent, due, self._prepare)

    async def _prepare(self, together: list[HeldBatch]) -> None:
        self.prepared.append([h.batch.id for h in together])

    async def come(self, now_ms: int) -> None:
        self.clock.now = now_ms
        for _ in range(20):
            await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "GATHER_SECONDS", 0.001)
    monkeypatch.setattr(ahead, "LOOK_AGAIN_SECONDS", 0.002)


async def test_no_more_requests_are_made_before_their_time_than_leave_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is prepared when it is due, and only then."""
    monkeypatch.setattr(ahead, "MAX_READY", 4)
    node = Node()
    for name in "abcd":
        node.ahead.add(held(name))
    await node.come(NOW)
    assert node.prepared == []
    await node.come(AT - 40)
    assert node.prepared == [["a", "b"]]
    assert node.due == []
    node.ahead.add(held("e"))
    await node.come(AT - 30)
    node.ahead.add(held("f", AT + 5))
    await node.come(AT)
    await node.tasks.wait(5)
    assert sorted(node.due) == ["c", "d"], "what was prepared makes room"
    assert sorted(name for together in node.prepared for name in together) == ["a", "b", "e", "f"]


async def test_what_is_ready_already_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its send time."""
    monkeypatch.setattr(ahead, "MAX_READY", 4)
    node = Node(ready=3)
    node.ahead.add(held("a"))
    await node.come(AT - 40)
    assert node.prepared == []
    assert node.due == []
    await node.come(AT)
    assert node.due == ["a"]


async def test_more_is_claimed_while_nothing_is_due(database: Database) -> None:
    """What is claimed before a large instant need not be claimed while it is sent. Bodies and what is due bound it."""
    w = worker(database, answering(200), clock=Crank(NOW), waiting=4)

    def room() -> bool:
        return w.claiming._has_room()

    def add(batch: HeldBatch) -> None:
        w.held.add(batch)
        w.context.unsent.add(batch)

    add(held("a", size=4))
    assert room()
    add(held("b", size=4 * claiming.AHEAD_TIMES - 5))
    assert room()
    late = held("due", NOW, size=1)
    w.held.add(late)
    assert not room(), "something is due"
    w.held.forget(late)
    assert room()
    large = held("large", size=1, body=b"x" * claiming.MAX_AHEAD_BYTES)
    w.held.add(large)
    assert not room()
    w.held.forget(large)
    add(held("c", size=1))
    assert not room(), "that is the most it holds"
