"""What is in flight when its job is deleted ends, and is told and followed as if the job were there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.documents.job_json import read_job
from cluster.store import engine_jobs
from cluster.store.mongo.callback_fields import TOLD_MS
from cluster.usecases import executions, jobs
from tests.support.cranked_cluster import CONTEXT
from tests.support.engine import T0, Crank, check_books, lead, rows, worker
from tests.support.workers import SHORT, deliver_until, record_all, run_dry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster.store.mongo.client import Database

BASE = "http://127.0.0.1:1"
BOTH = {"onSuccess": {"api": f"{BASE}/yes"}, "onFailure": {"api": f"{BASE}/no"}}
FAR = T0 + 10_000_000


class Target:
    """Answers `/x` with a status, after something has happened; and notes what else came."""

    def __init__(self, status: int, meanwhile: Callable[[], Awaitable[Any]]) -> None:
        self.status, self.meanwhile = status, meanwhile
        self.came: list[tuple[str, str]] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/x":
            await self.meanwhile()
            return httpx.Response(self.status)
        told = orjson.loads(request.content)["executionId"] if request.content else ""
        self.came.append((request.url.path, told))
        return httpx.Response(200)


async def put(db: Database, job: str, **fields: Any) -> None:
    body = {"schedule": "@yearly", "api": f"{BASE}/x", **BOTH, **fields}
    await jobs.put(db, job, read_job({k: v for k, v in body.items() if v is not None}, CONTEXT), T0 - 5000)


async def deliver(db: Database, target: Any, rounds: int = 3) -> None:
    for _ in range(rounds):
        await deliver_until(db, worker(db, target, clock=Crank(T0 + 1000)), FAR)


@pytest.mark.parametrize(
    ("status", "kind", "on", "follows"),
    [(200, "/yes", "succeeded", True), (404, "/no", "any", True), (503, None, "any", False)],
)
async def test_what_is_in_flight_at_a_deletion_is_told_and_followed(
    database: Database, status: int, kind: str | None, on: str, follows: bool
) -> None:
    """A failed attempt that would be retried is cancelled instead, and of that nothing is told."""
    target = Target(status, lambda: jobs.delete(database, "j", T0 + 2000))
    await put(database, "j")
    after = {"jobId": "j", "on": on}
    await put(database, "c", schedule=None, after=after, api=f"{BASE}/chained", onSuccess=None, onFailure=None)
    name = await executions.trigger(database, "j", T0)
    await deliver(database, target)
    expected = ([("/chained", "")] if follows else []) + ([(kind, name)] if kind else [])
    assert sorted(target.came) == expected
    found = await database.api["history"].find_one({"_id": name})
    assert found is not None
    assert found["state"] == {200: "succeeded", 404: "failed", 503: "cancelled"}[status]
    await check_books(database)


async def test_a_success_that_comes_late_is_told_after_its_execution_was_cancelled(database: Database) -> None:
    """Its lease has ended meanwhile; the node that claims the execution finds that its job was deleted."""
    answered, arrived = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        arrived.set()
        await answered.wait()

    target = Target(200, slow)
    await put(database, "j")
    name = await executions.trigger(database, "j", T0)
    await database.api["batches"].update_many({}, {"$set": {"claimable_at": DatetimeMS(0), "send_at": DatetimeMS(0)}})
    await database.api["executions"].update_many({}, {"$set": {"send_at": DatetimeMS(0)}})
    stale = worker(database, target, "stale", timings=SHORT, clock=Crank(T0 + 1000))
    assert await stale.claiming.claim_once()
    await arrived.wait()
    await jobs.delete(database, "j", T0 + 2000)
    await database.api["batches"].update_many({}, {"$set": {"claimable_at": DatetimeMS(0)}})
    await run_dry(worker(database, target, "heir", clock=Crank(T0 + 1000)))
    assert [h["state"] for h in await rows(database, "history")] == ["cancelled"]
    answered.set()
    while not stale.context.records:
        await asyncio.sleep(0.005)
    await record_all(stale)
    await deliver(database, target)
    assert target.came == [("/yes", name)]
    found = await database.api["history"].find_one({"_id": name})
    assert found is not None
    assert (found["state"], "unfollowed" in found) == ("succeeded", False)


async def test_a_deleted_job_forgets_its_callbacks_when_nothing_can_be_in_flight(database: Database) -> None:
    """The leader's sweep does it. A job that was created again under the same id keeps its own."""
    secret = {"api": f"{BASE}/yes", "headers": {"X-Key": {"secret": "s3cretvalue"}}}
    for job in ("gone", "again"):
        await put(database, job, onSuccess=secret)
        await jobs.delete(database, job, T0)
    await put(database, "kept")
    await jobs.put(database, "again", read_job({"schedule": "@yearly", "api": f"{BASE}/x", **BOTH}, CONTEXT), T0 + 1000)
    assert await engine_jobs.forget_callbacks(database, T0 + TOLD_MS) == 0
    clock = Crank(T0 + TOLD_MS + 1)
    await (await lead(database, clock)).sweeper.step()
    stored = {d["_id"]: d for d in await rows(database, "jobs")}
    assert stored["gone"]["on_success"] is stored["gone"]["on_failure"] is stored["gone"]["told_until"] is None
    assert stored["again"]["on_success"]["url"] == stored["kept"]["on_success"]["url"] == f"{BASE}/yes"
    assert "s3cretvalue" not in repr(stored)
