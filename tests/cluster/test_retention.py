"""`retentionDays` of a job, from its definition to the documents that are kept under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from cluster.core.documents import job_json
from cluster.core.documents.job_json import DocumentLimits, read_job
from cluster.core.errors import InvalidInput
from cluster.core.execution.model import Batch, Execution
from cluster.core.ids import execution_id
from cluster.store.enqueue import insert_owed
from cluster.store.history import DAY_MS
from cluster.usecases import imports, jobs
from tests.support.engine import T0, job_document, put_jobs, rows, worker
from tests.support.job_changes import patch_job
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

RULES = DocumentLimits()
DUE = 1_700_000_000_000
"""In the past on the server's clock: claimable at once."""
SPEC = {"schedule": "@hourly", "api": "https://api.example.com/x"}


def test_retention_days_are_read_and_shown() -> None:
    """Shown as written; null or omitted means the operator's; the window must not be longer than half of it."""
    spec = read_job({**SPEC, "retentionDays": 30, "catchUpWindowSeconds": 86_400}, RULES.context)
    assert job_json.job_document(spec.resolve(None))["retentionDays"] == 30
    assert read_job(SPEC, RULES.context).resolve(None).retention_days is None
    for wrong in (0, 0.05, 4000, "7", True):
        with pytest.raises(InvalidInput) as caught:
            read_job({**SPEC, "retentionDays": wrong}, RULES.context)
        assert [f.path for f in caught.value.faults] == ["retentionDays"]
    with pytest.raises(InvalidInput) as caught:
        read_job({**SPEC, "retentionDays": 1, "catchUpWindowSeconds": 86_400}, RULES.context)
    assert caught.value.faults[0].message.startswith("must be at least 2, twice catchUpWindowSeconds")


async def kept_days(db: Database) -> dict[str, float]:
    return {h["job_id"]: (int(h["expire_at"]) - int(h["ended_at"])) / DAY_MS for h in await rows(db, "history")}


async def test_history_is_kept_as_long_as_its_job_says(database: Database) -> None:
    """Sent and cancelled executions, of a job with a retention of its own and of one without."""
    made = [
        job_document("long", active_from=0, retention_days=30.0),
        job_document("short", active_from=0, retention_days=0.5),
        job_document("plain", active_from=0),
        job_document("gone", active_from=0, retention_days=30.0, state="deleted"),
    ]
    await put_jobs(database, *made)
    due = [
        Execution(execution_id(d["_id"], DUE), d["_id"], DUE, DUE, d["schedule_version"], "b", d["lane"]) for d in made
    ]
    its_batch = Batch("b", tuple(e.id for e in due), due[0].lane, 0, DUE, DUE, unclaimed=False)
    await insert_owed(database, due, [its_batch], lambda: "new")
    w = worker(database, lambda _: httpx.Response(200), retention_days=7.0)
    w.start()

    async def all_four() -> bool:
        return len(await kept_days(database)) == 4

    try:
        await eventually(all_four, 15, "all four are recorded")
    finally:
        await w.shutdown(5)
    assert await kept_days(database) == {"long": 30, "short": 0.5, "plain": 7, "gone": 30}


async def test_the_shortest_retention_is_recorded_before_it_is_used(database: Database) -> None:
    """Searches by time rely on it: it is recorded when jobs are created, changed or imported."""

    async def least() -> float | None:
        found = await database.api["meta"].find_one({"_id": "retention"})
        return None if found is None else float(found["days"])

    def spec(days: float | None) -> Any:
        return read_job({**SPEC, "retentionDays": days}, RULES.context)

    await jobs.create(database, "a", spec(None), T0)
    assert await least() is None
    await jobs.create(database, "b", spec(5), T0)
    assert await least() == 5
    await patch_job(database, "a", {"retentionDays": 3}, RULES.context, T0)
    assert await least() == 3
    await imports.import_chunk(database, [imports.ImportLine(1, "c", spec(9)), imports.ImportLine(2, "d", spec(1))], T0)
    assert await least() == 1
