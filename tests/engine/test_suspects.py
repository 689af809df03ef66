"""What kills nodes, against a real database: who is counted for it, who runs beside it, and who is not to blame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bson.datetime_ms import DatetimeMS

from cluster.store import batches
from cluster.store.batches import ClaimFilter
from tests.engine.test_worker import DUE, SHORT, answering, owed
from tests.support.engine import rows, worker
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from cluster.store.client import Database


async def claimed_before(db: Database, times: int, **query: Any) -> None:
    """As if nodes that have died since had claimed these batches so often."""
    change = {"owner": None, "claims": times, "token": times, "claimable_at": DatetimeMS(DUE)}
    await db.api["batches"].update_many(query, {"$set": change})


async def test_a_claim_whose_answer_never_came_is_not_counted(database: Database) -> None:
    """The node lives and hands it back: nobody was lost with it, however often that happens."""
    await owed(database, "a", "b")
    w = worker(database, answering(200), "w")
    for i in range(15):  # overdue: it comes back as late work
        assert await batches.claim(database, "w", 60.0, ClaimFilter(late=i > 0), 5.0) is not None
        await w._hand_back_strays()
    assert [(b["owner"], b["claims"]) for b in await rows(database, "batches")] == [(None, 0)]


async def test_a_claim_that_took_longer_than_its_lease_does_not_displace_the_next_one(database: Database) -> None:
    """Two claimers of one node: the batch is held under the later claim, and its lease is renewed."""
    await owed(database, "a")
    w = worker(database, answering(200), timings=SHORT)
    slow = await w._claimer.step(ClaimFilter())
    assert slow is not None
    later = await eventually(lambda: w._claimer.step(ClaimFilter()), 5)
    await w._take_on(later)
    await w._take_on(slow)
    assert w.held["b"].batch.token == later.batch.token
    assert await w.renew_once() == set()


async def _both(results: list[Any]) -> bool:
    return len(results) == 2
