"""Which executions history knows as final."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.store import history

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


async def test_a_sent_execution_is_final_and_a_cancelled_one_for_its_version_only(database: Database) -> None:
    """Sent is final for ever; cancelled is final for the version it was cancelled under."""
    await database.api["history"].insert_many(
        [
            {"_id": "s", "state": "succeeded", "schedule_version": "v1"},
            {"_id": "c", "state": "cancelled", "schedule_version": "v1"},
            {"_id": "d", "state": "cancelled", "schedule_version": "v0"},
            {"_id": "r", "state": history.REOPENED, "schedule_version": "v1"},
        ]
    )
    assert await history.final_ids(database, dict.fromkeys("scdrx", "v1")) == {"s", "c"}
