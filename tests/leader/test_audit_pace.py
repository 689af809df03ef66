"""How often the leader copies audit entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.leader.copy_audit import BUSY_SECONDS, STEP_SECONDS
from tests.support.engine import Crank, lead
from tests.support.workers import DUE

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


async def test_the_leader_copies_again_soon_while_jobs_are_changed(database: Database) -> None:
    """A job's change leaves its entry to the leader, which copies those of some hundred jobs at a time."""
    leader = await lead(database, Crank(DUE))
    assert await leader._audit_turn() == STEP_SECONDS
    entry = {"_id": "1", "object": "queue:q", "action": "put", "at": 1}
    await database.api["queues"].insert_one({"_id": "q", "outbox": [entry]})
    assert await leader._audit_turn() == BUSY_SECONDS
    assert await leader._audit_turn() == STEP_SECONDS
