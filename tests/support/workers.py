"""Executions owed since long ago, and workers cranked by hand until nothing is left to do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
from bson.datetime_ms import DatetimeMS

from cluster.core.execution.model import Batch, Execution
from cluster.core.ids import execution_id
from cluster.core.timings import Timings
from cluster.store.enqueue import insert_owed
from tests.support.engine import job_document, put_jobs

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database
    from cluster.worker.worker import Worker


DUE = 1_700_000_000_000
"""In the past on the server's clock: claimable at once."""
SHORT = Timings(batch_lease=0.9, margin=0.2)


async def owed(db: Database, *jobs: str, batch: str = "b", **fields: Any) -> list[Execution]:
    """One execution a job, due long ago, in one batch."""
    # However long ago it was: these tests are not about `catchUp`.
    fields = {"catch_up_window_seconds": 10**9, "retention_days": 10_000.0, **fields}
    documents = [job_document(j, active_from=0, schedule_version="v1", **fields) for j in jobs]
    await put_jobs(db, *documents)
    lane, host, gate = documents[0]["lane"], documents[0]["host"], documents[0].get("gate")
    found = [Execution(execution_id(j, DUE), j, DUE, DUE, "v1", batch, lane, host=host, limit_key=gate) for j in jobs]
    its_batch = Batch(batch, tuple(e.id for e in found), lane, 0, DUE, DUE, host=host, limit_key=gate, unclaimed=False)
    await insert_owed(db, found, [its_batch], lambda: "new")
    return found


def ended(to_ms: int, by: str, version: str = "v1") -> list[dict[str, Any]]:
    """The `past` of a job whose first schedule ended at an instant."""
    period = {"schedule_version": version, "schedule": "* * * * * *", "timezone": "UTC", "anchor": None}
    times = {"start_at": None, "end_at": None, "from": DatetimeMS(0), "to": DatetimeMS(to_ms)}
    return [{**period, **times, "key": "cron|* * * * * *|UTC", "ended_by": by, "retention_days": None}]


async def record_all(w: Worker) -> None:
    """Record the results that there are."""
    await w.results.record(w.context.records.take())


async def recorded(db: Database, count: int) -> bool:
    """Whether history has so many executions."""
    return await db.api["history"].count_documents({}) >= count


async def run_dry(w: Worker) -> None:
    """Claim, send and record until nothing is left that can be done now."""
    while await w.claiming.claim_once():
        pass
    while w.held:
        await asyncio.sleep(0.005)
        await record_all(w)
        await w.releaser.release_paused()
    await w.results.record([])


async def retries_now(db: Database) -> None:
    """Let what waits for its back-off be claimable and due."""
    await db.api["batches"].update_many({}, {"$set": {"claimable_at": DatetimeMS(DUE), "send_at": DatetimeMS(DUE)}})
    await db.api["executions"].update_many({}, {"$set": {"send_at": DatetimeMS(DUE)}})


def answering(*statuses: int) -> Any:
    """Statuses in turn, the last one for ever."""
    queue = list(statuses)

    def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(queue.pop(0) if len(queue) > 1 else queue[0], text="body")

    return handler


async def deliver_until(db: Database, w: Any, until_ms: int) -> None:
    """Have everything due before an instant claimed and sent, whatever the server's clock says."""
    await db.api["batches"].update_many(
        {"send_at": {"$lt": DatetimeMS(until_ms)}}, {"$set": {"claimable_at": DatetimeMS(0)}}
    )
    await db.api["executions"].update_many(
        {"send_at": {"$lt": DatetimeMS(until_ms)}}, {"$set": {"send_at": DatetimeMS(0)}}
    )
    await db.api["batches"].update_many(
        {"send_at": {"$lt": DatetimeMS(until_ms)}}, {"$set": {"send_at": DatetimeMS(0)}}
    )
    await run_dry(w)
