"""Runs by hand: each request is a delivery of its own, also within one millisecond."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from bson.datetime_ms import DatetimeMS

from cluster.core.errors import OutcomeUnknown
from cluster.core.execution.model import Ending, Execution
from cluster.core.lifecycle import State
from cluster.store import executions, history
from tests.support.engine import check_books, noting, rows, worker
from tests.support.waiting import eventually
from tests.support.workers import DUE, record_all, retries_now, run_dry

if TYPE_CHECKING:
    from cluster.worker.worker import Worker
    from tests.support.api_client import Api

KEY = {"Idempotency_Key": "k"}


@pytest.fixture
def now_ms(api: Api, monkeypatch: pytest.MonkeyPatch) -> int:
    """The clock of the API stands still, a moment ago."""
    now = api.clock.now_ms() // 1000 * 1000 - 1995
    monkeypatch.setattr(api.clock, "now_ms", lambda: now)
    return now


async def trigger(api: Api, **headers: str) -> str:
    made = await api.call("POST", "/jobs/a/trigger", **headers)
    assert made.status_code == 202, made.text
    return str(made.json["executionId"])


async def deliver(api: Api, came: list[str]) -> None:
    await run_dry(worker(api.db, noting(came)))


def before_the_next_insert(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    """Another client or node acts between the decision of a request and its insert."""
    insert = executions.insert

    async def late(*args: Any) -> list[str]:
        monkeypatch.setattr(executions, "insert", insert)
        await act()
        return await insert(*args)

    monkeypatch.setattr(executions, "insert", late)


async def test_two_triggers_in_one_millisecond_are_two_deliveries(
    api: Api, now_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the first one is sent and recorded just before the second one is inserted."""
    came: list[str] = []
    await api.make(jobId="a")
    first = await trigger(api)
    before_the_next_insert(monkeypatch, lambda: deliver(api, came))
    second = await trigger(api)
    await deliver(api, came)
    assert [first, second] == [f"a:{now_ms:013d}", f"a:{now_ms + 1:013d}"]
    assert came == [first, second]
    assert await rows(api.db, "executions") == []
    await check_books(api.db)


@pytest.mark.usefixtures("now_ms")
async def test_a_repeated_request_does_not_take_the_run_of_another_for_its_own(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It died before it inserted anything. Meanwhile another request took the millisecond that it had reserved, and
    that run has ended, or is still owed."""
    came: list[str] = []
    await api.make(jobId="a")

    async def die() -> None:
        raise OutcomeUnknown("no answer")

    for ended, key in ((True, "k1"), (False, "k2")):
        before_the_next_insert(monkeypatch, die)
        assert (await api.call("POST", "/jobs/a/trigger", Idempotency_Key=key)).status_code == 503
        other = await trigger(api)
        if ended:
            await deliver(api, came)
        mine = await trigger(api, Idempotency_Key=key)
        assert mine != other
        await deliver(api, came)
        assert sorted(came[-2:]) == sorted([other, mine])
        assert await trigger(api, Idempotency_Key=key) == mine
    assert len(came) == len(set(came)) == 4
    await check_books(api.db)


async def test_a_repeated_request_finds_its_own_run_whatever_became_of_it(
    api: Api, now_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer was lost after the insert. The run was repaired, sent and recorded: it is not sent once more."""
    came: list[str] = []
    await api.make(jobId="a")
    insert = executions.insert

    async def applied(*args: Any) -> list[str]:
        monkeypatch.setattr(executions, "insert", insert)
        await insert(*args)
        raise OutcomeUnknown("no answer")

    monkeypatch.setattr(executions, "insert", applied)
    assert (await api.call("POST", "/jobs/a/trigger", **KEY)).status_code == 503
    before = await trigger(api)  # another one meets it in its millisecond
    mine = await trigger(api, **KEY)
    assert [mine, before] == [f"a:{now_ms:013d}", f"a:{now_ms + 1:013d}"]
    await deliver(api, came)
    await api.db.api["idempotency"].update_many({}, {"$set": {"answer": None, "at": 0}})
    assert await trigger(api, **KEY) == mine
    await deliver(api, came)
    assert sorted(came) == sorted([mine, before])
    assert await rows(api.db, "executions") == []


class Slow:
    """A target that answers when it is `released`. `came` has the execution ids."""

    def __init__(self) -> None:
        self.came: list[str] = []
        self.released = asyncio.Event()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.came.append(request.headers["idempotency-key"])
        await self.released.wait()
        return httpx.Response(200)

    async def received(self, requests: int) -> bool:
        return len(self.came) >= requests


@pytest.mark.usefixtures("now_ms")
async def test_a_run_by_hand_that_meets_another_one_says_so_and_can_wait(api: Api) -> None:
    """Under `overlap: skip`: the answer names the run in its way. Without `overlap=wait` it is skipped, with it it is
    sent when that run has ended, once."""
    target = Slow()
    w = worker(api.db, target)
    await api.make(jobId="a", overlap="skip")
    first = await api.call("POST", "/jobs/a/trigger")
    assert first.json == {"executionId": first.json["executionId"]}, "nothing runs yet"
    await w.claiming.claim_once()
    await eventually(lambda: target.received(1), 5, "the first run")
    skipped = (await api.call("POST", "/jobs/a/trigger")).json
    waits = (await api.call("POST", "/jobs/a/trigger?overlap=wait")).json
    assert skipped["running"] == waits["running"] == first.json["executionId"]
    assert "is skipped. POST /jobs/a/trigger?overlap=wait" in skipped["note"]
    assert "this run is sent when it has" in waits["note"]
    for _ in range(2):  # the one that waits looks again, and again in vain
        while await w.claiming.claim_once():
            pass
        await eventually(lambda: idle(w, 1), 5, "the decisions on both")
        unowned = await api.db.api["batches"].find({"owner": None}).to_list()
        now = {"send_at": DatetimeMS(DUE)}
        await api.db.api["batches"].update_many({"owner": None}, {"$set": {**now, "claimable_at": DatetimeMS(DUE)}})
        await api.db.api["executions"].update_many({"batch": {"$in": [b["_id"] for b in unowned]}}, {"$set": now})
        assert len(unowned) == 1
    assert len(target.came) == 1
    target.released.set()
    await run_dry(w)
    await retries_now(api.db)
    await run_dry(w)
    assert target.came == [first.json["executionId"], waits["executionId"]]
    states = {h["_id"]: h["state"] for h in await rows(api.db, "history")}
    assert states[skipped["executionId"]] == "skipped"
    assert states[waits["executionId"]] == "succeeded"
    assert w.stats.counters["retried"] == 0
    await check_books(api.db)


async def idle(w: Worker, sending: int) -> bool:
    """Whether everything this node holds is recorded, but for so many requests."""
    await record_all(w)
    return sum(len(h.sending) for h in w.held.values()) == sending == len(w.held)


async def test_a_replay_by_hand_that_meets_another_run_says_so_and_can_wait(api: Api) -> None:
    """As a run by hand does."""
    await api.make(jobId="a", overlap="skip")
    dead = Execution("a:1700000000000", "a", 1_700_000_000_000, 1_700_000_000_000, "v1", "b", 0)
    await history.record(api.db, [Ending(dead, State.DEAD, 1_700_000_000_900, (), "used up")], 36_500)
    target = Slow()
    w = worker(api.db, target)
    running = await trigger(api)
    await eventually(w.claiming.claim_once, 5, "the claim")
    await eventually(lambda: target.received(1), 5, "the run")
    answer = (await api.call("POST", f"/executions/{dead.id}/retry?overlap=wait")).json
    assert (answer["executionId"], answer["running"]) == (dead.id, running)
    for wrong in ("never", "skip,wait", "wait&overlap=skip", "WAIT"):
        refused = await api.call("POST", f"/executions/{dead.id}/retry?overlap={wrong}")
        assert (refused.status_code, refused.json["errors"][0]["message"]) == (422, "must be skip or wait"), wrong
    target.released.set()
    await run_dry(w)
    await retries_now(api.db)
    await run_dry(w)
    assert target.came == [running, dead.id]


async def test_the_history_of_a_deleted_job_can_be_listed(api: Api) -> None:
    """With its tombstone and when that is gone too; a job that never was is not found."""
    await api.make(jobId="a")
    dead = Execution("a:1700000000000", "a", 1_700_000_000_000, 1_700_000_000_000, "v1", "b", 0)
    await history.record(api.db, [Ending(dead, State.DEAD, 1_700_000_000_900, (), "used up")], 36_500)
    assert (await api.call("DELETE", "/jobs/a")).status_code == 204
    for _ in range(2):
        listed = await api.call("GET", "/jobs/a/executions")
        assert [e["executionId"] for e in listed.json] == [dead.id]
        older = await api.call("GET", f"/jobs/a/executions?before={dead.id}")
        assert (older.status_code, older.json) == (200, [])
        assert (await api.call("GET", "/jobs/a")).status_code == 404
        await api.db.api["jobs"].delete_many({})
    assert (await api.call("GET", "/jobs/never/executions")).status_code == 404
