"""A first claim owns what the leader wrote for it without a write; every fence holds as for claims that stamp."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import pytest
from bson.datetime_ms import DatetimeMS

from cluster.clock import Clock
from cluster.core.execution.model import FIRST_CLAIM, FIRST_TOKEN, Batch, Execution, Rescheduled
from cluster.core.ids import execution_id
from cluster.core.lifecycle import State
from cluster.store import batches, claimable_batches, executions
from cluster.store.batches import ClaimFilter
from cluster.store.enqueue import insert_owed, repair_batches
from cluster.store.queries.jobs_and_executions import owed_view
from cluster.store.queries.leased_executions import leased_ids
from cluster.worker.in_flight import InFlightStamps
from tests.support.engine import T0, Crank, job_document, lead, put_jobs, rows, settle_all, worker
from tests.support.messages import send
from tests.support.workers import DUE, answering, record_all, run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


async def written(db: Database, *jobs: str, due: int = DUE, unclaimed: bool | None = False) -> list[Execution]:
    """One execution a job in one batch, as a leader writes them."""
    documents = [
        job_document(j, active_from=0, schedule_version="v1", catch_up_window_seconds=10**9, retention_days=1e4)
        for j in jobs
    ]
    await put_jobs(db, *documents)
    owed = [
        Execution(execution_id(j, due), j, due, due, "v1", "b", 0, owner=FIRST_CLAIM, token=FIRST_TOKEN) for j in jobs
    ]
    batch = Batch("b", tuple(e.id for e in owed), 0, 0, due, due, unclaimed=unclaimed)
    await insert_owed(db, owed, [batch], lambda: "new")
    return owed


async def expire(db: Database, batch: str = "b") -> None:
    """The lease of this batch ends."""
    await db.api["batches"].update_one({"_id": batch}, {"$set": {"claimable_at": DatetimeMS(DUE)}})


async def test_a_first_claim_writes_none_of_its_executions(database: Database) -> None:
    """The leader wrote them with the token that this claim gets. They are leased on the node, and recorded as ever."""
    clock = Crank()
    await put_jobs(database, job_document("a"))
    await settle_all(await lead(database, clock), clock)
    before = await rows(database, "executions")
    assert {(e["owner"], e["token"], e["state"]) for e in before} == {(FIRST_CLAIM, FIRST_TOKEN, "pending")}
    assert {b["token"] for b in await rows(database, "batches")} == {0}
    await expire(database, before[0]["batch"])
    w = worker(database, answering(200))
    claimed = await w.claiming.claimer.step(ClaimFilter())
    assert claimed is not None
    assert {(e.owner, e.token, e.state) for e in claimed.executions} == {("w", claimed.batch.token, State.LEASED)}
    assert await rows(database, "executions") == before


async def test_a_first_claim_stamps_messages(database: Database) -> None:
    """A cancellation that read one before the claim finds another owner, and takes nothing."""
    now_ms = Clock().now_ms()
    (name,) = await send(database, now_ms, now_ms)
    read = (await executions.owed(database, [name]))[name]
    claimed = await worker(database, answering(200)).claiming.claimer.step(ClaimFilter())
    assert claimed is not None
    assert (claimed.batch.token, [e.id for e in claimed.executions]) == (FIRST_TOKEN, [name])
    assert [e["owner"] for e in await rows(database, "executions")] == ["w"]
    assert not await executions.take_unsent(database, read, "no batch")


async def test_what_a_first_claim_owns_is_sent_and_recorded(database: Database) -> None:
    """Succeeded, retried or failed: nothing is left behind."""
    await written(database, "a", "b")
    await run_dry(worker(database, answering(200, 404)))
    history = await rows(database, "history")
    assert sorted(h["state"] for h in history) == ["failed", "succeeded"]
    assert {a["token"] for h in history for a in h["attempts"]} == {FIRST_TOKEN}
    assert await rows(database, "executions") == await rows(database, "batches") == []


async def test_the_second_claim_stamps_and_shuts_the_first_owner_out(database: Database) -> None:
    """Whatever a node still writes that lost a batch which it had claimed first changes nothing."""
    await written(database, "a")
    stale = await worker(database, answering(200), "stale").claiming.claimer.step(ClaimFilter())
    assert stale is not None
    await expire(database)
    heir = await worker(database, answering(200), "heir").claiming.claimer.step(ClaimFilter())
    assert heir is not None
    before = await rows(database, "executions")
    assert [(e["owner"], e["token"], e["state"]) for e in before] == [("heir", FIRST_TOKEN + 1, "leased")]
    (e,) = stale.executions
    assert await executions.move(database, [Rescheduled(e, (), T0)], {e.id: "new"}) == set()
    assert await executions.fence_endings(database, [e], "nonce") == set()
    assert await executions.delete_final(database, {(e.batch, e.token): [e.id]}) == 0
    assert await executions.stamp(database, [e.id], e.batch, "stale", e.token) == 0
    assert await rows(database, "executions") == before


@pytest.mark.parametrize("claimed", [False, True])
async def test_an_adoption_asks_the_batch_whether_it_was_claimed(database: Database, claimed: bool) -> None:
    """`catchUp` must not call an execution missed that a first claim may have sent; and the next token is a greater one."""
    (e,) = await written(database, "a")
    if claimed:
        assert await worker(database, answering(200), "first").claiming.claimer.step(ClaimFilter()) is not None
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"schedule_version": "v2"}})
    planned = replace(e, schedule_version="v2", batch="planned")
    names = iter(["one", "two", "three"])
    done = await insert_owed(database, [planned], [Batch("planned", (e.id,), 0, 0, T0, T0)], names.__next__)
    assert done.adopted == 1
    (adopted,) = [b for b in await rows(database, "batches") if b["_id"] == "one"]
    assert (adopted["claims"], adopted["token"]) == (int(claimed), FIRST_TOKEN)
    await expire(database, "one")
    await database.api["batches"].delete_one({"_id": "b"})
    heir = await worker(database, answering(200), "heir").claiming.claimer.step(ClaimFilter())
    assert heir is not None
    assert [(x.owner, x.token) for x in heir.executions] == [("heir", FIRST_TOKEN + 1)]


async def test_a_batch_that_was_never_inserted_counts_as_never_claimed(database: Database) -> None:
    """Its leader died between the two writes. `catchUp` binds it; its token is above the one of the first claim."""
    (e,) = await written(database, "a")
    await database.api["batches"].delete_one({"_id": "b"})
    assert await repair_batches(database, [e]) == 1
    (rebuilt,) = await rows(database, "batches")
    assert (rebuilt["claims"], rebuilt["token"]) == (0, FIRST_TOKEN)
    heir = await worker(database, answering(200), "heir").claiming.claimer.step(ClaimFilter())
    assert heir is not None
    assert [(x.owner, x.token) for x in heir.executions] == [("heir", FIRST_TOKEN + 1)]


async def test_an_execution_under_a_first_claim_is_known_as_leased(database: Database) -> None:
    """Its batch says so: permits of executions without a live lease are taken back."""
    (e,) = await written(database, "a")
    assert await leased_ids(database, [e.id]) == set()
    assert await worker(database, answering(200)).claiming.claimer.step(ClaimFilter()) is not None
    assert await leased_ids(database, [e.id]) == {e.id}
    await expire(database)
    assert await leased_ids(database, [e.id]) == set()


async def test_what_is_in_flight_for_long_is_shown_as_running(database: Database) -> None:
    """With its node. What a target answers quickly is never written in between."""
    (e,) = await written(database, "a")
    release = asyncio.Event()

    async def slow(_: httpx.Request) -> httpx.Response:
        await release.wait()
        return httpx.Response(200)

    w = worker(database, slow)
    assert await w.claiming.claim_once()
    while not w.context.slots.in_flight:
        await asyncio.sleep(0.005)
    stamps = InFlightStamps(w.context)
    assert await InFlightStamps(w.context).turn() == 0.5
    now = Clock().now_ms()
    assert await stamps.stamp_long() == 0, "it has only just begun"
    shown = owed_view((await rows(database, "executions"))[0], now)
    assert (shown.state, shown.node) == ("pending", None)
    assert await stamps.stamp_long() == 1
    shown = owed_view((await rows(database, "executions"))[0], now)
    assert (shown.state, shown.node) == ("running", "w")
    assert await stamps.stamp_long() == 0, "once is enough"
    release.set()
    while w.held:
        await asyncio.sleep(0.005)
        await record_all(w)
    assert isinstance(await stamps.turn(), asyncio.Event), "nothing is looked for while the node holds nothing"
    assert [h["_id"] for h in await rows(database, "history")] == [e.id]
    assert await rows(database, "executions") == []


async def test_never_claimed_are_batches_that_no_claim_counts_for(database: Database) -> None:
    """A release before anything was sent takes the claim back."""
    await written(database, "a")
    assert await claimable_batches.never_claimed(database, ["b", "gone"]) == {"b"}
    claimed = await worker(database, answering(200)).claiming.claimer.step(ClaimFilter())
    assert claimed is not None
    assert await claimable_batches.never_claimed(database, ["b"]) == set()
    await batches.release(database, claimed.batch, None, nothing_sent=True)
    assert await claimable_batches.never_claimed(database, ["b"]) == {"b"}
