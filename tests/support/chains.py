"""Chained jobs written directly, and a target that notes which jobs came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from cluster.core.documents.job_json import read_job
from cluster.core.errors import InvalidInput
from cluster.usecases import jobs
from tests.support.cranked_cluster import CONTEXT
from tests.support.engine import T0, Crank, worker
from tests.support.workers import deliver_until

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

FAR = T0 + 10_000_000


class Target:
    """Answers the path of each job with its status, 200 if it has none, and notes which jobs came."""

    def __init__(self, **statuses: int) -> None:
        self.statuses = statuses
        self.came: list[str] = []
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        name = request.headers["horae-job-id"]
        self.came.append(name)
        self.requests.append(request)
        return httpx.Response(self.statuses.get(name, 200))


async def put(db: Database, job: str, *, at_ms: int = T0 - 5000, **fields: Any) -> None:
    body = {"api": "http://127.0.0.1:1/x", **({} if "after" in fields else {"schedule": "@yearly"}), **fields}
    await jobs.put(db, job, read_job(body, CONTEXT), at_ms)


async def chain(db: Database, job: str, after: str, on: str = "succeeded", **fields: Any) -> None:
    await put(db, job, after={"jobId": after, "on": on}, **fields)


async def deliver(db: Database, target: Target, rounds: int = 3) -> None:
    """Everything that is due, and what follows it."""
    for _ in range(rounds):
        await deliver_until(db, worker(db, target, clock=Crank(T0 + 1000)), FAR)


async def fault_of(db: Database, job: str, after: str) -> tuple[str, str]:
    with pytest.raises(InvalidInput) as refused:
        await chain(db, job, after)
    (fault,) = refused.value.faults
    return fault.path, fault.message
