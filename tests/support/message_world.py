"""What the engine has written of messages, callbacks and a chain, to have faults put into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from cluster.core.documents.job_json import read_job
from cluster.core.ids import callback_id, chained_id
from cluster.core.job.definition import Callback
from cluster.usecases import executions, jobs
from tests.support.cranked_cluster import CONTEXT
from tests.support.engine import worker
from tests.support.messages import send
from tests.support.verify_records import judged, kinds
from tests.support.workers import run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

BASE = "http://127.0.0.1:1"
BOTH = {"on_success": Callback(url=f"{BASE}/told"), "on_failure": Callback(url=f"{BASE}/told")}
LATER_MS = 120_000
"""Longer than what is late by the scope."""


def answer(request: httpx.Request) -> httpx.Response:
    return httpx.Response(404 if "bad" in request.headers else 200)


@dataclass
class World:
    """What the engine has written: a message that succeeded, one that failed, one that is owed, one that waits, each with
    callbacks; and the run of a job with a callback, which another job runs after.
    """

    db: Database
    now: int
    fine: str
    bad: str
    owed: str
    far: str
    run: str

    def name(self, of: str) -> str:
        """The job or message of an execution."""
        return str(getattr(self, of)).partition(":")[0]

    def told(self, of: str, kind: str) -> str:
        execution = str(getattr(self, of))
        return callback_id(execution, kind, int(execution.rpartition(":")[2]))

    @property
    def chained(self) -> str:
        return chained_id("c", self.run, int(self.run.rpartition(":")[2]))

    async def change(self, of: str, fields: dict[str, Any]) -> None:
        """Of a record."""
        changed = await self.db.api["history"].update_one({"_id": getattr(self, of)}, {"$set": fields})
        assert changed.matched_count == 1

    async def remove(self, execution: str) -> None:
        assert (await self.db.api["history"].delete_one({"_id": execution})).deleted_count == 1

    async def findings(self, ahead_ms: int = 1000, **fields: Any) -> dict[str, list[str]]:
        """By what each finding is about."""
        return kinds(await judged(self.db, now=self.now + ahead_ms, since=self.now - 3_600_000, **fields))


async def build(db: Database) -> World:
    now = int((await db.work.client.admin.command("hello"))["localTime"].timestamp() * 1000)
    callback = {"api": f"{BASE}/told"}
    parent = {"schedule": "@yearly", "api": f"{BASE}/x", "onSuccess": callback}
    await jobs.put(db, "p", read_job(parent, CONTEXT), now - 200_000)
    await jobs.put(db, "c", read_job({"after": {"jobId": "p"}, "api": f"{BASE}/x"}, CONTEXT), now - 190_000)
    await db.api["jobs"].update_many({}, {"$unset": {"unsettled": ""}})
    run = await executions.trigger(db, "p", now)
    (fine,) = await send(db, now, now, **BOTH)
    (bad,) = await send(db, now, now, headers=(("bad", "1"),), **BOTH)
    for _ in range(2):
        await run_dry(worker(db, answer))
    owed, far = await send(db, now, now, now + 3_600_000, **BOTH)
    return World(db, now, fine, bad, owed, far, run)
