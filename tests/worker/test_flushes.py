"""How many results one flush writes: those that come within some milliseconds, and more while many come."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from cluster.worker.held_batch import HeldBatches
from cluster.worker.record_queue import RecordQueue
from cluster.worker.results import (
    FULL_FLUSH,
    GIVE_WAY_LINGER,
    GIVE_WAY_RESULTS,
    GIVE_WAY_SECONDS,
    LINGER,
    MAX_FLUSH,
    MAX_GATHER_SECONDS,
    WORTH_WAITING,
    Results,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

PLAIN = SimpleNamespace(limit_key=None, overlap_skip=False)
sleep = asyncio.sleep


class Recording:
    """Results of a node whose requests end as the test says; no clock runs but in `LINGER`s."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, come: list[int], job: Any = PLAIN, gives_way_for: float = 0.0
    ) -> None:
        """`come`: how many results come in each wait after the first result. `gives_way_for`: seconds for which many leave."""
        self.records = RecordQueue(HeldBatches())
        self.now = 100.0
        self._come = come
        self._job = job
        self.flushes: list[int] = []
        surroundings: Any = SimpleNamespace(
            clock=SimpleNamespace(monotonic=lambda: self.now),
            records=self.records,
            unsent=None,
            stats=None,
            reclaim_pause=None,
        )
        nothing: Any = None
        self.results = Results(surroundings, nothing, nothing, lambda: self.now < 100.0 + gives_way_for)

        async def write(taken: Sequence[Any]) -> None:
            self.flushes.append(len(taken))

        monkeypatch.setattr(self.results, "record", write)
        monkeypatch.setattr("cluster.worker.results.asyncio.sleep", self._linger)

    async def _linger(self, seconds: float) -> None:
        assert seconds in (LINGER, GIVE_WAY_LINGER)
        self.now += seconds
        self.add(self._come.pop(0) if self._come else 0)
        await sleep(0)

    def add(self, count: int) -> None:
        for _ in range(count):
            self.records.add(SimpleNamespace(job=self._job))  # type: ignore[arg-type]


async def test_a_few_results_are_written_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a flush that would hardly grow."""
    node = Recording(monkeypatch, [WORTH_WAITING - 1, 100])
    node.add(1)
    await node.results.turn()
    assert node.flushes == [WORTH_WAITING]


async def test_while_many_results_come_they_share_a_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until hardly any comes, or there are enough of them."""
    node = Recording(monkeypatch, [20, 20, 20, 1, 20])
    node.add(20)
    await node.results.turn()
    assert node.flushes == [81]
    node = Recording(monkeypatch, [FULL_FLUSH - 1, 5])
    node.add(1)
    await node.results.turn()
    assert node.flushes == [FULL_FLUSH]


async def test_no_result_waits_for_longer_than_a_flush_may_be_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not written yet is sent again if the node dies."""
    node = Recording(monkeypatch, [WORTH_WAITING] * 1000)
    node.add(1)
    await node.results.turn()
    lingered = (node.flushes[0] - 1) / WORTH_WAITING
    assert lingered <= MAX_GATHER_SECONDS / LINGER + 1


@pytest.mark.parametrize("waited_for", [{"limit_key": "q:mail"}, {"overlap_skip": True}], ids=["limit", "overlap"])
async def test_what_another_execution_waits_for_is_written_at_once(
    monkeypatch: pytest.MonkeyPatch, waited_for: dict[str, Any]
) -> None:
    """Its permit comes free, or the next run of its job may begin, when it is recorded."""
    node = Recording(monkeypatch, [20] * 20, SimpleNamespace(**(vars(PLAIN) | waited_for)))
    node.add(1)
    await node.results.turn()
    assert node.flushes == [21]
    assert not node.records.awaited


async def test_two_recorders_gather_one_flush_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would share what comes between them. Each writes while the other gathers."""
    node = Recording(monkeypatch, [20, 20, 0, 20, 0])
    written = asyncio.Event()

    async def write_slowly(taken: Sequence[Any]) -> None:
        node.flushes.append(len(taken))
        await written.wait()

    monkeypatch.setattr(node.results, "record", write_slowly)
    both = [asyncio.create_task(node.results.turn()) for _ in range(2)]
    node.add(20)
    while not node.flushes:
        await sleep(0)
    node.add(20)
    while len(node.flushes) < 2:
        await sleep(0)
    written.set()
    await asyncio.gather(*both)
    assert node.flushes == [60, 40]
    assert max(node.flushes) <= MAX_FLUSH


async def test_a_flush_gives_way_while_many_executions_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the end of the burst; but not for longer than a node may owe its results, and not with too many of them."""
    node = Recording(monkeypatch, [100] * 4 + [0], gives_way_for=4 * GIVE_WAY_LINGER - 0.001)
    node.add(1)
    await node.results.turn()
    assert node.flushes == [401]
    node = Recording(monkeypatch, [1] * 1000, gives_way_for=60)
    node.add(1)
    await node.results.turn()
    assert GIVE_WAY_SECONDS <= node.now - 100.0 <= GIVE_WAY_SECONDS + 2 * GIVE_WAY_LINGER
    node = Recording(monkeypatch, [GIVE_WAY_RESULTS, 1], gives_way_for=60)
    node.add(1)
    await node.results.turn()
    assert node.flushes == [MAX_FLUSH]
    assert node.now - 100.0 == pytest.approx(GIVE_WAY_LINGER)


@pytest.mark.parametrize("waited_for", [{"limit_key": "q:mail"}, {"overlap_skip": True}], ids=["limit", "overlap"])
async def test_a_result_that_is_waited_for_gives_way_to_nothing(
    monkeypatch: pytest.MonkeyPatch, waited_for: dict[str, Any]
) -> None:
    """Its permit is what others wait for."""
    node = Recording(monkeypatch, [20] * 20, SimpleNamespace(**(vars(PLAIN) | waited_for)), gives_way_for=60)
    node.add(1)
    await node.results.turn()
    assert node.flushes == [21]
    assert node.now - 100.0 == pytest.approx(LINGER)


async def test_what_has_given_way_once_is_written_before_a_flush_gives_way_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else each of several flushes would wait for as long."""
    node = Recording(monkeypatch, [100] * 1000, gives_way_for=60)
    node.add(1)
    await node.results.turn()
    waited, owed = node.now - 100.0, len(node.records)
    assert node.flushes == [MAX_FLUSH]
    assert owed > MAX_FLUSH
    while len(node.flushes) * MAX_FLUSH < owed:
        await node.results.turn()
    assert node.now - 100.0 < waited + MAX_GATHER_SECONDS * len(node.flushes)


async def test_what_is_waited_for_is_written_first() -> None:
    """However many results came before it."""
    records = RecordQueue(HeldBatches())
    plain = [SimpleNamespace(job=PLAIN) for _ in range(5)]
    awaited = [SimpleNamespace(job=SimpleNamespace(**(vars(PLAIN) | {"limit_key": "q:mail"}))) for _ in range(3)]
    for result in [*plain[:4], awaited[0], plain[4], *awaited[1:]]:
        records.add(result)  # type: ignore[arg-type]
    assert len(records) == 8
    taken: list[Any] = [(list(records.take(most)), records.awaited, records.empty) for most in (2, 3, None)]
    assert taken == [(awaited[:2], True, False), ([awaited[2], *plain[:2]], False, False), (plain[2:], False, True)]
