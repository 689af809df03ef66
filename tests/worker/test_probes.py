"""Probes of a host with an open breaker: one that hangs holds it shortly, and no job holds it for the others."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
from bson.datetime_ms import DatetimeMS

from cluster.clock import Clock
from cluster.core.execution.model import Batch, Execution, RetryPolicy
from cluster.core.ids import execution_id
from cluster.core.limits.circuit_breaker import OTHERS_FIRST_MS
from cluster.store import breakers
from cluster.store.enqueue import insert_owed
from cluster.worker.model import endpoint_of
from tests.support.engine import job_document, put_jobs, rows, worker
from tests.support.messages import HOST as MESSAGES_HOST
from tests.support.messages import send
from tests.support.targets import BAD, PATIENT
from tests.support.waiting import eventually
from tests.support.workers import DUE, owed, record_all, run_dry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cluster.store.mongo.client import Database
    from cluster.worker.worker import Worker

HOST = "bad.example:81"


async def open_breaker(db: Database, *failed_jobs: str, until_ms: int | None = None, host: str = HOST) -> None:
    """A breaker that may be probed since a moment."""
    await db.api["breakers"].insert_one(
        {
            "_id": host,
            "half_open": False,
            "until": DatetimeMS(Clock().now_ms() - 1 if until_ms is None else until_ms),
            "opens": 1,
            "rev": 1,
            "opened_at": DatetimeMS(DUE),
            "why": "?",
            "node": "n",
            "failed_jobs": list(failed_jobs),
        }
    )


class Target:
    """Requests to `/hang` wait until `released`, all others are answered with 200. `came` has the paths."""

    def __init__(self) -> None:
        self.came: list[str] = []
        self.released = asyncio.Event()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.came.append(path)
        if path == "/hang":
            await self.released.wait()
        return httpx.Response(200)


@asynccontextmanager
async def probing(db: Database, timeout_seconds: float) -> AsyncIterator[tuple[Worker, Target]]:
    """A worker whose probe of job `hang` is on its way and hangs."""
    target = Target()
    w = worker(db, target)
    hang = BAD.replace("/x", "/hang")
    await owed(db, "hang", batch="h", url=hang, retry=PATIENT, timeout_seconds=timeout_seconds)
    await open_breaker(db)
    await w.context.breakers.synchronise()
    assert await w.claiming.claim_once()
    await eventually(lambda: _came(target, 1), 5, "the probe")
    try:
        yield w, target
    finally:
        target.released.set()
        await w.dispatcher.close()


async def _came(target: Target, requests: int) -> bool:
    return len(target.came) >= requests


async def _closed(db: Database) -> bool:
    return not await rows(db, "breakers")


async def expire(db: Database, w: Worker) -> None:
    """The time for which the probe holds the host has passed."""
    await db.api["breakers"].update_many({}, {"$set": {"until": DatetimeMS(Clock().now_ms() - 1)}, "$inc": {"rev": 1}})
    await w.context.breakers.synchronise()


@pytest.mark.parametrize(("failing", "most_ms"), [(2, 10_000), (3, 10_000), (4, 60_000)])
async def test_while_few_jobs_fail_their_host_is_tried_again_every_ten_seconds(
    database: Database, failing: int, most_ms: int
) -> None:
    """Their own endpoints may be at fault: a healthy job that comes now and then waits for no longer than that."""
    w = worker(database, Target())
    names = [f"j{n}" for n in range(failing)]
    await open_breaker(database, *names)
    held_ms = []
    for n in range(8):
        await expire(database, w)
        won = await w.context.breakers.acquire_probe(HOST, names[n % failing], 1.0)
        assert won is not None
        assert not await w.context.breakers.finish_probe(won, None, "timeout")
        (breaker,) = await rows(database, "breakers")
        held_ms.append(int(breaker["until"]) - Clock().now_ms())
    assert most_ms - 3000 < max(held_ms) <= most_ms


@pytest.mark.parametrize("timeout_seconds", [30.0, 900.0])
async def test_a_probe_that_hangs_holds_its_host_for_less_than_ten_seconds(
    database: Database, timeout_seconds: float
) -> None:
    """However long its job's time-out is, a healthy job of the host is the next probe and closes the breaker, while the
    first one still hangs."""
    async with probing(database, timeout_seconds) as (w, target):
        (breaker,) = await rows(database, "breakers")
        assert breaker["half_open"]
        assert int(breaker["until"]) + OTHERS_FIRST_MS <= Clock().now_ms() + 10_000
        await owed(database, "well", batch="w", url=BAD, retry=PATIENT)
        assert not await w.claiming.claim_once(), "the probe holds the host"
        await expire(database, w)
        assert await w.claiming.claim_once()
        await eventually(lambda: _closed(database), 5, "the second probe to close the breaker")
        assert target.came == ["/hang", "/x"]
        assert len(w.held) == 2, "the first probe is still on its way"


async def test_a_late_answer_to_a_probe_that_held_no_more_closes_the_breaker(database: Database) -> None:
    """An answer is an answer, although another probe was due meanwhile. A failure that late changes nothing."""
    async with probing(database, 900) as (w, target):
        await expire(database, w)
        (before,) = await rows(database, "breakers")
        stale = (await breakers.list_all(database))[0]
        failed = await w.context.breakers.finish_probe(
            stale.__class__(**{f: getattr(stale, f) for f in stale.__slots__} | {"rev": 2}), None, "timeout"
        )
        assert not failed
        assert await rows(database, "breakers") == [before], "another probe may have been won since"
        target.released.set()
        await eventually(lambda: _closed(database), 5, "the late answer to close the breaker")


async def test_a_breaker_that_was_opened_again_is_not_closed_by_an_old_probe(database: Database) -> None:
    """The host answered once, long ago; what opened the breaker since is newer."""
    async with probing(database, 900) as (w, target):
        again = {"opened_at": DatetimeMS(DUE + 60_000), "until": DatetimeMS(Clock().now_ms() + 60_000), "rev": 1}
        await database.api["breakers"].update_many({}, {"$set": {**again, "half_open": False}})
        await w.context.breakers.synchronise()
        target.released.set()
        await eventually(lambda: _recorded(w), 5, "the answer")
        await asyncio.sleep(0)
        assert [int(b["opened_at"]) for b in await rows(database, "breakers")] == [DUE + 60_000]
        assert w.claiming.blocked_hosts() == (HOST,)


async def _recorded(w: Worker) -> bool:
    return len(w.context.records) > 0


async def test_the_job_that_failed_last_is_not_the_next_probe(database: Database) -> None:
    """Its execution is claimed first and is alone on the node. The node claims another job's, and probes with that."""
    target = Target()
    w = worker(database, target)
    await owed(database, "broken", batch="a", url=BAD.replace("/x", "/broken"), retry=PATIENT)
    await open_breaker(database, "oldest", "old", "older", "broken")
    await w.context.breakers.synchronise()
    assert await w.claiming.claim_once()
    await eventually(lambda: _refused(w), 5, "the draw")
    assert target.came == []
    await owed(database, "older", batch="b", url=BAD.replace("/x", "/older"), retry=PATIENT)
    assert await w.claiming.claim_once(), "although an execution waits for this host here"
    await eventually(lambda: _closed(database), 5, "the probe")
    assert target.came[0] == "/older"
    await run_dry(w)
    assert {h["job_id"] for h in await rows(database, "history")} == {"broken", "older"}


async def test_while_few_jobs_failed_none_of_them_is_the_next_probe(database: Database) -> None:
    """However many executions of theirs wait: the node claims on, until it has another job's."""
    target = Target()
    w = worker(database, target)
    for batch, name in (("a", "one"), ("b", "two")):
        await owed(database, name, batch=batch, url=BAD.replace("/x", f"/{name}"), retry=PATIENT)
    await open_breaker(database, "one", "two")
    await w.context.breakers.synchronise()
    for _ in range(2):
        assert await w.claiming.claim_once()
        await eventually(lambda: _refused(w), 5, "the draw")
    await owed(database, "well", batch="c", url=BAD.replace("/x", "/well"), retry=PATIENT)
    assert await w.claiming.claim_once()
    await eventually(lambda: _closed(database), 5, "the probe")
    assert target.came[0] == "/well"
    await run_dry(w)


async def _refused(w: Worker) -> bool:
    return w.dispatcher.lottery.wants_others(HOST)


async def test_a_host_with_one_job_is_probed_with_that_one_a_little_later(database: Database) -> None:
    """If nothing else comes, the job that failed last is the probe."""
    target = Target()
    w = worker(database, target)
    await owed(database, "broken", batch="a", url=BAD, retry=PATIENT)
    await open_breaker(database, "broken", until_ms=Clock().now_ms() - OTHERS_FIRST_MS - 1)
    await w.context.breakers.synchronise()
    await run_dry(w)
    assert await _closed(database)
    assert target.came == ["/x"]


async def test_jobs_that_failed_as_probes_stand_behind_all_others(database: Database) -> None:
    """Of twelve jobs of which eleven hang, the one that is well is probed after eleven others at most, not by chance."""

    async def handler(request: httpx.Request) -> httpx.Response:
        came.append(request.url.path)
        return httpx.Response(200 if request.url.path == "/j11" else 503)

    came: list[str] = []
    w = worker(database, handler)
    documents = [
        job_document(f"j{i}", active_from=0, schedule_version="v1", url=BAD.replace("/x", f"/j{i}"), retry=PATIENT)
        for i in range(12)
    ]
    await put_jobs(database, *documents)
    await open_breaker(database)
    for turn in range(12):
        await database.api["batches"].delete_many({})
        await database.api["executions"].delete_many({})
        w.context.held.clear()
        w.dispatcher.host_queues._queues.clear()
        due = DUE + turn
        found = [Execution(execution_id(d["_id"], due), d["_id"], due, due, "v1", f"b{turn}", 0) for d in documents]
        await insert_owed(
            database,
            found,
            [Batch(f"b{turn}", tuple(e.id for e in found), 0, 0, due, due, unclaimed=False)],
            lambda: "x",
        )
        await expire(database, w)
        assert await w.claiming.claim_once()
        await eventually(partial(_sent, came, turn + 1), 5, "a probe")
        await eventually(lambda: _judged(database, w), 5, "its verdict")
        if await _closed(database):
            break
    assert len(set(came[: came.index("/j11") + 1])) == came.index("/j11") + 1, "no job twice before it"


async def _sent(came: list[str], requests: int) -> bool:
    return len(came) >= requests


async def _judged(db: Database, w: Worker) -> bool:
    return not w.context.breakers._in_flight and not any(b["half_open"] for b in await rows(db, "breakers"))


async def test_one_job_whatever_it_does_opens_no_breaker_for_others(database: Database) -> None:
    """A job with a time-out of 0.1 s fails forty times within a second. Another job of the host is sent at once."""

    def target(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/slow":
            raise httpx.ReadTimeout("no answer within 0.1 s")
        return httpx.Response(200)

    w = worker(database, target)
    slow = job_document(
        "slow",
        active_from=0,
        schedule_version="v1",
        url=BAD.replace("/x", "/slow"),
        retry=PATIENT,
        timeout_seconds=0.1,
    )
    await put_jobs(database, slow)
    found = [Execution(execution_id("slow", DUE + i), "slow", DUE + i, DUE, "v1", "b", 0) for i in range(40)]
    await insert_owed(
        database, found, [Batch("b", tuple(e.id for e in found), 0, 0, DUE, DUE, unclaimed=False)], lambda: "x"
    )
    await run_dry(w)
    await w.share_breakers()
    assert await rows(database, "breakers") == []
    await owed(database, "well", batch="w", url=BAD)
    await run_dry(w)
    await record_all(w)
    assert [h["state"] for h in await rows(database, "history")] == ["succeeded"]


@pytest.mark.parametrize(("error", "opens"), [(httpx.ReadTimeout, False), (httpx.ConnectError, True)])
async def test_messages_to_one_endpoint_open_no_breaker_for_others(
    database: Database, error: type[httpx.TransportError], opens: bool
) -> None:
    """Forty of them time out after 0.1 s. Only where the host takes no connection at all does each count by itself."""

    def target(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/x":
            raise error("no answer within 0.1 s")
        return httpx.Response(200)

    w = worker(database, target)
    retry = RetryPolicy(max_attempts=2, initial_delay_seconds=3000, max_delay_seconds=3000)
    now_ms = Clock().now_ms()
    await send(database, now_ms, *[now_ms] * 40, retry=retry, timeout_seconds=0.1)
    if opens:
        while await w.claiming.claim_once():
            pass
        await eventually(lambda: _opened(database, w), 10, "the breaker")
        return
    await run_dry(w)
    await w.share_breakers()
    assert await rows(database, "breakers") == []
    await owed(database, "well", batch="w", url=f"http://{MESSAGES_HOST}/well")
    await run_dry(w)
    await record_all(w)
    assert [h["state"] for h in await rows(database, "history")] == ["succeeded"]


async def _opened(db: Database, w: Worker) -> bool:
    await w.share_breakers()
    return bool(await rows(db, "breakers"))


async def test_after_a_message_that_failed_as_a_probe_another_endpoint_is_tried(database: Database) -> None:
    """Thirty messages to one endpoint wait beside one job: the job is drawn, not by chance."""
    target = Target()
    w = worker(database, target)
    now_ms = Clock().now_ms()
    await send(database, now_ms, *[now_ms] * 30, retry=RetryPolicy(max_attempts=5))
    await owed(database, "well", batch="w", url=f"http://{MESSAGES_HOST}/well", retry=PATIENT)
    await open_breaker(database, endpoint_of(f"http://{MESSAGES_HOST}/x?n=1"), host=MESSAGES_HOST)
    await w.context.breakers.synchronise()
    while await w.claiming.claim_once():
        pass
    await eventually(lambda: _sent(target.came, 1), 5, "the probe")
    assert target.came[0] == "/well"
    await run_dry(w)
