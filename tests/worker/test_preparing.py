"""Shortly before sending the job is read as it is now: it decides whether an execution is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.execution.model import Batch, Execution
from cluster.core.ids import execution_id
from cluster.store.enqueue import insert_owed
from tests.support.engine import noting, rows, worker
from tests.support.workers import DUE, answering, owed, run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state": "paused"}, "paused"),
        ({"state": "deleted"}, "deleted"),
        ({"schedule_version": "v2"}, "changed"),
        ({"active_from": DatetimeMS(DUE + 1)}, "resumed"),
    ],
)
async def test_an_execution_that_its_job_no_longer_owes_is_cancelled_with_the_reason(
    database: Database, change: dict[str, Any], reason: str
) -> None:
    """The job is read as it is now, shortly before sending."""
    await owed(database, "a")
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": change})
    sent: list[str] = []
    await run_dry(worker(database, noting(sent)))
    assert sent == []
    (found,) = await rows(database, "history")
    assert found["state"] == "cancelled"
    assert reason in found["reason"]
    assert await rows(database, "executions") == []
    assert await rows(database, "batches") == []


async def test_a_cancelled_occurrence_that_is_owed_again_is_sent(database: Database) -> None:
    """Paused when its node looked, resumed under a new version a moment later: it runs, and its success stands."""
    await owed(database, "a")
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"state": "paused"}})
    w = worker(database, answering(200))
    await run_dry(w)
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"state": "active", "schedule_version": "v2"}})
    again = Execution(execution_id("a", DUE), "a", DUE, DUE, "v2", "b2", 0)
    await insert_owed(database, [again], [Batch("b2", (again.id,), 0, 0, DUE, DUE, unclaimed=False)], lambda: "new")
    await run_dry(w)
    (found,) = await rows(database, "history")
    assert found["state"] == "succeeded"
    # But a stale leader that writes the cancelled version again achieves nothing.
    stale = replace(again, schedule_version="v1", batch="b3")
    await insert_owed(database, [stale], [Batch("b3", (again.id,), 0, 0, DUE, DUE, unclaimed=False)], lambda: "new")
    await run_dry(worker(database, lambda _: pytest.fail("it was sent")))
    assert (await rows(database, "history"))[0]["state"] == "succeeded"
