"""While most hosts contradict the primary's clock: what waits, and what goes on by the held time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.clock import Clock
from cluster.core.execution.model import Batch
from cluster.store import batches
from cluster.store.batches import ClaimFilter
from tests.support.engine import T0, Crank, job_document, lead, noting, put_jobs, rows, settle_all, worker

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

JUMP_MS = 120_000


async def test_what_seems_to_be_past_is_not_caught_up_until_the_clock_is_believed(database: Database) -> None:
    """The rows wait. When the doubt has ended and it really is past, `catchUp` has its way."""
    clock = Crank()
    leader = await lead(database, clock)
    await put_jobs(database, job_document("j", catch_up="none"))
    await settle_all(leader, clock)
    before = await rows(database, "schedules")
    clock.now = T0 + JUMP_MS
    clock.hold(JUMP_MS)
    for _ in range(3):
        await leader.step()
    assert [r["next_at"] for r in await rows(database, "schedules")] == [r["next_at"] for r in before]
    assert await rows(database, "backfills") == await rows(database, "history") == []
    clock.release_hold(0.0)
    await settle_all(leader, clock)
    assert {h["state"] for h in await rows(database, "history")} == {"missed"}


async def test_an_open_range_waits_while_the_clock_is_in_doubt(database: Database) -> None:
    """A range that was found before the jump: its windows would be reckoned by the wrong time."""
    clock = Crank()
    leader = await lead(database, clock)
    await put_jobs(database, job_document("j", catch_up="none"))
    await settle_all(leader, clock)
    clock.now = T0 + JUMP_MS
    await leader.materialiser.step(clock.now_ms(), 1)
    clock.hold(JUMP_MS)
    await leader.step()
    assert len(await rows(database, "backfills")) == 1
    assert await rows(database, "history") == []


async def test_a_batch_is_not_demoted_by_a_clock_in_doubt(database: Database) -> None:
    """All that is written ahead would become late work at once."""
    clock = Crank()
    leader = await lead(database, clock)
    ago = Clock().now_ms() - 60_000
    await batches.insert(database, [Batch("b", ("j:1",), 0, 0, ago, ago)])
    clock.hold(JUMP_MS)
    assert (await leader.sweeper.step()).demoted == 0
    clock.release_hold(0.0)
    assert (await leader.sweeper.step()).demoted == 1


async def test_a_primary_that_is_behind_keeps_no_unowned_batch_from_being_claimed(database: Database) -> None:
    """By the held time it is due. A batch with an owner is claimed by the primary's clock alone, as its lease says."""
    soon = Clock().now_ms() + 60_000
    await batches.insert(database, [Batch("b", ("j:1",), 0, 0, soon, soon)])
    clock = Clock()
    clock.hold(-JUMP_MS)
    which = worker(database, noting([]), clock=clock).claiming._filter(None, late=False)
    assert (which.unowned_only, which.behind_ms, which.unclaimed_ms) == (True, JUMP_MS, None)
    assert await batches.claim(database, "w", 10.0, ClaimFilter(), 5.0) is None
    assert await batches.claim(database, "w", 10.0, which, 5.0) is not None
    await database.api["batches"].update_one({"_id": "b"}, {"$set": {"claimable_at": DatetimeMS(soon)}})
    assert await batches.claim(database, "x", 10.0, which, 5.0) is None
