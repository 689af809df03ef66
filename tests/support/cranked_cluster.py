"""A leader and a worker on a clock that is set by hand, driven through the use cases."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import httpx
from bson.datetime_ms import DatetimeMS

from cluster.core.documents.job_json import read_job
from cluster.usecases import jobs
from tests.support.engine import T0, Crank, lead, settle_all, worker
from tests.support.verify_records import judged, kinds
from tests.support.workers import run_dry

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.leader.leader import Leader
    from cluster.store.mongo.client import Database
    from cluster.worker.worker import Worker


CONTEXT: dict[str, Any] = {"networks": (ip_network("127.0.0.0/8"),)}
EACH = {"schedule": "* * * * * *", "api": "http://127.0.0.1:1/x", "type": "ATLEAST_ONCE"}


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
        await jobs.put(self.db, job, read_job(body, CONTEXT), self.clock.now_ms())

    async def findings(self) -> dict[str, list[str]]:
        report = await judged(self.db, now=self.clock.now, since=T0 - 60_000, late_seconds=3.0)
        assert report.counts.occurrences > 5
        return kinds(report)
