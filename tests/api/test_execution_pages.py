"""`GET /executions`: pages of the executions of all jobs."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from cluster.core.execution.model import Ending
from cluster.core.instants import format_instant
from cluster.core.lifecycle import State
from cluster.store import executions, history
from cluster.store.meta import record_retention
from tests.support.api_client import paths
from tests.support.execution_values import attempt, execution

if TYPE_CHECKING:
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


async def test_states_and_times_narrow_the_list(api: Api) -> None:
    """The bound of the index cuts nothing off."""
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


async def test_lists_use_an_index_and_sort_nothing(api: Api) -> None:
    """Failed executions are read from the index of unsuccessful ones, all others from the index of the retention."""
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


async def test_an_unreadable_execution_hides_no_other(api: Api) -> None:
    """Lists leave it out and the log has it; by its id it is a problem that names it."""
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
