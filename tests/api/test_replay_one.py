"""Replaying one failed or dead execution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest_asyncio
from bson.datetime_ms import DatetimeMS

from cluster.core.execution.model import Ending, Execution
from cluster.core.lifecycle import State
from cluster.node import Node, NodeSettings
from cluster.outbound.sender import Sender
from cluster.store import executions, history
from tests.support.engine import check_books
from tests.support.execution_values import attempt, execution
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.api_client import Api


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


async def test_a_replay_sends_a_failed_execution_again(api: Api, node: Node, target: Target) -> None:  # noqa: ARG001
    """It keeps its id, earlier attempts and drift, also after a change of the schedule."""
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


async def test_only_failed_dead_and_cancelled_executions_can_be_replayed(api: Api) -> None:
    """Any other state is 409, as is a deleted job; unknown ids are 404."""
    await api.make(jobId="a")
    now = api.clock.now_ms()
    for i, state in enumerate((State.SUCCEEDED, State.CANCELLED, State.SKIPPED, State.DEAD, State.FAILED)):
        await history.record(api.db, [Ending(execution("a", now + i), state, now)], 7)
    await executions.insert(api.db, [execution("a", now + 9, state=State.RETRYING)])
    for i, status in ((0, 409), (1, 202), (2, 409), (3, 202), (4, 202), (9, 409), (10, 404)):
        answer = await api.call("POST", f"/executions/a:{now + i:013d}/retry")
        assert answer.status_code == status, (i, answer.text)
    assert (await api.call("POST", "/executions/nope/retry")).status_code == 404
    await history.record(api.db, [Ending(execution("a", now + 20), State.DEAD, now)], 7)
    await api.call("DELETE", "/jobs/a")
    assert (await api.call("POST", f"/executions/a:{now + 20:013d}/retry")).status_code == 409


async def test_an_interrupted_replay_is_completed_by_the_next_request(api: Api) -> None:
    """After a crash behind either of the first two writes the execution is retrying, and a repeated request completes it once."""
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
