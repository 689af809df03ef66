"""Shortly before sending the job is read as it is now: it decides whether an execution is sent."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.execution.model import Batch, Execution
from cluster.core.ids import execution_id
from cluster.core.windows import Window
from cluster.outbound.errors import NotSent
from cluster.store import engine_jobs, paused_batches, windows
from cluster.store.enqueue import insert_owed
from cluster.worker.held_batch import HeldBatch
from tests.support.engine import job_document, noting, rows, worker
from tests.support.waiting import eventually
from tests.support.workers import DUE, answering, ended, owed, retries_now, run_dry

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database

LATER = {"schedule_version": "v2", "active_from": DatetimeMS(DUE + 10)}
"""Another schedule, since after it was due."""
FAR_OFF = 4_000_000_000_000


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state": "paused", "past": ended(DUE - 1, "pause")}, "the job was paused before it was due"),
        ({"state": "deleted", "past": ended(DUE + 1, "delete")}, "the job was deleted"),
        ({**LATER, "past": ended(DUE - 1, "change")}, "the schedule was changed before it was due"),
        ({**LATER, "past": ended(DUE - 1, "pause")}, "the job was paused before it was due"),
        ({**LATER, "past": ended(DUE - 1, "")}, "changed or paused before it was due"),
        ({**LATER, "past": ended(DUE + 1, "delete"), "created_at": DatetimeMS(DUE + 2)}, "the job was deleted"),
        (LATER, "no longer stored"),
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


@pytest.mark.parametrize("by", ["change", "pause", ""])
async def test_what_came_due_before_a_change_is_sent_all_the_same(database: Database, by: str) -> None:
    """Its schedule version held when it came due. A new version or a resume does not matter, nor that it is due before the
    present schedule took effect."""
    await owed(database, "a")
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {**LATER, "past": ended(DUE, by)}})
    sent: list[str] = []
    await run_dry(worker(database, noting(sent)))
    (found,) = await rows(database, "history")
    assert (len(sent), found["state"]) == (1, "succeeded")


async def test_a_retry_outlives_any_number_of_changes(database: Database) -> None:
    """Of a job that was changed so often that the version of its execution is not stored any more: it was sent under it,
    so it was owed."""
    await owed(database, "a")
    await run_dry(worker(database, answering(503)))
    others = [p for n in range(100) for p in ended(DUE + 100 + n, "change", f"w{n}")]
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {**LATER, "past": others}})
    await retries_now(database)
    await run_dry(worker(database, answering(200)))
    (found,) = await rows(database, "history")
    assert (found["state"], [a["status"] for a in found["attempts"]]) == ("succeeded", [503, 200])


@pytest.mark.parametrize("attempts", [0, 1])
async def test_what_came_due_before_a_pause_waits_and_goes_on_at_the_resume(database: Database, attempts: int) -> None:
    """Also a retry. It keeps its send time and its attempts, and the claims in between do not count."""
    (e,) = await owed(database, "a")
    if attempts:
        await run_dry(worker(database, answering(503)))
        await retries_now(database)
    paused = {"state": "paused", "past": ended(DUE, "pause")}
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": paused})
    sent: list[str] = []
    w = worker(database, noting(sent))
    for _ in range(3):
        await run_dry(w)
        await retries_now(database)
    assert (sent, await rows(database, "history")) == ([], [])
    (waiting,), (batch,) = await rows(database, "executions"), await rows(database, "batches")
    assert (int(waiting["send_at"]), len(waiting["attempts"]), batch["claims"]) == (DUE, attempts, 0)
    await database.api["batches"].update_many({}, {"$set": {"claimable_at": DatetimeMS(FAR_OFF), "held": True}})
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {**LATER, "state": "active"}})
    assert await paused_batches.wake(database, ["a", "other"]) == 1
    await run_dry(w)
    assert sent == [e.id]


async def test_a_node_releases_what_a_resume_did_not_wake(database: Database) -> None:
    """The job was resumed and settled after this node had read it as paused, and before it released its execution."""
    await owed(database, "a")
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"state": "paused", "past": ended(DUE, "pause")}})
    sent: list[str] = []
    w = worker(database, noting(sent))
    assert await w.claiming.claim_once()
    await eventually(lambda: _is(w.dispatcher.paused.deferrals()), 5)
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {**LATER, "state": "active"}})
    assert await paused_batches.wake(database, ["a"]) == 0
    await run_dry(w)
    await run_dry(w)
    assert len(sent) == 1


async def test_a_run_asked_for_before_a_pause_waits_and_one_asked_for_in_it_does_not(database: Database) -> None:
    """Of runs by hand, the request counts."""
    for job, asked_ms in (("before", DUE), ("within", DUE + 2)):
        await owed(database, job, batch=job)
        past = {"state": "paused", "past": ended(DUE + 1, "pause")}
        await database.api["jobs"].update_one({"_id": job}, {"$set": past})
        by_hand = {"trigger": True, "asked_at": DatetimeMS(asked_ms)}
        await database.api["executions"].update_one({"job_id": job}, {"$set": by_hand})
    sent: list[str] = []
    await run_dry(worker(database, noting(sent, "horae-job-id")))
    assert sent == ["within"]
    assert [e["job_id"] for e in await rows(database, "executions")] == ["before"]


def counting_reads(monkeypatch: pytest.MonkeyPatch, at_second: Any = None) -> list[int]:
    """How many jobs each reading asks for; `at_second` is called before the second one."""
    sizes: list[int] = []
    read = engine_jobs.by_id

    async def counted(db: Database, ids: Any) -> Any:
        sizes.append(len(ids))
        if len(sizes) == 2 and at_second is not None:
            await at_second()
        return await read(db, ids)

    monkeypatch.setattr(engine_jobs, "by_id", counted)
    return sizes


async def test_jobs_of_batches_for_one_instant_are_read_together(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no more of them at a time than are to be read together."""
    monkeypatch.setattr("cluster.worker.due_batches.MAX_READ", 2)
    sizes = counting_reads(monkeypatch)
    sent: list[str] = []
    w = worker(database, noting(sent, "horae-job-id"))
    for job in "abc":
        (execution,) = await owed(database, job, batch=job)
        batch = Batch(job, (execution.id,), execution.lane, 0, DUE, DUE, token=1)
        w.context.held.add(HeldBatch(batch, w.context.clock.monotonic() + 60, [execution]))
    for held in w.held.values():
        w.dispatcher.add(held)
    await eventually(lambda: _is(len(sent) == 3), 5)
    assert (sorted(sizes), sorted(sent)) == ([1, 2], ["a", "b", "c"])


@pytest.mark.parametrize(("meanwhile", "made"), [("nothing", 1), ("a change", 2), ("a signature", 2)])
async def test_a_request_is_made_again_only_if_it_would_be_another_one(
    database: Database, monkeypatch: pytest.MonkeyPatch, meanwhile: str, made: int
) -> None:
    """What waited for a second has its job read again. A signature names the time at which it was made."""
    secret = {"signing_secret": "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ="} if meanwhile == "a signature" else {}
    await owed(database, "a", **secret)

    async def change() -> None:
        if meanwhile == "a change":
            update = {"$set": {"body": b"2"}, "$inc": {"revision": 1}}
            await database.api["jobs"].update_one({"_id": "a"}, update)
        monkeypatch.setattr("cluster.worker.dispatch.REREAD_SECONDS", 60.0)

    sizes = counting_reads(monkeypatch, change)
    monkeypatch.setattr("cluster.worker.dispatch.REREAD_SECONDS", -1.0)
    bodies: list[bytes] = []

    def noted(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        return httpx.Response(200)

    w = worker(database, noted)
    requests = []
    prepare = w.context.sender.prepare

    def prepared(*args: Any) -> httpx.Request:
        requests.append(prepare(*args))
        return requests[-1]

    monkeypatch.setattr(w.context.sender, "prepare", prepared)
    await run_dry(w)
    assert (sizes, len(requests), len(bodies)) == ([1, 1], made, 1)
    assert (bodies == [b"2"]) is (meanwhile == "a change")


async def test_max_age_goes_on_during_a_pause(database: Database) -> None:
    """It is not younger for it."""
    retry = {**job_document("x")["retry"], "max_age_seconds": 60.0}
    await owed(database, "a", retry=retry)
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": {"state": "paused", "past": ended(DUE, "pause")}})
    await run_dry(worker(database, lambda _: pytest.fail("it was sent")))
    (found,) = await rows(database, "history")
    assert (found["state"], "maxAgeSeconds (60)" in found["reason"]) == ("dead", True)


async def test_what_asked_for_too_long_whether_it_may_overlap_is_not_sent_by_an_old_reading(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job may have been paused in that time. It is claimed again, and then its job is read."""
    await owed(database, "a", overlap="skip")
    sent: list[str] = []
    w = worker(database, noting(sent))

    async def slow(db: Database, *_: Any) -> bool:
        await db.api["jobs"].update_one({"_id": "a"}, {"$set": {"state": "paused", "past": ended(DUE, "pause")}})
        await asyncio.sleep(0.15)  # the reading grows old: that is what this is about
        return True

    with monkeypatch.context() as patch:
        patch.setattr("cluster.worker.dispatch.STALE_SECONDS", 0.1)
        patch.setattr("cluster.worker.dispatch.acquire_exclusive", slow)
        await run_dry(w)
    await run_dry(w)
    assert sent == []
    (waiting,), (batch,) = await rows(database, "executions"), await rows(database, "batches")
    assert (waiting["batch"], waiting["attempts"], batch["claims"]) == (batch["_id"], [], 0)


@pytest.mark.parametrize("meanwhile", ["nothing", "pause", "window"])
async def test_what_waited_for_its_connection_leaves_only_if_its_job_is_as_it_was(
    database: Database, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """A name server, a handshake may take seconds, and a pause or a window may have been answered since the job was read."""
    await owed(database, "a", tags=["works"])
    sent: list[str] = []
    past = {"state": "paused", "past": ended(DUE, "pause")}

    async def connecting(request: httpx.Request) -> httpx.Response:
        if meanwhile == "pause":
            await database.api["jobs"].update_one({"_id": "a"}, {"$set": past, "$inc": {"revision": 1}})
        elif meanwhile == "window":
            await windows.put(database, Window("w", "hold", tags=("works",), from_ms=0, until_ms=2**42), DUE)
        await asyncio.sleep(0.15)  # the reading grows old: that is what this is about
        if "confirm" in request.extensions and not await request.extensions["confirm"]():
            raise NotSent
        sent.append(request.headers["idempotency-key"])
        return httpx.Response(200)

    monkeypatch.setattr("cluster.worker.dispatch.STALE_SECONDS", 0.1)
    monkeypatch.setattr("cluster.worker.windows.READ_SECONDS", 0.05)
    w = worker(database, connecting)
    await run_dry(w)
    await run_dry(w)
    assert bool(sent) is (meanwhile == "nothing")
    assert bool(await rows(database, "executions")) is (meanwhile != "nothing")
    assert w.context.slots.in_flight == 0


async def _is(value: Any) -> Any:
    return value


async def test_a_cancelled_occurrence_that_is_owed_again_is_sent(database: Database) -> None:
    """Paused when its node looked, resumed under a new version a moment later: it runs, and its success stands."""
    await owed(database, "a")
    paused = {"state": "paused", "past": ended(DUE - 1, "pause")}
    await database.api["jobs"].update_one({"_id": "a"}, {"$set": paused})
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
