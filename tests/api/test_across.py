"""Executions of all jobs, and sending dead ones again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import httpx
import pytest_asyncio
from bson.datetime_ms import DatetimeMS

from cluster.core.execution.model import Ending, Execution
from cluster.core.instants import format_instant
from cluster.core.lifecycle import State
from cluster.node import Node, NodeSettings
from cluster.outbound.sender import Sender
from cluster.store import executions, history
from cluster.store.meta import record_retention
from tests.support.api_client import paths
from tests.support.engine import check_books
from tests.support.execution_values import attempt, execution
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.api_client import Api

FINAL = (State.SUCCEEDED, State.FAILED, State.DEAD, State.CANCELLED, State.SKIPPED)


async def fill(api: Api, now: int, count: int = 60) -> list[str]:
    """Final executions of several jobs, many of which ended in the same ms. Their ids as a page should show them."""
    luck = random.Random(7)
    endings = []
    for i in range(count):
        x = execution(f"j{i % 7}", now - 100_000 + i)
        ended = now - 50_000 + luck.randrange(count // 10) * 1000
        endings.append(Ending(x, FINAL[i % 5], ended, (attempt(1, now - 90_000),)))
    await history.record(api.db, endings, 7)
    return [e.execution.id for e in sorted(endings, key=lambda e: (e.ended_ms, e.execution.id), reverse=True)]


async def walk(api: Api, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        answer = await api.call("GET", f"/executions?{query}{cursor}")
        assert answer.status_code == 200, answer.text
        found += answer.json["items"]
        if answer.json["nextCursor"] is None:
            return found
        cursor = f"&cursor={answer.json['nextCursor']}"


async def test_pages_hold_every_execution_once(api: Api) -> None:
    """With any page size, owed ones come first and every one comes once, although many ended in the same ms."""
    now = api.clock.now_ms()
    expected = await fill(api, now)
    owed = [execution(f"o{i}", now - 1000 - i // 2, state=State.RETRYING) for i in range(9)]
    await executions.insert(api.db, [*owed, execution("o", now + 60_000)])
    first = [x.id for x in sorted(owed, key=lambda x: (x.due_ms, x.id), reverse=True)]
    for size in (1, 4, 9, 13, 69, 500):
        assert [e["executionId"] for e in await walk(api, f"limit={size}")] == first + expected, size
    assert [e["jobId"] for e in await walk(api, "state=pending")] == ["o"]


async def test_filters(api: Api) -> None:
    """States, and the time of the end, narrow the list; the bound of the index cuts nothing off."""
    now = api.clock.now_ms()
    expected = await fill(api, now)
    await record_retention(api.db, 7)
    every = {e["executionId"]: e for e in await walk(api, "limit=7")}
    for states in ("failed", "dead,failed", "succeeded", "cancelled,skipped"):
        wanted = [i for i in expected if every[i]["state"] in states.split(",")]
        assert [e["executionId"] for e in await walk(api, f"limit=5&state={states}")] == wanted
    shown = {i: (await api.call("GET", f"/executions/{i}")).json["endedAt"] for i in expected}
    since, until = format_instant(now - 49_000), format_instant(now - 46_000)
    wanted = [i for i in expected if since <= shown[i] < until]
    assert 0 < len(wanted) < len(expected)
    assert [e["executionId"] for e in await walk(api, f"limit=4&since={since}&until={until}")] == wanted
    assert await walk(api, "state=running") == []
    refused = await api.call("GET", "/executions?state=gone&since=x&until=y&limit=0&foo=1")
    assert set(paths(refused)) == {"state", "since", "until", "limit", "foo"}
    assert paths(await api.call("GET", "/executions?cursor=abc")) == ["cursor"]


async def test_indexes_are_used(api: Api) -> None:
    """Failed ones come from the index of what went wrong; everything else walks the index of the retention."""
    await fill(api, api.clock.now_ms())
    for condition, index in (({"$in": ["failed"]}, "unhappy_by_end"), ({"$ne": history.REOPENED}, "expire_at")):
        plan = await (
            api.db.api["history"].find({"$and": [{"state": condition}]}).sort("expire_at", -1).limit(5).explain()
        )
        assert f"'indexName': '{index}'" in str(plan["queryPlanner"]["winningPlan"])
        assert "'SORT'" not in str(plan["queryPlanner"]["winningPlan"])
    by_tag = (
        await api.db.api["jobs"]
        .find({"state": {"$in": ["active", "paused"]}, "tags": {"$eq": "x"}})
        .sort([("created_at", -1), ("_id", 1)])
        .limit(5)
        .explain()
    )
    assert "'SORT'" not in str(by_tag["queryPlanner"]["winningPlan"])


class Target:
    """Answers what it is told, and keeps what came."""

    def __init__(self) -> None:
        self.status = 400
        self.came: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.came.append(request)
        return httpx.Response(self.status)


@pytest_asyncio.fixture
async def target() -> Target:
    return Target()


@pytest_asyncio.fixture
async def node(mongodb_uri: str, db_name: str, api: Api, target: Target) -> AsyncIterator[Node]:  # noqa: ARG001
    found = Node(NodeSettings(mongodb_uri, db_name), Sender(httpx.MockTransport(target)))
    await found.start()
    yield found
    await found.shutdown()


async def test_a_failed_one_is_sent_again(api: Api, node: Node, target: Target) -> None:  # noqa: ARG001
    """It keeps its id, its earlier attempts and its drift; a schedule changed meanwhile does not stop it."""
    await api.make(jobId="a")
    name = (await api.call("POST", "/jobs/a/trigger")).json["executionId"]

    async def state(wanted: str) -> bool:
        return (await api.call("GET", f"/executions/{name}")).json["state"] == wanted  # type: ignore[no-any-return]

    await eventually(lambda: state("failed"), 20)
    drift = (await api.call("GET", f"/executions/{name}")).json["driftMs"]
    await api.call("PATCH", "/jobs/a", {"schedule": "0 0 4 * * *"})
    await api.call("POST", "/jobs/a/pause")
    target.status = 200
    asked = await api.call("POST", f"/executions/{name}/retry")
    assert (asked.status_code, asked.json) == (202, {"executionId": name})
    await eventually(lambda: state("succeeded"), 20)
    shown = (await api.call("GET", f"/executions/{name}")).json
    assert [(a["attempt"], a["status"]) for a in shown["attempts"]] == [(1, 400), (1, 200)]
    assert shown["driftMs"] == drift
    assert [r.headers["idempotency-key"] for r in target.came] == [name, name]
    assert (await api.call("POST", f"/executions/{name}/retry")).status_code == 409
    await check_books(api.db)


async def test_what_cannot_be_sent_again(api: Api) -> None:
    """Every state but failed and dead is 409, as is one whose job was deleted; unknown ones are 404."""
    await api.make(jobId="a")
    now = api.clock.now_ms()
    for i, state in enumerate((State.SUCCEEDED, State.CANCELLED, State.SKIPPED, State.DEAD, State.FAILED)):
        await history.record(api.db, [Ending(execution("a", now + i), state, now)], 7)
    await executions.insert(api.db, [execution("a", now + 9, state=State.RETRYING)])
    for i, status in ((0, 409), (1, 409), (2, 409), (3, 202), (4, 202), (9, 409), (10, 404)):
        answer = await api.call("POST", f"/executions/a:{now + i:013d}/retry")
        assert answer.status_code == status, (i, answer.text)
    assert (await api.call("POST", "/executions/nope/retry")).status_code == 404
    await history.record(api.db, [Ending(execution("a", now + 20), State.DEAD, now)], 7)
    await api.call("DELETE", "/jobs/a")
    assert (await api.call("POST", f"/executions/a:{now + 20:013d}/retry")).status_code == 409


async def test_a_retry_that_broke_off_is_finished_by_another(api: Api) -> None:
    """After a crash behind either of the first two writes it reads as retrying, and asking again completes it once."""
    await api.make(jobId="a")
    now = api.clock.now_ms()
    name = f"a:{now:013d}"
    await history.record(api.db, [Ending(execution("a", now), State.DEAD, now, (attempt(1, now, 503),))], 7)
    await history.reopen(api.db, name, now, 7)
    assert (await api.call("GET", f"/executions/{name}")).json["state"] == "retrying"
    assert [e["state"] for e in (await api.call("GET", "/jobs/a/executions")).json] == ["retrying"]
    job = await api.db.api["jobs"].find_one({"_id": "a"})
    assert job is not None
    half = Execution(name, "a", now, now, job["schedule_version"], "lost", job["lane"], State.RETRYING, trigger=True)
    for broken in ([], [half]):
        await api.db.api["executions"].delete_many({})
        await api.db.api["batches"].delete_many({})
        await executions.insert(api.db, broken)
        for _ in range(2):
            assert (await api.call("POST", f"/executions/{name}/retry")).status_code == 202
        assert await api.db.api["executions"].count_documents({}) == 1
        assert await api.db.api["batches"].count_documents({}) == 1
        await check_books_reopened(api)
    shown = (await api.call("GET", f"/executions/{name}")).json
    assert (shown["state"], len(shown["attempts"])) == ("retrying", 1)


async def check_books_reopened(api: Api) -> None:
    owed = await api.db.api["executions"].find_one({})
    assert owed is not None
    batch = await api.db.api["batches"].find_one({"_id": owed["batch"]})
    assert batch is not None
    assert batch["ids"] == [owed["_id"]]
    assert owed["trigger"] is True
    assert owed["due_at"] == DatetimeMS(int(owed["_id"].rpartition(":")[2]))


async def test_an_execution_that_cannot_be_read_hides_no_other(api: Api) -> None:
    """It is left out of pages and said in the log; asked for by its id, it is a problem that names it."""
    expected = await fill(api, api.clock.now_ms(), 20)
    spoiled = expected[4]
    await api.db.api["history"].update_one({"_id": spoiled}, {"$unset": {"send_at": ""}})
    shown = [r["executionId"] for r in await walk(api, "limit=5")]
    assert shown == [e for e in expected if e != spoiled]
    job = spoiled.split(":")[0]
    await api.make(jobId=job)
    listed = (await api.call("GET", f"/jobs/{job}/executions")).json
    assert {r["executionId"] for r in listed} == {e for e in expected if e.startswith(f"{job}:") and e != spoiled}
    answer = await api.call("GET", f"/executions/{spoiled}")
    assert (answer.status_code, answer.json["type"]) == (500, "urn:horae:problem:unreadable")
    assert spoiled in answer.json["detail"]
