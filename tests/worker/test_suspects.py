"""Executions that crash nodes, against a real database: claims are counted, suspects kept apart, one is given up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.execution.model import Attempt, Batch, Rescheduled
from cluster.core.execution.planning import MAX_BATCH, MAX_CROWD_BATCH
from cluster.core.value import changed
from cluster.store import batches
from cluster.store.batches import ClaimFilter
from cluster.worker.claim import GIVE_UP_AFTER, SPLIT_AFTER, SUSPECT_AFTER
from cluster.worker.model import Deferral
from cluster.worker.record import MoveOptions
from tests.support.engine import T0, check_books, rows, worker
from tests.support.targets import BAD
from tests.support.waiting import eventually
from tests.support.workers import DUE, SHORT, answering, owed, record_all, run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database
    from cluster.worker.worker import Worker


async def claimed_before(db: Database, times: int, **query: Any) -> None:
    """As if nodes that have died since had claimed these batches so often."""
    change = {"owner": None, "claims": times, "token": times, "claimable_at": DatetimeMS(DUE)}
    await db.api["batches"].update_many(query, {"$set": change})


async def test_a_batch_that_crashes_nodes_is_split_and_the_execution_at_fault_given_up(database: Database) -> None:
    """After five claims each execution stands alone; after ten, one that is still not done is `dead: node_lost`."""
    await owed(database, "a", "killer")
    for i in range(SPLIT_AFTER):
        doomed = worker(database, answering(200), f"doomed{i}")
        assert await doomed.claiming.claimer.step(ClaimFilter()) is not None
        await database.api["batches"].update_many({}, {"$set": {"claimable_at": DatetimeMS(DUE)}})
    w = worker(database, answering(200), "splitter")
    assert await w.claiming.claim_once()
    singles = await rows(database, "batches")
    assert [len(b["ids"]) for b in singles] == [1, 1]
    await check_books(database)
    await database.api["batches"].update_one(
        {"ids": f"killer:{DUE}"}, {"$set": {"claims": GIVE_UP_AFTER, "claimable_at": DatetimeMS(DUE)}}
    )
    await database.api["batches"].update_many({}, {"$set": {"claimable_at": DatetimeMS(DUE)}})
    await run_dry(w)
    found = {h["job_id"]: (h["state"], h["reason"]) for h in await rows(database, "history")}
    assert found["a"][0] == "succeeded"
    assert found["killer"][0] == "dead"
    assert "node_lost" in found["killer"][1]


async def test_a_large_batch_is_split_in_a_few_writes(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, hundreds of them would outlast the lease, and the next owner would count a claim more for the rest."""
    await owed(database, *(f"j{i:03}" for i in range(MAX_CROWD_BATCH)))
    await claimed_before(database, SPLIT_AFTER)
    writes: list[int] = []

    async def counted(db: Database, made: list[Batch]) -> None:
        writes.append(len(made))
        await insert(db, made)

    insert = batches.insert
    monkeypatch.setattr(batches, "insert", counted)
    w = worker(database, answering(200), "splitter")
    assert await w.claiming.claim_once()
    assert writes == [MAX_BATCH] * (MAX_CROWD_BATCH // MAX_BATCH)
    singles = await rows(database, "batches")
    assert [len(b["ids"]) for b in singles] == [1] * MAX_CROWD_BATCH
    assert {b["claims"] for b in singles} == {SPLIT_AFTER + 1}
    await check_books(database)


async def test_what_was_lost_while_it_was_split_stays_with_its_owner(database: Database) -> None:
    """Of those that move together, each goes by its own batch and token."""
    found = await owed(database, "a", "b", "c")
    w = worker(database, answering(200))
    claimed = await w.claiming.claimer.step(ClaimFilter())
    assert claimed is not None
    await database.api["executions"].update_one({"_id": f"b:{DUE}"}, {"$set": {"token": 9, "batch": "other"}})
    moved = [Rescheduled(e, e.attempts, DUE) for e in claimed.executions]
    assert await w.recorder.reschedule(moved, MoveOptions(claims=6, one_per_batch=True)) == 1
    made = [b for b in await rows(database, "batches") if b["_id"] != claimed.batch.id]
    assert sorted(b["ids"] for b in made) == [[f"a:{DUE}"], [f"c:{DUE}"]]
    stored = {e["_id"]: e["batch"] for e in await rows(database, "executions")}
    assert stored == {e.id: "other" if e.job_id == "b" else stored[e.id] for e in found}
    assert all(stored[b["ids"][0]] == b["_id"] for b in made)


@pytest.mark.parametrize("stale_first", [False, True])
@pytest.mark.parametrize("same_time", [False, True])
async def test_of_two_results_of_one_execution_that_move_together_the_later_claim_counts(
    database: Database, stale_first: bool, same_time: bool
) -> None:
    """A lease ended while its request was in flight, and the same node claimed again: both failures come in one flush. The token
    never falls, and both attempts are kept.
    """
    (e,) = await owed(database, "a")
    w = worker(database, answering(503))
    await claimed_before(database, 2)
    claimed = await w.claiming.claimer.step(ClaimFilter())
    assert claimed is not None
    (valid,) = claimed.executions
    assert valid.token == 3
    made = [Attempt(1, DUE + 50 * t, "n", t, 5.0, 503, None, None, None) for t in (1, 3)]
    stale = Rescheduled(changed(valid, token=1), (made[0],), T0 if same_time else T0 + 9000)
    moved = [stale, Rescheduled(valid, (made[1],), T0)]
    assert await w.recorder.reschedule(moved if stale_first else moved[::-1]) == 1
    (batch,) = [b for b in await rows(database, "batches") if b["_id"] != claimed.batch.id]
    (stored,) = await rows(database, "executions")
    assert (batch["ids"], batch["token"], batch["_id"]) == ([e.id], 3, stored["batch"])
    assert int(stored["send_at"]) == T0
    assert sorted(a["token"] for a in stored["attempts"]) == [1, 3]


async def test_a_node_holds_one_suspect_at_a_time(database: Database) -> None:
    """If that one kills the node as well, no other is counted for it. What is fresh is claimed all the same."""
    await owed(database, "a", batch="b1")
    await owed(database, "b", batch="b2")
    await claimed_before(database, SUSPECT_AFTER)
    w = worker(database, answering(200))
    assert sorted(await asyncio.gather(w.claiming.claim_once(), w.claiming.claim_once())) == [False, True], (
        "two claimers ask at once"
    )
    assert not await w.claiming.claim_once()
    await owed(database, "fresh", batch="b3")
    assert await w.claiming.claim_once()
    assert len(w.held) == 2
    assert await worker(database, answering(200), "other").claiming.claim_once(), "another node may have the other one"
    await claimed_before(database, SUSPECT_AFTER, owner="other")
    await run_dry(w)
    await run_dry(w)
    assert {h["job_id"] for h in await rows(database, "history")} == {"a", "b", "fresh"}


async def test_a_claim_whose_answer_was_lost_is_not_counted(database: Database) -> None:
    """The node lives and releases the batch, however often that happens: no node was lost with it."""
    await owed(database, "a", "b")
    w = worker(database, answering(200), "w")
    for i in range(15):  # overdue: it comes back as late work
        assert await batches.claim(database, "w", 60.0, ClaimFilter(late=i > 0), 5.0) is not None
        await w.claiming.release_strays()
    assert [(b["owner"], b["claims"]) for b in await rows(database, "batches")] == [(None, 0)]


async def test_a_claim_that_took_longer_than_its_lease_does_not_displace_the_next_one(database: Database) -> None:
    """Two claimers of one node: the batch is held under the later claim, and its lease is renewed."""
    await owed(database, "a")
    w = worker(database, answering(200), timings=SHORT)
    slow = await w.claiming.claimer.step(ClaimFilter())
    assert slow is not None
    later = await eventually(lambda: w.claiming.claimer.step(ClaimFilter()), 5)
    await w.claiming.take_on(later)
    await w.claiming.take_on(slow)
    assert w.held["b"].batch.token == later.batch.token
    assert await w.lease_keeper.renew_once() == set()


async def test_executions_released_from_a_batch_keep_its_claim_count(database: Database) -> None:
    """Otherwise what waits for its host now and then, and kills every node that sends it, would never be given up."""
    await owed(database, "a", "b")
    await claimed_before(database, 3)
    w = worker(database, answering(200))
    claimed = await w.claiming.claimer.step(ClaimFilter())
    assert claimed is not None
    await w.claiming.take_on(claimed)
    assert await w.releaser.release(w.held["b"], None, Deferral(w.held["b"], (claimed.executions[0],), None, "h")) == 1
    assert [b["claims"] for b in await rows(database, "batches") if b["_id"] != "b"] == [3]
    await run_dry(w)


@pytest.mark.parametrize("ended", [False, True], ids=["unsent", "answered"])
async def test_a_move_broken_off_by_a_crash_keeps_the_claim_count_unless_a_result_came(
    database: Database, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    """The node dies before it has inserted the batch that they go to; the node that claims the old one inserts it."""
    await owed(database, "a", "b")
    await claimed_before(database, SPLIT_AFTER - ended)
    insert = batches.insert

    async def dies(_: Database, made: list[Batch]) -> None:
        raise RuntimeError(f"killed before {made}")

    monkeypatch.setattr(batches, "insert", dies)
    mortal = worker(database, answering(503), "mortal")
    with pytest.raises(RuntimeError):
        await mortal.claiming.claim_once()
        await eventually(lambda: _both(mortal), 5, "the answers")
        await record_all(mortal)
    moved = [e["_id"] for e in await rows(database, "executions") if e["batch"] != "b"]
    assert moved
    monkeypatch.setattr(batches, "insert", insert)
    await database.api["batches"].update_one({"_id": "b"}, {"$set": {"claimable_at": DatetimeMS(DUE)}})
    before = (await rows(database, "batches"))[0]["claims"]
    heir = worker(database, answering(200), "heir")
    assert await heir.claiming.claimer.step(ClaimFilter()) is not None
    rebuilt = [b["claims"] for b in await rows(database, "batches") if b["_id"] != "b"]
    assert rebuilt == [0 if ended else before + 1] * len(rebuilt)
    assert rebuilt
    await check_books(database)


async def _both(w: Worker) -> bool:
    return len(w.context.records) == 2


async def test_a_released_claim_does_not_count_towards_giving_up(database: Database) -> None:
    """However often a batch comes back untouched, it is neither split nor given up as `node_lost`."""
    await owed(database, "a", "b", url=BAD)
    w = worker(database, answering(200))
    for i in range(15):
        claimed = await w.claiming.claimer.step(ClaimFilter(late=i > 0))  # overdue: it comes back as late work
        assert claimed is not None
        assert claimed.batch.claims == 1
        await w.claiming.take_on(claimed)
        await w.releaser.release(w.held["b"], None)
    await run_dry(w)
    assert [h["state"] for h in await rows(database, "history")] == ["succeeded"] * 2
