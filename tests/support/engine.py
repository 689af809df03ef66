"""Parts of the engine for tests: jobs written directly, a clock that is cranked, a leader and workers by hand."""

from __future__ import annotations

import itertools
import uuid
from typing import TYPE_CHECKING, Any

import httpx
from bson.datetime_ms import DatetimeMS

from cluster.clock import Clock
from cluster.core.execution.model import Term
from cluster.core.ids import lane_of
from cluster.core.schedule.schedule import parse_schedule
from cluster.core.targets import parse_target
from cluster.core.timings import Timings
from cluster.leader.context import LeaderContext, MaterialiseTracer
from cluster.leader.elector import Elector
from cluster.leader.leader import Leader
from cluster.leader.liveness import Liveness
from cluster.outbound.sender import Sender
from cluster.store import leases
from cluster.worker.worker import Worker, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.store.mongo.client import Database

T0 = 1_900_000_020_000
"""An instant well in the future, so that nothing written for it is due on the server's clock."""


def job_document(job_id: str, schedule: str = "* * * * * *", **fields: Any) -> dict[str, Any]:
    """A job as the use cases store it, active since `active_from` (ms; default T0)."""
    active_from = fields.pop("active_from", T0)
    timezone = fields.pop("timezone", "UTC")
    url = fields.pop("url", "http://127.0.0.1:1/x")
    return {
        "_id": job_id,
        "name": None,
        "description": None,
        "tags": [],
        "schedule": schedule,
        "timezone": timezone,
        "anchor": None,
        "schedule_key": parse_schedule(schedule, timezone).key,
        "schedule_version": uuid.uuid4().hex,
        "active_from": DatetimeMS(active_from),
        "start_at": None,
        "end_at": None,
        "ends_at": None,
        "state": "active",
        "state_reason": None,
        "revision": 1,
        "lane": lane_of(httpx.URL(url).netloc.decode()),
        "host": parse_target(url).host_port,
        "url": url,
        "headers": [],
        "body": b"",
        "body_kind": "none",
        "timeout_seconds": 5.0,
        "retry": {
            "max_attempts": 3,
            "initial_delay_seconds": 0.1,
            "multiplier": 1.0,
            "max_delay_seconds": 1.0,
            "jitter": 0.0,
        },
        "catch_up": "all",
        "catch_up_window_seconds": 3600,
        "overlap": "allow",
        "spread_seconds": 0,
        "alerts": None,
        "signing_secret": None,
        "unsettled": uuid.uuid4().hex,
        "created_at": DatetimeMS(active_from),
        "updated_at": DatetimeMS(active_from),
        "past": [],
        **fields,
    }


async def put_jobs(db: Database, *jobs: dict[str, Any]) -> None:
    await db.api["jobs"].insert_many(list(jobs))


class Crank(Clock):
    """A clock whose cluster time is set by hand; monotonic time stays real."""

    def __init__(self, now_ms: int = T0) -> None:
        super().__init__()
        self.now = now_ms

    def now_ms(self) -> int:
        return self.now

    def seconds_until(self, instant_ms: float) -> float:
        return (instant_ms - self.now) / 1000


def ids(prefix: str) -> Callable[[], str]:
    """Batch ids that can be told apart: a-0, a-1, ..."""
    numbers = itertools.count()
    return lambda: f"{prefix}-{next(numbers)}"


async def lead(db: Database, clock: Clock, name: str = "a", timings: Timings | None = None, **more: Any) -> Leader:
    """A leader that holds a fresh term, whoever held it before; its loop does not run. `more`: of its context."""
    timings = timings or Timings()
    elector = Elector(db, clock, timings, name, name)
    before = await leases.read(db)
    assert await leases.take_over(db, before, name, name)
    elector._term = Term(before.term + 1, name, clock.monotonic() + 3600)
    return Leader(leader_context(db, clock, elector.trusted_term, timings, **more), elector, Liveness())


def leader_context(
    db: Database, clock: Clock, trusted_term: Callable[[], Term], timings: Timings | None = None, **more: Any
) -> LeaderContext:
    """What the steps of a leader share; nothing is traced."""
    return LeaderContext(db, clock, timings or Timings(), trusted_term, MaterialiseTracer(None, clock), **more)


async def settle_all(leader: Leader, clock: Crank) -> None:
    """Crank the leader until there is nothing to do at this instant."""
    while await leader.step():
        pass
    while (await leader.settler.step(clock.now_ms(), 1)).jobs:
        pass


def worker(
    db: Database, handler: Callable[[httpx.Request], Any], name: str = "w", clock: Clock | None = None, **more: Any
) -> Worker:
    """A worker whose requests go to `handler`; its loops do not run."""
    timings = more.pop("timings", Timings())
    sender = Sender(httpx.MockTransport(handler))
    return Worker(db, clock or Clock(), timings, sender, WorkerSettings(name, **more))


async def rows(db: Database, collection: str) -> list[dict[str, Any]]:
    return await db.api[collection].find().sort("_id", 1).to_list()


async def check_books(db: Database) -> None:
    """What must hold whenever nobody is in the middle of a step: nothing owed without its batch, no double books."""
    batches = {b["_id"]: b for b in await rows(db, "batches")}
    history = {h["_id"] for h in await rows(db, "history") if h["state"] not in ("cancelled", "skipped")}
    for e in await rows(db, "executions"):
        assert e["batch"] in batches, f"{e['_id']} names {e['batch']}, which does not exist"
        assert e["_id"] in batches[e["batch"]]["ids"], f"{e['_id']} is not listed by its batch"
        assert e["_id"] not in history, f"{e['_id']} is owed and final"


def noting(arrivals: list[str], header: str = "idempotency-key", status: int = 200) -> Callable[[httpx.Request], Any]:
    """A target that answers one status and notes a header of each request."""

    def handler(request: httpx.Request) -> httpx.Response:
        arrivals.append(request.headers[header])
        return httpx.Response(status)

    return handler
