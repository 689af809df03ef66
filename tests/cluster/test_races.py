"""Races between nodes, and between the loops of one node, that leave an execution unlisted or a batch with two owners."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bson.datetime_ms import DatetimeMS

from cluster.core.execution.model import Batch, Rescheduled
from cluster.core.execution.planning import MAX_BATCH
from cluster.leader.liveness import BLIND_SECONDS, Liveness
from cluster.store import batches, engine_jobs, executions
from cluster.store.batches import ClaimFilter
from cluster.store.enqueue import insert_owed, repair_batches
from cluster.store.history import DAY_MS
from cluster.store.nodes import NodeHeartbeat
from tests.support.engine import T0, Crank, check_books, job_document, lead, noting, put_jobs, rows, worker
from tests.support.waiting import eventually
from tests.support.workers import DUE, answering, owed, run_dry

if TYPE_CHECKING:
    import pytest

    from cluster.store.mongo.client import Database


async def test_both_halves_of_an_unfinished_move_are_found(database: Database) -> None:
    """Retries of two batches move to one new batch, and the node dies before inserting it. The node that reclaims the
    first old batch inserts the new one with its executions; the one that reclaims the second must add its own."""
    (a,) = await owed(database, "a", batch="b1")
    (b,) = await owed(database, "b", batch="b2")
    dying = worker(database, answering(503), "dying")
    held = [await dying.claiming.claimer.step(ClaimFilter()), await dying.claiming.claimer.step(ClaimFilter())]
    stamped = [e for c in held if c is not None for e in c.executions]
    assert {e.id for e in stamped} == {a.id, b.id}
    await executions.move(
        database, [Rescheduled(e, e.attempts, DUE) for e in stamped], dict.fromkeys((e.id for e in stamped), "new")
    )
    await database.api["batches"].update_many({}, {"$set": {"claimable_at": DatetimeMS(DUE)}})
    sent: list[str] = []
    heir = worker(database, noting(sent), "heir")
    for _ in range(2):  # both old batches are reclaimed before the new one can be
        assert await heir.claiming.claimer.step(ClaimFilter()) is not None
        await database.api["batches"].update_many(
            {"_id": "new"}, {"$set": {"claimable_at": DatetimeMS(T0), "send_at": DatetimeMS(DUE)}}
        )
    await check_books(database)
    await database.api["batches"].update_many({"_id": "new"}, {"$set": {"claimable_at": DatetimeMS(DUE)}})
    await run_dry(heir)
    assert sorted(sent) == [a.id, b.id]


async def test_a_token_never_goes_down_when_two_batches_move_into_one(database: Database) -> None:
    """One flush moves executions leased under token 1 and under token 6, and the node dies. The node that inserts the new
    batch knows only of the first; the next attempt of the second has a greater token nevertheless."""
    await owed(database, "a", batch="b1")
    (b,) = await owed(database, "b", batch="b2")
    await database.api["batches"].update_one({"_id": "b2"}, {"$set": {"token": 5}})
    dying = worker(database, answering(503), "dying")
    held = [await dying.claiming.claimer.step(ClaimFilter()), await dying.claiming.claimer.step(ClaimFilter())]
    stamped = [e for c in held if c is not None for e in c.executions]
    assert {e.token for e in stamped} == {1, 6}
    await executions.move(
        database, [Rescheduled(e, e.attempts, DUE) for e in stamped], dict.fromkeys((e.id for e in stamped), "new")
    )
    first, second = (next(e for e in stamped if e.token == token) for token in (1, 6))
    await repair_batches(database, [replace(first, batch="new")])
    await repair_batches(database, [replace(second, batch="new")])
    await database.api["batches"].delete_many({"_id": {"$ne": "new"}})
    await database.api["batches"].update_many({}, {"$set": {"claimable_at": DatetimeMS(DUE)}})
    tokens: list[str] = []
    await run_dry(worker(database, noting(tokens, "horae-fencing-token"), "heir"))
    assert tokens == ["7", "7"]
    assert {h["_id"] for h in await rows(database, "history")} >= {b.id}


async def test_repair_extends_a_batch_that_exists_and_touches_one_that_lists_all(database: Database) -> None:
    """The number it returns counts only the missing batches."""
    a, b = await owed(database, "a", "b")
    await database.api["batches"].update_one({"_id": "b"}, {"$set": {"ids": [a.id]}})
    assert await repair_batches(database, [a, b]) == 0
    (batch,) = await rows(database, "batches")
    assert sorted(batch["ids"]) == [a.id, b.id]
    assert await repair_batches(database, [a, b]) == 0
    assert (await rows(database, "batches")) == [batch]
    await database.api["batches"].delete_many({})
    assert await repair_batches(database, [a, b]) == 1


async def test_a_batch_that_another_claimer_is_claiming_is_no_stray(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an unknown outcome one claimer releases strays while the other has claimed a batch that it does not hold yet:
    the batch names this node. Released, it would have two owners at once."""
    await owed(database, "a")
    w = worker(database, answering(200))
    claimed, go_on = asyncio.Event(), asyncio.Event()
    real = executions.stamp

    async def slowly(*args: Any) -> int:
        claimed.set()
        await go_on.wait()
        return await real(*args)

    monkeypatch.setattr(executions, "stamp", slowly)
    first = asyncio.create_task(w.claiming.claim_once())
    await asyncio.wait_for(claimed.wait(), 5)
    w.claiming._strays = True
    assert not await w.claiming.claim_once()
    (batch,) = await rows(database, "batches")
    assert batch["owner"] == "w", "it was handed back while its owner was about to send it"
    go_on.set()
    assert await first
    assert await w.lease_keeper.renew_once() == set()
    assert not await w.claiming.claim_once(), "there was nothing to claim"
    assert not w.claiming._strays, "the strays were never looked for"
    await run_dry(w)


async def test_no_claimer_claims_while_strays_are_released(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a batch that is claimed between the read and the release would be released too."""
    await owed(database, "a")
    w = worker(database, answering(200))
    looking, go_on = asyncio.Event(), asyncio.Event()
    real = batches.owned_by

    async def slowly(*args: Any) -> Any:
        looking.set()
        await go_on.wait()
        return await real(*args)

    monkeypatch.setattr(batches, "owned_by", slowly)
    w.claiming._strays = True
    first = asyncio.create_task(w.claiming.claim_once())
    await asyncio.wait_for(looking.wait(), 5)
    assert not await w.claiming.claim_once()
    assert (await rows(database, "batches"))[0]["owner"] is None
    go_on.set()
    assert await first
    await run_dry(w)


async def test_a_changed_primary_stops_reclaiming_for_a_lease(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new primary's clock may be ahead, so that live leases look expired to it; owners renew first."""
    await owed(database, "a", batch="owned")
    other = worker(database, answering(200), "other")
    assert await other.claiming.claimer.step(ClaimFilter()) is not None
    w = worker(database, answering(200))
    assert not await w.claiming.claim_once()
    await database.api["batches"].update_one({"_id": "owned"}, {"$set": {"claimable_at": DatetimeMS(DUE)}})
    monkeypatch.setattr(type(database), "primary", lambda _: ("elsewhere", 27017))
    assert not await w.claiming.claim_once(), "it was reclaimed by another clock"
    await owed(database, "b", batch="free")
    assert await w.claiming.claim_once()


def beats(*revs: int) -> list[NodeHeartbeat]:
    return [NodeHeartbeat(f"n{i}", rev, 0) for i, rev in enumerate(revs)]


def test_silence_is_not_counted_while_heartbeats_were_not_read() -> None:
    """The database was unavailable for a minute, or this node was frozen: no node counts as silent for that."""
    census = Liveness()
    census.observe(beats(1, 1), 100.0)
    assert census.silent_nodes(160.0, 10) == set(), "nothing was read for a minute: nothing is known"
    census.observe(beats(1, 1), 160.0)
    assert census.silent_nodes(160.0, 10) == set()
    for i in range(1, 7):
        census.observe(beats(1 + i, 1), 160.0 + 2 * i)
    assert census.silent_nodes(172.0, 10) == {"n1"}
    assert census.live_count(172.0, 10) == 1


def test_short_gaps_between_readings_do_not_restart_the_count_of_silence() -> None:
    """One failed reading does not restart the count."""
    census = Liveness()
    now = 0.0
    while now < 11:
        census.observe(beats(5), now)
        now += BLIND_SECONDS - 0.1
    assert census.silent_nodes(now, 10) == set() or now - BLIND_SECONDS > 10
    census.observe(beats(5), now)
    assert census.silent_nodes(now, 10) == {"n0"}


def test_an_owner_without_a_heartbeat_becomes_silent() -> None:
    """Its heartbeat was deleted, or never written: the readings in between must not restart its count."""
    census = Liveness()
    for i in range(8):
        census.observe(beats(i), 2.0 * i)
        census.watch_owners({"ghost"}, 2.0 * i)
    assert census.silent_nodes(14.0, 10) == {"ghost"}
    census.watch_owners(set(), 14.0)
    assert census.silent_nodes(14.0, 10) == set(), "it holds nothing any more"


async def test_a_batch_claimed_by_a_node_that_came_back_is_not_released(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node was cut off, is back, and has claimed a batch before its next heartbeat: that batch has an owner. What it
    has held and not renewed for a lease has none; if it renews that just before it is freed, it has."""
    clock, now = Crank(), [1000.0]
    leader = await lead(database, clock)
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    census = leader._liveness

    async def silently(seconds: int) -> int:
        released = 0
        for _ in range(seconds):
            now[0] += 1
            census.observe([NodeHeartbeat("w", 1, 0)], now[0])
            released += (await leader.sweeper.step()).released
        return released

    w = worker(database, answering(200))
    await owed(database, "old", batch="old")
    assert await w.claiming.claimer.step(ClaimFilter())
    assert await silently(9) == 0
    await owed(database, "new", batch="new")
    assert await w.claiming.claimer.step(ClaimFilter())
    assert await silently(8) == 1
    assert {b["_id"]: b["owner"] for b in await rows(database, "batches")} == {"old": None, "new": "w"}
    assert await batches.renew(database, "w", [("new", 1)], 30) == set()
    assert await silently(9) == 0, "it was renewed, so it is trusted"
    (held,) = await batches.owned_by(database, "w")
    await batches.renew(database, "w", [("new", 1)], 30)
    assert not await batches.release_unrenewed(database, held), "renewed after it was read"
    assert await silently(12) == 1
    assert [b["owner"] for b in await rows(database, "batches")] == [None, None]


async def test_tombstones_are_deleted_after_the_retention_and_not_before(database: Database) -> None:
    """`horae verify` needs to know what a deleted job owed for as long as its executions are kept."""
    clock = Crank()
    day = DAY_MS
    documents = [
        job_document("fresh", state="deleted", updated_at=DatetimeMS(T0 - 6 * day)),
        job_document("old", state="deleted", updated_at=DatetimeMS(T0 - 8 * day)),
        job_document("keeps more", state="deleted", updated_at=DatetimeMS(T0 - 8 * day), retention_days=30.0),
        job_document("keeps less", state="deleted", updated_at=DatetimeMS(T0 - 6 * day), retention_days=1.0),
        job_document("unsettled", state="deleted", updated_at=DatetimeMS(T0 - 8 * day)),
        job_document("active", updated_at=DatetimeMS(T0 - 8 * day)),
    ]
    for d in documents:
        if d["_id"] != "unsettled":
            del d["unsettled"]
    await put_jobs(database, *documents)
    leader = await lead(database, clock)
    assert await leader.sweeper.remove_tombstones() == 1
    assert sorted(j["_id"] for j in await rows(database, "jobs")) == [
        "active",
        "fresh",
        "keeps less",
        "keeps more",
        "unsettled",
    ]


async def test_a_job_created_again_is_not_deleted_as_a_tombstone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is created again between the read and the delete."""
    document = job_document("a", state="deleted", updated_at=DatetimeMS(0))
    del document["unsettled"]
    await put_jobs(database, document)
    collection = type(database.work["jobs"])
    real = collection.delete_many

    async def meanwhile(self: Any, *args: Any, **kwargs: Any) -> Any:
        await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"state": "active"}})
        return await real(self, *args, **kwargs)

    monkeypatch.setattr(collection, "delete_many", meanwhile)
    assert await engine_jobs.delete_tombstones(database, T0, 10, 7.0) == 0
    assert [j["state"] for j in await rows(database, "jobs")] == ["active"]


async def test_an_attempt_that_is_added_twice_is_kept_once(database: Database) -> None:
    """A repeated flush must not use up attempts of the execution whose lease was lost."""
    (a,) = await owed(database, "a")
    stale = worker(database, answering(503), "stale")
    await stale.claiming.claim_once()
    await eventually(lambda: _results(stale), 5)
    attempts = stale.context.records.take()[0].attempts  # type: ignore[union-attr]
    for _ in range(3):
        await executions.add_attempts(database, replace(a, attempts=attempts))
    (found,) = await rows(database, "executions")
    assert len(found["attempts"]) == 1


async def _results(w: Any) -> Any:
    return w.context.records


async def test_no_batch_exceeds_the_size_limit(database: Database) -> None:
    """Three hundred executions fail together, and are adopted together after a change of schedule."""
    found = await owed(database, *(f"j{i:03}" for i in range(300)))
    await database.api["jobs"].update_many({}, {"$set": {"schedule_version": "v2"}})
    renewed = [replace(e, schedule_version="v2", batch="planned") for e in found]
    names = iter(f"new-{i}" for i in range(10))
    its_batch = Batch("planned", tuple(e.id for e in renewed), 0, 0, DUE, DUE, unclaimed=False)
    assert (await insert_owed(database, renewed, [its_batch], lambda: next(names))).adopted == 300
    sizes = [len(b["ids"]) for b in await rows(database, "batches") if b["_id"].startswith("new")]
    assert sum(sizes) == 300
    assert max(sizes) <= MAX_BATCH
    w = worker(database, answering(503))
    while (claimed := await w.claiming.claimer.step(ClaimFilter())) is not None:
        await w.recorder.reschedule([Rescheduled(e, e.attempts, T0) for e in claimed.executions])
        await w.recorder.delete_finished([claimed.batch])
    await database.api["executions"].update_many({}, {"$set": {"token": 9, "batch": "together"}})
    everything = await executions.owed(database, [e.id for e in found])
    await w.recorder.reschedule([Rescheduled(e, e.attempts, T0) for e in everything.values()])
    sizes = [len(b["ids"]) for b in await rows(database, "batches") if b["token"] == 9]
    assert (sum(sizes), max(sizes) <= MAX_BATCH) == (300, True)
