"""`horae verify` on what the engine itself leaves behind: changes of every kind within the range are judged right."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.documents.job_json import read_spec
from cluster.usecases import jobs
from tests.leader.test_materialise import run_dry
from tests.support.engine import T0, Crank, lead, rows, settle_all, worker
from tests.usecases.test_verify import judged, kinds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster.leader.leader import Leader
    from cluster.store.mongo.client import Database
    from cluster.worker.worker import Worker

CONTEXT: dict[str, Any] = {"networks": (ip_network("127.0.0.0/8"),)}
EACH = {"schedule": "* * * * * *", "api": "http://127.0.0.1:1/x", "type": "ATLEAST_ONCE"}
THIRD = {**EACH, "schedule": "*/3 * * * * *"}


class Cluster:
    """One leader and one worker, cranked; the cluster's clock is ours."""

    def __init__(self, db: Database, clock: Crank, leader: Leader, its_worker: Worker) -> None:
        self.db = db
        self.clock = clock
        self.leader = leader
        self.worker = its_worker

    @classmethod
    async def begin(
        cls, db: Database, target: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(200)
    ) -> Cluster:
        clock = Crank()
        leader = await lead(db, clock)
        return cls(db, clock, leader, worker(db, target, clock=clock))

    async def run(self, seconds: int) -> None:
        """So much time passes: the leader leads, and what is due is sent."""
        for _ in range(seconds):
            await settle_all(self.leader, self.clock)
            self.clock.now += 1000
            await self.send()

    async def send(self) -> None:
        due = {"send_at": {"$lte": DatetimeMS(self.clock.now)}}
        await self.db.api["batches"].update_many(due, {"$set": {"claimable_at": DatetimeMS(0)}})
        # What is ahead is claimable by the server's clock too: it is not for us to claim yet.
        await self.db.api["batches"].update_many(
            {"send_at": {"$gt": DatetimeMS(self.clock.now)}}, {"$set": {"claimable_at": DatetimeMS(4_000_000_000_000)}}
        )
        await run_dry(self.worker)

    async def put(self, job: str, body: dict[str, Any]) -> None:
        await jobs.put(self.db, job, read_spec(body, CONTEXT), self.clock.now_ms())

    async def findings(self) -> dict[str, list[str]]:
        report = await judged(self.db, now=self.clock.now, since=T0 - 60_000, late_seconds=3.0)
        assert report.tally.occurrences > 5
        return kinds(report)


async def _pause_and_resume(c: Cluster) -> None:
    await jobs.pause(c.db, "a", c.clock.now_ms())
    await c.run(4)
    await jobs.resume(c.db, "a", c.clock.now_ms())


async def _pause_at_once_resumed(c: Cluster) -> None:
    await jobs.pause(c.db, "a", c.clock.now_ms())
    c.clock.now += 100
    await jobs.resume(c.db, "a", c.clock.now_ms())


async def _new_schedule(c: Cluster) -> None:
    await c.put("a", THIRD)


async def _and_back(c: Cluster) -> None:
    await c.put("a", THIRD)
    await c.run(2)
    await c.put("a", EACH)


async def _delete(c: Cluster) -> None:
    await jobs.delete(c.db, "a", c.clock.now_ms())


async def _recreate(c: Cluster) -> None:
    await jobs.delete(c.db, "a", c.clock.now_ms())
    await c.run(3)
    await c.put("a", THIRD)


async def _time_zone(c: Cluster) -> None:
    change = {"timezone": "Asia/Kathmandu", "schedule": "*/2 * * * * *"}
    await jobs.patch(c.db, "a", change, CONTEXT, c.clock.now_ms())


async def _every(c: Cluster) -> None:
    await c.put("a", {**EACH, "schedule": "@every 2s"})
    await c.run(3)
    await jobs.patch(c.db, "a", {"name": "the anchor stays"}, CONTEXT, c.clock.now_ms())


async def _end(c: Cluster) -> None:
    from cluster.core.instants import render

    await c.put("a", {**EACH, "endAt": render(c.clock.now + 3000)})


async def _trigger(c: Cluster) -> None:
    c.clock.now += 123
    await jobs.trigger(c.db, "a", c.clock.now_ms())


async def _success_codes(c: Cluster) -> None:
    """What was a success so far fails from now on."""
    await jobs.patch(c.db, "a", {"successCodes": [404]}, CONTEXT, c.clock.now_ms())


CHANGES = [
    _pause_and_resume,
    _pause_at_once_resumed,
    _new_schedule,
    _and_back,
    _delete,
    _recreate,
    _time_zone,
    _every,
    _end,
    _trigger,
    _success_codes,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__.strip("_"))
async def test_a_change(database: Database, change: Callable[[Cluster], Awaitable[None]]) -> None:
    """A job that is changed while it runs leaves nothing behind that is found; then something is lost, and that is."""
    c = await Cluster.begin(database)
    await c.put("a", EACH)
    await c.run(8)
    c.clock.now += 300
    await change(c)
    await c.run(8)
    assert await c.findings() == {}
    sent = [d for d in await rows(database, "history") if d["state"] == "succeeded" and not d["trigger"]]
    for lost in (sent[1], sent[-1]):
        await database.api["history"].delete_one({"_id": lost["_id"]})
        assert await c.findings() == {"a": ["missing"]}
        await database.api["history"].insert_one(lost)


@pytest.mark.parametrize("change", [_new_schedule, _delete, _pause_and_resume], ids=lambda f: f.__name__.strip("_"))
async def test_a_change_before_anybody_looked(database: Database, change: Callable[[Cluster], Awaitable[None]]) -> None:
    """A job that is created, is due twice while nobody leads, and is changed again: what it owed is not forgotten."""
    c = await Cluster.begin(database)
    await c.put("b", EACH)
    await c.run(3)
    c.clock.now += 300
    await c.put("a", EACH)
    c.clock.now += 2000
    await change(c)
    await c.run(4)
    assert await c.findings() == {}
