"""Claims against a real database: one owner, one token, which batches, and how many claimers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.errors import OutcomeUnknown, StoreUnavailable
from cluster.core.execution.planning import MAX_BATCH, MAX_CROWD_BATCH
from cluster.store import batches, claimable_batches
from cluster.store.batches import ClaimFilter
from cluster.store.claimable_batches import NextClaimable
from tests.support.engine import Crank, noting, rows, worker
from tests.support.waiting import eventually
from tests.support.workers import DUE, SHORT, answering, owed, run_dry

if TYPE_CHECKING:
    from cluster.core.execution.model import Batch
    from cluster.store.mongo.client import Database
    from cluster.worker.worker import Worker


async def test_two_workers_never_hold_one_batch(database: Database) -> None:
    """Many claimers at once: each batch goes to one of them, with one token."""
    for i in range(30):
        await owed(database, f"j{i}", batch=f"b{i}")
    claimers = [worker(database, answering(200), f"w{i}").claiming.claimer for i in range(8)]

    async def claim_all(claimer: Any) -> list[str]:
        found = []
        while (claimed := await claimer.step(ClaimFilter())) is not None:
            assert claimed.batch.token == 1
            found.append(claimed.batch.id)
        return found

    results = await asyncio.gather(*(claim_all(c) for c in claimers))
    everything = [b for r in results for b in r]
    assert sorted(everything) == sorted(f"b{i}" for i in range(30))


async def test_an_expired_lease_is_reclaimed_with_a_higher_token(database: Database) -> None:
    """Claim and reclaim are the same query; the executions say who holds them now."""
    await owed(database, "a")
    dead = worker(database, answering(200), "dead", timings=SHORT)
    first = await dead.claiming.claimer.step(ClaimFilter())
    assert first is not None
    assert first.batch.token == 1
    heir = worker(database, answering(200), "heir", timings=SHORT)
    assert await heir.claiming.claimer.step(ClaimFilter()) is None, "the lease has not ended yet"
    second = await eventually(lambda: heir.claiming.claimer.step(ClaimFilter()), 5)
    assert second is not None
    assert (second.batch.token, second.batch.claims) == (2, 2)
    (execution,) = await rows(database, "executions")
    assert (execution["owner"], execution["token"]) == ("heir", 2)


async def test_after_an_outage_only_unowned_batches_are_claimed(database: Database) -> None:
    """For a lease after the database was unavailable no batch with an owner is claimed, so that owners renew first."""
    await owed(database, "a", batch="owned")
    other = worker(database, answering(200), "other", timings=SHORT)
    assert await other.claiming.claimer.step(ClaimFilter()) is not None
    await database.api["batches"].update_one({"_id": "owned"}, {"$set": {"claimable_at": DatetimeMS(DUE)}})
    w = worker(database, answering(200))
    w.context.reclaim_pause.begin()
    assert not await w.claiming.claim_once()
    await owed(database, "b", batch="free")
    assert await w.claiming.claim_once()


async def test_late_work_takes_no_room_from_current_work(database: Database) -> None:
    """A claim for current work comes first; late work at least every tenth time."""
    for i in range(12):
        await owed(database, f"late{i}", batch=f"l{i}")
    await database.api["batches"].update_many({}, {"$set": {"late": True}})
    for i in range(12):
        await owed(database, f"now{i}", batch=f"n{i}")
    order: list[str] = []
    w = worker(database, noting(order, "horae-job-id"))
    for _ in range(24):
        await w.claiming.claim_once()
    await run_dry(w)
    assert len(order) == 24
    assert sum(name.startswith("now") for name in order[:13]) >= 11
    assert any(name.startswith("late") for name in order[:11])


@pytest.mark.parametrize(("size", "most"), [(MAX_BATCH, 5), (MAX_CROWD_BATCH, 2)])
async def test_claims_of_large_late_batches_leave_room_for_current_work(
    database: Database, monkeypatch: pytest.MonkeyPatch, size: int, most: int
) -> None:
    """Those of a crowd stay as large when they become late, and six claimers ask at once after an outage."""
    for b in range(8):
        await owed(database, *(f"j{b}x{i:03}" for i in range(size)), batch=f"b{b}")
    await database.api["batches"].update_many({}, {"$set": {"late": True}})
    w = worker(database, answering(200))
    monkeypatch.setattr(w.dispatcher, "add", w.context.unsent.add)  # a slow host: nothing leaves
    assert await w.claiming.claim_once()
    w.claiming._turn = 0
    for _ in range(3):
        await asyncio.gather(*(w.claiming.claim_once() for _ in range(6)))
    assert 1 <= len(w.held) <= most, "one in ten claims has more room"
    assert w.claiming._has_room()


async def test_the_other_claimers_wake_when_the_second_claim_fails(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be more, and who claimed first does not ask for it now."""
    w, woken = _noting_wakes(database, monkeypatch)
    turn = w.claiming.turns()
    for error in (StoreUnavailable("the database is away"), ValueError("a bug")):
        await owed(database, f"a{len(woken)}", batch=f"b{len(woken)}")
        await turn()

        async def failing(_: Any, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch, contextlib.suppress(ValueError):
            patch.setattr(w.claiming.claimer, "step", failing)
            await turn()
        w.claiming._strays = False
    assert woken == [True, True]


async def test_spare_claimers_claim_only_during_a_backlog(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What should have gone a second ago brings the spare claimers; once all is on time there are two at most again."""
    claim, now, counts = batches.claim, 0, list[int]()

    async def slow(*args: Any) -> Batch | None:
        nonlocal now
        now += 1
        counts.append(now)
        await asyncio.sleep(0.05)
        try:
            return await claim(*args)
        finally:
            now -= 1

    async def always_claimable(_: Database, **__: bool) -> NextClaimable:
        return NextClaimable(0, 0)

    monkeypatch.setattr(batches, "claim", slow)
    monkeypatch.setattr(claimable_batches, "next_claimable", always_claimable)  # and yet there is nothing for this node
    w = worker(database, answering(200))
    w.start()
    await eventually(lambda: _true(len(counts) > 20), 15, "many polls")
    assert max(counts) <= 2
    for i in range(30):
        await owed(database, f"j{i}", batch=f"b{i}")
    await eventually(lambda: _in_history(database, 30), 15, "the backlog")
    assert max(counts) == 6
    await eventually(lambda: _true(now <= 2 and Crank.monotonic() > w.claiming._behind_until + 0.5), 15, "its end")
    counts.clear()
    await eventually(lambda: _true(len(counts) > 20), 15, "many polls")
    assert max(counts) <= 2
    await w.shutdown(5)


def _noting_wakes(database: Database, monkeypatch: pytest.MonkeyPatch) -> tuple[Worker, list[bool]]:
    """A worker, and a list that grows with each wake-up of its other claimers."""
    w = worker(database, answering(200))
    woken: list[bool] = []
    monkeypatch.setattr(w.claiming.pauses, "claimed", lambda: woken.append(True))
    return w, woken


async def _in_history(db: Database, count: int) -> bool:
    return await db.api["history"].count_documents({}) >= count


async def test_the_other_claimers_wake_when_one_claims_twice_in_a_row(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them would ask in vain for what a single batch was. Nothing is lost: who claimed asks again, and looks then."""
    w, woken = _noting_wakes(database, monkeypatch)
    turn = w.claiming.turns()
    await owed(database, "a", batch="b1")
    await turn()
    assert (len(w.held), woken) == (1, [])
    await owed(database, "b", batch="b2")
    await turn()
    assert (len(w.held), woken) == (2, [True])
    await owed(database, "c", batch="b3")
    await turn()
    assert (len(w.held), woken) == (3, [True, True])


async def test_a_claim_whose_answer_was_lost_is_released(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch carries our name and we do not know it: it must not wait for its lease to end."""
    await owed(database, "a")
    real = batches.claim
    w = worker(database, answering(200))

    async def unanswered(*args: Any) -> Any:
        await real(*args)
        raise OutcomeUnknown("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(batches, "claim", unanswered)
        with pytest.raises(OutcomeUnknown):
            await w.claiming.claim_once()
    w.claiming._strays = True
    await run_dry(w)
    assert [h["state"] for h in await rows(database, "history")] == ["succeeded"]


async def _true(value: Any) -> Any:
    return value
