"""How long claimers sleep that find nothing: until there is something, and each of their rules wakes them by itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cluster.clock import Clock
from cluster.core.execution.model import Batch
from cluster.core.timings import PREFETCH_MS, Timings
from cluster.store import batches, claimable_batches
from cluster.usecases.message_intake import MessageIntake
from cluster.worker import claim_pauses
from cluster.worker.claim_pauses import ClaimPauses
from tests.support.engine import worker
from tests.support.messages import message
from tests.support.waiting import eventually
from tests.support.workers import answering

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

FOR_EVER = 3600.0


@pytest.fixture(autouse=True)
def no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends a pause within a test was not a poll."""
    monkeypatch.setattr(claim_pauses, "SHORTEST_SLEEP", FOR_EVER)
    monkeypatch.setattr(claim_pauses, "LONGEST_SLEEP", FOR_EVER)


def batch(claimable_ms: int, name: str = "b") -> Batch:
    return Batch(name, ("e",), 0, 0, claimable_ms, claimable_ms)


async def listening(database: Database) -> None:
    """One claimer sleeps, and is told what this process writes."""

    async def one() -> bool:
        return len(database.upcoming._listeners) == 1

    await eventually(one)


async def sleeping(database: Database) -> tuple[ClaimPauses, asyncio.Task[bool]]:
    """The pauses of a node, and a claimer that sleeps."""
    pauses = ClaimPauses(database, Clock())
    task = asyncio.create_task(pauses.pause(FOR_EVER))
    await listening(database)
    return pauses, task


async def test_a_claimer_wakes_for_what_is_in_the_database(database: Database) -> None:
    """Whoever wrote it: at the instant at which it may be claimed, and no earlier."""
    clock = Clock()
    at_ms = clock.now_ms() + 400
    await batches.insert(database, [batch(at_ms)])
    assert await ClaimPauses(database, clock).pause(FOR_EVER)
    assert clock.now_ms() >= at_ms


async def test_a_claimer_wakes_for_what_its_own_process_writes(database: Database) -> None:
    """A run by hand, a retry, a release: without a poll."""
    _, inserted = await sleeping(database)
    await batches.insert(database, [batch(Clock().now_ms() + 3_600_000, "later"), batch(Clock().now_ms())])
    await inserted
    claimed = await batches.claim(database, "w", 10.0, batches.ClaimFilter(), 5.0)
    assert claimed is not None
    _, released = await sleeping(database)
    await batches.release(database, claimed, None)
    await released
    assert database.upcoming._listeners == []


async def test_a_claimer_wakes_for_a_message_that_its_own_process_accepts(database: Database) -> None:
    """It is due now: it leaves at once, on the node that has answered it."""
    _, accepted = await sleeping(database)
    now_ms = Clock().now_ms()
    await MessageIntake(database, Clock(), 15.0).accept([message(now_ms, now_ms)])
    async with asyncio.timeout(10):
        await accepted
    assert await batches.claim(database, "w", 10.0, batches.ClaimFilter(), 5.0) is not None


async def test_what_this_node_may_not_claim_is_asked_for_again_after_the_back_off(database: Database) -> None:
    """Its host or its limit admits nothing now."""
    await batches.insert(database, [batch(1000)])
    assert await ClaimPauses(database, Clock()).pause(0.01)


async def test_an_idle_node_looks_and_claims_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll that finds nothing claimable ends the pause without a reason to claim."""
    monkeypatch.setattr(claim_pauses, "SHORTEST_SLEEP", 0.01)
    monkeypatch.setattr(claim_pauses, "LONGEST_SLEEP", 0.01)
    await batches.insert(database, [batch(Clock().now_ms() + 3_600_000)])
    assert not await ClaimPauses(database, Clock()).pause(FOR_EVER)
    asked = 0

    async def claim(*_: object) -> None:
        nonlocal asked
        asked += 1

    monkeypatch.setattr(batches, "claim", claim)
    looks = 0
    seen = claimable_batches.next_claimable

    async def look(db: Database, **how: bool) -> claimable_batches.NextClaimable | None:
        nonlocal looks
        looks += 1
        return await seen(db, **how)

    monkeypatch.setattr(claimable_batches, "next_claimable", look)
    w = worker(database, answering(200))
    w.start()

    async def has_looked_often() -> bool:
        return looks > 10

    await eventually(has_looked_often)
    await w.shutdown(5.0)
    assert asked <= 2 * 2  # each claimer asked once for current and once for late work, before it rested


async def test_only_one_claimer_looks_and_the_others_follow_its_claims(database: Database) -> None:
    """A claim that found something is a reason to claim too; so is the end of the node."""
    pauses, looking = await sleeping(database)
    following = [asyncio.create_task(pauses.pause(FOR_EVER)) for _ in range(2)]
    await asyncio.sleep(0)
    assert len(database.upcoming._listeners) == 1
    pauses.claimed()
    await asyncio.gather(*following)
    assert not looking.done()
    pauses.end()
    await looking


async def test_a_node_that_shuts_down_does_not_wait_for_its_claimers(database: Database) -> None:
    """They sleep, and are woken."""
    w = worker(database, answering(200))
    w.start()
    await listening(database)
    await w.shutdown(5.0)
    assert database.upcoming._listeners == []


async def test_the_polls_of_many_nodes_come_as_often_as_those_of_two(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what a schedule owes is written long before the longest sleep is over."""
    monkeypatch.undo()
    ahead = Timings().lookahead - PREFETCH_MS / 1000
    pauses = ClaimPauses(database, Clock(), ahead)
    rates = {}
    for nodes in (1, 2, 4, 7, 14, 35):
        pauses.share_with(nodes)
        rates[nodes] = nodes / pauses.longest()
    assert rates == {1: 1, 2: 2, 4: 2, 7: 2, 14: 4, 35: 10}
    assert ahead / 3 > pauses.longest() * 1.2
    short = Timings.from_settings(leader_lease=2, lookahead=5, batch_lease=5).lookahead - PREFETCH_MS / 1000
    pauses = ClaimPauses(database, Clock(), short)
    pauses.share_with(35)
    assert short / 3 > pauses.longest() * 1.2
