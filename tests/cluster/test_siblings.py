"""What a node does when its parent process says that a sibling has ended: no lease is waited for, no fence is left out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from cluster.clock import Clock
from cluster.core.execution.model import JobSchedule
from cluster.core.execution.planning import MAX_BATCH, MAX_CROWD_BATCH, plan_batches
from cluster.core.ids import lane_of
from cluster.core.timings import Timings
from cluster.leader.elector import Elector
from cluster.siblings import Siblings
from cluster.store import batches, leases
from cluster.store.batches import ClaimFilter
from cluster.store.enqueue import insert_owed
from tests.support.engine import check_books, rows, worker
from tests.support.workers import DUE, answering, owed, run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


class Forward(Clock):
    """A monotonic clock that a test pushes ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0

    def monotonic(self) -> float:  # type: ignore[override]
        return Clock.monotonic() + self.ahead


def siblings(db: Database, *said: list[str], clock: Clock | None = None, elector: Elector | None = None) -> Siblings:
    """`said`: what the parent says at each turn."""
    clock = clock or Clock()
    words = iter(said)
    elector = elector or Elector(db, clock, Timings(), "heir", "heir")
    return Siblings(db, clock, Timings(), elector, lambda: next(words, ()))


async def claims(db: Database, name: str, *jobs: str) -> Any:
    """A node of this name that has claimed a batch of these jobs, and has died with it."""
    await owed(db, *jobs, batch=f"b-{name}")
    claimed = await worker(db, answering(200), name).claiming.claimer.step(ClaimFilter())
    assert claimed is not None
    return claimed


async def test_what_an_ended_sibling_held_is_sent_without_waiting_for_its_lease(database: Database) -> None:
    await claims(database, "dead", "a", "b")
    heir = worker(database, answering(200), "heir")
    assert not await heir.claiming.claim_once(), "its lease has seconds to go"
    await siblings(database, ["dead"]).turn()
    await run_dry(heir)
    final = await rows(database, "history")
    assert {(h["job_id"], h["state"]) for h in final} == {("a", "succeeded"), ("b", "succeeded")}
    assert {a["token"] for h in final for a in h["attempts"]} == {2}, "under a greater token"
    await check_books(database)


@pytest.mark.parametrize(("collection", "key"), [("batches", "q:mail"), ("executions", "j:b")])
async def test_what_counts_against_a_limit_waits_for_the_lease(database: Database, collection: str, key: str) -> None:
    """The target may still be at work on what was in flight: with a request more it would have too many. A limit of one
    job alone is not in its batch."""
    await claims(database, "dead", "a", "b")
    of_b = {} if collection == "batches" else {"job_id": "b"}
    await database.api[collection].update_many(of_b, {"$set": {"gate": key}})
    await siblings(database, ["dead"]).turn()
    (batch,) = await rows(database, "batches")
    assert batch["owner"] == "dead"


async def test_a_node_that_nobody_spoke_of_keeps_its_batches(database: Database) -> None:
    await claims(database, "dead-2", "a")
    await siblings(database, ["dead"], []).turn()
    (batch,) = await rows(database, "batches")
    assert batch["owner"] == "dead-2"


async def test_a_batch_that_another_node_has_claimed_meanwhile_is_not_taken_from_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading what the ended node held and releasing it, its lease has ended and another node has claimed."""
    await claims(database, "dead", "a")
    real = batches.release

    async def late(db: Database, batch: Any, *args: Any, **named: Any) -> bool:
        await db.api["batches"].update_many({}, {"$set": {"owner": "another"}, "$inc": {"token": 1}})
        return await real(db, batch, *args, **named)

    monkeypatch.setattr(batches, "release", late)
    await siblings(database, ["dead"]).turn()
    (batch,) = await rows(database, "batches")
    assert (batch["owner"], batch["token"]) == ("another", 2)


async def test_a_claim_that_takes_effect_after_the_end_of_its_node_is_found_too(database: Database) -> None:
    """The request was on its way when the process was killed."""
    clock = Forward()
    heirs = siblings(database, ["dead"], clock=clock)
    await heirs.turn()
    await claims(database, "dead", "a")
    clock.ahead += 1
    await heirs.turn()
    (batch,) = await rows(database, "batches")
    assert batch["owner"] is None
    await claims(database, "dead", "b")
    clock.ahead += Timings().batch_lease + 1
    await heirs.turn()
    clock.ahead += 1
    await heirs.turn()
    assert [b["owner"] for b in await rows(database, "batches")].count("dead") <= 1, (
        "after a lease nobody looks any more"
    )


async def test_several_siblings_release_a_batch_once(database: Database) -> None:
    """The second one finds another owner or another token, and changes nothing."""
    await claims(database, "dead", "a")
    first, second = siblings(database, ["dead"]), siblings(database, ["dead"])
    await first.turn()
    taken = await worker(database, answering(200), "heir").claiming.claimer.step(ClaimFilter())
    assert taken is not None
    await second.turn()
    (batch,) = await rows(database, "batches")
    assert (batch["owner"], batch["token"]) == ("heir", taken.batch.token)


async def test_the_claim_of_an_ended_node_counts_as_one_that_may_have_killed_it(database: Database) -> None:
    """Otherwise a request that kills its node would be sent for ever, ten times faster than before."""
    await claims(database, "dead", "a")
    await siblings(database, ["dead"]).turn()
    (batch,) = await rows(database, "batches")
    assert batch["claims"] == 1


@pytest.mark.parametrize("size", [1, 2, MAX_BATCH, MAX_CROWD_BATCH])
async def test_a_batch_is_released_whole(database: Database, size: int) -> None:
    claimed = await claims(database, "dead", *(f"j{i}" for i in range(size)))
    assert len(claimed.executions) == size
    await siblings(database, ["dead"]).turn()
    (batch,) = await rows(database, "batches")
    assert batch["owner"] is None
    assert len(batch["ids"]) == size


async def test_the_term_of_an_ended_sibling_is_taken_over_at_once(database: Database) -> None:
    """By the same compare-and-set as ever, with the next term."""
    dead, heir = (Elector(database, Clock(), Timings(), name, name) for name in ("dead", "heir"))
    assert await dead.step()
    assert await heir.step() is None
    await siblings(database, ["dead"], elector=heir).turn()
    async with asyncio.timeout(0.5):
        await heir.until_next_step()
    term = await heir.step()
    assert term is not None
    assert term.number == 2
    assert (await leases.read(database)).holder == "heir"


async def test_another_leader_is_not_taken_over_from_because_a_sibling_has_ended(database: Database) -> None:
    leader, heir = (Elector(database, Clock(), Timings(), name, name) for name in ("elsewhere", "heir"))
    assert await leader.step()
    assert await heir.step() is None
    await siblings(database, ["dead"], elector=heir).turn()
    assert await heir.step() is None
    assert (await leases.read(database)).holder == "elsewhere"


async def test_what_no_limit_holds_is_released_at_once_whatever_it_was_due_with(database: Database) -> None:
    """Hundreds of hosts, and a few jobs with limits of their own: these alone keep their leases."""
    hosts = [f"h{i}.example:80" for i in range(200)]
    jobs = [
        JobSchedule(
            f"j{i}", "k", "v", 0, None, None, lane_of(h), 0, host=h, limit_key=f"j:j{i}" if i % 50 == 0 else None
        )
        for i, h in enumerate(hosts)
    ]
    names = iter(range(1000))
    plan = plan_batches([(j, [DUE]) for j in jobs], 2, lambda: f"b{next(names)}")
    await insert_owed(database, plan.executions, plan.batches, lambda: "n")
    while await batches.claim(database, "dead", 10, ClaimFilter(), 5) is not None:
        pass
    await siblings(database, ["dead"]).turn()
    kept = [i for b in await batches.owned_by(database, "dead") for i in b.ids]
    assert sorted(kept) == sorted(e.id for e in plan.executions if e.limit_key is not None)
