"""Leases against a real database: renewed, lost, lapsed, and what a node may do that has lost one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from cluster.store.batches import ClaimFilter
from tests.support.engine import noting, rows, worker
from tests.support.waiting import eventually
from tests.support.workers import SHORT, answering, owed, record_all, retries_now, run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


async def test_a_renewed_lease_is_not_reclaimed_and_a_lost_one_is_noticed(database: Database) -> None:
    """Renewal names owner and token; losing is told, and what is unsent is dropped."""
    await owed(database, "a")
    hanging = asyncio.Event()

    async def hang(_: httpx.Request) -> httpx.Response:
        await hanging.wait()
        return httpx.Response(200)

    w = worker(database, hang, timings=SHORT)
    await w.claiming.claim_once()
    heir = worker(database, answering(200), "heir", timings=SHORT)
    for _ in range(6):
        assert await w.lease_keeper.renew_once() == set()
        assert await heir.claiming.claimer.step(ClaimFilter()) is None
        await asyncio.sleep(0.25)
    await database.api["batches"].update_one({"_id": "b"}, {"$set": {"owner": "heir"}, "$inc": {"token": 1}})
    assert await w.lease_keeper.renew_once() == {"b"}
    hanging.set()


async def test_nothing_is_sent_after_its_lease_may_have_ended(database: Database) -> None:
    """Validity counts from before the claim, on the monotonic clock: a worker that slept too long sends nothing."""
    await owed(database, "a")
    sent: list[str] = []
    w = worker(database, noting(sent), timings=SHORT)
    claimed = await w.claiming.claimer.step(ClaimFilter())
    assert claimed is not None
    await w.claiming.take_on(replace(claimed, valid_until=w.context.clock.monotonic() - 0.001))
    await eventually(lambda: _true(not w.held), 3)
    assert sent == []
    assert len(await rows(database, "executions")) == 1


@pytest.mark.parametrize("status", [200, 404, 503])
async def test_a_stale_owner_ends_no_execution_of_another_node(database: Database, status: int) -> None:
    """Its lease is lost while its request runs. A success counts; a failure is kept as an attempt and ends nothing."""
    await owed(database, "a")
    gate = asyncio.Event()

    async def slow(_: httpx.Request) -> httpx.Response:
        await gate.wait()
        return httpx.Response(status)

    stale = worker(database, slow, "stale", timings=SHORT)
    await stale.claiming.claim_once()
    heir = worker(database, answering(503), "heir", timings=SHORT)
    await eventually(heir.claiming.claim_once, 5)
    await eventually(lambda: _true(heir.context.records), 5)
    await record_all(heir)
    (execution,) = await rows(database, "executions")
    assert execution["state"] == "retrying"
    gate.set()
    await eventually(lambda: _true(stale.context.records), 5)
    await record_all(stale)
    final = await rows(database, "history")
    still_owed = await rows(database, "executions")
    assert len(still_owed) == 1
    if status == 200:
        assert [h["state"] for h in final] == ["succeeded"]
    else:
        assert final == []
        assert len(still_owed[0]["attempts"]) == 2
    await check_named(database)
    await retries_now(database)
    await run_dry(worker(database, answering(200), "third"))
    (found,) = await rows(database, "history")
    assert found["state"] == "succeeded"
    assert await rows(database, "executions") == []


async def check_named(db: Database) -> None:
    existing = {b["_id"] for b in await rows(db, "batches")}
    assert all(e["batch"] in existing for e in await rows(db, "executions"))


@pytest.mark.parametrize("status", [404, 500])
async def test_a_stale_result_does_not_undo_a_success(database: Database, status: int) -> None:
    """The heir's success is recorded first; the stale owner's failure changes nothing of it."""
    await owed(
        database,
        "a",
        retry={
            "max_attempts": 1,
            "initial_delay_seconds": 1.0,
            "multiplier": 1.0,
            "max_delay_seconds": 1.0,
            "jitter": 0.0,
        },
    )
    gate = asyncio.Event()

    async def slow(_: httpx.Request) -> httpx.Response:
        await gate.wait()
        return httpx.Response(status)

    stale = worker(database, slow, "stale", timings=SHORT)
    await stale.claiming.claim_once()
    heir = worker(database, answering(200), "heir", timings=SHORT)
    await eventually(heir.claiming.claim_once, 5)
    await run_dry(heir)
    gate.set()
    await eventually(lambda: _true(stale.context.records), 5)
    await record_all(stale)
    (found,) = await rows(database, "history")
    assert found["state"] == "succeeded"
    assert await rows(database, "executions") == []


async def test_two_successes_are_one_result_and_a_counted_duplicate(database: Database) -> None:
    """Both deliveries are visible as attempts."""
    await owed(database, "a")
    gate = asyncio.Event()

    async def slow(_: httpx.Request) -> httpx.Response:
        await gate.wait()
        return httpx.Response(200)

    stale = worker(database, slow, "stale", timings=SHORT)
    await stale.claiming.claim_once()
    heir = worker(database, answering(200), "heir", timings=SHORT)
    await eventually(heir.claiming.claim_once, 5)
    await run_dry(heir)
    gate.set()
    await eventually(lambda: _true(stale.context.records), 5)
    await record_all(stale)
    (found,) = await rows(database, "history")
    assert sorted(a["node"] for a in found["attempts"]) == ["heir", "stale"]
    assert stale.stats.counters["duplicates"] == 1


async def _true(value: Any) -> Any:
    return value
