"""The order in which nodes ask for what comes due: few of them first, nobody for what is due, and nobody waits for anybody."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from cluster.clock import Clock
from cluster.core.execution.model import Batch, Execution
from cluster.core.timings import ASKED_BY_ALL_MS, PREFETCH_MS, Timings
from cluster.store import batches, claimable_batches
from cluster.store.batches import ClaimFilter
from cluster.store.claimable_batches import NextClaimable
from cluster.worker import claim_order, claim_pauses
from cluster.worker.claim_order import (
    ENOUGH,
    LAST_MS,
    MOST_SHARED_MS,
    SHARE,
    SHARE_MS,
    SHARED_MS,
    STEP_MS,
    TURN_MS,
    ClaimOrder,
)
from cluster.worker.claim_pauses import ClaimPauses
from cluster.worker.held_batch import HeldBatch, HeldBatches
from tests.support.engine import worker
from tests.support.waiting import eventually
from tests.support.workers import answering

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

NOW = 1_800_000_000_000
NODES = [f"n{i}" for i in range(8)]


def orders(names: list[str], among: list[str] | None = None) -> list[ClaimOrder]:
    made = [ClaimOrder(name) for name in names]
    for order in made:
        order.share_with(among or names)
    return made


def holding(size: int, send_ms: int) -> HeldBatches:
    held = HeldBatches()
    listed = [Execution(f"e{i}:{send_ms}", f"e{i}", send_ms, send_ms, "v", "b", 0) for i in range(size)]
    held.add(HeldBatch(Batch("b", tuple(e.id for e in listed), 0, 0, send_ms, send_ms), 1e9, listed))
    return held


def patience(order: ClaimOrder, now_ms: int = NOW) -> int:
    return order.patience_ms(now_ms, 0, HeldBatches())


def test_one_node_asks_at_once_whatever_it_holds() -> None:
    """There is nobody to leave anything to."""
    for count in (0, 1):
        order = ClaimOrder(NODES[0])
        order.share_with(NODES[:count])
        assert order.patience_ms(NOW, 9999, holding(9999, NOW + 1000)) == 0
        assert order.sharing(NOW) == count


def test_of_two_nodes_the_one_that_holds_more_asks_later() -> None:
    """Both at once while they hold little; what is due leaves in a moment, and does not count."""
    for order in orders(NODES[:2]):
        assert [order.patience_ms(NOW, n, holding(n, NOW + 1000)) for n in (0, SHARE - 1)] == [0, 0]
        more = [order.patience_ms(NOW, n, holding(n, NOW + 1000)) for n in range(SHARE, 9999, SHARE)]
        assert more[:3] == [SHARE_MS, 2 * SHARE_MS, 3 * SHARE_MS]
        assert more == sorted(more)
        assert max(more) == MOST_SHARED_MS
        assert order.patience_ms(NOW, 9999, holding(9999, NOW)) == 0
        assert order.sharing(NOW) == 2
    assert SHARE_MS >= claim_pauses.SPREAD_SECONDS * 1000, "both have begun by then"


def test_of_many_nodes_two_ask_at_once_and_the_others_in_their_order() -> None:
    """The last ones half a second before the send time, however many there are."""
    assert sorted(patience(o) for o in orders(NODES)) == [0, 0, STEP_MS, STEP_MS, 400, 400, LAST_MS, LAST_MS]
    many = [patience(o) for o in orders([f"n{i}" for i in range(100)])]
    assert many.count(0) == 2
    assert max(many) == LAST_MS <= PREFETCH_MS / 2


def test_each_node_comes_first_in_some_turn_and_turns_are_long() -> None:
    """Who comes first reads jobs that it has not decoded yet."""
    first = set[str]()
    made = dict(zip(NODES, orders(NODES), strict=True))
    for turn in range(60):
        now = NOW + turn * TURN_MS
        turns = {name for name, order in made.items() if patience(order, now) == 0}
        assert turns == {
            name for name, order in made.items() if patience(order, now + TURN_MS - 1 - now % TURN_MS) == 0
        }
        first |= turns
    assert first == set(NODES)


def test_a_node_that_holds_enough_asks_last_and_what_is_due_does_not_count() -> None:
    """What is due leaves in a moment, and is no reason to leave the next instant to others."""
    one = next(o for o in orders(NODES) if patience(o) == 0)
    assert one.patience_ms(NOW, ENOUGH - 1, holding(ENOUGH - 1, NOW + 1000)) == 0
    assert one.sharing(NOW) == 2
    assert one.patience_ms(NOW, ENOUGH, holding(ENOUGH, NOW + 1000)) == LAST_MS
    assert one.patience_ms(NOW, ENOUGH, holding(ENOUGH, NOW)) == 0
    assert one.sharing(NOW + SHARED_MS) == len(NODES), "the others had to help lately"
    assert one.sharing(NOW + SHARED_MS + 1) == 2


def test_a_node_alone_among_the_dead_asks_in_time() -> None:
    """Its heartbeats say so only later."""
    for name in NODES:
        (alone,) = orders([name], NODES)
        assert patience(alone) <= PREFETCH_MS / 2


async def test_what_is_not_due_is_left_to_others_and_what_is_due_is_not(database: Database) -> None:
    """By the primary's clock, within the claim."""
    clock = Clock()
    now = clock.now_ms()
    await batches.insert(database, [Batch("soon", ("e",), 0, 0, now + 60_000, now)])
    patient = ClaimFilter(patience_ms=3_600_000)
    assert await batches.claim(database, "w", 10.0, patient, 5.0) is None
    await batches.insert(database, [Batch("due", ("f",), 0, 0, now, now)])
    claimed = await batches.claim(database, "w", 10.0, patient, 5.0)
    assert claimed is not None
    assert claimed.id == "due"
    await batches.insert(database, [Batch("old", ("g",), 0, 0, now + 60_000, now - 3_600_001)])
    claimed = await batches.claim(database, "w", 10.0, patient, 5.0)
    assert claimed is not None
    assert claimed.id == "old", "nobody else has asked for it"
    claimed = await batches.claim(database, "w", 10.0, ClaimFilter(), 5.0)
    assert claimed is not None
    assert claimed.id == "soon"


async def test_what_is_due_soon_is_left_to_nobody(database: Database) -> None:
    """With two nodes crowds are claimable 0.6 s before their send time. A third one that has come since asks 0.3 s before it."""
    now = Clock().now_ms()
    due = now + 60_000
    await batches.insert(database, [Batch("crowd", ("e",), 0, 0, due, now)])
    first = await claimable_batches.next_claimable(database, patience_ms=LAST_MS)
    assert first is not None
    assert first.at_ms == now + LAST_MS, "it has been claimable for so long"
    await batches.insert(database, [Batch("late", ("f",), 0, 0, now + 700, now + 100)])
    first = await claimable_batches.next_claimable(database, patience_ms=LAST_MS)
    assert first is not None
    assert first.at_ms == now + 700 - ASKED_BY_ALL_MS
    await batches.insert(database, [Batch("now", ("g",), 0, 0, now + 250, now - 200)])
    claimed = await batches.claim(database, "w", 10.0, ClaimFilter(patience_ms=LAST_MS), 5.0)
    assert claimed is not None
    assert claimed.id == "now"


@pytest.mark.parametrize("seed", range(8))
async def test_a_look_finds_the_same_however_many_batches_it_reads_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Also where some cannot be read; and where more are claimable soon than it reads, the database sums them up."""
    chance = random.Random(seed)
    base = Clock().now_ms() + 60_000
    for n in range(30):
        at = base + chance.randint(0, 900)
        await batches.insert(database, [Batch(f"b{n}", ("e",), 0, 0, at + chance.choice([0, 250, 310, 5000]), at)])
    await database.api["batches"].update_one({"_id": "b7"}, {"$set": {"send_at": "x"}})
    await database.api["batches"].update_one({"_id": "b8"}, {"$unset": {"send_at": ""}})
    for patience in (50, 300, 800, 3000):
        found = set[NextClaimable | None]()
        for first in (1, 2, 12, 30, 31):
            monkeypatch.setattr(claimable_batches, "FIRST", first)
            look = await claimable_batches.next_claimable(database, patience_ms=patience)
            found.add(None if look is None else look._replace(now_ms=0))
        assert len(found) == 1, (patience, found)


async def test_a_claim_with_patience_reads_only_what_is_claimable(database: Database) -> None:
    """By the index, as every claim: what is claimable later is not looked at."""
    now = Clock().now_ms()
    await batches.insert(database, [Batch(f"b{i}", ("e",), 0, 0, now + 99_000, now + 60_000 + i) for i in range(50)])
    await batches.insert(database, [Batch("soon", ("e",), 0, 0, now + 60_000, now - 1000)])
    await database.api.command("profile", 2)
    try:
        assert await batches.claim(database, "w", 10.0, ClaimFilter(patience_ms=3_600_000), 5.0) is None
        asked = {"command.findAndModify": "batches"}
        (seen,) = await database.api["system.profile"].find(asked).sort("ts", -1).limit(1).to_list()
    finally:
        await database.api.command("profile", 0)
    assert seen["docsExamined"] == 1


async def test_a_patient_node_looks_again_and_asks_only_for_what_is_left(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look costs less than a claim that finds nothing."""
    monkeypatch.setattr(claim_pauses, "LONGEST_SLEEP", 3600.0)
    monkeypatch.setattr(claim_pauses, "SHORTEST_SLEEP", 3600.0)
    clock = Clock()
    now = clock.now_ms()
    await batches.insert(database, [Batch("soon", ("e",), 0, 0, now + 60_000, now)])
    pauses = ClaimPauses(database, clock)
    assert not await pauses.pause(0.0, 300), "it looks again"
    assert clock.now_ms() >= now + 300
    assert await pauses.pause(0.0, 300), "nobody has claimed it"
    await batches.insert(database, [Batch("due", ("f",), 0, 0, now, now - 10_000)])
    assert await pauses.pause(0.0, 3_600_000), "it is due"
    await database.work["batches"].delete_many({})
    await batches.insert(database, [Batch("leased", ("e",), 0, 0, now + 100, clock.now_ms() + 200)])
    assert await pauses.pause(0.0, 3_600_000), "a lease that ends when its executions are due"


@pytest.mark.parametrize("already", [False, True])
async def test_a_patient_node_sleeps_past_nothing_that_is_due(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, already: bool
) -> None:
    """What was released shortly before its send time, and what is due while something else is left to others."""
    monkeypatch.setattr(claim_pauses, "LONGEST_SLEEP", 3600.0)
    monkeypatch.setattr(claim_pauses, "SHORTEST_SLEEP", 3600.0)
    clock = Clock()
    now = clock.now_ms()
    await batches.insert(database, [Batch("released", ("e",), 0, 0, now + (60_000 if already else 600), now)])
    if already:
        await batches.insert(database, [Batch("retry", ("f",), 0, 0, now + 600, now + 200)])
        await batches.insert(database, [Batch("later", ("g",), 0, 0, now + 700, now + 300)])
    async with asyncio.timeout(5):
        assert await ClaimPauses(database, clock).pause(0.0, 3_600_000)
    assert now + 300 <= clock.now_ms()
    assert await batches.claim(database, "w", 10.0, ClaimFilter(patience_ms=3_600_000), 5.0) is not None


async def test_a_node_that_is_last_among_the_dead_claims_what_they_leave(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real claimers of one node, among others that never ask: no sooner than in its turn, and without being told."""
    monkeypatch.setattr(claim_order, "STEP_MS", LAST_MS)
    w = worker(database, answering(200), "last")
    names = ["last"]
    while patience(w.claiming.order, w.context.clock.now_ms()) != LAST_MS:
        names.append(f"dead{len(names)}")
        w.share_with(names)
    claim, claimed = batches.claim, list[Batch]()

    async def noted(*args: Any) -> Batch | None:
        batch = await claim(*args)
        if batch is not None:
            claimed.append(batch)
        return batch

    monkeypatch.setattr(batches, "claim", noted)
    due = w.context.clock.now_ms() + 1500
    await batches.insert(database, [Batch("b", ("e",), 0, 0, due, due - PREFETCH_MS)])
    monkeypatch.setattr(database.upcoming, "note", lambda _: None)
    w.start()

    async def has_claimed() -> bool:
        return bool(claimed)

    try:
        await eventually(has_claimed, 10)
    finally:
        await w.shutdown(5.0)
    at = claimed[0].claimable_ms - int(Timings().batch_lease * 1000)
    assert at >= due - PREFETCH_MS + LAST_MS
